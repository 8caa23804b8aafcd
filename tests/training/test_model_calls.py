"""Models that need labels, return tuples or tensors, and samples with the label −100, everywhere a model is called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import evenhand as eh
from evenhand.models.inference import Call, logits_and_labels, logits_of, loss_of, takes_labels, with_loss
from grouped_data import by_group, grouped
from trainer_models import (
    CLASSES,
    arguments,
    assert_same_bits,
    assert_same_to_rounding,
    image_data,
    image_model,
    text_data,
    text_model,
    trained,
    vit_model,
)

SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1}
BATCH = {"per_device_eval_batch_size": 8}


class Net(nn.Module):
    """A small image classifier whose output takes many forms."""

    def __init__(self, form: str = "dict", demanding: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.demanding = form, demanding
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.2), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        if self.demanding and labels is None:
            raise ValueError("where are the labels?")
        h = self.body(pixel_values)
        z = self.head(h)
        loss = None if labels is None else cross_entropy(z, labels)
        if self.form == "dict":
            return {"logits": z} if loss is None else {"loss": loss, "logits": z}
        if self.form == "features first":
            return {"features": h, "logits": z} | ({} if loss is None else {"loss": loss})
        if self.form == "tuple":
            return (z, h) if loss is None else (loss, z, h)
        if self.form == "none and logits":
            return loss, z
        assert self.form == "tensor"
        return z


class Required(Net):
    """Labels are a parameter without a default."""

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        return super().forward(pixel_values, labels)


FORMS = ["dict", "features first", "tuple", "none and logits"]
METHODS = [
    eh.EDGE(),
    eh.EDGE(projection="tensor", route="single"),
    eh.EDGE(projection="row", route="retain"),
    eh.EDGE(projection="naive", route="double"),
    eh.EDGE(projection="reweight"),
    eh.EDGE(signal="ema"),
    eh.GCE(),
    eh.Focal(),
    eh.LfF(),
]


# ---- the output's form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("demanding", [False, True])
def test_outputs_of_all_forms_train_as_in_transformers(form: str, demanding: bool, tmp_path: Path) -> None:
    theirs = trained(tmp_path, Net(form, demanding), image_data(), transformers.Trainer)
    for method in (eh.ERM(), eh.EDGE(alpha=0.0), eh.EDGE(alpha=0.0, route="double")):
        assert_same_bits(trained(tmp_path, Net(form, demanding), image_data(), trainer={"method": method}), theirs)


def test_labels_without_a_default_are_handed_over(tmp_path: Path) -> None:
    theirs = trained(tmp_path, Required("tuple"), image_data(), transformers.Trainer)
    assert_same_bits(trained(tmp_path, Required("tuple"), image_data()), theirs)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_method_takes_every_form(method: Any, tmp_path: Path) -> None:
    usual = trained(tmp_path, Net(), image_data(), trainer={"method": method})
    for model in (Net("tuple"), Net("tuple", demanding=True), Required("none and logits"), Net("tensor")):
        assert_same_bits(trained(tmp_path, model, image_data(), trainer={"method": method}), usual)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("demanding", [False, True])
def test_evaluation_and_prediction_are_those_of_transformers(form: str, demanding: bool, tmp_path: Path) -> None:
    data: Any = image_data(17)  # the last batch has one sample
    ours, theirs = (
        kind(Net(form, demanding), arguments(tmp_path, **BATCH), train_dataset=data, eval_dataset=data)
        for kind in (eh.Trainer, transformers.Trainer)
    )
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-6)
    found, expected = ours.predict(data), theirs.predict(data)
    several = isinstance(expected.predictions, tuple)
    for mine, other in zip(
        found.predictions if several else [found.predictions],
        expected.predictions if several else [expected.predictions],
        strict=True,
    ):
        assert np.array_equal(mine, other)
    assert found.label_ids is not None
    assert np.array_equal(found.label_ids, expected.label_ids)  # type: ignore[arg-type]


def test_a_tensor_is_a_prediction_also_of_one_sample(tmp_path: Path) -> None:
    trainer = eh.Trainer(Net("tensor"), arguments(tmp_path, **BATCH), train_dataset=image_data(17))
    for data in (image_data(17), image_data(17).remove_columns("labels")):
        assert trainer.predict(data).predictions.shape == (17, CLASSES)  # type: ignore[union-attr, arg-type]
    assert np.isfinite(trainer.evaluate(image_data(17))["eval_loss"])


@pytest.mark.parametrize("method", [eh.ERM(), eh.EDGE(projection="tensor")], ids=repr)
def test_return_dict_false_changes_nothing(method: Any, tmp_path: Path) -> None:
    def made(return_dict: bool) -> Any:
        model = text_model()
        model.config.return_dict = return_dict
        return model

    data = text_data()
    usual, tuples = (trained(tmp_path, made(flag), data, trainer={"method": method}) for flag in (True, False))
    assert_same_bits(tuples, usual)
    trainers = [eh.Trainer(made(flag), arguments(tmp_path), eval_dataset=data) for flag in (True, False)]
    first, second = (trainer.evaluate() for trainer in trainers)
    assert first["eval_loss"] == second["eval_loss"]
    assert np.array_equal(*(trainer.predict(data).predictions for trainer in trainers))  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [text_model, vit_model])
def test_return_dict_as_an_argument(make: Any, tmp_path: Path) -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return transformers.default_data_collator(rows) | {"return_dict": False}

    data = text_data() if make is text_model else image_data()
    usual = trained(tmp_path, make(), data, trainer={"method": eh.EDGE()})
    given = {"method": eh.EDGE(), "data_collator": collate}
    assert_same_bits(trained(tmp_path, make(), data, trainer=given), usual)


@pytest.mark.parametrize("form", ["tuple", "features first", "none and logits", "tensor"])
def test_groups_are_measured_on_the_logits_wherever_they_are(form: str, tmp_path: Path) -> None:
    texts = grouped()
    images = image_data(len(texts))
    for column in ("group", "alignment"):
        images = images.add_column(column, texts[column][:], feature=texts.features[column])  # type: ignore[call-arg]
    found, usual = (
        eh.Trainer(Net(kind), arguments(tmp_path, **BATCH), eval_dataset=images).evaluate() for kind in (form, "dict")
    )
    assert by_group(found) == by_group(usual)
    assert len(by_group(found)) > 3


@pytest.mark.parametrize("form", [*FORMS, "tensor"])
@pytest.mark.parametrize("demanding", [False, True])
def test_inference_reads_every_form(form: str, demanding: bool) -> None:
    logits, labels = logits_and_labels(Net(form, demanding), image_data(9), batch_size=4)
    expected, _ = logits_and_labels(Net(), image_data(9), batch_size=4)
    assert np.array_equal(logits, expected)
    assert labels.tolist() == image_data(9)["labels"][:]


def test_a_model_that_fails_says_its_own_error(tmp_path: Path) -> None:
    class Broken(Net):
        def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
            raise ValueError(f"broken {'with' if labels is not None else 'without'} labels")

    for call in (lambda: trained(tmp_path, Broken(), image_data()), lambda: logits_and_labels(Broken(), image_data())):
        with pytest.raises(ValueError, match="broken without labels"):
            call()


def test_calls_find_out_once() -> None:
    calls: list[bool] = []

    class Counted(Net):
        def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
            calls.append(labels is not None)
            return super().forward(pixel_values, labels)

    inputs, labels = {"pixel_values": torch.rand(2, 3, 8, 8)}, torch.tensor([0, 1])
    for demanding, expected in ((False, [False, False]), (True, [False, True, True])):
        call, model = Call(), Counted("tuple", demanding)
        calls.clear()
        call(model, inputs, labels)
        call(model, inputs, labels)
        assert calls == expected


def test_the_parts_of_an_output() -> None:
    z, loss, labels = torch.rand(4, 3), torch.tensor(0.5), torch.zeros(4, dtype=torch.long)
    cases: list[tuple[Any, Tensor | None]] = [
        (z, None),
        ((z,), None),
        ((z, z.sum(1)), None),
        ((loss, z, "more"), loss),
        ((None, z), None),
        ((torch.full((4,), 0.5), z), loss),
        ({"logits": z, "loss": loss}, loss),
        (transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=z), loss),  # type: ignore[arg-type]
    ]
    for outputs, own in cases:
        assert logits_of(outputs, labels) is z
        found = loss_of(outputs)
        assert (found is None) == (own is None)
        assert own is None or float(found) == 0.5  # type: ignore[arg-type]
        ready = with_loss(outputs, loss)
        assert isinstance(ready, dict) or (ready[0] is loss and ready[1] is z)
    for outputs in ((), (loss,), ("z", z), {"loss": loss}, None, "logits"):
        with pytest.raises(eh.UserError, match="no 'logits'"):
            logits_of(outputs, labels)
    with pytest.raises(eh.UserError, match=r"Got \(4, 3, 1\) and \(4,\)"):
        logits_of((z[:, :, None],), labels)
    assert takes_labels(Net())
    assert not takes_labels(nn.Linear(2, 2))


# ---- the label −100 -------------------------------------------------------------------------------------------------


def relabelled(data: datasets.Dataset, labels: Any) -> datasets.Dataset:
    return data.remove_columns("labels").add_column("labels", list(labels))  # pyright: ignore[reportCallIssue]


def some_ignored(data: datasets.Dataset, share: float = 0.4) -> datasets.Dataset:
    ignored = np.random.default_rng(3).random(len(data)) < share
    return relabelled(data, np.where(ignored, -100, data["labels"][:]).tolist())


@pytest.mark.parametrize("labels", ["some", "a whole batch"])
@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_ignored_samples_are_as_in_transformers(labels: str, optim: str, tmp_path: Path) -> None:
    data = some_ignored(text_data())
    if labels == "a whole batch":
        data = relabelled(data, [*data["labels"][:16], *[-100] * 8, *data["labels"][24:]])
    settings: dict[str, Any] = {"optim": optim, "train_sampling_strategy": "sequential"}
    theirs = trained(tmp_path, text_model(), data, transformers.Trainer, **settings)
    assert all(bool(torch.isfinite(p).all()) for p in theirs.values())
    for method in (eh.ERM(), eh.EDGE(alpha=0.0), eh.EDGE(alpha=0.0, projection="tensor")):
        assert_same_bits(trained(tmp_path, text_model(), data, trainer={"method": method}, **settings), theirs)


@pytest.mark.parametrize("method", [m for m in METHODS if not m.needs_companion], ids=repr)
def test_ignored_samples_have_no_part_in_any_gradient(method: Any, tmp_path: Path) -> None:
    # samples don't meet within this model, so leaving them out is the same; 4 micro-batches of unlike share
    data = some_ignored(text_data(32))
    left = data.filter(lambda row: row["labels"] != -100)
    settings: dict[str, Any] = {
        **SGD,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": 0.0,
    }
    options = {"method": method, "class_weights": [1.0, 2.0, 3.0]}
    expected = trained(
        tmp_path, text_model(0.0), left, trainer=options, per_device_train_batch_size=len(left), **settings
    )
    for batch, steps in ((32, 1), (8, 4)):
        found = trained(
            tmp_path,
            text_model(0.0),
            data,
            trainer=options,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            **settings,
        )
        assert_same_to_rounding(found, expected)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_in_which_nothing_counts_adds_nothing(method: Any, bf16: bool, tmp_path: Path) -> None:
    data = relabelled(image_data(24), [0, 1] * 4 + [-100] * 8 + [2, 1] * 4)
    model = image_model()
    seen: list[list[Tensor]] = []

    class Watching(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append([p.detach().clone() for p in model.parameters()])

    options = {"method": method, "callbacks": [Watching()]}
    settings = {**SGD, "train_sampling_strategy": "sequential", "num_train_epochs": 1, "bf16": bf16}
    trainer = eh.Trainer(model, arguments(tmp_path, logging_steps=1, **settings), train_dataset=data, **options)  # type: ignore[arg-type]
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][1] == 0


@pytest.mark.parametrize("sampling", ["resample", "reweight"])
@pytest.mark.parametrize("mix", [1.0, 0.5])
def test_the_single_stage_of_pgd_draws_no_ignored_sample(sampling: Any, mix: float, tmp_path: Path) -> None:
    from evenhand.methods.pgd_joint import JointPGD, _JointObjective

    method = JointPGD(biased=eh.GCE(), norm="l2", sampling=sampling, mix=mix, floor=1e-3)
    objective = _JointObjective(method, None)  # type: ignore[arg-type]
    probability_B = objective.probabilities(torch.tensor([0.0, 3.0, 1.0, 0.0]), torch.tensor([True, True, True, False]))
    assert probability_B[3] == 0
    assert float(probability_B.sum()) == pytest.approx(1)
    assert objective.probabilities(torch.zeros(2), torch.tensor([False, False])).tolist() == [0.5, 0.5]
    weights = trained(tmp_path, image_model(), some_ignored(image_data()), trainer={"method": method})
    assert all(bool(torch.isfinite(p).all()) for p in weights.values())


def test_lff_leaves_ignored_samples_out(tmp_path: Path) -> None:
    data = some_ignored(image_data(32))
    left = data.filter(lambda row: row["labels"] != -100)
    settings = {**SGD, "num_train_epochs": 4, "train_sampling_strategy": "sequential"}

    def after(rows: datasets.Dataset) -> dict[str, Tensor]:
        model = Net()
        model.body[2] = nn.Identity()
        options = {"method": eh.LfF()}
        return trained(tmp_path, model, rows, trainer=options, per_device_train_batch_size=len(rows), **settings)

    assert_same_to_rounding(after(data), after(left))


def test_ignored_rows_count_in_no_group(tmp_path: Path) -> None:
    data = grouped()
    ignored = np.random.default_rng(0).random(len(data)) < 0.3
    marked = relabelled(data, np.where(ignored, -100, data["labels"][:]).tolist())
    left = data.select(np.flatnonzero(~ignored))
    found, expected = (
        eh.Trainer(text_model(), arguments(tmp_path, **BATCH), eval_dataset=rows).evaluate() for rows in (marked, left)
    )
    assert by_group(found) == pytest.approx(by_group(expected))


def test_an_evaluation_ignores_them_as_transformers_does(tmp_path: Path) -> None:
    for data in (some_ignored(text_data(24)), relabelled(text_data(8), [-100] * 8)):
        ours, theirs = (
            kind(text_model(), arguments(tmp_path, **BATCH), train_dataset=text_data(), eval_dataset=data).evaluate()
            for kind in (eh.Trainer, transformers.Trainer)
        )
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-6, nan_ok=True)


def test_a_training_set_in_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        eh.UserError, match="All 12 labels of the training data set are -100: there is nothing to learn"
    ):
        eh.Trainer(text_model(), arguments(tmp_path), train_dataset=relabelled(text_data(12), [-100] * 12))


@pytest.mark.parametrize("method", [eh.EDGE(), eh.EDGE(projection="tensor", route="retain"), eh.GCE()], ids=repr)
def test_a_loop_of_ones_own_ignores_them_too(method: Any) -> None:
    model, images = Net("tensor").eval().requires_grad_(True), torch.rand(6, 3, 8, 8)
    model.train()
    model.body[2] = nn.Identity()
    labels = torch.tensor([0, -100, 2, 1, -100, 0])
    kept = labels != -100
    gradients = []
    for x, y, items in ((images, labels, None), (images, labels, 4), (images[kept], labels[kept], None)):
        own = copy.deepcopy(model)
        with method.attach(own) as attached:
            loss = attached.backward(own(x), y, num_items=items)
        assert float(loss) == pytest.approx(float(cross_entropy(own(x), y).detach()), rel=1e-6)
        gradients.append({name: p.grad for name, p in own.named_parameters()})
    assert_same_to_rounding(gradients[0], gradients[2])
    assert_same_to_rounding(gradients[1], gradients[2])
    with method.attach(model) as attached:
        assert attached.backward(model(images), torch.full((6,), -100)).isnan()
        assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
        with pytest.raises(eh.UserError, match=r"or be -100 for a sample that doesn't count\. Got -1 for sample 0"):
            attached.backward(model(images), torch.full((6,), -1))


# ---- nothing to train -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [eh.ERM(), eh.EDGE(), eh.GCE(), eh.LfF()], ids=repr)
def test_a_frozen_model_is_refused_in_one_sentence(method: Any, tmp_path: Path) -> None:
    frozen = text_model().requires_grad_(False)
    message = (
        "^The model BertForSequenceClassification has no trainable parameter, so there is nothing to train: .*True.$"
    )
    with pytest.raises(eh.UserError, match=message):
        eh.Trainer(frozen, arguments(tmp_path), train_dataset=text_data(), method=method)
    later = eh.Trainer(frozen, arguments(tmp_path), eval_dataset=text_data())
    assert np.isfinite(later.evaluate()["eval_loss"])
    later.train_dataset = text_data()
    with pytest.raises(eh.UserError, match=message):
        later.train()
    if not method.needs_companion:
        with pytest.raises(eh.UserError, match=message):
            method.attach(frozen)
    with pytest.raises(eh.UserError, match="no trainable parameters"):
        eh.gradient_norms(frozen, text_data(), source="all")


# ---- accumulation, beside transformers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "times"), [(text_model, 4), (Net, 1)])
def test_what_the_docs_say_of_accumulation(make: Any, times: int, tmp_path: Path) -> None:
    """A text classifier's gradient is N times as large in transformers; ours equals the large batch."""
    data = text_data(32) if make is text_model else image_data(32)

    def step(kind: Any, batch: int, steps: int) -> Tensor:
        model = make(0.0) if make is text_model else make()
        if make is Net:
            model.body[2] = nn.Identity()
        before = [p.detach().clone() for p in model.parameters()]
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_grad_norm": 0.0}
        trained(tmp_path, model, data, kind, **settings, optim="sgd", num_train_epochs=1, lr_scheduler_type="constant")
        return torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])

    large, theirs, ours = step(transformers.Trainer, 32, 1), step(transformers.Trainer, 8, 4), step(eh.Trainer, 8, 4)
    assert float((ours - large).norm() / large.norm()) < 1e-4
    assert float((theirs - times * large).norm() / large.norm()) < 1e-2


# ---- gradient norms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*FORMS, "tensor"])
@pytest.mark.parametrize("demanding", [False, True])
@pytest.mark.parametrize("source", ["head", "extractor", "all"])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_norms_of_every_form_and_none_of_ignored_samples(form: str, demanding: bool, source: Any, norm: Any) -> None:
    data = some_ignored(image_data(12))
    ignored = np.array(data["labels"][:]) == -100
    expected = eh.gradient_norms(Net(), image_data(12), source=source, norm=norm)
    found = eh.gradient_norms(Net(form, demanding), data, source=source, norm=norm, batch_size=5)
    assert 0 < ignored.sum() < 12
    assert (found[ignored] == 0).all()
    np.testing.assert_allclose(found[~ignored], expected[~ignored], rtol=1e-5)
