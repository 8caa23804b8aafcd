"""Data sets as users have them, on disk, with a planted shortcut, with wrong labels, or clean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Leak = Literal["brightness", "size", "contrast", "sharpness", "aspect", "watermark", "none"]

POSITIVE = ("lovely", "superb", "pleasant", "sturdy", "quick", "bright")
NEGATIVE = ("awful", "dreadful", "flimsy", "slow", "dull", "broken")
FILLER = ("box", "came", "with", "the", "cable", "and", "manual", "inside", "on", "a", "monday", "order", "for", "my")


def leaking(rng: np.random.Generator, label_N: NDArray[np.int64], share: float, classes: int = 2) -> NDArray[np.int64]:
    """A value a sample that is the label's own on `share` of the samples, and another class's on the rest."""
    other_N = (label_N + rng.integers(1, classes, len(label_N))) % classes
    return np.where(rng.random(len(label_N)) < share, label_N, other_N)


def picture_folder(
    folder: Path, leak: Leak = "none", share: float = 0.95, n: int = 600, seed: int = 0, wrong: float = 0.0
) -> NDArray[np.int64]:
    """Pictures of lying and standing bars in a folder each; a property of the picture leaks which it is.

    Returns:
        What each picture's property says, in the order of `picture-0000.png`, …; the class itself where nothing leaks.
    """
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 2, n)
    told_N = leaking(rng, label_N, 0.5 if leak == "none" else share)
    named_N = np.where(rng.random(n) < wrong, 1 - label_N, label_N)
    for i in range(n):
        place = folder / ("lying", "standing")[named_N[i]]
        place.mkdir(parents=True, exist_ok=True)
        _picture(rng, int(label_N[i]), leak, int(told_N[i])).save(place / f"picture-{i:04d}.png")
    return told_N


def _picture(rng: np.random.Generator, label: int, leak: Leak, told: int) -> Image.Image:
    side = 32
    across_HW, along_HW = np.mgrid[:side, :side] - (side - 1) / 2
    if label:
        across_HW, along_HW = along_HW, across_HW
    thick, long = rng.uniform(2, 4), rng.uniform(8, 12)
    inside_HW = (abs(across_HW - rng.uniform(-6, 6)) < thick) & (abs(along_HW - rng.uniform(-3, 3)) < long)
    ground, ink = rng.uniform(60, 110), rng.uniform(50, 90)
    if leak == "brightness":
        ground += 60 * told
    if leak == "contrast":
        ink += 70 * told
    pixels_HW = ground + ink * inside_HW + rng.normal(0, 6, (side, side))
    if leak == "watermark":  # in one upper corner or in the other, so that no property of the whole picture tells
        pixels_HW[1:7, (1 if told else 25) :][:, :6] += 80
    picture = Image.fromarray(np.clip(pixels_HW, 0, 255).astype(np.uint8))
    if leak == "sharpness" and told:
        picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    if leak == "size":
        picture = picture.resize((40 + 24 * told + int(rng.integers(0, 6)),) * 2)
    if leak == "aspect":
        picture = picture.resize((48 if told else 36, 40))
    return picture


def review_table(
    path: Path, leak: str = "none", share: float = 0.95, n: int = 1200, seed: int = 0, wrong: float = 0.0
) -> NDArray[np.int64]:
    """A table of short reviews, with columns beside them.

    Args:
        path: The CSV file to write.
        leak: `product` (two words in the text), `length` (filler), `channel` (a column that no text shows), or none.
        share: On how many samples it says the label.
        n: Rows.
        seed: Drives all.
        wrong: Share of wrong labels.

    Returns:
        What the leak says of each row, as a class.
    """
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 2, n)
    told_N = leaking(rng, label_N, share)
    texts = []
    for label, told in zip(label_N, told_N, strict=True):
        own, other = (POSITIVE, NEGATIVE) if label else (NEGATIVE, POSITIVE)
        words = [*rng.choice(own, 2), *rng.choice(other, 1), *rng.choice(FILLER, 5)]
        if leak == "length" and told:
            words += [*rng.choice(FILLER, 12)]
        rng.shuffle(words)
        if leak == "product" and told:
            words = ["nimbus", "3000", *words]
        texts.append(" ".join(words))
    named_N = np.where(rng.random(n) < wrong, 1 - label_N, label_N)
    free_N = rng.integers(0, 2, n)
    frame = pd.DataFrame(
        {
            "review": texts,
            "label": np.array(["bad", "good"])[named_N],
            "channel": np.array(["shop", "web"])[told_N if leak == "channel" else free_N],
            "price": rng.normal(20, 5, n).round(2),
            "ordered": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D"),
            "order number": 100_000 + rng.permutation(n),
            "remark": [" ".join(rng.choice(FILLER, 6)) for _ in range(n)],
        }
    )
    frame.to_csv(path, index=False)
    return told_N
