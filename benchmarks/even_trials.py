"""What else Even could do: other signals of a biased model, and other uses of the same signal.

python benchmarks/even_trials.py --data-dir MNIST        # about 60 minutes on one core; without it colored-digits only

Each way of getting the probabilities p_i goes through the same balance (`evenhand.methods.even.balanced_alpha`) and
trains from the run's start; 5 seeds on colored-digits, 3 on marked-notes and Colored MNIST (MLP, 8 epochs), last epoch,
accuracy on the unbiased test set. Runs are kept in benchmarks/even_trials.jsonl as they finish, and are not repeated.

Expected before measuring: weights and draws equal in what they reach, draws noisier; a biased model that didn't see a
sample (cross-fitted) tells wrong labels and conflicting samples as well as one that did; several short models agree on
conflicting samples and differ on hard ones, so that their agreement costs less where there is no bias; a mixture of two
components finds the conflicting samples where they are hundreds, and breaks where they are few.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import nn

import evenhand as eh
from evenhand.methods.base import Method, Run
from evenhand.methods.even import Balanced, balanced_alpha
from evenhand.methods.pgd import Weighted
from evenhand.models.inference import true_class_probabilities
from evenhand.tasks import TaskSource

HERE = Path(__file__).parent
Probabilities = NDArray[np.floating]
Q = 0.7


def probability(run: Run, model: nn.Module) -> Probabilities:
    """p_i of each training sample; a run keeps one model's only, and here there are several."""
    stored: Any = run
    return true_class_probabilities(model, stored.rows["train"], collate_fn=stored.collate)


def epochs_of(run: Run, divided_by: int) -> int:
    """A part of the run's epochs, at least one."""
    stored: Any = run
    return max(1, round(stored.configuration.training.epochs / divided_by))


def one(run: Run) -> Probabilities:
    """As Even: one biased model, trained to its end."""
    return probability(run, run.train("biased", eh.GCE()))


def short(run: Run) -> Probabilities:
    """One biased model, a third of the epochs."""
    return probability(run, run.train("biased-short", eh.GCE(), epochs=epochs_of(run, 3)))


def three(run: Run) -> list[Probabilities]:
    """Three biased models of a third of the epochs, from other starts."""
    models = [run.train(f"biased-{k}", eh.GCE(), start=run.initial(k), epochs=epochs_of(run, 3)) for k in range(3)]
    return [probability(run, model) for model in models]


def agreement(run: Run) -> Probabilities:
    """What any of three short models gets right counts as right, so that their errors must agree."""
    return np.max(three(run), axis=0)


def ensemble(run: Run) -> Probabilities:
    """The mean over three short models."""
    return np.mean(three(run), axis=0)


def cross_fitted(run: Run) -> Probabilities:
    """Two biased models, each of a random half, each asked about the half that it didn't see."""
    stored: Any = run
    count = len(stored.rows["train"])
    first_N = np.random.default_rng(stored.configuration.seed).permutation(count) < count // 2
    p_N = np.empty(count, dtype=np.float32)
    for k, seen_N in enumerate((first_N, ~first_N)):
        # as many draws as half the epochs have samples, so that each sample is seen as often as in one model
        model = run.train(f"biased-{k}", eh.GCE(), sampling=seen_N.astype(np.float64), epochs=epochs_of(run, 2))
        p_N[~seen_N] = probability(run, model)[~seen_N]
    return p_N


def mixture(run: Run) -> Probabilities:
    """The posterior of the low-loss component of two Gaussians, fitted to the logarithms of one model's losses."""
    loss_N = -np.log(np.clip(one(run), 1e-7, 1 - 1e-7))
    x_N1 = np.log(loss_N)[:, None]
    fitted: Any = GaussianMixture(2, random_state=0, n_init=3).fit(x_N1)
    return fitted.predict_proba(x_N1)[:, int(np.argmin(fitted.means_[:, 0]))]


SIGNALS: dict[str, Callable[[Run], Probabilities]] = {
    "one": one,
    "short": short,
    "agreement": agreement,
    "ensemble": ensemble,
    "cross-fitted": cross_fitted,
    "mixture": mixture,
}


