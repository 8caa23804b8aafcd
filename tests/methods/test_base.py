"""One contract for every method; a new one is found by itself."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

import evenhand as eh
import reference
from evenhand.methods import METHODS, Method, OneStage
from evenhand.methods.base import Init
from evenhand.methods.even import UNTRUSTED, Balanced, Drawn, balanced_alpha, warn_of_a_hard_task
from evenhand.runs.fit import Result, fit
from evenhand.tasks import Task
from evenhand.validation import UserError

VARIANTS: dict[str, Method] = {
    **{name: method() for name, method in METHODS.items()},
    "balance-reweight": eh.Balance(groups="alike", sampling="reweight"),
    "group-dro-uniform": eh.GroupDRO(eta=0.1, adjustment=1.0, sampling="uniform"),
    "edge-shortcut": eh.EDGE(signal="shortcut"),
    "edge-shortcut-row": eh.EDGE(signal="shortcut", projection="row"),
    "edge-biased": eh.EDGE(signal="biased", projection="tensor", alpha=1.0),
    "edge-reweight": eh.EDGE(signal="biased", projection="reweight"),
    "pgd-random": eh.PGD(init="random", norm=0.7),
    "pgd-released": eh.PGD(augment=True, score_on="augmented", norm=0.7),
    "pgd-reweight": eh.PGD(sampling="reweight", loss="ce", mix=0.5),
    "pgd-single-resample": eh.PGD(stages="single", init="random"),
    "pgd-single-reweight": eh.PGD(stages="single", sampling="reweight", augment=True, score_on="augmented", mix=0.7),
    "even-tensor": eh.Even(mix=0.5, folds=1, projection="tensor", alpha=4.0, init="random", source="all"),
}


def run(method: Method, task: Task, folder: Path, **options: Any) -> Result:
    settings = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "shortcuts": ["colour"] if method.needs_shortcut else []}
    return fit(method, task, "digits-cnn", output_dir=folder, **(settings | options))


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, tiny_task: Task, tmp_path: Path) -> None:
    method = VARIANTS[name]
    # a method is a frozen dataclass of JSON-able settings that make it again
    assert type(method)(**method.settings()) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.name = "other"  # type: ignore[misc]
    assert method.title
    assert type(method).__doc__
    assert method.paper
    assert method.label_access
    if method.needs_shortcut:
        with pytest.raises(UserError, match="needs a shortcut's name"):
            run(method, tiny_task, tmp_path / "unnamed", shortcuts=[])

    result = run(method, tiny_task, tmp_path / "first")
    again = run(method, tiny_task, tmp_path / "second")
    assert result.record["status"] == "done"
    assert (result.record["label_access"] == "the shortcut's name") == method.needs_shortcut
    assert result.record["method"] == {"name": method.name, "title": method.title, "settings": method.settings()}
    assert set(result.metrics) - {"by_shortcut"} == {
        "average",
        "average_train_weighted",
        "worst_group",
        "worst_group_name",
        "worst_group_n",
        "worst_group_interval",
        "small_groups",
        "quality",
        "quality_by_group",
        "aligned",
        "conflicting",
        "by_group",
    }
    trained = [stage for stage in result.record["stages"] if "steps" in stage]
    assert len(trained) == method.models_trained()
    assert all(stage["steps"] == stage["epochs"] * math.ceil(96 / 16) for stage in trained)
    assert trained[-1]["epochs"] == 2
    # same seed, same numbers; the model learns; every parameter moved
    assert result.metrics == again.metrics
    for p, q in zip(result.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.isfinite(p).all()
    assert not result.model.training


@pytest.mark.parametrize("name", [name for name, method in VARIANTS.items() if isinstance(method, OneStage)])
def test_one_stage_methods_lower_their_training_loss(name: str, tiny_task: Task, tmp_path: Path) -> None:
    result = run(VARIANTS[name], tiny_task, tmp_path / "run", epochs=8, lr=3e-3)
    losses = result.record["stages"][-1]["losses"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


class RecordedRun:
    """Remembers what a method asks for, and answers with markers."""

    def __init__(self, scores: NDArray[np.float64], pretrained: bool = False) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.scores = scores
        self.pretrained = pretrained

    def train(self, name: str, method: OneStage, **options: Any) -> nn.Module:
        self.calls.append((name, {"method": method, **options}))
        model = nn.Identity()
        model.stage = name  # type: ignore[assignment]
        return model

    def gradient_norms(self, model: nn.Module, source: Any, norm: Any, **options: Any) -> NDArray[np.float64]:
        self.calls.append(("scores", {"of": model.stage, "source": source, "norm": norm, **options}))
        return self.scores

    def errors(self, model: nn.Module) -> NDArray[np.bool_]:
        self.calls.append(("errors", {"of": model.stage}))
        return self.scores > 1

    def initial(self, draw: int = 0) -> nn.Module:
        model = nn.Identity()
        model.stage = f"initial {draw}"  # type: ignore[assignment]
        return model

    def probabilities(self, model: nn.Module, name: str = "probabilities") -> NDArray[np.float32]:
        self.calls.append((name, {"of": model.stage}))
        if name != "probabilities":  # one of several models, each with an answer of its own
            return np.full(len(self.scores), 1 - 0.1 * int(name[-1]), dtype=np.float32)
        return np.array([0.25, 0.5], dtype=np.float32)

    epochs = 5

    def parts(self, count: int) -> NDArray[np.int64]:
        return np.arange(len(self.scores)) % count

    def start_from(self, init: Init, biased: nn.Module) -> nn.Module:
        self.calls.append(("start", {"init": init, "biased": biased.stage}))
        return biased


def test_pgd_is_algorithm_1() -> None:
    recorded = RecordedRun(np.array([3.0, 0.0, 1.0]))
    final: Any = eh.PGD(q=0.6, norm="l1", init="random").fit(recorded)
    names = [name for name, _ in recorded.calls]
    assert names == ["biased", "scores", "start", "debiased"]
    assert recorded.calls[0][1] == {"method": eh.GCE(q=0.6), "augment": False}
    assert recorded.calls[1][1] == {"of": "biased", "source": "head", "norm": "l1", "augment": False}
    assert recorded.calls[2][1] == {"init": "random", "biased": "biased"}
    last = recorded.calls[3][1]
    assert last["method"] == eh.ERM()
    np.testing.assert_allclose(last["sampling"], [0.75, 1e-8, 0.25])
    assert final.stage == "debiased"


def test_pgd_augments_what_it_is_told_to() -> None:
    recorded = RecordedRun(np.array([3.0, 1.0]))
    eh.PGD(augment=True, loss="ce").fit(recorded)
    assert [options.get("augment") for _, options in recorded.calls] == [True, False, None, True]
    assert recorded.calls[0][1]["method"] == eh.ERM()
    recorded = RecordedRun(np.array([3.0, 1.0]))
    eh.PGD(score_on="augmented").fit(recorded)
    assert [options.get("augment") for _, options in recorded.calls] == [False, True, None, False]


def test_pgd_reweights_by_n_times_the_probabilities_it_would_draw_with() -> None:
    recorded = RecordedRun(np.array([3.0, 0.0, 1.0, 0.0]))
    eh.PGD(sampling="reweight", mix=0.5).fit(recorded)
    last = recorded.calls[-1][1]
    assert "sampling" not in last
    p = torch.from_numpy(last["signal_probs"])
    torch.testing.assert_close(p.double(), torch.tensor([0.5, 0.125, 0.25, 0.125]).double(), atol=1e-7, rtol=0)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = [4 * float(p[i]) * -math.log(reference.probability(logits[i], int(labels[i]))) for i in range(4)]
    ours = last["method"].sample_losses(logits, labels, p)
    torch.testing.assert_close(ours, torch.tensor(expected))


@pytest.mark.parametrize("init", ["inherit", "random"])
def test_single_stage_pgd_starts_its_biased_model_from_the_initial_weights(init: Init) -> None:
    recorded = RecordedRun(np.ones(2))
    eh.PGD(stages="single", init=init).fit(recorded)
    assert [name for name, _ in recorded.calls] == ["start", "debiased"]
    assert recorded.calls[0][1] == {"init": init, "biased": "initial 0"}
    assert recorded.calls[1][1]["companion"].stage == "initial 0"


def test_even_composes_the_draws_of_pgd_with_the_gradient_of_edge() -> None:
    recorded = RecordedRun(np.array([3.0, 1.0]))
    method = eh.Even(mix=0.5, folds=1, alpha=1.2, q=0.8, projection="reweight", source="all", norm="l1", init="random")
    method.fit(recorded)
    assert [name for name, _ in recorded.calls] == ["biased", "probabilities", "scores", "start", "debiased"]
    assert recorded.calls[0][1] == {"method": eh.GCE(q=0.8)}
    assert recorded.calls[2][1] == {"of": "biased", "source": "all", "norm": "l1"}
    assert recorded.calls[3][1] == {"init": "random", "biased": "biased"}
    last = recorded.calls[4][1]
    assert last["method"] == eh.EDGE(alpha=1.2, q=0.8, projection="reweight", signal="biased")
    np.testing.assert_allclose(last["sampling"], [0.625, 0.375])
    np.testing.assert_array_equal(last["signal_probs"], np.array([0.25, 0.5], dtype=np.float32))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60),
    st.integers(1, 40),
    st.floats(0.05, 1.0),
)
def test_balanced_alpha_is_where_hits_and_errors_weigh_the_same(values: list[float], times: int, q: float) -> None:
    p_N = np.repeat(np.array(values, dtype=np.float32), times)
    expected = reference.balanced_alpha([float(p) for p in p_N], q, UNTRUSTED)
    assert balanced_alpha(p_N, q) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "errors", "light"),
    [
        (1100, 22, 42 / 1078),
        (54_000, 540, 560 / 53_460),
        (1100, 110, 130 / 990),
        (1100, 0, 20 / 1100),
        (1100, 600, 1.0),
    ],
)
def test_what_the_biased_model_gets_right_is_weighed_down_to_its_errors(size: int, errors: int, light: float) -> None:
    p_N = np.ones(size)
    p_N[:errors] = 0
    assert 1 - 0.7 * balanced_alpha(p_N, 0.7) == pytest.approx(light)


def test_even_finds_its_alpha_from_models_that_did_not_see_the_samples(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RecordedRun(np.array([3.0, 1.0]))  # whose probabilities are 1/4 and 1/2
    eh.Even().fit(recorded)
    names = ["biased-1", "probabilities-1", "biased-2", "probabilities-2", "start", "debiased"]
    assert [name for name, _ in recorded.calls] == names
    seen = [recorded.calls[k][1]["only"].tolist() for k in (0, 2)]
    assert seen == [[False, True], [True, False]]
    assert [recorded.calls[k][1]["epochs"] for k in (0, 2)] == [3, 3]  # 5 of what each sees, at least
    assert [recorded.calls[k][1]["of"] for k in (1, 3)] == ["biased-1", "biased-2"]
    assert recorded.calls[4][1] == {"init": "initial", "biased": "biased-2"}
    last = recorded.calls[5][1]
    assert last["method"] == Balanced(alpha=0.0, q=0.7, mean=1.0)  # two are too few to trust, so ERM
    assert last["sampling"] is None
    np.testing.assert_array_equal(last["signal_probs"], np.array([0.9, 0.8], dtype=np.float32))
    monkeypatch.setattr("evenhand.methods.even.UNTRUSTED", 0)
    settings: dict[str, Any] = {"model": "digits-cnn", "epochs": 60, "batch_size": 8, "lr": 1e-3}
    found = fit(eh.Even(), tiny_task, output_dir=tmp_path / "even", seed=3, **settings)
    stages = {stage["name"]: stage for stage in found.record["stages"]}
    assert set(stages) == {"biased-1", "probabilities-1", "biased-2", "probabilities-2", "debiased"}
    n = len(tiny_task.train)
    assert [stages[f"biased-{k}"]["epochs"] for k in (1, 2)] == [30, 30]  # of N draws each: 60 of what they see
    assert stages["biased-1"]["effective_sample_size"] == pytest.approx(n / 2)
    first_N = np.random.default_rng(3).permutation(n) < n / 2  # which the second model saw
    folder = tmp_path / "even" / "stages"
    one_N, two_N = (np.load(folder / f"probabilities-{k}" / "probabilities.npy").astype(float) for k in (1, 2))
    p_N = np.where(first_N, one_N, two_N)
    told = stages["debiased"]["method"]["settings"]
    assert told["alpha"] == balanced_alpha(p_N, 0.7)
    assert 0 < told["alpha"] <= 1 / 0.7
    assert told["mean"] == pytest.approx(np.mean(1 - told["alpha"] * 0.7 * p_N**0.7))


@pytest.mark.parametrize("count", [2, 3])
def test_a_model_sees_its_own_parts_only(count: int, tiny_task: Task, tmp_path: Path) -> None:
    run_ = run(eh.Even(folds=count), tiny_task, tmp_path / "run")
    assert len(run_.record["stages"]) == 2 * count + 1
    n = len(tiny_task.train)
    assert {s["epochs"] for s in run_.record["stages"] if s["name"].startswith("biased")} == {math.ceil(2 - 2 / count)}
    part_N = np.random.default_rng(0).permutation(n) * count // n
    assert np.ptp(np.bincount(part_N)) <= 1
    seen = [stage["effective_sample_size"] for stage in run_.record["stages"] if stage["name"].startswith("biased")]
    assert seen == pytest.approx([n - size for size in np.bincount(part_N)])


def test_each_of_three_models_is_asked_about_its_part() -> None:
    recorded = RecordedRun(np.ones(7))
    eh.Even(folds=3, alpha=1.0, sampling="resample").fit(recorded)
    p_N = np.array([0.9, 0.8, 0.7, 0.9, 0.8, 0.7, 0.9])
    np.testing.assert_allclose(recorded.calls[-1][1]["sampling"], 1 - 0.7 * p_N**0.7, rtol=1e-6)
    with pytest.raises(UserError, match=r"^Even with folds=3 needs as many training samples\. Got 2\.$"):
        eh.Even(folds=3).fit(RecordedRun(np.ones(2)))


def test_from_a_checkpoint_even_draws_and_from_fresh_weights_it_weighs(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evenhand.methods.even.UNTRUSTED", -1000)  # whatever the biased models say
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-3}
    fresh = fit(eh.Even(), tiny_task, "digits-cnn", output_dir=tmp_path / "fresh", **settings)
    assert fresh.record["stages"][-1]["method"]["name"] == "balanced"
    tuned = fit(eh.Even(), tiny_task, str(tmp_path / "fresh" / "model"), output_dir=tmp_path / "tuned", **settings)
    assert tuned.record["stages"][-1]["method"]["name"] == "drawn"


def test_even_with_one_fold_asks_the_model_about_what_it_saw() -> None:
    recorded = RecordedRun(np.array([3.0, 1.0]))
    eh.Even(folds=1).fit(recorded)
    assert [name for name, _ in recorded.calls] == ["biased", "probabilities", "start", "debiased"]
    assert "only" not in recorded.calls[0][1]


def test_evens_loss_is_reweighting_at_the_scale_of_erm() -> None:
    p_N = torch.tensor([0.99, 0.5, 0.01, 0.8])
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    stage: Any = eh.Even().weighting(np.repeat(p_N.numpy(), 100), None)
    weights = [1 - stage.alpha * 0.7 * float(p) ** 0.7 for p in p_N]
    plain = [-math.log(reference.probability(z, int(y))) for z, y in zip(logits, labels, strict=True)]
    expected = [w * loss / (sum(weights) / 4) for w, loss in zip(weights, plain, strict=True)]
    torch.testing.assert_close(stage.sample_losses(logits, labels, p_N), torch.tensor(expected))
    reweighted = eh.Reweight(alpha=stage.alpha).sample_losses(logits, labels, p_N)
    torch.testing.assert_close(stage.sample_losses(logits, labels, p_N) * stage.mean, reweighted)
    # where batches are drawn, the mean is that of what is drawn
    drawn: Any = eh.Even(mix=0.5, folds=1).weighting(p_N.numpy().repeat(100), np.repeat([0.0, 0.0, 0.01, 0.0], 100))
    assert drawn.mean == pytest.approx(weights[2])


@pytest.mark.parametrize("alpha", [1.2, "balanced"])
def test_even_draws_by_its_weights_where_a_run_starts_from_a_checkpoint(
    alpha: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evenhand.methods.even.balanced_alpha", lambda p_N, q: 1.2)
    for sampling, pretrained in (("auto", True), ("resample", False)):
        recorded = RecordedRun(np.ones(2), pretrained)  # whose probabilities are 1/4 and 1/2
        eh.Even(alpha=alpha, q=0.6, folds=1, sampling=sampling).fit(recorded)  # type: ignore[arg-type]
        last = recorded.calls[-1][1]
        assert last["method"] == Drawn(alpha=1.2, q=0.6)
        assert "signal_probs" not in last
        np.testing.assert_allclose(last["sampling"], [1 - 1.2 * 0.6 * p**0.6 for p in (0.25, 0.5)])
    for sampling, pretrained in (("auto", False), ("reweight", True)):
        recorded = RecordedRun(np.ones(2), pretrained)
        eh.Even(alpha=alpha, q=0.6, folds=1, sampling=sampling).fit(recorded)  # type: ignore[arg-type]
        assert recorded.calls[-1][1]["sampling"] is None
        assert not isinstance(recorded.calls[-1][1]["method"], Drawn)


def test_even_draws_by_scores_or_weighs_two_gradients_from_a_checkpoint_as_from_fresh_weights() -> None:
    for method in (
        eh.Even(mix=0.5, folds=1),
        eh.Even(alpha=1.2, projection="naive"),
        eh.Even(alpha=4.0, projection="row"),
    ):
        recorded = RecordedRun(np.array([3.0, 1.0]), pretrained=True)
        method.fit(recorded)
        assert not isinstance(recorded.calls[-1][1]["method"], Drawn)


def test_evens_draws_are_plain_cross_entropy_and_nothing_to_trust_is_an_ordinary_epoch() -> None:
    recorded = RecordedRun(np.ones(2), pretrained=True)  # whose biased model is mostly wrong
    eh.Even().fit(recorded)
    assert recorded.calls[-1][1]["method"] == Drawn(alpha=0.0, q=0.7)
    assert recorded.calls[-1][1]["sampling"] is None
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = [-math.log(reference.probability(z, int(y))) for z, y in zip(logits, labels, strict=True)]
    torch.testing.assert_close(Drawn(alpha=1.2, q=0.7).sample_losses(logits, labels), torch.tensor(plain))


def test_even_warns_where_the_biased_models_errors_must_be_hard_samples(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_a_hard_task(np.array([0.9] * 66 + [0.1] * 34))
    assert [record.message for record in caplog.records] == [
        "The biased model gives the true class less than 50 % on 34 % of the training samples. Most of these are "
        "probably hard or mislabelled, not against a shortcut, and Even trains on them more: compare with ERM."
    ]
    caplog.clear()
    warn_of_a_hard_task(np.array([0.9] * 67 + [0.1] * 33))
    assert caplog.records == []
    eh.Even(alpha=1.0, folds=1).fit(RecordedRun(np.ones(2)))  # whose biased model is mostly wrong
    assert len(caplog.records) == 1
    eh.Even(folds=1).fit(RecordedRun(np.ones(2)))  # and which this one doesn't trust
    assert len(caplog.records) == 1


def test_evens_draws_are_told_in_the_record(tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.methods.even.UNTRUSTED", 0)
    settings: dict[str, Any] = {"model": "digits-cnn", "epochs": 20, "batch_size": 16, "lr": 1e-2}
    run_ = fit(eh.Even(sampling="resample", folds=1), tiny_task, output_dir=tmp_path / "even", **settings)
    stage = run_.record["stages"][-1]
    assert stage["method"]["name"] == "drawn"
    p_N = np.load(tmp_path / "even/stages/probabilities/probabilities.npy").astype(float)
    weight_N = 1 - stage["method"]["settings"]["alpha"] * 0.7 * p_N**0.7
    assert stage["effective_sample_size"] == pytest.approx(weight_N.sum() ** 2 / (weight_N**2).sum())
    assert run_.record["method"]["settings"]["sampling"] == "resample"


def test_jtt_draws_its_errors_more_often_from_the_initial_weights() -> None:
    recorded = RecordedRun(np.array([0.0, 2.0, 0.0]))  # the second is an error
    eh.JTT(identification_epochs=3, upweight=6).fit(recorded)
    assert recorded.calls[0] == ("identification", {"method": eh.ERM(), "epochs": 3})
    assert recorded.calls[1] == ("errors", {"of": "identification"})
    assert set(recorded.calls[2][1]) == {"method", "sampling"}
    assert recorded.calls[2][1]["sampling"].tolist() == [1.0, 6.0, 1.0]


def test_an_empty_error_set_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^JTT's error set is empty: after 1 epoch every training sample is"):
        eh.JTT().fit(RecordedRun(np.zeros(3)))


def test_dpr_draws_by_disagreement() -> None:
    recorded = RecordedRun(np.ones(2))  # whose probabilities are 1/4 and 1/2
    eh.DPR(init="random").fit(recorded)
    assert [name for name, _ in recorded.calls] == ["biased", "probabilities", "start", "debiased"]
    np.testing.assert_allclose(recorded.calls[-1][1]["sampling"], [0.6, 0.4])


@pytest.mark.parametrize("method", [eh.PGD(), eh.PGD(sampling="reweight"), eh.Even(mix=0.5, folds=1)])
def test_a_biased_model_that_is_certain_of_everything_is_one_sentence(method: Method) -> None:
    with pytest.raises(UserError, match=r"^All scores are 0: the biased model is certain of every training sample"):
        method.fit(RecordedRun(np.zeros(3)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_scores_that_are_none_are_one_sentence(bad: float) -> None:
    with pytest.raises(UserError, match=r"^The score weights must be finite and not negative\. Got .* for sample 1"):
        eh.PGD().fit(RecordedRun(np.array([1.0, bad])))


@pytest.mark.parametrize("scores", [np.full(3, 0.9), np.array([0.9, 0.9001, 0.9])])
def test_a_biased_model_that_learned_nothing_is_warned_of(scores: Any, caplog: pytest.LogCaptureFixture) -> None:
    eh.PGD().fit(RecordedRun(scores))
    assert [r.message for r in caplog.records] == [
        "The biased model gives every training sample the same score, so it tells no sample from another: "
        "it learned nothing, or everything."
    ]
    caplog.clear()
    eh.PGD().fit(RecordedRun(np.array([0.9, 0.8, 0.9])))
    assert caplog.records == []


@pytest.mark.parametrize("projection", ["naive", "reweight", "tensor", "published"])
def test_even_without_alpha_is_pgd_with_that_mix(projection: Any, tiny_task: Task, tmp_path: Path) -> None:
    for mix in (0.8, 0.0):
        pgd = run(eh.PGD(mix=mix, q=0.6), tiny_task, tmp_path / f"pgd{mix}")
        method = eh.Even(mix=mix, folds=1, q=0.6, alpha=0.0, projection=projection, init="inherit")
        even = run(method, tiny_task, tmp_path / f"even{mix}")
        assert_same_bits(pgd, even)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartedFrom(Method):
    """A one-stage method from a start of PGD's."""

    inner: Any
    init: Init

    name = "started-from"
    paper = "this test"

    def settings(self) -> dict[str, Any]:
        return {"inner": repr(self.inner), "init": self.init}

    def fit(self, run: Any) -> nn.Module:
        biased = run.train("biased", eh.GCE())
        signal = {"signal_probs": run.probabilities(biased)} if self.inner.needs_signal else {}
        return run.train("debiased", self.inner, start=run.start_from(self.init, biased), **signal)


