"""The tables of docs/ are those of the records in results/."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def evidence() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["evidence"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["evidence"]


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_tables_of_the_docs_are_those_of_the_records(evidence: ModuleType, path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert evidence.filled(page) == page


def test_a_changed_number_is_noticed(evidence: ModuleType) -> None:
    page = (ROOT / "docs" / "pgd.md").read_text(encoding="utf-8")
    assert "62.2 ± 1.3" in page
    assert evidence.filled(page.replace("62.2 ± 1.3", "62.3 ± 1.3")) == page


def test_a_heading_can_be_asked_for_by_its_end(evidence: ModuleType) -> None:
    unbiased = evidence.block(evidence.parsed("robustness | section=conflict=0.0$"))
    assert unbiased.count("evenhand study") == 1
    assert "conflict=0.0: " in unbiased
    assert evidence.block(evidence.parsed("robustness | section=conflict=0.0")).count("evenhand study") > 1


def test_gains_are_paired_by_seed(evidence: ModuleType) -> None:
    averages: dict[str, dict[int, float]] = {"erm": {}, "even": {}}
    for line in (ROOT / "results" / "untouched-digits" / "runs.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        measured = record["tests"][record["primary_test"]]
        averages.get(record["method"]["name"], {})[record["seed"]] = measured["average"]
    gained = [100 * (averages["even"][seed] - averages["erm"][seed]) for seed in range(10, 20)]
    margin = 2.2622 * np.std(gained, ddof=1) / 10**0.5  # Student's t at 0.975 with 9 degrees of freedom
    low, high = np.mean(gained) - margin, np.mean(gained) + margin
    row = evidence.gains("untouched-digits | against=ERM:average | cells=Even").splitlines()[2]
    assert row.endswith(f"| +{np.mean(gained):.1f} (+{low:.1f} to +{high:.1f}) |")


def test_cells_can_be_compared_in_another_metric(evidence: ModuleType) -> None:
    table = evidence.block(evidence.parsed("untouched-digits | against=ERM;ERM:average"))
    assert "| conflicting vs. ERM (95 %; p) | average vs. ERM (95 %; p) |" in table
    (even,) = [line for line in table.splitlines() if line.startswith("| Even |")]
    assert even.split("|")[-2] != even.split("|")[-3]
    gained = evidence.gains("untouched-digits | against=ERM:average | cells=Even").splitlines()[2].split("|")[-2]
    assert even.split("|")[-2].split(";")[0].strip() == gained.strip().removesuffix(")")
