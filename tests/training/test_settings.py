from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from evenhand.training.settings import Training
from evenhand.validation import UserError

GOOD = Training(epochs=3, lr=0.1, batch_size=8)

INTEGER = "The '{0}' parameter of the training must be an integer of at least 1. Got {1}."
NUMBER = "The '{0}' parameter of the training must be a float in the range {2}. Got {1}."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[(name, value, INTEGER) for name in ("epochs", "batch_size", "step_epochs") for value in (0, -1, 1.5, True)],
        *[("lr", value, NUMBER.replace("{2}", "(0, inf)")) for value in (0, -0.1, math.nan, math.inf, "1")],
        *[("weight_decay", value, NUMBER.replace("{2}", "[0, inf)")) for value in (-0.1, math.nan, math.inf)],
        *[("momentum", value, NUMBER.replace("{2}", "[0, 1)")) for value in (-0.1, 1, 1.0, math.nan)],
        *[("max_grad_norm", value, NUMBER.replace("{2}", "[0, inf)")) for value in (-1, math.nan, math.inf)],
    ],
)
def test_bad_numbers(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(GOOD, **{name: value})
    assert str(caught.value) == message.format(name, repr(value))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer", "adm", "must be one of adam, adamw, sgd. Got 'adm' (did you mean 'adam' or 'adamw'?)."),
        ("schedule", "linaer", "must be one of constant, linear, step. Got 'linaer' (did you mean 'linear'?)."),
        ("schedule", None, "must be one of constant, linear, step. Got None."),
    ],
)
def test_bad_names(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(GOOD, **{name: value})
    assert str(caught.value) == f"The '{name}' parameter of the training {message}"


def test_values_at_the_edge_are_fine() -> None:
    edge = Training(epochs=1, lr=1e-300, batch_size=1, momentum=0.0, weight_decay=0.0, max_grad_norm=0.0, step_epochs=1)
    assert edge.epochs == 1


def test_replaced_changes_what_is_given_and_nothing_else() -> None:
    before = Training(epochs=3, lr=0.1, batch_size=8, optimizer="sgd", momentum=0.9, schedule="step", step_epochs=2)
    after = before.replaced(epochs=5, batch_size=16)
    assert dataclasses.asdict(after) == dataclasses.asdict(before) | {"epochs": 5, "batch_size": 16}
    assert before.replaced(lr=0.5).lr == 0.5
    assert before.replaced() == before
    assert before.epochs == 3


@pytest.mark.parametrize("given", [{"epochs": 0}, {"lr": 0}, {"batch_size": 0}])
def test_replaced_checks_zero_instead_of_ignoring_it(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"The '{next(iter(given))}' parameter of the training"):
        GOOD.replaced(**given)


def test_the_step_schedule_has_no_adamw_form() -> None:
    with pytest.raises(UserError, match="adam and sgd only"):
        Training(epochs=1, lr=1.0, batch_size=1, optimizer="adamw", schedule="step")


@pytest.mark.parametrize("value", [1, "yes", None])
def test_bf16_is_a_truth_value(value: Any) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(GOOD, bf16=value)
    assert str(caught.value) == f"The 'bf16' parameter of the training must be True or False. Got {value!r}."