@pytest.mark.parametrize("init", ["inherit", "random"])
def test_even_without_mix_is_edge_from_that_start(init: Init, tiny_task: Task, tmp_path: Path) -> None:
    for projection, alpha in (("naive", 1.4), ("tensor", 16.0), ("published", 1.0)):
        inner = eh.EDGE(alpha=alpha, projection=projection, signal="biased")  # type: ignore[arg-type]
        edge = run(StartedFrom(inner=inner, init=init), tiny_task, tmp_path / f"edge-{projection}")
        method = eh.Even(mix=0, folds=1, alpha=alpha, projection=projection, init=init)  # type: ignore[arg-type]
        assert_same_bits(edge, run(method, tiny_task, tmp_path / f"even-{projection}"))


def test_even_without_mix_that_reweights_is_reweighting_from_that_start(tiny_task: Task, tmp_path: Path) -> None:
    weighed = run(StartedFrom(inner=eh.Reweight(alpha=1.4), init="inherit"), tiny_task, tmp_path / "reweight")
    even = run(eh.Even(mix=0, folds=1, alpha=1.4, init="inherit"), tiny_task, tmp_path / "even")
    assert_same_bits(weighed, even)


def test_even_without_both_is_erm_from_that_start(tiny_task: Task, tmp_path: Path) -> None:
    erm = run(StartedFrom(inner=eh.ERM(), init="random"), tiny_task, tmp_path / "random")
    assert_same_bits(erm, run(eh.Even(mix=0, alpha=0, init="random"), tiny_task, tmp_path / "even-random"))
    # from a checkpoint the start is the run's own, so that ERM itself is meant
    checkpoint = {"model": str(tmp_path / "random" / "model")}
    plain = fit(eh.ERM(), tiny_task, output_dir=tmp_path / "erm", epochs=2, batch_size=16, lr=1e-3, **checkpoint)
    method = eh.Even(mix=0, alpha=0, init="pretrained")
    even = fit(method, tiny_task, output_dir=tmp_path / "even", epochs=2, batch_size=16, lr=1e-3, **checkpoint)
    assert_same_bits(plain, even)
    edge = eh.EDGE(alpha=1.2, signal="biased", projection="naive")
    published = fit(edge, tiny_task, output_dir=tmp_path / "edge", epochs=2, batch_size=16, lr=1e-3, **checkpoint)
    method = eh.Even(mix=0, folds=1, alpha=1.2, projection="naive", init="pretrained")
    even = fit(method, tiny_task, output_dir=tmp_path / "even-edge", epochs=2, batch_size=16, lr=1e-3, **checkpoint)
    assert_same_bits(published, even)


