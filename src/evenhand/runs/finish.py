"""Carrying a run out to its end: the method, the evaluation, the final model, and the record of all that."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers import PreTrainedModel

from evenhand.data.rows import model_rows
from evenhand.evaluation.measured import Reader, SplitResult, sizes_and_chance, split_result
from evenhand.evaluation.samples import kept_predictions, sample_predictions
from evenhand.files import whole_folder, write_text
from evenhand.methods.base import nothing_done
from evenhand.methods.erm import ERM
from evenhand.models.adapters import merged
from evenhand.models.small_vision import SmallVisionConfig
from evenhand.runs.card import model_card
from evenhand.runs.predictions import write_predictions
from evenhand.runs.record import FORMAT, Record, machine, now, source_commit, versions, write_json, write_record
from evenhand.runs.stored_run import StoredRun
from evenhand.validation import UserError

if TYPE_CHECKING:
    pass

SELECTION = "last epoch"


def is_done(run: StoredRun) -> bool:
    """Whether the run has finished before, and no stage of it was damaged since."""
    path = run.folder / "record.json"
    return path.exists() and Record.load(path).is_done and run.stages.are_whole


def finish(run: StoredRun) -> None:
    """Run the method to its end and leave the record; a finished run is left as it is."""
    if is_done(run):
        return
    path, started = run.folder / "record.json", now()
    write_record(path, _record(run, "running"))
    try:
        model = run.configuration.method.fit(run)
        final = merged(model)
        results = _evaluated(run, final)
        record = _record(run, "done", results=results, times={"started": started, "finished": now()})
        if final is not model:  # adapters, for who has the backbone already
            _save(run, model, "adapter")
        _save(run, final, "model", model_card(record))
        measured = results[run.task.primary_test]
        write_json(run.folder / "samples.json", {"samples": sample_predictions(run.task, measured)})
        write_predictions(run.folder, run.configuration.run_hash, kept_predictions(run.task, measured))
    except BaseException as error:
        kind = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        # The folder may be what failed (a full disk), and the error itself matters more than its record.
        with suppress(UserError):
            write_record(path, _record(run, "failed", error=" ".join(f"{kind}: {error}".split())))
        raise
    write_record(path, record)


def _evaluated(run: StoredRun, model: nn.Module) -> dict[str, SplitResult]:
    """The model on every split but train."""
    clock = time.perf_counter()
    results = {
        name: split_result(
            Reader(model, run.collate, partial(model_rows, preprocess=run.preprocess), run.task.test_classes(name)),
            name,
            run.task,
            run.rows[name],
        )
        for name in run.task.splits
        if name != "train"
    }
    run.stages.durations["evaluation"] = time.perf_counter() - clock
    return results


def _save(run: StoredRun, model: nn.Module, name: str, card: str | None = None) -> None:
    """Write a model, and its card if given, into a folder that appears whole or not at all."""
    with whole_folder(run.folder / name) as unfinished:
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(unfinished)
        else:
            run.source.save(model, unfinished)
        run.save_processor(unfinished)
        if card is not None:
            write_text(unfinished / "README.md", card)


def _record(
    run: StoredRun,
    status: Literal["running", "done", "failed"],
    *,
    error: str | None = None,
    results: dict[str, SplitResult] | None = None,
    times: dict[str, str] | None = None,
) -> dict[str, Any]:
    results = results or {}
    primary = results.get(run.task.primary_test)
    described = run.configuration.as_dict()
    described["model"]["parameters"] = run.parameters
    method, stages = run.configuration.method, run.stages
    idle = run.did_nothing if status == "done" and method.name != ERM.name else None
    done_nothing = [f"{nothing_done(method.title, idle)}."] if idle else []
    return {
        "format": FORMAT,
        "status": status,
        "error": error,
        **described,
        "files": run.configuration.files_as_recorded(),
        **({} if run.task.shortcuts is None else {"shortcuts_fitted": run.task.shortcuts.as_dicts()}),
        "configuration": run.configuration.run_hash,
        "cell": run.configuration.cell_hash,
        "command": run.configuration.command(),
        "selection": SELECTION,
        "label_access": method.labels_needed,
        "kind": run.task.kind,
        "labels": list(run.task.label_names),
        "loader": "evenhand" if isinstance(run.source.config(), SmallVisionConfig) else "transformers",
        "primary_test": run.task.primary_test,
        "notes": [*run.task.notes, *run.source_notes, *done_nothing, *stages.notes],
        "did_nothing": idle,
        "data": {name: sizes_and_chance(split) for name, split in run.task.splits.items()},
        "metrics": dict(primary.metrics) if primary else None,
        "tests": {name: dict(result.metrics) for name, result in results.items()},
        "group_sizes": {name: result.group_sizes for name, result in results.items()},
        "groups_not_counted": {name: result.not_counted for name, result in results.items()},
        "stages": stages.reports,
        "durations": {
            "total_s": sum(stages.durations.values()),
            "stages": stages.durations,
            **(times or {}),
        },
        "memory": stages.memory,
        "versions": versions(),
        "commit": source_commit(),
        "machine": machine(run.device),
    }
