"""Stages that several runs need alike: kept by what decides their result, trained once, reused by the others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evenhand.files import locked, settle_if_first, whole_folder
from evenhand.runs.configuration import Configuration
from evenhand.runs.record import read_json, write_json
from evenhand.runs.seals import REPORT, SEAL, seal


class SharedStages:
    """A folder of finished stages, each under its key.

    Several processes may use it at once: a stage appears by one rename, so it is there whole or not at all, and a lock
    (which a killed process gives back) keeps a second process from training what the first one is training.

    Args:
        folder: Where the stages lie; made when the first one is published.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Only one process at a time works on a key; the others wait."""
        return locked(self.folder / f".{key}.lock")

    def fetch(self, key: str, into: Path, name: str) -> bool:
        """Fill the empty folder `into` with the finished stage, marked as reused; False if there is none.

        The stage is called `name` in its report: two methods may need the same stage under different names.
        """
        stage = self.folder / key
        if not stage.exists():
            return False
        shutil.copytree(stage, into, copy_function=_link, dirs_exist_ok=True)
        for path in (into / REPORT, into / SEAL):
            path.unlink(missing_ok=True)  # a link: the shared one must stay as it is
        write_json(into / REPORT, read_json(stage / REPORT) | {"name": name, "reused": True})
        seal(into)
        return True

    def publish(self, key: str, stage: Path) -> None:
        """Offer a finished stage to other runs; nothing happens where one is there already."""
        final = self.folder / key
        if final.exists():
            return
        with whole_folder(final, settle_if_first) as partial:
            shutil.copytree(stage, partial, copy_function=_link, dirs_exist_ok=True)


def stage_key(configuration: Configuration, parts: dict[str, Any]) -> str:
    """Names a stage by all that decides its result.

    Args:
        configuration: The run's; everything but its method counts, and for a model of a part of the samples (`only`),
            which no table shows, the shortcuts' names.
        parts: What the stage does: its own method and settings, and digests of what it starts from.
    """
    left_out = ("method", "shortcuts") if "only" in parts else ("method",)
    context = {name: value for name, value in configuration.as_dict().items() if name not in left_out}
    return hashlib.sha256(json.dumps([context, parts], sort_keys=True).encode()).hexdigest()[:16]


def model_digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _link(source: str, target: str) -> None:
    """A second name for the same file, where the file system allows that: stages are never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
