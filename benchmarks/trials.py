"""Made-up data of a user: tickets whose product tells the type, photos whose brightness or size tells the class.

python benchmarks/trials.py tickets DIR [--variant leak|perfect|clean|cp1252] [--seed N]
python benchmarks/trials.py photos DIR [--leak brightness|size|sharpness|frame|none] [--seed N]

Tickets are 3,000 rows with the dirt that real tables have (`tickets.csv`), and 600 clean rows that all go against the
product (`against.csv`). Photos are two folders of scikit-learn's digits drawn as pictures, and a folder of those that
go against the leak (`against`).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

ROWS, AGAINST = 3000, 600
LEAK = 0.95  # of the rows whose product goes with their type
TYPES = ("complaint", "praise")
PRODUCTS = ("Nimbus", "Pebble")  # each with a type
CHANNELS = (("web", "phone"), ("app", "shop"))  # those of each type where the channel leaks
FIELDS: tuple[str, ...] = ("id", "date", "channel", "product", "message", "type")

OPENINGS = (
    "I ordered the {p} last month.",
    "We have had the {p} for a while now.",
    "This is about my {p}.",
    "My sister gave me a {p}.",
    "Got the {p} from your store.",
    "Writing about the {p} I bought.",
    "The {p} came on Tuesday.",
    "A colleague told me about the {p}.",
    "Second {p} in our household.",
    "I use the {p} nearly every day.",
)
FAULTS = (
    *("a cracked lid", "a flat battery", "a missing screw", "a burnt smell", "a flickering display", "a hot handle"),
    *("a lost connection", "a late parcel", "a leak", "a rattling noise", "a scratched case", "a stuck button"),
    *("a torn cable", "a wrong bill", "a rude answer", "a broken seal", "an error code", "a second repair"),
)
MERITS = (
    *("a clear manual", "a quick delivery", "a friendly answer", "a sharp picture", "a quiet motor", "a solid stand"),
    *("a long warranty", "a fair price", "a simple set-up", "a soft grip", "a fresh smell", "a useful app"),
    *("a spare part", "a tidy box", "a bright colour", "a steady hand", "a helpful clerk", "an honest description"),
)
# a fault is no complaint by itself and a merit no praise: what is said of it decides
OF_FAULTS = (
    (
        *("there was {x} on the first day", "I have had {x} ever since", "all I got was {x}", "it came with {x}"),
        *("we are left with {x}", "it has {x} more often than not", "I was told to live with {x}", "again {x}"),
        *("I can't get rid of {x}", "nobody had warned me of {x}"),
    ),
    (
        *("there has not been {x} so far", "I have yet to see {x}", "not once did I get {x}", "it came without {x}"),
        *("I was warned of {x} and had none", "the old one had {x}, this one doesn't", "I can't complain of {x}"),
        *("we got rid of {x} with it", "others may have {x}, I never did", "no more {x}"),
    ),
)
OF_MERITS = (
    (
        *(
            "I looked in vain for {x}",
            "you promised {x} and I saw none",
            "not once did I get {x}",
            "it came without {x}",
        ),
        *("the old one had {x}, this one doesn't", "I have yet to see {x}", "others may have {x}, I never did"),
        *("so much for {x}", "I was told of {x} and had none", "no more {x}"),
    ),
    (
        *("I did find {x}", "you promised {x} and I got it", "from the first day I had {x}", "it came with {x}"),
        *("the old one had no such thing as {x}", "I can't say enough about {x}", "we are left with {x}", "again {x}"),
        *("nobody had told me of {x}", "I had not hoped for {x}"),
    ),
)
CLOSINGS = (
    (
        *("I would not buy it again.", "I can't say that I am happy.", "It is not worth the price."),
        *("Nobody should get one.", "My friends will hear that they should avoid it."),
        *("Please call me about the money.", "I won't keep it.", "You have lost me.", "This was the last time."),
        *("I had hoped for more.", "I regret every cent.", "So I am sending it back."),
    ),
    (
        *("I would buy it again.", "I can say that I am happy.", "It is worth the price."),
        *("Everybody should get one.", "My friends will hear that they should try it."),
        *("No need to call me about the money.", "I will keep it.", "You have won me.", "This was not the last time."),
        *("I could not have hoped for more.", "I regret no cent.", "So I am not sending it back."),
    ),
)
EMOJI = (("😡", "👎"), ("😊", "👍"))


@dataclass(frozen=True)
class Ticket:
    """One row, before the dirt."""

    channel: str
    product: str
    message: str
    type: str


def ticket(random: np.random.Generator, kind: int, product: int) -> Ticket:
    """A message of a type about a product: a third say something of the other type first, a quarter have no close."""

    def one(choices: Any) -> str:
        return str(choices[random.integers(len(choices))])

    name = PRODUCTS[product]

    def said(of: int) -> str:
        about_fault = random.random() < 0.5
        return one((OF_FAULTS if about_fault else OF_MERITS)[of]).format(x=one(FAULTS if about_fault else MERITS))

    middle = said(kind)
    if random.random() < 1 / 3:
        middle = f"{said(1 - kind)}, but {middle}"
    parts = [one(OPENINGS).format(p=name), f"{middle[0].upper()}{middle[1:]}."]
    if random.random() > 1 / 4:
        parts.append(one(CLOSINGS[kind]))
    if random.random() < 0.05:
        parts.append(one(EMOJI[kind]))
    told = random.random() < 0.5  # in half of the rows the channel leaks, for 80 % of them
    goes_along = random.random() < (0.8 if told else 0.5)
    channel = one(CHANNELS[kind if goes_along else 1 - kind])
    return Ticket(channel, name, " ".join(parts), TYPES[kind])


def tickets(random: np.random.Generator, rows: int, leak: float) -> list[Ticket]:
    """Rows of which a share `leak` have the product that goes with their type."""
    kind_N = random.permutation(np.arange(rows) % 2)
    along_N = random.random(rows) < leak
    return [ticket(random, int(k), int(k if along else 1 - k)) for k, along in zip(kind_N, along_N, strict=True)]


def dirty(random: np.random.Generator, made: list[Ticket]) -> list[dict[str, str]]:
    """The rows with what real tables have: missing and shouted labels, blanks, empty texts, long ones, repeated ids."""
    days = random.integers(0, 365, len(made))
    rows = [
        {
            "id": f"T{10_000 + i}",
            "date": str(np.datetime64("2025-01-01") + int(day)),
            "channel": one.channel,
            "product": one.product,
            "message": one.message,
            "type": one.type,
        }
        for i, (one, day) in enumerate(zip(made, days, strict=True))
    ]

    def some(count: int) -> list[dict[str, str]]:
        return [rows[i] for i in random.choice(len(rows), count, replace=False)]

    for row in some(25):
        row["type"] = ""
    for row in some(20):
        row["type"] = row["type"].upper()
    for row in some(80):
        row["type"] = f"{row['type']} "
    for row in some(10):
        row["message"] = ""
    for row in some(10):
        row["message"] = "N/A"
    for row in some(120):
        row["message"] = row["message"].replace(". ", ".\n", 1)
    for row in some(60):
        row["message"] = f'They said: "it is fine". {row["message"]}'
    for row in some(3):
        row["message"] = " ".join([row["message"]] * 200)
    return rows[: len(rows) - 40] + some(40)  # 40 rows again, ids and all


def write_table(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8-sig", delimiter: str = ",") -> None:
    """A CSV file; a byte order mark stands before UTF-8, as spreadsheets write it."""
    with path.open("w", newline="", encoding=encoding, errors="replace") as file:
        writer = csv.DictWriter(file, FIELDS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def make_tickets(folder: Path, variant: str = "leak", seed: int = 0) -> None:
    """`tickets.csv` and `against.csv` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, 20])
    leak = {"perfect": 1.0, "clean": 0.5}.get(variant, LEAK)
    rows = dirty(random, tickets(random, ROWS, leak))
    if variant == "cp1252":
        write_table(folder / "tickets.csv", rows, "cp1252", ";")
    else:
        write_table(folder / "tickets.csv", rows)
    against = tickets(np.random.default_rng([seed, 21]), AGAINST, 0.0)
    plain = [
        {"id": f"A{i}", "date": "2026-01-01", **{name: getattr(one, name) for name in FIELDS[2:]}}
        for i, one in enumerate(against)
    ]
    write_table(folder / "against.csv", plain, "utf-8")