def test_pgd_without_mix_that_reweights_is_erm_from_that_start(tiny_task: Task, tmp_path: Path) -> None:
    erm = run(StartedFrom(inner=eh.ERM(), init="random"), tiny_task, tmp_path / "erm")
    for sampling in ("resample", "reweight"):
        method = eh.PGD(mix=0, sampling=sampling, init="random")  # type: ignore[arg-type]
        assert_same_bits(erm, run(method, tiny_task, tmp_path / sampling))


def test_the_effective_sample_size_is_in_the_record(tiny_task: Task, tmp_path: Path) -> None:
    for sampling in ("resample", "reweight"):
        result = run(eh.PGD(sampling=sampling), tiny_task, tmp_path / sampling)  # type: ignore[arg-type]
        biased, _, debiased = result.record["stages"]
        assert result.scores is not None
        expected = result.scores.sum() ** 2 / (result.scores**2).sum()
        assert debiased["effective_sample_size"] == pytest.approx(expected, rel=1e-4)
        assert "effective_sample_size" not in biased


def test_augmentation_and_initialisation_change_what_is_trained(tiny_task: Task, tmp_path: Path) -> None:
    variants = {
        "plain": eh.PGD(),
        "augmented": eh.PGD(augment=True),
        "single": eh.PGD(stages="single"),
        "single-random": eh.PGD(stages="single", init="random"),
        "single-reweight": eh.PGD(stages="single", sampling="reweight"),
        "single-mixed": eh.PGD(stages="single", mix=0.5),
        "single-ce": eh.PGD(stages="single", loss="ce"),
    }
    weights = {}
    for name, method in variants.items():
        model = run(method, tiny_task, tmp_path / name).model
        weights[name] = torch.cat([p.detach().flatten() for p in model.parameters()])
    names = list(weights)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert float((weights[first] - weights[second]).abs().max()) > 1e-5, (first, second)


