"""Names of layers and parameters are looked up before anything is trained or written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evenhand as eh
from evenhand.cli import main
from evenhand.methods.jtt import JTT
from evenhand.sampling import mixture


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (eh.PGD(source="nopattern.*"), r"The source 'nopattern.\*' matches none of the model's 8 parameters"),
        (eh.PGD(source="backbones.*"), r"did you mean .*'backbone"),
        (eh.EDGE(scope="nopattern.*"), r"The scope 'nopattern.\*' matches none"),
        (eh.EDGE(signal="biased", scope="nopattern.*"), r"The scope 'nopattern.\*' matches none"),
        (eh.EDGE(scope="adapters"), "no layer of the model has a trainable adapter"),
        (eh.Even(mix=0.5, folds=1, source="nopattern.*"), r"The source 'nopattern.\*' matches none"),
    ],
)
def test_unknown_parts_are_refused_before_a_stage(method: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(eh.UserError, match=message):
        eh.fit(method, eh.ColoredDigits(), "digits-cnn", output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("chosen", ["peft: lora", "peft: {r: 3}", "peft: head", "grid: {peft.r: [1, 2]}"])
def test_a_study_with_adapters_and_the_tasks_own_small_model(
    chosen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"study: s\ntask: colored-digits\nmethod: erm\nseeds: [0]\n{chosen}\n", encoding="utf-8")
    assert main(["study", str(file), "--output-dir", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "s.yaml, line 5: The model 'digits-cnn' starts from random weights" in told
    assert not (tmp_path / "out").exists()


class Knows:
    """A run whose model gets everything right."""

    def train(self, *_args: Any, **_options: Any) -> None: ...

    def errors(self, _model: Any) -> Any:
        return np.zeros(5, dtype=bool)


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_advice_for_an_empty_error_set_can_be_followed(epochs: int) -> None:
    with pytest.raises(eh.UserError) as caught:
        dataclasses.replace(JTT(), identification_epochs=epochs).fit(Knows())  # type: ignore[arg-type]
    assert ("fewer" in str(caught.value)) == (epochs > 1)
    assert "a smaller learning rate, larger batches or another method." in str(caught.value)
    with pytest.raises(eh.UserError, match="train it less, by a smaller learning rate or larger batches"):
        mixture(np.zeros(3), 1.0, 0.0)
