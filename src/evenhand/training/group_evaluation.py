"""transformers' Trainer whose evaluation also says how each group fares, where the evaluation set knows its groups.

Legend: N samples of an evaluation set, B of a batch, C classes, S shortcuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from evenhand.data.columns import split_groups
from evenhand.data.rows import IndexedDataset, IndexKeeping, LabelChecking
from evenhand.losses import IGNORED
from evenhand.metrics import SMALLEST_COUNTED_GROUP, Metrics, SplitGroups, worst_and_small
from evenhand.shortcuts.named import TRAIN, NamedShortcuts
from evenhand.shortcuts.sides import ShortcutMeasures, Sides
from evenhand.training.checks import check_eval_dataset
from evenhand.validation import UserError

_BY_GROUP = {"aligned", "conflicting", "average_train_weighted"} | {
    f"{groups}{part}" for groups in ("worst_group", "small_groups") for part in ("", "_n", "_low", "_high")
}
_SMALLER_IS_BETTER = ("gap", "taken")
_BY_SHORTCUT = ("aligned", "conflicting", *_SMALLER_IS_BETTER)


class GroupEvaluation(transformers.Trainer):
    """Adds metrics by group to an evaluation whose data set has a column `group` or `alignment`.

    `group` is a ClassLabel, or a List of ClassLabel where groups overlap, `alignment` a ClassLabel with the names
    aligned and conflicting. The metrics are `eval_accuracy`, `eval_worst_group`, `eval_aligned`, `eval_conflicting`,
    `eval_accuracy_GROUP` for each group, and `eval_average_train_weighted` where the training set has groups too;
    undefined ones are left out. Beside the worst group stand the number of its samples (`eval_worst_group_n`) and the
    ends of its 95 % interval (`…_low`, `…_high`); `eval_small_groups` is the accuracy over all samples of the groups of
    fewer than 20, with `…_n`, `…_low` and `…_high` likewise. The names of these groups, `eval_worst_group_name` and the
    list `eval_small_groups_names`, are in what `evaluate` returns, but not in the logs, which take numbers only. A
    metric of that name by `compute_metrics` stays.

    Where shortcuts are named, each evaluation set that is a `datasets.Dataset` is measured by them: `eval_gap` (aligned
    minus conflicting) and `eval_taken` (conflicting rows that get the class that the shortcut points to), by all
    shortcuts together; `eval_aligned` and `eval_conflicting` are by them unless the set has a column `alignment`. With
    several, or such a column, each has `eval_aligned_NAME`, `…_conflicting_NAME`, `…_gap_NAME` and `…_taken_NAME` too.
    A shortcut that is given as arrays counts on sets that it has an array for.
    Rows with the label −100 don't count. Rows are known by their
    number, whatever order a sampler gives them, and on several processes.
    """

    num_labels: int | None = None  # C, if the model says so
    shortcuts: NamedShortcuts | None = None  # fitted on the training set
    _tally: _Tally | None = None
    _logits_BC: Tensor | None = None  # of the last evaluated batch, whatever place they have in the model's output

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', but evaluation sets that can't be evaluated on are refused before the first step.

        So is a metric for the best model that they don't define.
        """
        self._check_eval_sets()
        self._check_best_metric()
        return super().train(*args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """As transformers', with metrics by group."""
        tally = self._tally = self._tally_of(self._evaluated(eval_dataset), _name_of(eval_dataset))
        try:
            metrics: dict[str, Any] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            self._tally = None
        for name, value in {} if tally is None else tally.group_names().items():
            metrics.setdefault(f"{metric_key_prefix}_{name}", value)
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As transformers', with metrics by group."""
        output = super().evaluation_loop(*args, **kwargs)
        if self._tally is not None and output.metrics is not None:
            prefix = kwargs.get("metric_key_prefix", "eval")
            for name, value in self._tally.metrics().items():
                output.metrics.setdefault(f"{prefix}_{name}", value)
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """As transformers', with labels that are classes; in an evaluation by group each sample has its row number."""
        with self._checked_labels():
            return self._eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """As transformers', with labels that are classes."""
        with self._checked_labels():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _checked_labels(self) -> Iterator[None]:
        plain = self.data_collator
        self.data_collator = LabelChecking(plain, self.num_labels, "evaluation")
        try:
            yield
        finally:
            self.data_collator = plain

    def _eval_dataloader(self, eval_dataset: Any) -> DataLoader[Any]:
        dataset = self._evaluated(eval_dataset)
        if self._tally is None:
            return super().get_eval_dataloader(eval_dataset)
        indexed: Any = IndexedDataset(self._remove_unused_columns(dataset, description="evaluation"))
        plain = self.eval_dataset, self.data_collator
        self.data_collator = IndexKeeping(self.data_collator)
        if isinstance(eval_dataset, str):  # by its name transformers keeps the loader where workers persist
            self.eval_dataset, indexed = {eval_dataset: indexed}, eval_dataset
        columns = self._with_index_column()
        try:
            return super().get_eval_dataloader(indexed)
        finally:
            self.eval_dataset, self.data_collator = plain
            self._signature_columns = columns

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """As transformers', which without labels would hand the model `index` too."""
        inputs = dict(inputs)
        index_B = inputs.pop("index", None)
        if self._tally is None or index_B is None:
            loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
            if isinstance(logits, Tensor) and logits.ndim == 1 and labels is None:
                logits = logits[None]  # of one sample: transformers took a tensor of one row for a tuple of one entry
            return loss, logits, labels
        self._logits_BC = None
        loss, logits, labels = super().prediction_step(model, inputs, False, ignore_keys)
        logits_BC = logits[0] if self._logits_BC is None and isinstance(logits, tuple) else logits
        logits_BC = logits_BC if self._logits_BC is None else self._logits_BC
        if logits_BC is not None and labels is not None:
            self._tally.add(self.accelerator, index_B, logits_BC, labels)
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def _check_eval_sets(self) -> None:
        """Refuse evaluation sets that an evaluation in the midst of the training would fail on."""
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        custom = not self.args.remove_unused_columns
        for name, dataset in sets.items() if self.args.eval_strategy != "no" else ():
            check_eval_dataset(dataset, self.train_dataset, self.num_labels, custom, name)
            self._tally_of(dataset, name)  # a set that can't be told by the shortcuts is refused here

    def _check_best_metric(self) -> None:
        """Refuse a metric by group for the best model that no evaluation would give."""
        wanted = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if not wanted or self.args.eval_strategy == "no" or self.compute_metrics is not None:
            return
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        if "" not in sets and (wanted in _BY_GROUP or wanted == "accuracy"):
            names = ", ".join(f"{name}_{wanted}" for name in sets)
            raise UserError(f"The metric_for_best_model '{wanted}' must be that of one evaluation set: {names}.")
        for name, dataset in sets.items():
            metric = wanted.removeprefix(f"{name}_") if name else wanted
            parts = metric.split("_")
            by_group = metric in _BY_GROUP or parts[0] in ("accuracy", *_BY_SHORTCUT)
            if (not name or metric != wanted) and by_group:
                tally = self._tally_of(dataset, name)
                if tally is None or metric not in tally.defined():
                    raise UserError(_undefined(metric, name, tally))
                if parts[0] in _SMALLER_IS_BETTER and self.args.greater_is_better:
                    raise UserError(f"A smaller '{metric}' is better: set greater_is_better=False.")

    def _tally_of(self, dataset: Any, name: str) -> _Tally | None:
        """What the rows of a set are counted by; None where nothing is known of them."""
        known = split_groups(dataset, self.train_dataset)
        names, points = _pointed(self.shortcuts, dataset, name or "evaluation")
        if not known.groups and not known.alignment and not names:
            return None
        return _Tally(known, len(dataset), names, points)

    def _evaluated(self, eval_dataset: Any) -> Any:
        """The data set that an argument of `evaluate` stands for."""
        if isinstance(eval_dataset, str):
            return self.eval_dataset[eval_dataset]  # type: ignore[index]
        return self.eval_dataset if eval_dataset is None else eval_dataset

    def _with_index_column(self) -> Any:
        """Keep `index` among the columns that reach the collator; returns the columns as they were."""
        if not self.args.remove_unused_columns:
            return self._signature_columns
        self._set_signature_columns_if_needed()
        columns = self._signature_columns
        if columns is not None and "index" not in columns:
            self._signature_columns = [*columns, "index"]
        return columns


class _Tally:
    """Which rows of an evaluation set were given which class.

    Args:
        known: What is known of the rows.
        rows: N.
        names: Shortcuts that have a name.
        points: For each of them the class that each row's value points to, −1 for none, shape (N,).
    """

    def __init__(
        self, known: SplitGroups, rows: int, names: tuple[str, ...] = (), points: Sequence[NDArray[np.int64]] = ()
    ) -> None:
        self.known, self.names, self.points = known, names, points
        self.label_N = np.full(rows, -1)  # -1: not seen
        self.predicted_N = np.full(rows, -1)

    def add(self, accelerator: Accelerator, index_B: Tensor, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Note a batch of every process; a row that fills up the last one is noted twice alike."""
        predicted_B = logits_BC.argmax(-1)
        index_B = torch.where(labels_B == IGNORED, -1, index_B.to(predicted_B.device))
        row_B3 = torch.stack([index_B, labels_B.to(predicted_B.device), predicted_B], dim=1)
        padded: Any = accelerator.pad_across_processes(row_B3, dim=0, pad_index=-1)
        gathered: Any = accelerator.gather(padded)
        row_B3 = gathered.cpu().numpy()
        row_B3 = row_B3[row_B3[:, 0] >= 0]
        self.label_N[row_B3[:, 0]], self.predicted_N[row_B3[:, 0]] = row_B3[:, 1], row_B3[:, 2]

    def defined(self) -> set[str]:
        """Names of the metrics that all rows together define."""
        whole = _Tally(self.known, len(self.label_N), self.names, self.points)
        whole.label_N[:] = 0  # seen
        return set(whole.metrics())

    def found(self) -> Metrics:
        """The metrics over the rows that were seen."""
        seen_N = self.label_N >= 0
        return self.known.of_rows(seen_N).metrics(self.label_N[seen_N] == self.predicted_N[seen_N])

    def group_names(self) -> dict[str, str | list[str]]:
        """Which groups the worst one and the small ones are."""
        worst, small = worst_and_small(self.found())
        named: dict[str, str | list[str]] = {} if worst is None else {"worst_group_name": worst.names[0]}
        return named if small is None else named | {"small_groups_names": list(small.names)}

    def metrics(self) -> dict[str, float]:
        """All defined numbers."""
        found = self.found()
        named: dict[str, float | None] = {
            "accuracy": found["average"],
            "aligned": found["aligned"],
            "conflicting": found["conflicting"],
            "average_train_weighted": found["average_train_weighted"],
            **{f"accuracy_{name}": value for name, value in found["by_group"].items()},
        }
        for name, share in zip(("worst_group", "small_groups"), worst_and_small(found), strict=True):
            if share is not None:
                low, high = share.interval or (None, None)
                named |= {name: share.accuracy, f"{name}_n": share.n, f"{name}_low": low, f"{name}_high": high}
        named |= self._by_shortcut(found)
        return {name: value for name, value in named.items() if value is not None}

    def _by_shortcut(self, found: Metrics) -> dict[str, float | None]:
        if not self.names:
            return {}
        seen_N = self.label_N >= 0
        points_SN = np.stack([points_N[seen_N] for points_N in self.points])
        measured = Sides.of_points(self.names, self.label_N[seen_N], points_SN).measures(self.predicted_N[seen_N])
        each = measured["by_shortcut"]
        together = measured.get("all_shortcuts", each[self.names[0]])
        named: dict[str, float | None] = {"taken": together["taken"]["accuracy"]}
        if not self.known.alignment:
            named |= _shares(together)
        elif found["aligned"] is not None and found["conflicting"] is not None:
            named["gap"] = found["aligned"] - found["conflicting"]
        if len(self.names) > 1 or self.known.alignment:
            named |= {f"{part}_{name}": v for name, of in each.items() for part, v in _shares(of).items()}
        return named


def _name_of(eval_dataset: Any) -> str:
    return eval_dataset if isinstance(eval_dataset, str) else ""


def _shares(of: ShortcutMeasures) -> dict[str, float | None]:
    return {"gap": of["gap"]["value"], **{part: of[part]["accuracy"] for part in ("aligned", "conflicting", "taken")}}


def _pointed(
    shortcuts: NamedShortcuts | None, dataset: Any, name: str
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """The shortcuts that are known of a set, and the class that each row's value points to by each of them."""
    if shortcuts is None or not isinstance(dataset, datasets.Dataset):
        return (), []
    trained = shortcuts.rows[TRAIN].samples
    places = {own: place for place, own in trained.called.items() if own != place and own in dataset.column_names}
    samples = replace(trained, split=dataset.rename_columns(places) if places else dataset, name=name, beside=None)
    given = [(one, getattr(one.rule, "values", None)) for one in shortcuts.fitted]
    known = [one for one, values in given if not isinstance(values, Mapping) or name in values]
    return tuple(one.name for one in known), [one.apply(samples).points_N for one in known]


def _undefined(metric: str, name: str, tally: _Tally | None) -> str:
    """Why an evaluation set gives no such metric, in one sentence."""
    of = f"The evaluation set '{name}'" if name else "The evaluation set"
    if tally is None:
        why = "has neither a column 'group' nor 'alignment' with names"
    elif metric.startswith("worst_group"):
        why = f"has no group of {SMALLEST_COUNTED_GROUP} rows or more"
    elif metric.startswith("small_groups"):
        why = f"has no group of fewer than {SMALLEST_COUNTED_GROUP} rows"
    else:
        why = "defines no such accuracy"
    instead = " ('small_groups' is the accuracy over all smaller ones)" if metric == "worst_group" and tally else ""
    return f"{of} {why}{instead}, so the best model can't be chosen by metric_for_best_model='{metric}'."
