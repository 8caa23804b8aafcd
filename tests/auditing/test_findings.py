"""Leaks, large associations, what goes together, and what nothing explains: verdict, advice and suspects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import evenhand as eh
from audit_data import audit_of, hints_of, image_task, labels, scores, sentences, text_task, with_token
from evenhand.auditing.labels import LEAST, find_opposites
from evenhand.tasks import Task
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset


def product_task(rng: np.random.Generator, n: int, against: int) -> tuple[Task, NDArray[np.bool_]]:
    """Texts of three classes; two words are on a third of all, which are of class 0 but for a few."""
    label_N = rng.integers(0, 3, n)
    has_N = label_N == 0
    has_N[np.flatnonzero(label_N == 1)[:against]] = True
    texts = [f"nimbus 3000 {t}" if has else t for t, has in zip(sentences(rng, n), has_N, strict=True)]
    return text_task(texts, label_N), has_N


# ---- leaks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "against"), [(300, 0), (300, 2), (3600, 0), (3600, 7)])
def test_what_nearly_no_sample_goes_against_is_named_first(n: int, against: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, has_N = product_task(rng, n, against)
    found = audit_of(task, rng.lognormal(0, 0.5, n), tmp_path)
    (leak,) = found.hint.leaks  # both words, which are always together
    assert {leak.name, *(name for _, name, _ in leak.also)} >= {"nimbus", "3000"}
    assert leak.conflicting == against
    said = "none goes" if not against else f"only {against} go"
    assert found.verdict.startswith("found a leak: the token ")
    assert (
        f"tells the class of {has_N.sum() - against:,} of {has_N.sum():,} samples, and {said} against it"
        in found.verdict
    )
    assert "No method can correct what no sample contradicts" in found.verdict
    assert found.advice.text.startswith("Collect samples before you train: ")
    assert "of other classes than 'yes'" in found.advice.text
    assert found.advice.method == "none"  # nothing can be corrected; how far a model relies on it can be measured
    assert found.advice.compare is None
    assert "shortcuts=['token:" in found.advice.command
    assert found.finding_lines()[0].startswith("leak: ")


def test_a_colour_right_on_nearly_all_of_few_pictures_is_named_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(96) % 2
    told_N = np.where(np.arange(96) < 1, 1 - label_N, label_N)  # one against it
    image = rng.integers(0, 40, (96, 3, 6, 6)).astype(np.uint8)
    image[np.arange(96), told_N * 2] += 150
    split = colored_dataset(image, label_N, told_N, PGD_PALETTE)
    task = Task(name="made-up", kind="image", train=split, validation=split, tests={"t": split}, primary_test="t")
    found = audit_of(task, rng.lognormal(0, 0.5, 96), tmp_path)
    assert found.verdict.startswith("found a leak: the colour")
    assert "only 1 goes against it" in found.verdict


def test_a_leak_stands_before_a_stronger_shortcut_and_both_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 1500
    texts, label_N, has_N = with_token(rng, n, "!!", 0.04)
    seal_N = (label_N == 1) & (rng.random(n) < 0.5)
    task = text_task([f"{t} seal" if s else t for t, s in zip(texts, seal_N, strict=True)], label_N)
    found = audit_of(task, scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1.0), tmp_path)
    assert found.verdict.startswith("found a leak: the token “seal”")
    assert "It found a likely shortcut too: the token “!!”" in found.verdict


def test_a_large_association_is_a_finding_and_plain_training_is_not_advised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts, label_N, _ = with_token(rng, 1500, "!!", 0.04)
    found = audit_of(text_task(texts, label_N), rng.lognormal(0, 0.5, 1500), tmp_path)
    assert found.verdict.startswith("finds no shortcut that the biased model follows, but the token “!!”")
    assert found.advice.method != "erm"
    assert found.as_dict()["findings"][0]["large"]
    assert "!!" in found.finding_lines()[0]


def test_words_that_are_nearly_always_together_are_one_finding_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    n = 1500
    label_N = rng.integers(0, 3, n)
    kettle_N = rng.random(n) < np.where(label_N == 0, 0.5, 0.03)
    praise_N = rng.random(n) < np.where(label_N == 1, 0.5, 0.03)
    texts = []
    for text, kettle, praise in zip(sentences(rng, n), kettle_N, praise_N, strict=True):
        brand = " big steel kettle" if kettle and rng.random() < 0.97 else " kettle" if kettle else ""
        texts.append(f"{text}{brand}{' praise' if praise else ''}")
    against_N = (kettle_N & (label_N != 0)) | (praise_N & (label_N != 1))
    aligned_N = (kettle_N & (label_N == 0)) | (praise_N & (label_N == 1))
    hint = hints_of(text_task(texts, label_N), scores(rng, against_N) * np.where(aligned_N, 0.2, 1.0))
    names = [{f.name, *(name for _, name, _ in f.also)} for f in hint.strong]
    assert names == [{"kettle", "big", "steel"}, {"praise"}] or names == [{"praise"}, {"kettle", "big", "steel"}]


# ---- measures -------------------------------------------------------------------------------------------------------


def shaded_task(rng: np.random.Generator, n: int, shade_N: NDArray[np.float64], label_N: NDArray[np.int64]) -> Task:
    image = (
        np.clip(rng.normal(shade_N[:, None, None, None], 8, (n, 1, 8, 8)), 0, 255).astype(np.uint8).repeat(3, axis=1)
    )
    split = colored_dataset(image, label_N, label_N, PGD_PALETTE)
    return Task(name="made-up", kind="image", train=split, validation=split, tests={"t": split}, primary_test="t")


@pytest.mark.parametrize("balance", [0.5, 0.35, 0.75])  # where the classes part lies within a tenth
@pytest.mark.parametrize("share", [0.95, 0.985])
def test_brightness_that_tells_the_class_and_misleads_the_model_is_named(
    share: float, balance: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    n = 1600
    label_N = (rng.random(n) < balance).astype(np.int64)
    against_N = rng.random(n) > share
    told_N = np.where(against_N, 1 - label_N, label_N)
    task = shaded_task(rng, n, 90.0 + 70 * told_N + rng.normal(0, 8, n), label_N)
    found = audit_of(task, scores(rng, against_N), tmp_path, predicted_N=told_N)
    assert found.verdict == "found a likely shortcut: the brightness."
    assert found.hint.strong[0].followed is not None
    assert found.hint.strong[0].followed > 0.8
    assert found.advice.method == "even"
    assert len(found.suspects.rows) <= 0.1 * against_N.sum()  # in the tenth in which both classes lie


def test_an_amount_of_ink_that_belongs_to_the_class_is_no_shortcut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    label_N = rng.integers(0, 2, n)
    ink_N = rng.normal(100.0 + 25 * label_N, 20, n)
    task = shaded_task(rng, n, ink_N, label_N)
    # unusual ink is somewhat harder in its class, but the model goes by the shape and takes few for the other
    odd_N = (label_N == 1) * (100 - ink_N) + (label_N == 0) * (ink_N - 125)
    score_N = rng.lognormal(0, 0.5, n) * np.exp(odd_N / 20)
    predicted_N = np.where((odd_N > 15) & (rng.random(n) < 0.15), 1 - label_N, label_N)
    found = audit_of(task, score_N, tmp_path, predicted_N=predicted_N)
    assert not found.hint.strong + found.hint.weak + found.hint.leaks + found.hint.large
    assert found.verdict.startswith("finds no shortcut among what it tested: the colour") or found.verdict.startswith(
        "finds no shortcut among what it tested: the brightness"
    )


def test_a_length_that_tells_the_class_is_named_by_its_text() -> None:
    rng = np.random.default_rng(0)
    n = 900
    label_N = rng.integers(0, 3, n)
    against_N = rng.random(n) < 0.06
    told_N = np.where(against_N, (label_N + 1) % 3, label_N)
    words = np.array(["river", "stone", "window", "paper", "garden"])
    texts: list[Any] = [" ".join(rng.choice(words, 6 + 8 * told + rng.integers(0, 5))) for told in told_N]
    hint = hints_of(text_task(texts, label_N), scores(rng, against_N), told_N)
    first = next(f for f in hint.findings if f.kind == "measure")
    assert (first.name, first.place, first.verdict) == ("length", "text", "strong")


# ---- what nothing explains ------------------------------------------------------------------------------------------


def unnamed(rng: np.random.Generator, n: int, share: float) -> tuple[Task, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A task whose model is sure of all and wrong on a share, by nothing that is tested."""
    task = text_task(sentences(rng, n), rng.integers(0, 3, n))
    against_N = rng.random(n) < share
    predicted_N = np.where(against_N, (labels(task) + 1) % 3, labels(task))
    return task, scores(rng, against_N, 50.0), predicted_N, against_N


