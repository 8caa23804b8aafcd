"""Finished runs of a study, a line each, in files that a repository takes: `runs.jsonl` and `runs-2.jsonl` to `-N`.

The samples of some runs lie beside, in `samples.jsonl` and further parts. Lines are sorted by the runs' hashes and stay
in their part, so that git merges what two machines have added. A part is replaced as a whole: none is half-written.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.files import LOCK, found_below, if_there, locked, write_text
from evenhand.runs.record import Record, read_object
from evenhand.runs.schema import Raw
from evenhand.validation import UserError

FULL = 950_000  # bytes; the file that a line would make larger than that is full
Kind = Literal["runs", "samples"]

_OF_THE_MODEL = ("kind", "loader")  # what a record holds for the model's card; a line has no model


class _Line(NamedTuple):
    text: str
    raw: Raw
    source: str

    @property
    def name(self) -> str:
        return self.raw["configuration"]

    @property
    def rank(self) -> tuple[bool, str]:
        """The smallest of several lines on one run counts; which one that is doesn't depend on their order."""
        return self.raw.get("status") != "done", self.text


def runs_below(folder: Path) -> list[Record]:
    """Every run at or below a folder, as a `record.json` or as a line, in the order of the paths.

    Raises:
        UserError: If one can't be read.
    """
    records = [run for path in found_below(folder, "record.json") for run in _in_folder(path)]
    lines = [run for path in found_below(folder, "runs.jsonl") for run in _in_lines(path.parent)]
    return _best([*records, *lines])


def runs_of_study(folder: Path) -> list[Record]:
    """The runs of one study, as `runs_below` finds them; what lies deeper is not looked at."""
    _, folders, _ = next(os.walk(folder), ("", [], []))
    records = [run for name in folders for run in _in_folder(folder / name / "record.json")]
    return _best([*records, *_in_lines(folder)])


def add_lines(folder: Path, runs: Iterable[Raw], samples: Mapping[str, Raw], without: Collection[str] = ()) -> None:
    """Add finished runs and samples to a folder, in place of the lines that it has on them; a run that is done stays.

    Args:
        folder: The folder; another process may be adding to it.
        runs: Records.
        samples: Samples by the hash of their run.
        without: Hashes of runs whose lines go.
    """
    with locked(folder / LOCK):
        # first: a run that is there has its samples, whenever the process is killed
        shown = [_line(raw | {"configuration": name}) for name, raw in samples.items() if raw.get("samples")]
        _write(folder, "samples", shown, without)
        _write(folder, "runs", [_line(_slim(raw)) for raw in runs], without)


def convert(folder: Path) -> None:
    """Turn what earlier versions wrote, a folder a run, into lines; the folders go once the lines are on disk.

    Raises:
        UserError: If a record can't be read, or isn't that of the run which its folder names.
    """
    # a folder that holds anything else, such as a model, is no result's
    names = ("record.json", "samples.json", ".record.json.partial", ".samples.json.partial")
    old = [p for p in sorted(folder.glob("*/record.json")) if {entry.name for entry in p.parent.iterdir()} <= {*names}]
    if not old:
        return
    found = [run for path in old for run in _in_folder(path)]
    for run in found:
        if run.configuration != run.path.parent.name:
            raise UserError(f"The file '{run.path}' is the record of another run: delete it.")
    beside = {path.parent.name: path.with_name("samples.json") for path in old}
    add_lines(folder, [run.raw for run in found], {n: read_object(p) for n, p in beside.items() if p.exists()})
    for path in old:
        for name in names:
            path.with_name(name).unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


def _best(found: Iterable[Record]) -> list[Record]:
    runs: dict[Path, Record] = {}
    for run in found:
        # of a run that was found twice the done one, and among equals the first
        runs[run.path] = min(runs.get(run.path, run), run, key=lambda one: not one.is_done)
    return [runs[path] for path in sorted(runs)]


def _in_folder(path: Path) -> list[Record]:
    """The run whose record this is; none if the record is gone."""
    record = if_there(Record.load, path)
    return [] if record is None else [record]


def _in_lines(folder: Path) -> list[Record]:
    shown = _lines(_parts(folder, "samples"))
    samples = {name: ({"samples": line.raw.get("samples")}, line.source) for name, (_, line) in shown.items()}
    return [
        Record.read(_whole(line.raw), folder / name / "record.json", line.source, samples.get(name))
        for name, (_, line) in _lines(_parts(folder, "runs")).items()
    ]


# ---- parts ----------------------------------------------------------------------------------------------------------


