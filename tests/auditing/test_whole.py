"""Whole audits of generated data, as a user runs them: biased models are trained, findings and advice are read."""

from __future__ import annotations

from pathlib import Path

import pytest

import evenhand as eh
from evenhand.auditing import Audit
from evenhand.tasks import OwnData
from made_data import Leak, picture_folder, review_table


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def pictures(tmp_path: Path, leak: Leak, share: float = 0.95, n: int = 600, wrong: float = 0.0) -> Audit:
    picture_folder(tmp_path / "data", leak, share, n, wrong=wrong)
    source = OwnData(data=tmp_path / "data", image_side=16)
    return eh.audit(source, epochs=16, output_dir=tmp_path / "audit")


def reviews(tmp_path: Path, leak: str, share: float = 0.95, wrong: float = 0.0) -> Audit:
    review_table(tmp_path / "rows.csv", leak, share, wrong=wrong)
    source = OwnData(data=tmp_path / "rows.csv", text="review")
    return eh.audit(source, "tiny-bert", epochs=8, lr=1e-3, output_dir=tmp_path / "audit")


@pytest.mark.slow
@pytest.mark.parametrize("leak", ["brightness", "sharpness"])
def test_a_property_of_pictures_that_tells_the_class_is_named(leak: Leak, tmp_path: Path) -> None:
    found = pictures(tmp_path, leak)
    first = found.hint.findings[0]
    assert {first.name, *(name for _, name, _ in first.also)} & {leak, "contrast"}
    assert f"the {leak}" in found.verdict
    assert found.advice.method != "erm"


@pytest.mark.slow
def test_a_size_that_the_model_cannot_see_is_named_too(tmp_path: Path) -> None:
    found = pictures(tmp_path, "size")  # all are scaled to one size before the model gets them
    assert "the size" in found.verdict
    assert found.advice.method != "erm"


@pytest.mark.slow
def test_a_mark_that_no_test_knows_is_a_shortcut_without_a_name(tmp_path: Path) -> None:
    found = pictures(tmp_path, "watermark", n=900)
    assert found.verdict.startswith("finds a shortcut without a name, or wrong labels")
    assert found.advice.method != "erm"
    assert "Against the rest, or wrong" in eh.report(found, tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_clean_pictures_hold_no_shortcut(tmp_path: Path) -> None:
    found = pictures(tmp_path, "none", n=900)
    assert found.verdict.startswith("finds no shortcut among what it tested")
    assert found.advice.method == "erm"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.95, 1.0])
def test_a_product_in_a_text_that_tells_the_class_is_one_finding(share: float, tmp_path: Path) -> None:
    found = reviews(tmp_path, "product", share)
    first = found.hint.findings[0]
    assert {first.name, *(name for _, name, _ in first.also)} >= {"3000", "nimbus"}
    assert first.verdict == ("leak" if share == 1 else "strong")
    assert ("none goes against it" in found.verdict) == (share == 1)


@pytest.mark.slow
def test_a_column_that_tells_the_class_is_named_and_others_are_not(tmp_path: Path) -> None:
    found = reviews(tmp_path, "channel")
    assert "the column 'channel'" in found.verdict
    assert {f.name for f in found.hint.findings if f.kind == "column"} == {"channel"}
    assert found.hint.tested["column"] == 3  # and price, ordered
    notes = " ".join(found.hint.notes)
    assert "ids: order number" in notes
    assert "free text: remark" in notes


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.0, 0.01])
def test_clean_texts_hold_no_shortcut(wrong: float, tmp_path: Path) -> None:
    found = reviews(tmp_path, "none", wrong=wrong)
    assert not found.hint.leaks
    assert not [f for f in found.hint.strong if f.kind != "token"]  # a word of praise is one, honest as it is
