"""What a finished stage holds, by SHA-256: one whose files were damaged is found, and never used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from evenhand.runs.record import read_json, write_json

REPORT = "stage.json"
SEAL = "sha256.json"


def seal(stage: Path) -> None:
    """Write the digest of each file in a stage's folder, its report too, into a file beside them."""
    paths = sorted(path for path in stage.rglob("*") if path.is_file() and path != stage / SEAL)
    write_json(stage / SEAL, {path.relative_to(stage).as_posix(): _digest(path) for path in paths})


def fault(stage: Path) -> str | None:
    """What is wrong with a stage, as in "its file model/config.json is missing"; None if it is as it was written."""
    try:
        told = read_json(stage / SEAL)
        return next((fault for name in {REPORT: None} | told if (fault := _fault(stage, name, told.get(name)))), None)
    except FileNotFoundError:
        return _unsealed_fault(stage)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return f"its file {SEAL} can't be read"


def _fault(stage: Path, name: str, digest: str | None) -> str | None:
    if not (stage / name).is_file():
        return f"its file {name} is missing"
    return None if _digest(stage / name) == digest else f"its file {name} isn't what was written"


def _unsealed_fault(stage: Path) -> str | None:
    """What can be seen of a stage without digests, as earlier versions wrote it: whether its files are whole."""
    try:
        whole = {"name", "seconds"} <= read_json(stage / REPORT).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        whole = False
    if not whole:
        return f"its file {REPORT} is missing or can't be read"
    arrays, weights = sorted(stage.glob("*.npy")), sorted(stage.glob("model/*.safetensors"))
    if not (arrays or weights):
        return "its weights are missing"
    for path in (*arrays, *weights):
        try:
            if path.suffix == ".npy":
                np.load(path, mmap_mode="r")
            else:
                with safe_open(path, "numpy"):
                    pass
        except (OSError, ValueError, EOFError, SafetensorError):
            return f"its file {path.relative_to(stage).as_posix()} can't be read"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