def test_methods_with_a_companion_are_no_part_of_a_loop(tiny_task: Task) -> None:
    with pytest.raises(UserError, match=r"^LfF trains a second model beside yours, so it can't be attached to a loop"):
        eh.LfF().attach(nn.Linear(2, 2))


def test_edge_with_the_biased_signal_trains_a_gce_model_first() -> None:
    recorded = RecordedRun(np.ones(2))
    method = eh.EDGE(signal="biased", q=0.5)
    method.fit(recorded)
    assert [name for name, _ in recorded.calls] == ["biased", "probabilities", "debiased"]
    assert recorded.calls[0][1] == {"method": eh.GCE(q=0.5)}
    last = recorded.calls[2][1]
    assert last["method"] == method
    np.testing.assert_array_equal(last["signal_probs"], np.array([0.25, 0.5], dtype=np.float32))
    assert "start" not in last  # from the run's initial weights, as published


def test_edge_with_its_own_signal_trains_one_model() -> None:
    recorded = RecordedRun(np.ones(2))
    eh.EDGE().fit(recorded)
    assert [name for name, _ in recorded.calls] == ["debiased"]


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive", "reweight"])
def test_edge_at_alpha_zero_is_erm(projection: Any, tiny_task: Task, tmp_path: Path) -> None:
    erm = run(eh.ERM(), tiny_task, tmp_path / "erm")
    edge = run(eh.EDGE(alpha=0.0, signal="biased", projection=projection), tiny_task, tmp_path / "edge")
    for p, q in zip(erm.model.parameters(), edge.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_reweight_is_naive_to_rounding(tiny_task: Task, tmp_path: Path) -> None:
    naive, reweight = (
        run(eh.EDGE(alpha=1.2, signal="biased", projection=p), tiny_task, tmp_path / p, epochs=1)
        for p in ("naive", "reweight")
    )
    for p, q in zip(naive.model.parameters(), reweight.model.parameters(), strict=True):
        assert float((p - q).detach().norm()) <= 1e-3 * float(p.detach().norm())


def assert_same_bits(one: Result, other: Result) -> None:
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_focal_loss_is_the_reference_and_its_gradient_finite_everywhere() -> None:
    logits, labels = torch.randn(6, 4) * 3, torch.tensor([0, 1, 2, 3, 0, 1])
    for gamma in (0.0, 0.5, 2.0):
        expected = torch.tensor([reference.focal_loss(z, int(y), gamma) for z, y in zip(logits, labels, strict=True)])
        torch.testing.assert_close(eh.Focal(gamma=gamma).sample_losses(logits, labels), expected)
        certain = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
        eh.Focal(gamma=gamma).sample_losses(certain, torch.tensor([0, 0])).sum().backward()
        assert certain.grad is not None
        assert torch.isfinite(certain.grad).all()
        assert certain.grad[0].abs().max() == 0
        torch.testing.assert_close(certain.grad[1], torch.tensor([-1.0, 1.0]))


def test_focal_loss_without_gamma_is_cross_entropy_and_goes_through_its_factor() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: eh.Focal(gamma=2).sample_losses(z, torch.tensor([1])), logits)
    numeric = [
        (reference.focal_loss(logits[0] + h, 1, 2.0) - reference.focal_loss(logits[0] - h, 1, 2.0)) / 2e-5
        for h in 1e-5 * torch.eye(3, dtype=torch.float64)
    ]
    eh.Focal(gamma=2).sample_losses(logits, torch.tensor([1])).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0], torch.tensor(numeric).double(), atol=1e-6, rtol=1e-6)


