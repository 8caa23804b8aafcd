"""What an audit finds in made-up data: planted shortcuts, and nothing where nothing is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from audit_data import CLASSES, audit_of, hints_of, image_task, scores, sentences, text_task, with_token
from evenhand.auditing.association import pointing, pooled_separations, ranked, separations, tabulate
from evenhand.shortcuts.tokens import tokens
from evenhand.tasks import Task
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset

# ---- tests of association -------------------------------------------------------------------------------------------


def test_separation_is_the_mann_whitney_test_within_classes() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 300)
    has_N = rng.random(300) < 0.4
    score_N = rng.normal(size=300) + 0.3 * has_N
    table = tabulate(sparse.csr_array(has_N[:, None].astype(float)), ranked(score_N, label_N, 3))
    conflicting, aligned = separations(table, np.array([1]))
    own = label_N == 1
    expected = stats.mannwhitneyu(
        score_N[own & has_N], score_N[own & ~has_N], alternative="less", method="asymptotic", use_continuity=True
    )
    assert aligned.p_V[0] == pytest.approx(expected.pvalue, rel=1e-9)
    assert aligned.auroc_V[0] == pytest.approx(expected.statistic / ((own & has_N).sum() * (own & ~has_N).sum()))
    won, pairs = 0.0, 0
    for label in (0, 2):  # pair by pair, of the other classes
        for high in score_N[(label_N == label) & has_N]:
            rest = score_N[(label_N == label) & ~has_N]
            won += (high > rest).sum()
            pairs += len(rest)
    assert conflicting.auroc_V[0] == pytest.approx(won / pairs)


def test_pointing_is_fishers_exact_test_for_the_class_chosen() -> None:
    label_N = np.array([0] * 40 + [1] * 60)
    has_N = np.zeros(100, dtype=bool)
    has_N[:25] = has_N[95:] = True
    table = tabulate(sparse.csr_array(has_N[:, None].astype(float)), ranked(np.arange(100.0), label_N, 2))
    found = pointing(table)
    expected = stats.fisher_exact([[25, 5], [15, 55]], alternative="greater").pvalue
    assert found.class_V.tolist() == [0]
    assert found.p_V[0] == pytest.approx(2 * expected, rel=1e-9)
    assert (found.share_V[0], found.base_V[0]) == (25 / 30, 0.4)


def test_pooling_one_value_is_testing_it_alone() -> None:
    rng = np.random.default_rng(1)
    scores_N = ranked(rng.random(200), rng.integers(0, 4, 200), 4)
    has_N = rng.random(200) < 0.3
    table = tabulate(sparse.csr_array(has_N[:, None].astype(float)), scores_N)
    pooled = pooled_separations(np.where(has_N, 2, -1), np.ones(200, dtype=bool), scores_N)
    for alone, together in zip(separations(table, np.array([2])), pooled, strict=True):
        assert alone.auroc_V[0] == pytest.approx(together.auroc_V[0])
        assert alone.p_V[0] == pytest.approx(together.p_V[0])


# ---- text -----------------------------------------------------------------------------------------------------------


def test_a_planted_token_is_the_only_shortcut_named() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    task = text_task(texts, label_N)
    score_N = scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1.0)
    hint = hints_of(task, score_N)
    assert [(f.name, f.verdict, f.place) for f in hint.strong + hint.weak] == [("!!", "strong", "text")]
    finding = hint.findings[0]
    assert finding.values[0].points_to == "yes"
    assert finding.conflicting == int((has_N & (label_N != 0)).sum())
    assert finding.aligned == int((has_N & (label_N == 0)).sum())
    assert finding.p < 1e-10
    assert np.array_equal(hint.pointed(len(texts)) == 0, has_N)
    assert hint.tested == {"token": len(WORDS_AND_TOKEN), "length": 1}


WORDS_AND_TOKEN = ("river", "stone", "window", "paper", "garden", "engine", "cloud", "music", "!!")


def test_a_token_that_the_model_does_not_use_is_an_association() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, _ = with_token(rng, 1500, "!!", 0.04)
    hint = hints_of(text_task(texts, label_N), rng.lognormal(0, 0.5, 1500))
    assert {f.verdict for f in hint.findings} == {"association"}
    assert hint.findings[0].name == "!!"
    assert not hint.strong
    assert (hint.pointed(1500) == -1).all()


def test_a_token_that_no_sample_goes_against_is_a_leak() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.0)
    finding = hints_of(text_task(texts, label_N), scores(rng, ~has_N)).findings[0]
    assert (finding.name, finding.verdict, finding.auroc_conflicting) == ("!!", "leak", None)


def test_a_word_of_hard_samples_is_no_shortcut() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 1500)
    hard_N = rng.random(1500) < 0.2
    texts: Any = [f"{t} although" if hard else t for t, hard in zip(sentences(rng, 1500), hard_N, strict=True)]
    assert hints_of(text_task(texts, label_N), scores(rng, hard_N)).findings == ()


def test_a_hard_class_makes_no_shortcut() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, _ = with_token(rng, 1500, "!!", 0.2)
    # the token's class is easy as a whole: aligned samples score low, but no lower than their classmates
    hint = hints_of(text_task(texts, label_N), scores(rng, label_N != 0))
    assert {f.verdict for f in hint.findings} == {"association"}


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_nothing_is_named_where_labels_and_texts_are_unrelated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 3, 400)
    hint = hints_of(text_task(sentences(rng, 400), label_N), rng.lognormal(0, 2, 400))
    assert hint.findings == ()


def test_texts_without_frequent_tokens_are_said_to_be_untested(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = text_task([f"w{i}" for i in range(60)], rng.integers(0, 3, 60))
    found = audit_of(task, rng.random(60) + 0.1, tmp_path)
    assert found.verdict.startswith(
        "finds no shortcut among what it tested: the length. Not tested: the order of words"
    )
    assert found.hint.notes == ("No token of 'text' is on 20 samples, so none was tested.",)


@given(st.text())
def test_tokens_take_any_text(text: str) -> None:
    assert all(token and not token.isspace() for token in tokens(text))


def test_tokens_keep_signs_and_nulls_are_empty() -> None:
    assert tokens("Don't stop, !! now") == ["don't", "stop", ",", "!!", "now"]
    assert tokens(None) == []


def test_a_tiny_difference_alarms_nobody_however_many_samples() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 6000, "!!", 0.2)
    factor_N = np.where(has_N, np.where(label_N == 0, 0.88, 1.14), 1.0)
    finding = hints_of(text_task(texts, label_N), rng.lognormal(0, 0.5, 6000) * factor_N).findings[0]
    assert finding.name == "!!"
    assert finding.auroc_conflicting is not None
    assert 0.5 < finding.auroc_conflicting < 0.6
    assert finding.p < 1e-4
    assert finding.verdict == "association"


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_colour_is_named_with_each_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task = image_task(rng)
    conflicting_N = np.asarray(task.train["alignment"]) == 1
    hint = hints_of(task, scores(rng, conflicting_N))
    (finding,) = hint.strong + hint.weak + hint.leaks
    assert (finding.kind, finding.verdict) == ("colour", "strong")
    assert finding.conflicting == conflicting_N.sum()
    assert sorted(value.points_to for value in finding.values) == [str(digit) for digit in range(10)]
    assert all(value.name[0] == "#" for value in finding.values)


@pytest.mark.parametrize("seed", range(5))
def test_colours_that_say_nothing_are_not_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task = image_task(rng, conflict=0.9)
    assert hints_of(task, scores(rng, np.asarray(task.train["alignment"]) == 1)).findings == ()


def test_gray_pictures_have_no_colour_to_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = image_task(rng, gray=True)
    found = audit_of(task, scores(rng, np.asarray(task.train["alignment"]) == 1), tmp_path)
    assert found.hint.findings == ()
    assert found.hint.notes == (
        "The images have no colour, so it was not tested.",
        "Not tested, since all inputs have the same: size and aspect.",
    )


# ---- other columns --------------------------------------------------------------------------------------------------


def test_a_planted_column_value_is_named_and_ids_are_left_out() -> None:
    rng = np.random.default_rng(0)
    n = 900
    label_N = rng.integers(0, 3, n)
    conflicting_N = rng.random(n) < 0.1
    scanner_N = np.where(conflicting_N, (label_N + 1) % 3, label_N)
    task = text_task(
        sentences(rng, n),
        label_N,
        scanner=[None if i == 0 else f"scanner {s}" for i, s in enumerate(scanner_N)],
        noise=rng.integers(0, 4, n).tolist(),
        path=[f"/data/{i}.txt" for i in range(n)],
        note=[[1]] * n,
    )
    hint = hints_of(task, scores(rng, conflicting_N))
    assert [(f.kind, f.name, f.verdict) for f in hint.findings] == [("column", "scanner", "strong")]
    assert {v.name: v.points_to for v in hint.findings[0].values} == {
        f"scanner {i}": name for i, name in enumerate(CLASSES)
    }
    assert hint.tested["column"] == 2
    assert hint.notes == (
        "Columns not tested, as they hold no entry on 20 rows, as ids: path.",
        "Columns not tested, as they hold lists, objects or bytes: note.",
    )


def test_a_number_is_tested_by_its_tenths() -> None:
    rng = np.random.default_rng(0)
    n = 1000
    label_N = rng.integers(0, 2, n)
    size_N = rng.normal(size=n)
    told_N = size_N > np.quantile(size_N, 0.8)  # the largest sizes are of class 1, but for a few
    label_N = np.where(told_N, (rng.random(n) < 0.9).astype(int), label_N)
    task = text_task(sentences(rng, n), label_N, ("no", "yes"), size=[*size_N[:-1].tolist(), None])
    (finding,) = hints_of(task, scores(rng, told_N & (label_N == 0)) * np.where(told_N, 0.3, 1.0)).findings
    assert finding.name == "size"
    assert finding.verdict != "association"
    told = [value for value in finding.values if float(value.name.split(" to ")[1]) > np.quantile(size_N, 0.85)]
    assert [value.points_to for value in told] == ["yes", "yes"]


def test_that_an_entry_is_missing_can_be_the_shortcut() -> None:
    rng = np.random.default_rng(0)
    n = 900
    label_N = rng.integers(0, 3, n)
    missing_N = rng.random(n) < np.where(label_N == 2, 0.7, 0.05)
    task = text_task(sentences(rng, n), label_N, source=[None if m else "web" for m in missing_N])
    score_N = scores(rng, missing_N & (label_N != 2)) * np.where(missing_N & (label_N == 2), 0.2, 1.0)
    (finding,) = hints_of(task, score_N).findings
    assert [(v.name, v.points_to) for v in finding.values if v.name == "(missing)"] == [("(missing)", "maybe")]


def test_a_colour_is_named_though_its_shade_tells_the_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 2, 300)
    against_N = rng.random(300) < 0.1
    hue_N = np.where(against_N, 1 - label_N, label_N)
    image = np.zeros((300, 3, 8, 8), np.uint8)
    image[np.arange(300), hue_N * 2] = 200  # red or blue
    image[label_N == 1, :, 2:4, 2:4] = 255  # the shape pales its picture more in one class than in the other
    image[label_N == 0, :, 4:5, :] = 255
    split = colored_dataset(image, label_N, hue_N, PGD_PALETTE)
    task = Task(name="made-up", kind="image", train=split, validation=split, tests={"t": split}, primary_test="t")
    found = hints_of(task, scores(rng, against_N)).findings
    (colour,) = [finding for finding in found if finding.kind == "colour"]
    assert colour.verdict == "strong"
    assert colour.conflicting == against_N.sum()
