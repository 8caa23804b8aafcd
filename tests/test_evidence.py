"""The tables of docs/ are those of the records in results/."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
