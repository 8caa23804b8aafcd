from __future__ import annotations

import pytest
import torch

from evenhand.runs import memory
from evenhand.runs.memory import PeakMemory

CPU = torch.device("cpu")


@pytest.mark.parametrize(("peaks", "exact"), [((100, 150), True), ((100, 100), False)])
def test_only_work_that_raised_the_peak_is_known_exactly(
    peaks: tuple[int, int], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(peaks)
    monkeypatch.setattr(memory, "_process_peak", lambda: next(told))
    with PeakMemory(CPU) as peak:
        pass
    assert peak.as_dict() == {"bytes": peaks[1], "of": "process", "exact": exact}


def test_where_the_system_tells_nothing_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_process_peak", lambda: None)
    with PeakMemory(CPU) as peak:
        pass
    assert peak.as_dict() is None


def test_a_process_has_had_some_megabytes() -> None:
    with PeakMemory(CPU) as peak:
        pass
    found = peak.as_dict()
    assert found is not None
    assert 50e6 < found["bytes"] < 1e12


@pytest.mark.gpu
def test_a_gpu_tells_what_was_allocated() -> None:
    device = torch.device("cuda")
    kept = torch.zeros(10_000_000, device=device)
    with PeakMemory(device) as peak:
        torch.zeros(25_000_000, device=device)
    found = peak.as_dict()
    assert found is not None
    assert found["of"] == "gpu"
    assert 4 * (len(kept) + 25_000_000) <= found["bytes"] < 10**9
