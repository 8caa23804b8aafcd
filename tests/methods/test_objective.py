from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import evenhand as eh
import reference
from evenhand.gradients import Norm
from evenhand.methods.lff import ClassScaledAverage
from evenhand.methods.objective import Companion, Setting, TrainingBatch
from evenhand.methods.pgd_joint import JointPGD
from evenhand.models.heads import head_of
from evenhand.models.named import model_source
from evenhand.validation import UserError
from trainer_models import (
    arguments,
    assert_same_bits,
    assert_same_to_rounding,
    image_data,
    image_model,
    trained,
)

SGD = {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 0.1, "lr_scheduler_type": "linear"}


def other_image_model() -> Any:
    return model_source("digits-cnn", "image", tuple("012"), (3, 8, 8)).random(7)


def plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def lff_by_hand(model: Any, biased: Any, data: Any, epochs: int, max_norm: float) -> None:
    """LfF's training on full batches, written from the released code."""
    images, labels = torch.tensor(data["pixel_values"]), torch.tensor(data["labels"])
    weights = reference.LfFWeights(0.7)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, biased)]
    for epoch in range(epochs):
        logits_d, logits_b = model(images).logits, biased(images).logits
        loss_d, loss_b = (cross_entropy(z, labels, reduction="none") for z in (logits_d, logits_b))
        weight = weights.update(
            {"biased": loss_b.tolist(), "debiased": loss_d.tolist()}, labels.tolist(), list(range(len(labels)))
        )
        p = torch.softmax(logits_b, 1).gather(1, labels[:, None])[:, 0].detach()
        ((0.7 * p**0.7 * loss_b).mean() + (torch.tensor(weight) * loss_d).mean()).backward()
        for m, optimizer in zip((model, biased), optimizers, strict=True):
            if max_norm:
                nn.utils.clip_grad_norm_(m.parameters(), max_norm)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - epoch / epochs)
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("max_norm", [0.0, 0.05])
def test_lff_trains_as_its_released_code(max_norm: float, tmp_path: Path) -> None:
    data = image_data(12)
    expected, biased = image_model(), other_image_model()
    lff_by_hand(expected, biased, data, 4, max_norm)
    options = {"method": eh.LfF(), "companion": other_image_model()}
    settings = {"per_device_train_batch_size": 12, "num_train_epochs": 4, "max_grad_norm": max_norm, **SGD}
    ours = trained(tmp_path, image_model(), data, trainer=options, **settings)
    assert_same_to_rounding(ours, plain(expected), 1e-4)


def test_a_companion_starts_as_a_copy_unless_given_and_neither_is_touched(tmp_path: Path) -> None:
    given = other_image_model()
    before = copy.deepcopy(given.state_dict())
    by_default = trained(tmp_path, image_model(), image_data(), trainer={"method": eh.LfF()})
    as_copy = trained(tmp_path, image_model(), image_data(), trainer={"method": eh.LfF(), "companion": image_model()})
    other = trained(tmp_path, image_model(), image_data(), trainer={"method": eh.LfF(), "companion": given})
    assert_same_bits(by_default, as_copy)
    assert any(not torch.equal(other[name], p) for name, p in by_default.items())
    assert all(torch.equal(p, before[name]) for name, p in given.state_dict().items())


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch", "adafactor"])
def test_accumulation_with_a_companion_equals_one_large_batch(optim: str, tmp_path: Path) -> None:
    model = {"trainer": {"method": eh.LfF()}, "learning_rate": 0.01, "num_train_epochs": 1, "optim": optim}
    large = trained(tmp_path, image_model(), image_data(32), per_device_train_batch_size=32, **model)
    small = trained(
        tmp_path, image_model(), image_data(32), per_device_train_batch_size=8, gradient_accumulation_steps=4, **model
    )
    assert_same_to_rounding(small, large, 1e-3)


def test_lff_knows_samples_by_index_not_by_place(tmp_path: Path) -> None:
    # the same rows with indices far apart train alike; all rows under one index share one average and don't
    spread = image_data(24).add_column("index", list(range(0, 240, 10)))  # pyright: ignore[reportCallIssue]
    shared = image_data(24).add_column("index", [0] * 24)  # pyright: ignore[reportCallIssue]
    usual, far, one = (
        trained(tmp_path, image_model(), data, trainer={"method": eh.LfF()}, remove_unused_columns=False)
        for data in (image_data(24), spread, shared)
    )
    assert_same_bits(usual, far)
    assert any(not torch.allclose(one[name], p) for name, p in usual.items())


def test_averages_are_the_reference_over_several_visits() -> None:
    rng = np.random.default_rng(0)
    label_of = rng.integers(0, 3, 20)
    ours, theirs = [ClassScaledAverage(20, 0.6) for _ in range(2)], reference.LfFWeights(0.6)
    for _ in range(12):
        index = rng.choice(20, 6, replace=False)
        losses = {"biased": rng.random(6).tolist(), "debiased": rng.random(6).tolist()}
        expected = theirs.update(losses, label_of[index].tolist(), index.tolist())
        b, d = (
            average.update(torch.tensor(losses[name]), torch.from_numpy(label_of[index]), torch.from_numpy(index))
            for average, name in zip(ours, ("biased", "debiased"), strict=True)
        )
        torch.testing.assert_close(b / (b + d + 1e-8), torch.tensor(expected))


def test_averages_of_a_class_without_loss_are_zero() -> None:
    average = ClassScaledAverage(4, 0.7)
    zeros = average.update(torch.zeros(2), torch.tensor([1, 1]), torch.tensor([0, 3]))
    assert zeros.tolist() == [0.0, 0.0]


# ---- PGD in a single stage ------------------------------------------------------------------------------------------


