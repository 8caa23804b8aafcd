"""What `evenhand audit` does: score, look for shortcuts, write the page and the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from evenhand.auditing import audit
from evenhand.cli.console import note_formulas, output
from evenhand.cli.options import ModelOptions, default
from evenhand.cli.terminal import RunDisplay
from evenhand.report import write_audit
from evenhand.validation import UserError

_PLACES = ("data_dir", "data", "validation_data", "test_data")  # no record says where files lie


@dataclass(frozen=True, kw_only=True)
class AuditVerb(ModelOptions):
    """Does my data hold a shortcut, which samples go against it, and what to do.

    Takes the biased models of a RUN of Even, or without any training a saved classifier (--model DIR) or what any
    classifier said of the rows (--predictions FILE); or trains two biased models for each seed, each on one half of the
    training rows and asked about the other half. Scores each row by its gradient's norm, and writes audit.html,
    audit.md, audit.json and scores.parquet and .csv. Beside a RUN, its record says task, model and training; --data-dir
    (of own data: --data) says where its files lie. An audit that was stopped goes on where it was when the same command
    is given again.

    Attributes:
        run_folder: A run's folder, or a folder of runs on the same data with different seeds; without it --task is
            audited.
        model: A saved classifier's folder, taken as the biased model; or what biased models start from: `mlp`,
            `digits-cnn`, `tiny-bert`, `small-vit`, `MiniLM`, …, a checkpoint's folder, or a name on the hub.
        predictions: What any classifier says of the data: CSV, TSV, JSONL or Parquet with the rows' ids and one column
            of probabilities a class, or the predicted class and perhaps its probability.
        seed: The biased models' seed; --seeds gives several.
        seeds: Train this many pairs of biased models (seeds 0, 1, …) on the same data, and show how far they agree.
        output_dir: The audit's folder; `audit` in the RUN, or runs/TASK/audit-… unless given.
    """

    run_folder: Positional[Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(optional)")]] = None
    model: Annotated[str | None, default("NAME")] = None
    predictions: Annotated[Path | None, default("FILE", "none")] = None
    seed: Annotated[int | None, default("INT", "0, or the RUN's")] = None
    seeds: Annotated[int | None, default("INT", "one pair")] = None
    output_dir: Annotated[Path | None, default("DIR", "see above")] = None

    def run(self) -> int:
        """Audit, write, and say what was found."""
        if self.seeds is not None and self.seed is not None:
            raise UserError("--seed names one biased model's seed and --seeds how many are trained: give one of them.")
        said: Any = {} if self.predictions is None else {"predictions": self.predictions}
        with RunDisplay(self.quiet) as display:
            display.begin("audit")
            found = audit(
                self.run_folder or self.task_source(),
                self.model,
                places=None if self.run_folder is None else self._places(),
                seeds=self.seeds if self.seed is None else [self.seed],
                shortcuts=self.shortcut,
                progress=display,
                **self.training(),
                **said,
            )
        page, *data = write_audit(found)
        output().print(f"{found.summary()}\nPage: {page}\nData: {', '.join(map(str, data))}")
        note_formulas(*data)
        return 0

    def _places(self) -> dict[str, Any]:
        """Where a run's files lie; what its record says can't be said again."""
        places = self.settings_given()
        for name in (["task"] if self.task else []) + [name for name in places if name not in _PLACES]:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"A run's record says its task, so {option} can't be given beside a run.")
        return places
