"""Options that verbs share, each declared once: what runs on which device, and how a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from evenhand.cli.task_options import TaskChoice
from evenhand.models.adapters import AdapterKind, Adapters
from evenhand.models.inference import Device
from evenhand.validation import UserError


def default(metavar: str, text: str = "the task's") -> Any:
    """An option that is decided elsewhere unless given; the help says where."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What computes.

    Attributes:
        device: `auto` takes a GPU if there is one.
    """

    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class Working(OnDevice):
    """What computes for long, and may show how far it is.

    Attributes:
        quiet: Show nothing but the result.
    """

    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """Shortcuts that have a name.

    Attributes:
        shortcut: A shortcut that has a name, such as token:nimbus, column:product, colour or length; may be given
            several times. What holds a | is quoted: 'token:nimbus|pebble'.
    """

    shortcut: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], default("SPELLING", "none; repeatable")]] = ()


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Shortcuts, Working, TaskChoice):
    """What is trained on a task, and how; everything is the task's own unless given.

    Attributes:
        model: One of `mlp`, `pgd-cnn`, `digits-cnn`, `tiny-bert`, `small-vit`, `small-resnet`, `MiniLM`; a folder; or a
            name on the Hugging Face hub.
        fresh: Take the model's architecture only: all weights are random at first.
        epochs: Epochs of each stage.
        lr: Learning rate.
        batch_size: Samples a step.
        bf16: Train under autocast to bfloat16: faster on most GPUs, and on processors that multiply it (AMX).
        lora: Train LoRA adapters and the head instead of the whole model; short for --peft lora.
        head_only: Train the head alone on the frozen model; short for --peft head.
        peft: Adapters to train with the head instead of the whole model.
        peft_r: Rank of lora and dora.
        peft_alpha: Their update is scaled by alpha / r.
        peft_dropout: Their dropout.
        peft_targets: Layers to adapt, separated by commas, or all-linear.
        data_seed: Drives the data's construction; equal to the seed unless given.
        output_dir: The folder of what is made; runs/TASK/… unless given.
    """

    model: Annotated[str | None, default("NAME")] = None
    epochs: Annotated[int | None, default("INT")] = None
    lr: Annotated[float | None, default("FLOAT")] = None
    batch_size: Annotated[int | None, default("INT")] = None
    bf16: bool = False
    fresh: bool = False
    lora: bool = False
    head_only: bool = False
    peft: Annotated[AdapterKind | None, default("{lora,dora,ia3,head}", "none: the whole model trains")] = None
    peft_r: Annotated[int | None, default("INT", "8")] = None
    peft_alpha: Annotated[float | None, default("FLOAT", "16")] = None
    peft_dropout: Annotated[float | None, default("FLOAT", "0.1")] = None
    peft_targets: Annotated[str | None, default("NAMES", "peft's for the architecture")] = None
    data_seed: Annotated[int | None, default("INT", "the seed")] = None
    output_dir: Annotated[Path | None, default("DIR", "runs/TASK/…")] = None

    def training(self) -> dict[str, Any]:
        """The options by the names that `fit` and `audit` both call them."""
        names = ("data_seed", "output_dir", "epochs", "lr", "batch_size", "bf16", "fresh", "device")
        return {name: getattr(self, name) for name in names} | {"peft": self.adapters()}

    def adapters(self) -> Adapters | None:
        """The adapters asked for by --lora, --head-only or --peft; None trains the whole model.

        Raises:
            UserError: If the flags contradict each other, or an option of adapters is given without any.
        """
        if self.lora and self.head_only:
            raise UserError("--lora trains adapters and --head-only none: give one of them.")
        short: AdapterKind | None = "lora" if self.lora else "head" if self.head_only else None
        kind = self.peft or short
        if short is not None and kind != short:
            flag = "--lora" if self.lora else "--head-only"
            raise UserError(f"{flag} is short for --peft {short}, so it can't be given beside --peft {kind}.")
        options = {name: getattr(self, f"peft_{name}") for name in ("r", "alpha", "dropout", "targets")}
        given = {name: value for name, value in options.items() if value is not None}
        if kind is None and given:
            raise UserError(f"The option --peft-{next(iter(given))} needs --lora or --peft.")
        return None if kind is None else Adapters(kind=kind, **given)
