"""What a biased model's scores and probabilities look like where a rule for Even's λ and α has to tell tasks apart.

python benchmarks/even_signals.py --data-dir MNIST        # about 4 minutes on one core; without it colored-digits only

For each task, three seeds (one on Colored MNIST): the share of conflicting samples; the biased model's errors in train
and on validation; the effective sample size of PGD's scores as a share of N and in samples; the share of
the sampling mass on conflicting samples; α as `Even` finds it, and x = 1 − αq, the weight of a sample it is sure of.

Expected before measuring: errors near the share of conflicting samples plus wrong labels; an effective sample size that
follows the conflicting samples, so that it could set λ; α near 1.4 at 2 % conflicting samples.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

import evenhand as eh
from evenhand.data.columns import membership
from evenhand.methods.base import Method, Run
from evenhand.methods.even import balanced_alpha
from evenhand.models.inference import logits_and_labels
from evenhand.sampling import effective_sample_size
from evenhand.tasks import TaskSource

ROWS: list[dict[str, float]] = []


@dataclass(frozen=True, kw_only=True)
class Biased(Method):
    """The biased model alone, measured."""

    name: ClassVar[str] = "biased-only"
    paper: ClassVar[str] = "this benchmark"

    def fit(self, run: Run) -> nn.Module:
        """Train it and note what it says of the data."""
        stored: Any = run
        biased = run.train("biased", eh.GCE())
        scores = run.gradient_norms(biased, "head", "l2")
        p_N = run.probabilities(biased)
        logits_NC, label_N = logits_and_labels(biased, stored.rows["validation"], collate_fn=stored.collate)
        conflicting_N = membership(stored.task.train, "alignment")["conflicting"]
        effective = effective_sample_size(scores)
        ROWS.append(
            {
                "N": len(p_N),
                "conflicting %": 100 * conflicting_N.mean(),
                "errors in train %": 100 * (p_N < 0.5).mean(),
                "errors on validation %": 100 * (logits_NC.argmax(1) != label_N).mean(),
                "effective %": 100 * effective / len(p_N),
                "effective samples": effective,
                "mass on conflicting %": 100 * scores[conflicting_N].sum() / scores.sum(),
                "α": balanced_alpha(p_N, 0.7),
                "x": 1 - 0.7 * balanced_alpha(p_N, 0.7),
            }
        )
        return biased


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    digits = [{}, {"conflict": 0.05}, {"conflict": 0.9}, {"conflict": 0.0}, {"wrong_labels": 0.1}]
    planned: list[tuple[TaskSource, str, int]] = [(eh.ColoredDigits(**given), "digits-cnn", 3) for given in digits]
    if data_dir is not None:
        shares = (0.005, 0.01, 0.05, 0.9)
        planned += [(eh.ColoredMNIST(conflict=share, data_dir=data_dir), "mlp", 1) for share in shares]
    lines = [
        "# What a biased model says of the data",
        "",
        "`python benchmarks/even_signals.py --data-dir MNIST`: means over the seeds; see the script for the columns.",
        "",
    ]
    for task, model, seeds in planned:
        ROWS.clear()
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                eh.fit(Biased(), task, model, seed=seed, output_dir=folder, device="cpu")
        means = {name: float(np.mean([row[name] for row in ROWS])) for name in ROWS[0]}
        if len(lines) == 4:
            lines += [f"| task | seeds | {' | '.join(means)} |", "| --- | ---: |" + " ---: |" * len(means)]
        changed = ", ".join(f"{name}={value}" for name, value in task.options().items()) or "as it is"
        shown = [f"{v:,.0f}" if n in ("N", "effective samples") else f"{v:.3g}" for n, v in means.items()]
        lines.append(f"| {task.name}, {changed} | {seeds} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    (Path(__file__).parent / "even_signals.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
