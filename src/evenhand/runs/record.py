"""A run's record: what was run, on what, with what result. Never half-written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from evenhand.files import write_text
from evenhand.validation import UserError
from evenhand.version import __version__

FORMAT = 1  # of record.json; raised when a reader of the old one would misread the new one

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "numpy", "scikit-learn")


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a reader sees the old file or the new one, whatever happens."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        UserError: If it can't be read or is none.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it or repeat its run.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); check its permissions.") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a JSON object; delete it or repeat its run.")
    return raw


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "evenhand": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the run was computed on; no host name, no path."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def source_commit() -> dict[str, Any] | None:
    """The commit and whether it was changed, if evenhand runs from a git checkout of its own; else None."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie inside somebody else's repository (a virtual environment in their project).
    if root is None or package != Path(root).resolve() / "src" / "evenhand":
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"hash": commit, "dirty": bool(_git(package, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
