"""What `evenhand audit` does: score, look for shortcuts, write the page and the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from evenhand.auditing import audit
from evenhand.cli.terminal import RunDisplay, output
from evenhand.cli.verbs import Train
from evenhand.methods import Method
from evenhand.report import write_audit
from evenhand.validation import UserError, check_integer

_PLACES = ("data_dir", "data", "validation_data", "test_data")  # no record says where files lie
_BESIDE_A_RUN = {"run_folder", "seeds", *_PLACES, "output_dir", "export", "device", "quiet"}


@dataclass(frozen=True, kw_only=True)
class AuditVerb(Train):
    """Does my data hold a shortcut, which samples go against it, and what to do.

    Takes the biased models of a RUN of Even, or a saved classifier (--model DIR), or trains two biased models for each
    seed, each on one half of the training rows and asked about the other half; scores each row by its gradient's norm;
    and writes audit.html, audit.md, audit.json and scores.parquet and .csv. Beside a RUN, its record says task, model
    and training; --data-dir (of own data: --data) says where its files lie. An audit that was stopped goes on where it
    was when the same command is given again.

    Attributes:
        run_folder: A run's folder, or a folder of runs on the same data with different seeds; without it --task is
            audited.
        model: A saved classifier's folder, taken as the biased model; or what biased models start from: `mlp`,
            `digits-cnn`, `tiny-bert`, `small-vit`, `MiniLM`, …, a checkpoint's folder, or a name on the hub.
        seeds: Train this many pairs of biased models (seeds 0, 1, …) on the same data, and show how far they agree.
        export: Write the scores to this file too, as Parquet or CSV by its ending.
        seed: The biased models' seed; --seeds gives several.
        data_seed: Drives the data's construction.
        output_dir: The audit's folder; `audit` in the RUN, or runs/TASK/audit-… unless given.
    """

    run_folder: Positional[Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(optional)")]] = None
    seeds: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one pair)")] = None
    export: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: see above)")] = None

    def run(self, method: Method | None = None) -> int:
        """Audit, write, and say what was found."""
        del method
        if self.export is not None and self.export.suffix not in (".parquet", ".csv"):
            raise UserError(f"--export writes .parquet or .csv. Got '{self.export}'.")
        with RunDisplay(self.quiet) as display:
            display.begin("audit")
            if self.run_folder is not None:
                self._check_beside_a_run()
                found = audit(
                    self.run_folder,
                    places=self._places(),
                    seeds=self._seeds(),
                    output_dir=self.output_dir,
                    device=self.device,
                    progress=display,
                )
            else:
                found = audit(
                    self.task_source(),
                    self.model,
                    seeds=self._seeds() or ([self.seed] if self.seed else None),
                    data_seed=self.data_seed,
                    output_dir=self.output_dir,
                    epochs=self.epochs,
                    lr=self.lr,
                    batch_size=self.batch_size,
                    bf16=self.bf16,
                    peft=self.adapters(),
                    fresh=self.fresh,
                    device=self.device,
                    progress=display,
                )
        written = write_audit(found)
        if self.export is not None:
            written.append(found.export(self.export))
        console = output()
        console.print(found.summary(), markup=False)
        console.print(f"Page: {written[0]}\nData: {', '.join(str(path) for path in written[1:])}", markup=False)
        return 0

    def _places(self) -> dict[str, Path | str]:
        given = {name: getattr(self, name, None) for name in _PLACES}
        return {name: place for name, place in given.items() if place is not None}

    def _seeds(self) -> int | None:
        if self.seeds is not None:
            check_integer("audit", "seeds", self.seeds, 1)
            if self.seed:
                raise UserError(
                    "--seed names one biased model's seed and --seeds how many are trained: give one of them."
                )
        return self.seeds

    def _check_beside_a_run(self) -> None:
        """What a run's record says can't be said again."""
        for field in dataclasses.fields(self):
            if field.name in _BESIDE_A_RUN:
                continue
            if getattr(self, field.name) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                raise UserError(
                    f"A run's record says its task, model and training, so {flag} can't be given beside it."
                )