def _parts(folder: Path, kind: Kind) -> dict[Path, list[_Line]]:
    """The lines of each part.

    Raises:
        UserError: If a line isn't whole.
    """
    parts: dict[Path, list[_Line]] = {}
    _, _, names = next(os.walk(folder), ("", [], []))
    found = [name for name in names if re.fullmatch(rf"{kind}(-.*)?\.jsonl", name)]
    for path in (folder / name for name in sorted(found, key=lambda name: (len(name) > len(f"{kind}.jsonl"), name))):
        try:
            texts = path.read_text(encoding="utf-8").split("\n")  # splitlines would part a text at U+2028
        except FileNotFoundError:
            continue  # another process removed it
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}).") from error
        parts[path] = [_parsed(text, f"{path}, line {i}") for i, text in enumerate(texts, 1) if text.strip()]
    return parts


def _parsed(text: str, source: str) -> _Line:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{source} is half-written, a mark of a merge, or no JSON ({error}); delete the line or repeat its run."
        ) from error
    name = raw.get("configuration") if isinstance(raw, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{source} doesn't name its run by the key 'configuration'; delete the line or repeat its run.")
    return _Line(text, raw, source)


def _lines(parts: Mapping[Path, list[_Line]]) -> dict[str, tuple[Path, _Line]]:
    """Each run's line, the best of several, and the part that it is in."""
    found: dict[str, tuple[Path, _Line]] = {}
    for path, lines in parts.items():
        for line in lines:
            if line.name not in found or line.rank < found[line.name][1].rank:
                found[line.name] = path, line
    return found


def _write(folder: Path, kind: Kind, added: list[_Line], without: Collection[str]) -> None:
    """Put lines into the first part that has room; others stay where they are, unless a merge overfilled their part."""
    parts = _parts(folder, kind)
    there = _lines(parts)
    lines = {name: line for name, (_, line) in there.items() if name not in without}
    lines |= {line.name: line for line in added if line.name not in lines or line.rank[0] <= lines[line.name].rank[0]}
    made: dict[Path, dict[str, str]] = {path: {} for path in parts}
    sizes: Counter[Path] = Counter()

    def placed(line: _Line, paths: Iterable[Path]) -> bool:
        size = len(line.text.encode()) + 1
        for path in paths:
            if not sizes[path] or sizes[path] + size <= FULL:
                made.setdefault(path, {})[line.name] = line.text
                sizes[path] += size
                return True
        return False

    homeless = [line for name, line in lines.items() if name not in there or not placed(line, [there[name][0]])]
    for line in homeless:
        names = [f"{kind}.jsonl", *(f"{kind}-{i}.jsonl" for i in range(2, len(made) + 2))]  # one more than there are
        placed(line, [folder / name for name in names])
    # A part that a line moves to comes before the one that the line leaves: a kill between them loses none.
    before = {path: {line.name for line in content} for path, content in parts.items()}
    for path in sorted(made, key=lambda path: made[path].keys() <= before.get(path, set())):
        texts = [made[path][name] for name in sorted(made[path])]
        if texts != [line.text for line in parts.get(path, [])]:
            write_text(path, "\n".join([*texts, ""]))


# ---- lines ----------------------------------------------------------------------------------------------------------


def _line(raw: Raw) -> _Line:
    ordered = {
        "configuration": raw["configuration"],
        **raw,
    }  # first, so that the order of the runs is that of the texts
    return _Line(json.dumps(ordered, separators=(",", ":"), allow_nan=False), raw, "")


def _slim(raw: Raw) -> Raw:
    """A record without what nobody reads of a line, and without the metrics where they repeat the primary test's."""
    raw = {key: value for key, value in raw.items() if key not in _OF_THE_MODEL}
    if isinstance(raw.get("tests"), dict):
        raw["tests"] = {
            name: measured if name == raw.get("primary_test") or not isinstance(measured, dict) else _brief(measured)
            for name, measured in raw["tests"].items()
        }
    if isinstance(raw.get("stages"), list):
        stages = [stage for stage in raw["stages"] if isinstance(stage, dict)]
        raw["stages"] = [{key: value for key, value in stage.items() if key != "losses"} for stage in stages]
    if raw.get("metrics") is not None and raw["metrics"] == _of_primary_test(raw):
        del raw["metrics"]
    return raw


def _brief(measured: Raw) -> Raw:
    """Measures of another test set than the primary one: recall and calibration of each group would be half a line."""
    return {key: value for key, value in measured.items() if key != "quality_by_group"}


def _whole(raw: Raw) -> Raw:
    """A slim record with its metrics again."""
    measured = _of_primary_test(raw)
    return raw if "metrics" in raw or measured is None else raw | {"metrics": measured}


def _of_primary_test(raw: Raw) -> Any:
    tests = raw.get("tests")
    return tests.get(str(raw.get("primary_test"))) if isinstance(tests, dict) else None