def test_reweighting_is_the_reference() -> None:
    logits, labels, p = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0.0, 0.2, 0.9, 1.0, 0.5])
    ours = eh.Reweight(alpha=1.4, q=0.7).sample_losses(logits, labels, p)
    expected = [
        (1 - 1.4 * 0.7 * float(p[i]) ** 0.7) * -math.log(reference.probability(logits[i], int(labels[i])))
        for i in range(5)
    ]
    torch.testing.assert_close(ours, torch.tensor(expected))
    assert (eh.Reweight(alpha=1 / 0.7, q=0.7).sample_losses(logits, labels, p) >= 0).all()


def test_gce_weights_what_is_fitted() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    eh.GCE(q=0.7).sample_losses(logits, labels).sum().backward()
    p = torch.softmax(logits.detach(), 1)
    onehot = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = 0.7 * p[:, :1] ** 0.7 * (p - onehot)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: eh.EDGE(alpha=1.5, projection="naive"),
            "The 'alpha' parameter of EDGE must be at most 1/q = 1.429 without a projection: beyond it the weight "
            "1 − α·q·p^q of samples with p near 1 is negative, so their loss is maximised and training diverges. "
            "Got 1.5.",
        ),
        (lambda: eh.EDGE(alpha=-1), "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got -1."),
        (
            lambda: eh.EDGE(alpha=math.nan),
            "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got nan.",
        ),
        (lambda: eh.EDGE(q=0), "The 'q' parameter of EDGE must be a float in the range (0, 1]. Got 0."),
        (lambda: eh.GCE(q=1.5), "The 'q' parameter of GCE must be a float in the range (0, 1]. Got 1.5."),
        (lambda: eh.PGD(q=-0.1), "The 'q' parameter of PGD must be a float in the range (0, 1]. Got -0.1."),
        (lambda: eh.PGD(norm=0.0), "The 'norm' parameter of PGD must be a float in the range (0, inf). Got 0.0."),
        (lambda: eh.PGD(mix=1.1), "The 'mix' parameter of PGD must be a float in the range [0, 1]. Got 1.1."),
        (
            lambda: eh.Even(alpha="balance"),  # type: ignore[arg-type]
            "The 'alpha' parameter of Even must be 'balanced' or a float in the range [0, inf). Got 'balance' "
            "(did you mean 'balanced'?).",
        ),
        (
            lambda: eh.Even(projection="tensor"),
            "The 'alpha' parameter of Even can be 'balanced' with the projection 'reweight' only: give a number with "
            "'tensor'.",
        ),
        (
            lambda: eh.Even(sampling="resample", mix=0.5, folds=1),
            "The 'sampling' parameter of Even can be 'resample' only with mix=0 and the projection 'reweight', as it "
            "draws by its weights. Got mix=0.5 and 'reweight'.",
        ),
        (
            lambda: eh.Even(mix=0.5),
            "The 'folds' parameter of Even must be 1 with draws by scores (mix above 0) or init='inherit', which are "
            "about one biased model. Got 2.",
        ),
        (
            lambda: eh.Even(init="inherit"),
            "The 'folds' parameter of Even must be 1 with draws by scores (mix above 0) or init='inherit', which are "
            "about one biased model. Got 2.",
        ),
        (lambda: eh.Even(folds=0), "The 'folds' parameter of Even must be an integer of at least 1. Got 0."),
        (
            lambda: eh.Even(sampling="draws"),  # type: ignore[arg-type]
            "The 'sampling' parameter of Even must be one of auto, reweight, resample. Got 'draws'.",
        ),
        (lambda: eh.Even(mix=-0.1), "The 'mix' parameter of Even must be a float in the range [0, 1]. Got -0.1."),
        (lambda: eh.PGD(augment=1), "The 'augment' parameter of PGD must be True or False. Got 1."),  # type: ignore[arg-type]
        (
            lambda: eh.PGD(stages="single", source="all"),
            "PGD with stages='single' scores by the head, so its source must be 'head'. Got 'all'.",
        ),
        (
            lambda: eh.PGD(stages="single", augment=True),
            "PGD with stages='single' scores the very images it trains on, so score_on must be 'augmented' with "
            "augment=True and 'clean' without. Got 'clean'.",
        ),
        (
            lambda: eh.Even(alpha=1.5),
            "The 'alpha' parameter of Even must be at most 1/q = 1.429 without a projection: beyond it the weight "
            "1 − α·q·p^q of samples with p near 1 is negative, so their loss is maximised and training diverges. "
            "Got 1.5.",
        ),
        (
            lambda: eh.Reweight(alpha=2.0, q=1.0),
            "The 'alpha' parameter of Reweight must be at most 1/q = 1 without a projection: beyond it the weight "
            "1 − α·q·p^q of samples with p near 1 is negative, so their loss is maximised and training diverges. "
            "Got 2.0.",
        ),
        (
            lambda: eh.JTT(identification_epochs=0),
            "The 'identification_epochs' parameter of JTT must be an integer of at least 1. Got 0.",
        ),
        (
            lambda: eh.JTT(upweight=0.5),
            "The 'upweight' parameter of JTT must be a float in the range [1, inf). Got 0.5.",
        ),
        (lambda: eh.LfF(ema=1), "The 'ema' parameter of LfF must be a float in the range [0, 1). Got 1."),
        (lambda: eh.Focal(gamma=-1), "The 'gamma' parameter of Focal must be a float in the range [0, inf). Got -1."),
        (lambda: eh.DPR(q=2), "The 'q' parameter of DPR must be a float in the range (0, 1]. Got 2."),
        (lambda: eh.PGD(floor=2.0), "The 'floor' parameter of PGD must be a float in the range [0, 1]. Got 2.0."),
        (
            lambda: eh.EDGE(signal="bias"),  # type: ignore[arg-type]
            "The 'signal' parameter of EDGE must be one of self, biased, ema, shortcut. Got 'bias' (did you mean "
            "'biased'?).",
        ),
        (
            lambda: eh.PGD(init="inherited"),  # type: ignore[arg-type]
            "The 'init' parameter of PGD must be one of inherit, random, pretrained, initial. "
            "Got 'inherited' (did you mean 'inherit' or 'initial'?).",
        ),
    ],
)
def test_bad_hyper_parameters_are_one_sentence(build: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        build()
    assert str(caught.value) == message
