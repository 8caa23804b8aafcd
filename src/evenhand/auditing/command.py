"""The command that trains a method on the audited data, as it can be copied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.methods import Method
from evenhand.models.inference import Device
from evenhand.runs.configuration import Configuration


def command(method: Method, configuration: Configuration, device: Device = "auto") -> str:
    """A line that trains the method on the audited data with the audited model, from any working folder.

    It is one of the command line; or Python, where the data are none that a command line can name. Every option that
    differs from its default is in it.

    Args:
        method: The method.
        configuration: How the biased models are trained.
        device: What the audit was told to compute on.
    """
    asked = replace(configuration, method=method)
    line = asked.command(here=True)
    if line is not None:
        return line if device == "auto" else f"{line} --device {device}"
    return _python_call(asked, device)


def in_python(method: Method) -> str:
    """The constructor with what differs from the defaults."""
    return _constructor(method, method.settings())


def _constructor(made: Any, settings: dict[str, Any]) -> str:
    defaults = {f.name: f.default for f in type(made).__dataclass_fields__.values()}
    changed = {name: value for name, value in settings.items() if value != defaults.get(name)}
    return f"{type(made).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def _python_call(asked: Configuration, device: Device) -> str:
    training = asked.training
    model = str(Path(asked.model).absolute()) if Path(asked.model).exists() else asked.model
    words = [f"eh.{in_python(asked.method)}", "task", f"model={model!r}", f"seed={asked.seed}"]
    words += [f"data_seed={asked.data_seed}", f"epochs={training.epochs}", f"lr={training.lr!r}"]
    words += [f"batch_size={training.batch_size}"]
    words += ["bf16=True"] if training.bf16 else []
    if asked.adapters is not None:
        words += [f"peft=eh.{_constructor(asked.adapters, dict(vars(asked.adapters)))}"]
    words += ["fresh=True"] if asked.fresh else []
    words += [] if device == "auto" else [f"device={device!r}"]
    return f"eh.fit({', '.join(words)})"
