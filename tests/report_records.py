"""Made-up records of runs, for the tests of the report."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.metrics import wilson
from evenhand.shortcuts import OwnShortcut, Samples, fit_shortcut

GROUPS = ("0 aligned", "0 conflicting", "1 aligned", "1 conflicting")
SIZES = dict(zip(GROUPS, (5, 230, 22, 240), strict=True))


def png(rows: list[list[tuple[int, int, int]]]) -> str:
    """A base64 PNG of RGB pixels, by the format's rules: every row starts with filter 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + bytes(c for pixel in row for c in pixel) for row in rows)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def metrics(aligned: float | None, conflicting: float | None, average: float | None = None) -> dict[str, Any]:
    average = conflicting if average is None else average
    return {
        "average": average,
        "average_train_weighted": aligned,
        "worst_group": conflicting,
        "aligned": aligned,
        "conflicting": conflicting,
        "by_group": dict(zip(GROUPS, (aligned, conflicting, aligned, conflicting), strict=True)),
    }


def record(
    method: str = "erm",
    seed: int = 0,
    aligned: float | None = 0.99,
    conflicting: float | None = 0.44,
    *,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    task_settings: dict[str, Any] | None = None,
    data_seed: int | None = None,
    status: str = "done",
    error: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A whole record; `changes` replaces top-level entries."""
    title = method.upper() if title is None else title
    settings = settings or {}
    task_settings = {"conflict": 0.02} if task_settings is None else task_settings
    data_seed = seed if data_seed is None else data_seed
    measured = metrics(aligned, conflicting)
    cell = json.dumps([method, title, settings, task_settings], sort_keys=True).encode().hex()[:200]
    made: dict[str, Any] = {
        "format": 1,
        "status": status,
        "error": error,
        "method": {"name": method, "title": title, "settings": settings},
        "task": {"name": "colored-digits", "settings": task_settings},
        "model": {"name": "digits-cnn", "parameters": 123456},
        "training": {"epochs": 30, "lr": 0.001, "batch_size": 64, "optimizer": "adam"},
        "seed": seed,
        "data_seed": data_seed,
        "labels": [str(digit) for digit in range(10)],
        "configuration": f"{cell}-{seed}-{data_seed}",
        "cell": cell,
        "command": f"evenhand train {method} --task colored-digits --conflict 0.02 --seed {seed}",
        "selection": "last epoch",
        "label_access": "none (groups are used for evaluation only)",
        "primary_test": "test",
        "data": {
            "train": {"n": 1100, "conflicting": 22},
            "validation": {"n": 200, "conflicting": 4},
            "test": {"n": 497, "conflicting": 447},
        },
        "metrics": measured if status == "done" else None,
        "tests": {"test": measured, "validation": metrics(aligned, conflicting)} if status == "done" else {},
        "group_sizes": {"test": SIZES},
        "groups_not_counted": {"test": ["0 aligned"]},
        "stages": [{"name": "only", "steps": 540, "loss": 0.01, "epochs": 30}],
        "memory": {"only": {"bytes": 500_000_000, "of": "process", "exact": True}},
        "durations": {"total_s": 12.3, "stages": {"only": 12.0}, "started": "2026-01-01T00:00:00Z", "finished": None},
        "versions": {"evenhand": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu"},
        "commit": {"hash": "0123456789abcdef", "dirty": True},
        "machine": {"system": "Linux", "cores": 2, "device": "cpu"},
    }
    return made | changes


def samples(prediction: str = "1", **changes: Any) -> dict[str, Any]:
    """Twenty samples of digit 3, the first five aligned, all taken for `prediction`."""
    image = png([[(200, 30, 60) if (x + y) % 3 else (0, 0, 0) for x in range(8)] for y in range(8)])
    entry = {"png": image, "label": "3", "attribute": "crimson", "prediction": prediction}
    kinds = ["aligned"] * 5 + ["conflicting"] * 15
    return {"samples": [entry | {"index": i, "alignment": kind} | changes for i, kind in enumerate(kinds)]}


def write_run(folder: Path, entry: dict[str, Any], shown: dict[str, Any] | None = None) -> Path:
    """Store a record, and samples if given, in a folder of their own; returns the record's path."""
    run = folder / f"run-{sum(1 for _ in folder.glob('run-*')):02d}"
    run.mkdir(parents=True)
    (run / "record.json").write_text(json.dumps(entry), encoding="utf-8")
    if shown is not None:
        (run / "samples.json").write_text(json.dumps(shown), encoding="utf-8")
    return run / "record.json"


def write_study(folder: Path, seeds: int = 3) -> list[dict[str, Any]]:
    """Four methods on the same seeds; ERM takes the shortcut and PGD avoids it."""
    base = {"erm": (0.99, 0.4412), "gce": (0.981, 0.5011), "edge": (0.9621, 0.6127), "pgd": (0.9302, 0.8821)}
    made: list[dict[str, Any]] = []
    for method, (aligned, conflicting) in base.items():
        for seed in range(seeds):
            step = 0.00731 * (seed - 1) * (1 if method != "gce" else -1)
            title = "EDGE (biased signal)" if method == "edge" else None
            entry = record(method, seed, aligned + step / 4, conflicting + step, title=title)
            made.append(entry)
            write_run(folder, entry, samples("3" if method == "pgd" else "1"))
    return made


def curve(conflicting: float, epochs: int = 4) -> dict[str, Any]:
    """A curve that ends at `conflicting`, as a stage's record holds it."""
    rising = [round(conflicting * (i + 1) / epochs, 4) for i in range(epochs)]
    return {
        "split": "validation",
        "rows": 200,
        "sampled": False,
        "epoch": list(range(1, epochs + 1)),
        "aligned": [0.9] * epochs,
        "conflicting": rising,
        "loss": [1.0 / (i + 1) for i in range(epochs)],
        "by_group": {"1 conflicting": rising},
    }


def write_many(folder: Path, cells: int = 200, seeds: int = 3) -> None:
    """A study of many cells along α, with its plan: all groups, curves and costs, some failed, some not begun."""
    planned: list[dict[str, Any]] = []
    for i in range(cells):
        method = "erm" if i == 0 else "edge"
        entries = []
        for seed in range(seeds):
            share = 0.3 + 0.6 * i / cells + 0.01 * seed
            settings = {} if i == 0 else {"alpha": round(0.01 * i, 2), "q": 0.7}
            entry = record(method, seed, 0.99 - 0.001 * i / 4, share, settings=settings, cell=f"{i:016x}")
            names = [f"{digit} {kind}" for digit in range(10) for kind in ("aligned", "conflicting")]
            by_group = {name: 0.99 if "aligned" in name else share for name in names}
            entry["metrics"] = entry["metrics"] | {"by_group": by_group}
            entry["tests"] = {"test": entry["metrics"]}
            entry["group_sizes"] = {"test": dict.fromkeys(names, 50)}
            entry["stages"] = [{"name": "debiased", "steps": 540, "curve": curve(share, 20)}]
            entry["configuration"] = f"{i:012x}{seed:04x}"
            entry["durations"]["total_s"] = 10.0 + i / 10
            if i % 40 == 39:
                entry |= {"status": "failed", "error": "StageError: the loss is no longer finite", "metrics": None}
            entries.append(entry)
            if i % 50 != 49:  # the others are only planned
                run = folder / entry["configuration"]
                run.mkdir()
                (run / "record.json").write_text(json.dumps(entry), encoding="utf-8")
                if seed == 0 and i < 20:
                    (run / "samples.json").write_text(json.dumps(samples()), encoding="utf-8")
        described = {key: entries[0][key] for key in ("method", "task", "model", "training", "cell")}
        runs = [{k: e[k] for k in ("seed", "data_seed", "configuration")} | {"status": "planned"} for e in entries]
        planned.append({"name": f"{'ERM' if i == 0 else 'EDGE'} {i}", **described, "runs": runs})
    plan = {"format": 1, "title": "Many cells", "baseline": [], "only": None, "cells": planned}
    (folder / "study.json").write_text(json.dumps(plan), encoding="utf-8")


def counted(share: float | None, n: int) -> dict[str, Any]:
    """A share of n samples, as a record holds it."""
    return {"n": n, "accuracy": share, "interval": None if share is None else list(wilson(share, n) or ())}


def measured_by(
    aligned: float | None = 0.97,
    conflicting: float | None = 0.43,
    *,
    taken: float | None = 0.5,
    reliance: float | None = 0.62,
    why: str = "",
) -> dict[str, Any]:
    """What a record holds of one shortcut: 430 samples along, 30 against, of which 400 have other inputs without it."""
    gap = None if aligned is None or conflicting is None else aligned - conflicting
    changed = None if reliance is None else round(400 * reliance)
    return {
        "aligned": counted(aligned, 0 if aligned is None else 430),
        "conflicting": counted(conflicting, 0 if conflicting is None else 30),
        "independent": counted(0.9, 40),
        "gap": {"value": gap, "interval": None if gap is None else [gap - 0.1, gap + 0.1]},
        "taken": counted(None, 0) if conflicting is None else counted(taken, 30),
        "reliance": None if reliance is None else {**counted(reliance, 400), "changed": changed, "share": reliance},
        "why_no_reliance": why,
    }


def quality(recall: float | None = 0.8, auroc: float | None = 0.9, n: int = 497) -> dict[str, Any]:
    """What a record holds beside accuracy."""
    return {"n": n, "recall": recall, "f1": 0.7, "auroc": auroc, "ece": 0.05}


def fitted(name: str, *, perfect: bool = False) -> dict[str, Any]:
    """A shortcut as training rows know it: 95 of 100 that have it are of class "yes", or all.

    A name that is no token's spelling is that of a shortcut from Python, whose value is called so, too.
    """
    is_token = name.startswith("token:") and name.removeprefix("token:").isalnum()
    texts = [f"it {name.removeprefix('token:')} broke"] * 100 + ["it broke"] * 100
    rule = name if is_token else OwnShortcut(name, {"train": [name] * 100 + ["-"] * 100})
    labels = np.array([1] * (100 if perfect else 95) + [0] * (0 if perfect else 5) + [0, 1] * 50)
    return fit_shortcut(rule, Samples.of(texts=texts), labels, ["no", "yes"]).as_dict()


def named_record(
    method: str = "erm",
    seed: int = 0,
    shortcuts: Mapping[str, dict[str, Any]] | None = None,
    together: dict[str, Any] | None = None,
    *,
    perfect: Sequence[str] = (),
    average: float | None = 0.9,
    title: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The record of a run on own data whose shortcuts have names; `shortcuts`: what was measured by each."""
    shortcuts = {"token:nimbus": measured_by()} if shortcuts is None else shortcuts
    whole = together or next(iter(shortcuts.values()))
    measured = metrics(whole["aligned"]["accuracy"], whole["conflicting"]["accuracy"], average)
    measured |= {"by_shortcut": dict(shortcuts), **({"all_shortcuts": together} if together else {})}
    own = {"name": "own-data", "settings": {"data": "tickets.csv", "text": ["text"], "label": "label"}}
    made = record(method, seed, title=title, task=own, metrics=measured, tests={"test": measured})
    told = [fitted(name, perfect=name in perfect) for name in shortcuts]
    made |= {"shortcuts": list(shortcuts), "shortcuts_fitted": told, "labels": ["no", "yes"]}
    return made | {"data": {"test": {"n": 500, "classes": 2}}} | changes
