"""The most memory that a piece of work took, as far as that can be told honestly."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import torch


class PeakMemory:
    """Measures the work inside: `with PeakMemory(device) as peak: …`, then `peak.as_dict()`.

    On a GPU it is what torch allocated there; torch's own peak counter of the device begins anew. On a CPU it is the
    resident memory of the whole process, whose peak the operating system never lowers: if the work didn't raise it,
    all that is known is that the work took no more.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: int | None = None
        self._after: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._before = _process_peak()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cuda = self.device.type == "cuda"
        self._after = torch.cuda.max_memory_allocated(self.device) if cuda else _process_peak()

    def as_dict(self) -> dict[str, Any] | None:
        """`bytes`; `of`: "gpu" or "process"; `exact`: false if it is only a bound. None where nothing is known."""
        if self._after is None:
            return None
        if self.device.type == "cuda":
            return {"bytes": self._after, "of": "gpu", "exact": True}
        return {"bytes": self._after, "of": "process", "exact": self._before is not None and self._after > self._before}


def _process_peak() -> int | None:
    """The most resident memory that this process has had, in bytes; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