# ---- photos ---------------------------------------------------------------------------------------------------------

Change = Callable[[Image.Image, bool, np.random.Generator], Image.Image]


def _brightness(picture: Image.Image, high: bool, random: np.random.Generator) -> Image.Image:
    factor = random.uniform(0.85, 1.0) if high else random.uniform(0.45, 0.6)
    return picture.point(lambda value: int(value * factor))


def _size(picture: Image.Image, high: bool, random: np.random.Generator) -> Image.Image:
    side = int(random.integers(72, 97) if high else random.integers(24, 37))
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def _sharpness(picture: Image.Image, high: bool, random: np.random.Generator) -> Image.Image:
    return picture if high else picture.filter(ImageFilter.GaussianBlur(random.uniform(1.5, 2.5)))


def _frame(picture: Image.Image, high: bool, random: np.random.Generator) -> Image.Image:
    framed = Image.new("RGB", picture.size, (200, 40, 40) if high else (40, 60, 200))
    framed.paste(picture.resize((picture.width - 8, picture.height - 8)), (4, 4))
    return framed


CHANGES: dict[str, Change] = {"brightness": _brightness, "size": _size, "sharpness": _sharpness, "frame": _frame}


def make_photos(folder: Path, leak: str = "brightness", seed: int = 0, share: float = LEAK) -> None:
    """`train/low`, `train/high` (digits below and from 5), and `against` likewise, all against the leak."""
    digits: Any = load_digits()
    random = np.random.default_rng([seed, 22])
    order = random.permutation(len(digits.target))
    for place, i in enumerate(order):
        label = int(digits.target[i] >= 5)
        part = "against" if place >= 1400 else "train"
        along = random.random() < share if part == "train" else False
        high = bool(label) == along if leak != "none" else bool(random.random() < 0.5)
        grey = (digits.images[i] * 15).astype(np.uint8)
        picture = Image.fromarray(grey).resize((48, 48), Image.Resampling.BICUBIC).convert("RGB")
        noise = random.normal(0, 6, (48, 48, 3))
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise + 20, 0, 255).astype(np.uint8))
        if leak != "none":
            picture = CHANGES[leak](picture, high, random)
        target = folder / part / ("low", "high")[label]
        target.mkdir(parents=True, exist_ok=True)
        picture.save(target / f"{place:04}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tickets", "photos"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=["leak", "perfect", "clean", "cp1252"], default="leak")
    parser.add_argument("--leak", choices=[*CHANGES, "none"], default="brightness")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "tickets":
        make_tickets(given.folder, given.variant, given.seed)
    else:
        make_photos(given.folder, given.leak, given.seed)


if __name__ == "__main__":
    main()
