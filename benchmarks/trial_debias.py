"""The whole circle on made-up tickets: `debias` names the product, trains and chooses; rows against the product judge.

python benchmarks/trial_debias.py [--seeds 0 1 2] [--bf16]    # about 15 minutes a seed on 2 cores, when alone

For each seed the tickets of benchmarks/trials.py are made anew, and all that the audit calls likely is confirmed.
Every trained method is then measured on the test rows and on 600 further rows that all go against the product. Runs lie
under runs/trial-debias/ and are not repeated. The table is written to trial_debias.md beside this script.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import evenhand as eh
import trials
from evenhand.metrics import summarize
from evenhand.wording import percent

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "trial-debias"
COLUMNS = {"text": "message", "label": "type", "drop_incomplete": True}


def of_seed(seed: int, bf16: bool) -> dict[str, Any]:
    """What one seed gives; kept in a file once it is there."""
    folder = RUNS / f"seed{seed}"
    path = folder / "result.json"
    if path.exists():
        return json.loads(path.read_text())
    trials.make_tickets(folder, seed=seed)
    in_one_go, clock = not (folder / "debias").exists(), time.perf_counter()
    found = eh.debias(
        eh.OwnData(data=folder / "tickets.csv", **COLUMNS),
        shortcuts="found",
        seed=seed,
        bf16=bf16,
        output_dir=folder / "debias",
    )
    result: dict[str, Any] = {
        "seconds": time.perf_counter() - clock if in_one_go else None,
        "chosen": found.chosen,
        "methods": {},
    }
    result |= {
        "sentence": found.sentence,
        "named": [] if found.audit is None else list(map(str, found.audit.shortcuts)),
    }
    against = eh.OwnData(data=folder / "against.csv", **COLUMNS)
    for name, record in found.runs.items():
        measured = eh.evaluate(record.path.parent, against)
        result["methods"][name] = {
            "average": record.raw["metrics"]["average"],
            "against": next(iter(measured.values())).result.metrics["average"],
        }
    path.write_text(json.dumps(result, indent=1))
    return result


def table(results: dict[int, dict[str, Any]]) -> str:
    """The methods, mean ± std over seeds, and by seed what was named and chosen."""
    names = list(dict.fromkeys(name for result in results.values() for name in result["methods"]))
    lines = ["| method | average % | rows against the product % (600 a seed) | chosen |", "| --- | --- | --- | --- |"]
    for name in names:
        of_method = [result["methods"][name] for result in results.values() if name in result["methods"]]
        shown = []
        for metric in ("average", "against"):
            summary = summarize([one[metric] for one in of_method])
            spread = "" if summary.std is None else f" ± {percent(summary.std)}"
            shown.append(f"{percent(summary.mean)}{spread}")
        times = sum(result["chosen"] == name for result in results.values())
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {times} of {len(results)} |")
    told = [
        f"- Seed {seed}: named {', '.join(f'`{one}`' for one in result['named']) or 'nothing'}; "
        f"{_time(result['seconds'])}. {result['sentence']}"
        for seed, result in results.items()
    ]
    return "\n".join([*lines, "", *told]) + "\n"


def _time(seconds: float | None) -> str:
    return "stopped and gone on with, so its time isn't known" if seconds is None else f"{seconds / 60:.0f} minutes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bf16", action="store_true", help="faster on processors that multiply it")
    given = parser.parse_args()
    results = {seed: of_seed(seed, given.bf16) for seed in given.seeds}
    text = table(results)
    seeds = " ".join(map(str, given.seeds))
    words = f"python benchmarks/trial_debias.py --seeds {seeds}{' --bf16' if given.bf16 else ''}"
    (HERE / "trial_debias.md").write_text(f"# The circle on made-up tickets\n\n`{words}`\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
