"""transformers' Trainer whose evaluation also says how each group fares, where the evaluation set knows its groups.

Legend: N samples of an evaluation set, B of a batch, C classes.
"""

from __future__ import annotations

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

from evenhand.batches import IndexedDataset, IndexKeeping
from evenhand.losses import IGNORED
from evenhand.metrics import group_metrics, group_shares
from evenhand.tasks.base import membership

Members = dict[str, NDArray[np.bool_]]


class GroupEvaluation(transformers.Trainer):
    """Adds metrics by group to an evaluation whose data set has a column `group` or `alignment`.

    `group` is a ClassLabel, or a List of ClassLabel where groups overlap, `alignment` a ClassLabel with the names
    aligned and conflicting. The metrics are `eval_accuracy`, `eval_worst_group`, `eval_aligned`, `eval_conflicting`,
    `eval_accuracy_GROUP` for each group, and `eval_average_train_weighted` where the training set has groups too;
    undefined ones are left out. A metric of that name by `compute_metrics` stays. Rows with the label −100 don't count.
    Rows are known by their number, whatever order a sampler gives them, and on several processes.
    """

    _tally: _Tally | None = None
    _logits_BC: Tensor | None = None  # of the last evaluated batch, whatever place they have in the model's output

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """As transformers', with metrics by group."""
        self._tally = _tally_of(self._evaluated(eval_dataset), self.train_dataset)
        try:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            self._tally = None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As transformers', with metrics by group."""
        output = super().evaluation_loop(*args, **kwargs)
        if self._tally is not None and output.metrics is not None:
            prefix = kwargs.get("metric_key_prefix", "eval")
            for name, value in self._tally.metrics().items():
                output.metrics.setdefault(f"{prefix}_{name}", value)
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """As transformers'; in an evaluation by group each sample comes with its row number."""
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
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
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
    """Which rows of an evaluation set were classified right.

    Args:
        groups: Membership of each group, of shape (N,).
        alignment: Membership of the aligned and of the conflicting rows.
        shares: Each group's share of the training set.
        rows: N.
    """

    def __init__(self, groups: Members, alignment: Members, shares: dict[str, float], rows: int) -> None:
        self.groups = groups
        self.alignment = alignment
        self.shares = shares
        self.correct_N = np.full(rows, -1, dtype=np.int8)  # -1: not seen

    def add(self, accelerator: Accelerator, index_B: Tensor, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Note a batch of every process; a row that fills up the last one is noted twice alike."""
        correct_B = logits_BC.argmax(-1) == labels_B
        index_B = torch.where(labels_B == IGNORED, -1, index_B.to(correct_B.device))
        pair_B2 = torch.stack([index_B, correct_B.long()], dim=1)
        padded: Any = accelerator.pad_across_processes(pair_B2, dim=0, pad_index=-1)
        gathered: Any = accelerator.gather(padded)
        pair_B2 = gathered.cpu().numpy()
        pair_B2 = pair_B2[pair_B2[:, 0] >= 0]
        self.correct_N[pair_B2[:, 0]] = pair_B2[:, 1]

    def metrics(self) -> dict[str, float]:
        """All defined metrics over the rows that were seen."""
        seen_N = self.correct_N >= 0

        def of_seen(members: Members) -> Members:
            return {name: member_N[seen_N] for name, member_N in members.items()}

        found = group_metrics(self.correct_N[seen_N] == 1, of_seen(self.groups), of_seen(self.alignment), self.shares)
        named = {
            "accuracy": found["average"],
            "worst_group": found["worst_group"],
            "aligned": found["aligned"],
            "conflicting": found["conflicting"],
            "average_train_weighted": found["average_train_weighted"],
            **{f"accuracy_{name}": value for name, value in found["by_group"].items()},
        }
        return {name: value for name, value in named.items() if value is not None}


def _tally_of(dataset: Any, train: Any) -> _Tally | None:
    groups, alignment = _known(dataset, "group"), _known(dataset, "alignment")
    if not groups and not alignment:
        return None
    return _Tally(groups, alignment, group_shares(_known(train, "group")), len(dataset))


def _known(dataset: Any, column: str) -> Members:
    """Membership by the names of a column; none where the data set has no such column or it has no names."""
    if not isinstance(dataset, datasets.Dataset) or column not in dataset.column_names:
        return {}
    feature = dataset.features[column]
    named = feature.feature if isinstance(feature, datasets.List) else feature
    return membership(dataset, column) if isinstance(named, datasets.ClassLabel) else {}