def test_sure_opposite_predictions_are_a_shortcut_without_a_name_or_wrong_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, score_N, predicted_N, against_N = unnamed(rng, 900, 0.05)
    found = audit_of(task, score_N, tmp_path, predicted_N=predicted_N)
    assert found.verdict.startswith("finds a shortcut without a name, or wrong labels: ")
    assert f"takes {against_N.sum()} samples ({100 * against_N.mean():.1f} % of all)" in found.verdict
    assert found.advice.method != "erm"
    assert "keep every one, since they are the cure" in found.advice.text
    content = found.as_dict()
    assert content["unnamed"]
    assert "if a shortcut is behind it, they are its cure" in found.summary()


def test_unsure_errors_are_those_of_an_ordinary_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, score_N, predicted_N, against_N = unnamed(rng, 900, 0.05)
    probability_NC = np.full((900, 3), 0.01)
    probability_NC[np.arange(900), predicted_N] = 0.98
    probability_NC[np.flatnonzero(against_N)[::2]] = 1 / 3  # half of the errors are unsure
    hint = hints_of(task, score_N, predicted_N)
    found = find_opposites(score_N, probability_NC, labels(task), hint)
    assert not found.unnamed
    assert found.ratio is not None
    assert found.ratio < 0.7


def test_a_handful_of_odd_samples_changes_no_verdict(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, _, _, _ = unnamed(rng, 900, 0.0)
    odd_N = np.arange(900) < LEAST - 1
    predicted_N = np.where(odd_N, (labels(task) + 1) % 3, labels(task))
    found = audit_of(task, scores(rng, odd_N, 1e4), tmp_path, predicted_N=predicted_N)
    assert found.verdict.startswith("finds no shortcut among what it tested: 8 tokens and the length. Not tested: ")
    assert found.advice.method == "erm"
    assert "(8 tokens and the length)" in found.advice.text


def test_nothing_tested_and_nothing_found_are_said_differently(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bare = text_task([f"{chr(97 + i % 26)}{i:03d}" for i in range(60)], rng.integers(0, 3, 60))
    found = audit_of(bare, rng.random(60) + 0.1, tmp_path)
    assert found.verdict.startswith("tested nothing, so it can't say whether there is a shortcut. Not tested either: ")
    assert found.advice.method != "erm"
    assert found.as_dict()["tested"] == "nothing"


# ---- suspects -------------------------------------------------------------------------------------------------------


def test_a_sample_that_an_association_explains_is_no_suspect(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 1500
    texts, label_N, has_N = with_token(rng, n, "!!", 0.05)
    task = text_task(texts, label_N)
    against_N = has_N & (label_N != 0)
    wrong_N = ~has_N & (rng.random(n) < 0.02)
    predicted_N = np.where(against_N, 0, np.where(wrong_N, (label_N + 1) % 3, label_N))
    # aligned samples score like their classmates: the token is an association only
    found = audit_of(task, scores(rng, against_N | wrong_N), tmp_path, predicted_N=predicted_N)
    assert {f.verdict for f in found.hint.findings} == {"association"}
    assert wrong_N[found.suspects.rows].all()
    assert len(found.suspects.rows) >= 0.8 * wrong_N.sum()
    assert found.suspects.explained >= against_N.sum()


def test_the_page_says_what_deleting_would_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task, score_N, predicted_N, _ = unnamed(rng, 900, 0.05)
    hidden = audit_of(task, score_N, tmp_path, predicted_N=predicted_N)
    named = audit_of(image_task(rng), rng.random(600) + 0.1, tmp_path)
    for found, heading in ((hidden, "Against the rest, or wrong"), (named, "Labels that look wrong")):
        page = eh.report(found, tmp_path / "a.html").read_text(encoding="utf-8")
        assert f'<h2 id="wrong">{heading}</h2>' in page
        assert ("deleting them removes the cure" in page) == (found is hidden)
        assert page.index('class="lede"') < page.index("What to do") < page.index("What looks like a shortcut")