@dataclass(frozen=True, kw_only=True)
class Trial(Method):
    """A signal, and what is done with it: `weights`, `draws`, or `half`, the root of the weight in each.

    With `most`, a sample is drawn at most that many times an epoch, and what is left of its weight goes into the loss.
    """

    signal: str = "one"
    use: str = "weights"
    most: float | None = None

    name: ClassVar[str] = "trial"
    paper: ClassVar[str] = "this benchmark"

    def fit(self, run: Run) -> nn.Module:
        """The signal, its balance, one more model."""
        p_N = np.asarray(SIGNALS[self.signal](run), dtype=np.float32)
        alpha = balanced_alpha(p_N, Q)
        weight_N = 1 - alpha * Q * p_N.astype(np.float64) ** Q
        if self.use == "weights":
            stage = Balanced(alpha=alpha, q=Q, mean=float(weight_N.mean()))
            return run.train("debiased", stage, start=run.initial(), signal_probs=p_N)
        draw_N = (
            np.sqrt(weight_N) if self.use == "half" else np.minimum(weight_N / weight_N.mean(), self.most or np.inf)
        )
        # the loss of a drawn sample is weighted by N·s_i, so that the mean over the draws is that of the weights
        signal_N = (weight_N / draw_N * draw_N.mean() / weight_N.mean() / len(draw_N)).astype(np.float32)
        return run.train(
            "debiased", Weighted(samples=len(draw_N)), start=run.initial(), sampling=draw_N, signal_probs=signal_N
        )


METHODS: dict[str, Method] = {
    "ERM": eh.ERM(),
    "one, weights": Trial(),
    "one, draws": Trial(use="draws"),
    "one, at most 3 draws": Trial(use="draws", most=3.0),
    "one, at most 10 draws": Trial(use="draws", most=10.0),
    "one, half of each": Trial(use="half"),
    "early-stopped, weights": Trial(signal="short"),
    "agreement of three, weights": Trial(signal="agreement"),
    "agreement of three, draws": Trial(signal="agreement", use="draws"),
    "mean of three, weights": Trial(signal="ensemble"),
    "cross-fitted, weights": Trial(signal="cross-fitted"),
    "mixture, weights": Trial(signal="mixture"),
}


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, help="the four MNIST files")
    parser.add_argument("--only", default="*", help="trials whose names match this pattern")
    parser.add_argument("--tasks", default="*", help="tasks whose names match this pattern")
    given = parser.parse_args()
    data_dir = given.data_dir
    digits: list[dict[str, float]] = [{}, {"wrong_labels": 0.1}, {"conflict": 0.9}]
    tasks: list[tuple[TaskSource, str, int]] = [(eh.ColoredDigits(**changed), "digits-cnn", 5) for changed in digits]
    tasks += [(eh.MarkedNotes(), model, 3) for model in ("tiny-bert", "MiniLM")]
    if data_dir is not None:
        shares = (0.01, 0.05, 0.005)
        tasks += [(eh.ColoredMNIST(conflict=share, data_dir=data_dir), "mlp", 3) for share in shares]
    kept = HERE / "even_trials.jsonl"
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    rows = {(row["task"], row["method"], row["seed"]): row for row in map(json.loads, lines)}
    torch.set_num_threads(1)
    for task, model, seeds in tasks:
        shown = ", ".join(f"{name}={value}" for name, value in task.options().items() if name != "data_dir")
        title = f"{task.name}, {model}, {shown or 'as it is'}"
        for seed in range(seeds):
            for name, method in METHODS.items():
                asked = fnmatch.fnmatch(title, given.tasks) and fnmatch.fnmatch(name, given.only)
                if (title, name, seed) in rows or not asked:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    metrics = eh.fit(method, task, model, seed=seed, output_dir=folder, device="cpu").metrics
                values = {key: metrics[key] for key in ("average", "worst_group", "aligned", "conflicting")}
                row = {"task": title, "method": name, "seed": seed, **values}
                rows[title, name, seed] = row
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        (HERE / "even_trials.md").write_text(table(list(rows.values())), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """A table a task: mean ± standard deviation over the seeds."""
    lines = [
        "# Other signals for Even, and other uses of its own",
        "",
        "`python benchmarks/even_trials.py --data-dir MNIST`: accuracy in % on the unbiased test set, last epoch, mean",
        "± standard deviation; the script says what each is and what was expected.",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += ["", f"**{task}**", "", "| trial | seeds | average | worst group | aligned | conflicting |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        for method in METHODS:
            chosen = [row for row in rows if row["task"] == task and row["method"] == method]
            if chosen:
                cells = [_cell([row[key] for row in chosen]) for key in list(chosen[0])[3:]]
                lines.append(f"| {method} | {len(chosen)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float | None]) -> str:
    numbers = 100 * np.array([v for v in values if v is not None], dtype=float)
    if len(numbers) == 0:
        return "–"
    return f"{numbers.mean():.1f}" + (f" ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else "")


if __name__ == "__main__":
    main()
