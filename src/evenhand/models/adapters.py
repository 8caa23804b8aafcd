"""Parameter-efficient fine-tuning: what a run trains in place of the whole model.

The backbone stays frozen, the classification head trains: alone, or with adapters, for which peft does the work.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from evenhand.validation import Range, UserError, check_fields, plain_fields

if TYPE_CHECKING:
    from peft import PeftModel

AdapterKind = Literal["lora", "dora", "ia3", "head"]

HEAD_FILE = "head.safetensors"
"""Holds what a model has beside its frozen weights."""


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """What is trained beside the head, the rest of the model being frozen.

    Attributes:
        kind: `lora`, `dora` (LoRA with learned magnitudes), `ia3` (rescaled activations), or `head` for no adapters:
            the head alone trains.
        r: Rank of lora and dora, at least 1; 8 unless given, as EDGE's code has it.
        alpha: Their update is scaled by alpha / r; 16 unless given, likewise.
        dropout: Their dropout in [0, 1); 0.1 unless given, likewise.
        targets: Names of the layers to adapt, separated by commas, or `all-linear`; peft's own choice for the
            architecture unless given (query and value of BERT and RoBERTa for lora).

    Raises:
        UserError: If a value is out of range, a name is unknown, or the kind is given what it doesn't have.
    """

    kind: AdapterKind = "lora"
    r: Annotated[int, Range(1)] | None = None
    alpha: Annotated[float, Range(0, low_open=True)] | None = None
    dropout: Annotated[float, Range(0, 1, high_open=True)] | None = None
    targets: str | None = None

    def __post_init__(self) -> None:
        check_fields("the adapters", self)
        if self.kind in ("ia3", "head"):
            lacking = ("r", "alpha", "dropout") if self.kind == "ia3" else ("r", "alpha", "dropout", "targets")
            given = [name for name in lacking if getattr(self, name) is not None]
            if given:
                raise UserError(f"The adapters '{self.kind}' have no '{given[0]}': leave it out.")
        else:
            for name, default in (("r", 8), ("alpha", 16.0), ("dropout", 0.1)):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, default)  # so that giving a default and leaving it out are one run
        if self.targets is not None and (not isinstance(self.targets, str) or not all(self.target_names)):
            raise UserError(
                "The 'targets' parameter of the adapters must be layer names separated by commas, such as "
                f"query,value. Got {self.targets!r}."
            )

    @property
    def target_names(self) -> list[str]:
        """The layers named by `targets`."""
        return [] if self.targets is None else [name.strip() for name in self.targets.split(",")]

    def settings(self) -> dict[str, Any]:
        """The settings that the kind has, by the names that records and the command line call them."""
        given = {name: value for name, value in plain_fields(self).items() if value is not None}
        return {"peft": given.pop("kind"), **{f"peft_{name}": value for name, value in given.items()}}

    def nothing_to_adapt(self, name: str) -> UserError:
        """What is said of a model that starts from random weights."""
        head = self.kind == "head"
        none = f"there is nothing for the adapters '{self.kind}' to adapt"
        why = "a head alone would learn from noise" if head else none
        return UserError(f"The model '{name}' starts from random weights, so {why}: train it in full.")

    def attach(self, model: PreTrainedModel, name: str, heads: Sequence[str], base: str) -> PreTrainedModel | PeftModel:
        """Freeze the model but its head, and put fresh adapters into it, drawn from torch's random numbers.

        Args:
            model: The model; it is changed in place.
            name: What the user calls it.
            heads: Modules that train whole: the classification head.
            base: What saved adapters call the model, for those who load them with peft alone.

        Raises:
            UserError: If the model has no such layers.
        """
        if self.kind == "head":
            model.requires_grad_(False)
            for head in heads:
                model.get_submodule(head).requires_grad_(True)
            return model
        import peft  # takes more than a second, which runs without adapters needn't pay

        model_type = str(model.config.model_type)
        with _without_warnings():
            try:
                adapted = peft.get_peft_model(model, self._peft_config(model_type, list(heads)))
            except ValueError as error:
                if self.targets is None:
                    raise UserError(
                        f"peft has no default layers for the adapters '{self.kind}' of the model '{name}' "
                        f"({model_type}): name its layers with targets."
                    ) from error
                raise UserError(
                    f"The adapters' targets '{self.targets}' are no layers of the model '{name}' that "
                    f"'{self.kind}' can adapt."
                ) from error
        adapted.peft_config["default"].base_model_name_or_path = base
        return adapted

    def _peft_config(self, model_type: str, heads: list[str]) -> Any:
        import peft
        from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD

        names = self.target_names
        targets = names[0] if names == ["all-linear"] else names or None
        if self.kind == "ia3":
            # those whose input is scaled instead of their output
            inputs = None if targets is None else [n for n in FEEDFORWARD.get(model_type, []) if n in names]
            return peft.IA3Config(target_modules=targets, feedforward_modules=inputs, modules_to_save=heads)
        return peft.LoraConfig(
            r=self.r,  # pyright: ignore[reportArgumentType]
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,  # pyright: ignore[reportArgumentType]
            use_dora=self.kind == "dora",
            target_modules=targets,
            modules_to_save=heads,
        )


def adapters_of(given: Adapters | str | None) -> Adapters | None:
    """Adapters by name or with their settings; None stays None.

    Raises:
        UserError: If the name is unknown.
    """
    if isinstance(given, str):
        return Adapters(kind=given)  # type: ignore[arg-type]
    if given is not None and not isinstance(given, Adapters):
        raise UserError(
            f"The 'peft' parameter of fit must be lora, dora, ia3, head or evenhand.Adapters(). Got {given!r}."
        )
    return given


def save_adapters(model: PreTrainedModel | PeftModel, folder: Path, embedding: bool = False) -> None:
    """Write what trains: adapters and head as peft does, without its template of a model card; or the head alone.

    Args:
        model: The model.
        folder: Where to write.
        embedding: Whether adapters come with the frozen embedding, for one that the base doesn't have.
    """
    if isinstance(model, PreTrainedModel):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in _unfrozen(model).items()}, folder / HEAD_FILE)
        return
    model.save_pretrained(str(folder), save_embedding_layers=embedding)  # "auto" would ask the hub
    (folder / "README.md").unlink(missing_ok=True)


def load_adapters(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The frozen model with the saved adapters and head, which train as they did when they were saved."""
    import peft

    with _without_warnings():
        return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True, torch_device="cpu")


def load_head(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The frozen model with the saved head.

    Raises:
        UserError: If the file is of another model.
    """
    saved = load_file(folder / HEAD_FILE)
    if saved.keys() != _unfrozen(model).keys():
        raise UserError(f"The head in '{folder}' is of another model.")
    model.load_state_dict(saved, strict=False)
    return model


def _unfrozen(model: nn.Module) -> dict[str, Any]:
    """The head, and the buffers: running statistics change where parameters don't."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def merged(model: Any) -> Any:
    """A copy as a plain model of transformers, the adapters added to its weights; a model without any as it is."""
    return model if isinstance(model, PreTrainedModel) else copy.deepcopy(model).merge_and_unload()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What transformers and peft say about names and choices of peft's own is nothing that a user could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)  # of GPT-2's layers, which it then does right
        yield