def joint(**changes: Any) -> JointPGD:
    settings: dict[str, Any] = {"biased": eh.GCE(), "norm": "l2", "sampling": "reweight", "mix": 1.0, "floor": 1e-8}
    return JointPGD(**(settings | changes))


def batch_of(n: int) -> TrainingBatch:
    data = image_data(n)
    inputs = {"pixel_values": torch.tensor(data["pixel_values"])}
    return TrainingBatch(inputs, torch.tensor(data["labels"]), None, mean=torch.mean, last=True)


def companion(lr: float = 0.1) -> Companion:
    model = image_model()
    return Companion(other_image_model(), model, torch.optim.SGD(model.parameters(), lr=lr), 0.0)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf", "l2sq", 0.7])
@pytest.mark.parametrize(("mix", "floor"), [(1.0, 1e-8), (0.6, 0.12)])
def test_the_batch_is_weighed_by_the_gradient_norms_of_the_biased_model(norm: Norm, mix: float, floor: float) -> None:
    batch, second = batch_of(6), companion()
    model = other_image_model().eval()
    head = list(head_of(model)[1].parameters())
    gradients = reference.sample_gradients(
        model, batch.inputs["pixel_values"], batch.label_B, head, lambda out: out.logits
    )
    power = {"l1": 1.0, "l2": 2.0, "linf": float("inf"), "l2sq": 2.0}.get(str(norm), 0.7)
    scores = [reference.entrywise_norm(g, power) ** (2 if norm == "l2sq" else 1) for g in gradients]
    p = torch.tensor(reference.batch_probabilities(scores, mix, floor))
    objective = joint(norm=norm, mix=mix, floor=floor).objective(Setting(6, second=second))
    assert objective.prepare(batch) is batch
    logits = torch.randn(6, 3)
    expected = 6 * p * cross_entropy(logits, batch.label_B, reduction="none")
    torch.testing.assert_close(objective.sample_losses(logits, batch), expected, rtol=1e-4, atol=1e-6)


def test_the_biased_model_takes_a_step_of_its_own_loss_on_the_undrawn_batch() -> None:
    batch, second = batch_of(6), companion(lr=0.5)
    expected = other_image_model()
    logits = expected(batch.inputs["pixel_values"]).logits
    p = torch.softmax(logits, 1).gather(1, batch.label_B[:, None])[:, 0].detach()
    (0.7 * p**0.7 * cross_entropy(logits, batch.label_B, reduction="none")).mean().backward()
    torch.optim.SGD(expected.parameters(), lr=0.5).step()
    joint(sampling="resample").objective(Setting(6, second=second)).prepare(batch)
    assert_same_to_rounding(plain(second.model), plain(expected), 1e-6)


def test_a_batch_is_drawn_in_proportion_to_the_scores() -> None:
    batch = batch_of(5)
    objective: Any = joint(sampling="resample").objective(Setting(5, second=companion(lr=0.0)))
    p = objective.probabilities(objective.scores(batch))
    counts = torch.zeros(5)
    for _ in range(400):
        drawn = objective.prepare(batch)
        pixels = batch.inputs["pixel_values"]
        row = [int((pixels == image).flatten(1).all(1).nonzero()[0]) for image in drawn.inputs["pixel_values"]]
        assert drawn.label_B.tolist() == batch.label_B[row].tolist()
        counts += torch.bincount(torch.tensor(row), minlength=5)
        loss = objective.sample_losses(torch.zeros(5, 3), drawn)
        torch.testing.assert_close(loss, torch.full((5,), float(np.log(3))))
    error = (counts / 2000 - p).abs()
    assert (error < 4 * (p * (1 - p) / 2000).sqrt()).all()


def test_equal_zeros_are_uniform_and_a_diverged_biased_model_is_named() -> None:
    objective: Any = joint().objective(Setting(4, second=companion()))
    torch.testing.assert_close(objective.probabilities(torch.zeros(4).double()), torch.full((4,), 0.25).double())
    second = companion()
    with torch.no_grad():
        next(second.model.parameters()).fill_(float("nan"))
    for sampling in ("resample", "reweight"):
        objective = joint(sampling=sampling).objective(Setting(4, second=second))
        with pytest.raises(UserError, match=r"^The biased model of PGD has diverged: its scores are no longer finite"):
            objective.prepare(batch_of(4))


def test_a_model_whose_head_is_not_last_is_refused_in_a_single_stage() -> None:
    second = companion()
    second.model.forward = lambda pixel_values: {
        "logits": 2 * type(second.model).forward(second.model, pixel_values).logits
    }  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"^PGD with stages='single' needs a model whose last operation is its Linear"):
        joint().objective(Setting(4, second=second)).prepare(batch_of(4))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_going_on_in_mid_training_is_refused(tmp_path: Path) -> None:
    trainer = eh.Trainer(image_model(), arguments(tmp_path), train_dataset=image_data(), method=eh.LfF())
    for call in (lambda: trainer.train("some/checkpoint"), lambda: trainer.train(resume_from_checkpoint=True)):
        with pytest.raises(UserError, match=r"^LfF can't go on from a checkpoint in mid-training, which doesn't hold"):
            call()


def test_a_companion_without_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^ERM trains no second model, so it makes no use of companion: leave it out"):
        eh.Trainer(image_model(), arguments(tmp_path), train_dataset=image_data(), companion=image_model())


def test_batches_without_index_are_refused_by_lff(tmp_path: Path) -> None:
    data = image_data()
    data.set_transform(lambda rows: {"pixel_values": rows["pixel_values"], "labels": rows["labels"]})
    data = data.add_column("index", list(range(40)))  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match=r"^The batches hold no 'index', by which LfF knows the samples"):
        trained(tmp_path, image_model(), data, trainer={"method": eh.LfF()}, remove_unused_columns=False)
