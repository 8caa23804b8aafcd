"""What an audit finds in made-up data: planted shortcuts, and nothing where nothing is planted."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from audit_data import CLASSES, audit_of, image_task, labels, scores, sentences, text_task
from evenhand.auditing.advice import advise, command
from evenhand.auditing.association import pointing, pooled_separations, ranked, separations, tabulate
from evenhand.auditing.detection import agreement, class_views, decile_masses, detection, histogram
from evenhand.auditing.hints import Hint, find_hints
from evenhand.auditing.inputs import tokens
from evenhand.cli import _parse
from evenhand.configuration import Configuration
from evenhand.methods import EDGE, ERM, GCE, Even
from evenhand.tasks import BiasedSNLI, ColoredDigits, ColoredMNIST
from evenhand.validation import UserError

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
    label_N = rng.integers(0, 4, 200)
    table = tabulate(
        sparse.csr_array((rng.random(200) < 0.3)[:, None].astype(float)), ranked(rng.random(200), label_N, 4)
    )
    for alone, pooled in zip(separations(table, np.array([2])), pooled_separations(table, np.array([2])), strict=True):
        assert alone.auroc_V[0] == pytest.approx(pooled.auroc_V[0])
        assert alone.p_V[0] == pytest.approx(pooled.p_V[0])


# ---- text -----------------------------------------------------------------------------------------------------------


def with_token(rng: np.random.Generator, n: int, token: str, shared: float) -> tuple[Any, np.ndarray, np.ndarray]:
    """Texts with a token that points to class 0: on half of it, and `shared` of the others."""
    label_N = rng.integers(0, 3, n)
    has_N = rng.random(n) < np.where(label_N == 0, 0.5, shared)
    texts = [f"{text} {token}" if has else text for text, has in zip(sentences(rng, n), has_N, strict=True)]
    return texts, label_N, has_N


def test_a_planted_token_is_the_only_shortcut_named() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    task = text_task(texts, label_N)
    score_N = scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1.0)
    hint = find_hints(task, score_N)
    assert [(f.name, f.verdict, f.place) for f in hint.findings] == [("!!", "strong", "text")]
    finding = hint.findings[0]
    assert finding.values[0].points_to == "yes"
    assert finding.conflicting == int((has_N & (label_N != 0)).sum())
    assert finding.aligned == int((has_N & (label_N == 0)).sum())
    assert finding.p < 1e-10
    assert np.array_equal(hint.pointed(len(texts)) == 0, has_N)
    assert hint.tested == {"token": len(WORDS_AND_TOKEN)}


WORDS_AND_TOKEN = ("river", "stone", "window", "paper", "garden", "engine", "cloud", "music", "!!")


def test_a_token_that_the_model_does_not_use_is_an_association() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, _ = with_token(rng, 1500, "!!", 0.04)
    hint = find_hints(text_task(texts, label_N), rng.lognormal(0, 0.5, 1500))
    assert [(f.name, f.verdict) for f in hint.findings] == [("!!", "association")]
    assert not hint.strong
    assert (hint.pointed(1500) == -1).all()


def test_a_token_that_no_sample_goes_against_is_an_association() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.0)
    finding = find_hints(text_task(texts, label_N), scores(rng, ~has_N)).findings[0]
    assert (finding.name, finding.verdict, finding.auroc_conflicting) == ("!!", "association", None)


def test_a_word_of_hard_samples_is_no_shortcut() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 1500)
    hard_N = rng.random(1500) < 0.2
    texts: Any = [f"{t} although" if hard else t for t, hard in zip(sentences(rng, 1500), hard_N, strict=True)]
    assert find_hints(text_task(texts, label_N), scores(rng, hard_N)).findings == ()


def test_a_hard_class_makes_no_shortcut() -> None:
    rng = np.random.default_rng(0)
    texts, label_N, _ = with_token(rng, 1500, "!!", 0.2)
    # the token's class is easy as a whole: aligned samples score low, but no lower than their classmates
    hint = find_hints(text_task(texts, label_N), scores(rng, label_N != 0))
    assert [f.verdict for f in hint.findings] == ["association"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_is_named_where_labels_and_texts_are_unrelated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 3, 400)
    hint = find_hints(text_task(sentences(rng, 400), label_N), rng.lognormal(0, 2, 400))
    assert hint.findings == ()


def test_texts_without_frequent_tokens_are_said_to_be_untested(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = text_task([f"w{i}" for i in range(60)], rng.integers(0, 3, 60))
    found = audit_of(task, rng.random(60) + 0.1, tmp_path)
    assert found.verdict.startswith("finds no shortcut, but there was nothing to test")
    assert found.hint.notes == ("No token of 'text' is on 20 samples, so none was tested.",)


@given(st.text())
def test_tokens_take_any_text(text: str) -> None:
    assert all(token and not token.isspace() for token in tokens(text))


def test_tokens_keep_signs_and_nulls_are_empty() -> None:
    assert tokens("Don't stop, !! now") == ["don't", "stop", ",", "!!", "now"]
    assert tokens(None) == []


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_colour_is_named_with_each_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task = image_task(rng)
    conflicting_N = np.asarray(task.train["alignment"]) == 1
    hint = find_hints(task, scores(rng, conflicting_N))
    (finding,) = hint.findings
    assert (finding.kind, finding.verdict) == ("colour", "strong")
    assert finding.conflicting == conflicting_N.sum()
    assert sorted(value.points_to for value in finding.values) == [str(digit) for digit in range(10)]
    assert all(value.name[0] == "#" for value in finding.values)


@pytest.mark.parametrize("seed", range(5))
def test_colours_that_say_nothing_are_not_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task = image_task(rng, conflict=0.9)
    assert find_hints(task, scores(rng, np.asarray(task.train["alignment"]) == 1)).findings == ()


def test_gray_pictures_have_no_colour_to_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = image_task(rng, gray=True)
    found = audit_of(task, scores(rng, np.asarray(task.train["alignment"]) == 1), tmp_path)
    assert found.hint.findings == ()
    assert found.hint.notes == ("The images have no colour, so it was not tested.",)


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
    hint = find_hints(task, scores(rng, conflicting_N))
    assert [(f.kind, f.name, f.verdict) for f in hint.findings] == [("column", "scanner", "strong")]
    assert {v.name: v.points_to for v in hint.findings[0].values} == {
        f"scanner {i}": name for i, name in enumerate(CLASSES)
    }
    assert hint.tested["column"] == 2
    assert hint.notes == ("Not tested, since they have one value, too many, or no plain ones: path, note.",)


def test_a_number_is_tested_by_its_tenths() -> None:
    rng = np.random.default_rng(0)
    n = 1000
    label_N = rng.integers(0, 2, n)
    size_N = rng.normal(size=n)
    told_N = size_N > np.quantile(size_N, 0.8)  # the largest sizes are of class 1, but for a few
    label_N = np.where(told_N, (rng.random(n) < 0.9).astype(int), label_N)
    task = text_task(sentences(rng, n), label_N, ("no", "yes"), size=[*size_N[:-1].tolist(), None])
    (finding,) = find_hints(task, scores(rng, told_N & (label_N == 0)) * np.where(told_N, 0.3, 1.0)).findings
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
    (finding,) = find_hints(task, score_N).findings
    assert [(v.name, v.points_to) for v in finding.values if v.name == "(missing)"] == [("(missing)", "maybe")]


# ---- wrong labels ---------------------------------------------------------------------------------------------------


def test_wrong_labels_are_suspected_and_the_shortcut_is_not_taken_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    wrong = rng.choice(np.flatnonzero(~has_N), 20, replace=False)
    truth_N = label_N.copy()
    label_N[wrong] = (truth_N[wrong] + 1) % 3
    conflicting_N = has_N & (label_N != 0)
    predicted_N = np.where(has_N, 0, truth_N)
    score_N = scores(rng, conflicting_N) * np.where(has_N & (label_N == 0), 0.2, 1.0)
    score_N[wrong] *= 20
    found = audit_of(text_task(texts, label_N), score_N, tmp_path, predicted_N)
    assert set(found.suspects.rows) == set(wrong)
    assert found.suspects.explained == conflicting_N.sum()
    assert found.to_frame()["suspect_label"].sum() == 20
    assert "20 of the 150 highest scores look like wrong labels" in found.summary()


def test_a_model_that_errs_often_accuses_nobody(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 300)
    predicted_N = np.where(rng.random(300) < 0.3, (label_N + 1) % 3, label_N)
    found = audit_of(text_task(sentences(rng, 300), label_N), rng.random(300) + 0.1, tmp_path, predicted_N)
    assert len(found.suspects.rows) == 0
    assert found.suspects.right_when_confident == pytest.approx((predicted_N == label_N).mean())


# ---- measures -------------------------------------------------------------------------------------------------------


def test_detection_counts_the_first_k() -> None:
    score_N = np.arange(300, 0, -1.0)
    conflicting_N = np.zeros(300, dtype=bool)
    conflicting_N[[0, 1, 2, 5, 50, 299]] = True
    found = detection(score_N, conflicting_N)
    assert found is not None
    assert dict(found.precision) == {3: 1.0, 6: 4 / 6, 10: 0.4, 100: 0.05}
    assert detection(score_N, np.zeros(300, dtype=bool)) is None


def test_agreement_is_of_all_pairs_and_needs_two() -> None:
    rng = np.random.default_rng(0)
    one_N = rng.random(1000)
    assert agreement(one_N[None]) is None
    same = agreement(np.stack([one_N, one_N, one_N]))
    assert same is not None
    assert (same.seeds, same.first, same.overlap, same.chance_overlap) == (3, 10, 1.0, 0.01)
    assert same.rank_correlation == pytest.approx(1.0)
    pair = np.stack([one_N, rng.random(1000)])
    other = agreement(pair)
    assert other is not None
    assert other.rank_correlation == pytest.approx(stats.spearmanr(*pair).statistic)
    constant = agreement(np.ones((2, 50)))
    assert constant is not None
    assert constant.rank_correlation is None


@given(st.integers(2, 500), st.integers(0, 100))
def test_masses_and_histogram_lose_no_sample(n: int, seed: int) -> None:
    score_N = np.random.default_rng(seed).lognormal(0, 3, n)
    score_N[0] = 0.0
    masses = decile_masses(score_N)
    assert sum(masses) == pytest.approx(1.0)
    drawn: Any = histogram(score_N)
    assert sum(drawn["counts"]) + drawn["zeros"] == n
    assert drawn["zeros"] == 1


def test_class_views() -> None:
    views = class_views(
        np.array([4.0, 1, 1, 1, 1, 2]), np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 0, 0, 1, 1]), ("a", "b", "none")
    )
    assert [(v.name, v.samples, v.mass, v.predicted_right) for v in views] == [("a", 4, 0.7, 0.75), ("b", 2, 0.3, 1.0)]
    assert views[0].mean_score == pytest.approx(1.05)
    assert views[0].in_first_tenth == 0.25


# ---- advice ---------------------------------------------------------------------------------------------------------


def configuration(task: Any, model: str, **training: Any) -> Configuration:
    shipped = task.training_for(model).replaced(**training)
    return Configuration(method=GCE(), task=task, model=model, training=shipped, seed=3, data_seed=0)


@pytest.mark.parametrize("method", [ERM(), Even(), Even(mix=0.5, alpha=1.2), EDGE(signal="biased", alpha=16.0)])
@pytest.mark.parametrize(
    "asked",
    [
        configuration(ColoredDigits(conflict=0.1), "mlp", epochs=2),
        configuration(ColoredMNIST(data_dir="/a folder"), "mlp"),
        configuration(BiasedSNLI(prevalence=0.0, data_dir="d"), "MiniLM", lr=1e-3),
    ],
)
def test_the_command_advised_is_one_the_program_takes(method: Any, asked: Configuration) -> None:
    words = shlex.split(command(method, asked))
    assert words[:2] == ["evenhand", "train"]
    verb, parsed = _parse(words[1:])
    assert parsed == method
    source = verb.task_source()
    assert (source.name, source.settings()) == (asked.task.name, asked.task.settings())  # type: ignore[union-attr]
    assert str(getattr(source, "data_dir", None)) == str(getattr(asked.task, "data_dir", None))
    assert (verb.seed, verb.data_seed) == (3, 0)


def test_what_is_advised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nothing = Hint((), {"token": 3}, ())
    asked = configuration(ColoredDigits(), "mlp")
    plain = advise(nothing, asked, "image")
    assert (plain.method, plain.compare) == ("erm", None)
    for conflict, settings_ in ((0.01, "Even()"), (0.08, "Even(mix=0.5, alpha=1.2)")):
        task = image_task(rng, 2000, conflict)
        hint = find_hints(task, scores(rng, np.asarray(task.train["alignment"]) == 1))
        advice = advise(hint, asked, "image")
        assert advice.settings == settings_
        assert advice.compare is not None
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    task = text_task(texts, label_N)
    found = audit_of(task, scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1), tmp_path)
    assert found.advice.command.startswith("eh.fit(eh.EDGE(alpha=16.0, projection='tensor', signal='biased'), task, ")


# ---- the result -----------------------------------------------------------------------------------------------------


def test_the_frame_is_joined_to_the_users_ids(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 100
    ids = [f"case-{i}" for i in rng.permutation(n)]
    task = text_task(sentences(rng, n), rng.integers(0, 3, n), id=ids)
    score_N = rng.random(n) + 0.01
    found = audit_of(task, score_N, tmp_path, seeds=(0, 4))
    frame = found.to_frame()
    assert frame["id"].tolist() == ids
    assert frame["score"].sum() == pytest.approx(1.0)
    assert np.allclose(frame["score"], (frame["score_seed0"] + frame["score_seed4"]) / 2)
    assert np.allclose(frame["times_uniform"], n * frame["score"])
    assert frame.sort_values("rank")["score"].is_monotonic_decreasing
    assert sorted(frame["rank"]) == list(range(1, n + 1))
    frame["score"] = 0.0  # a copy: the audit keeps its own
    assert found.to_frame()["score"].sum() == pytest.approx(1.0)
    parquet, csv = found.export(tmp_path / "s.parquet"), found.export(tmp_path / "s.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), found.to_frame(), check_dtype=False)
    assert pd.read_csv(csv)["score"].tolist() == found.to_frame()["score"].tolist()
    with pytest.raises(UserError, match=r"written as .parquet or .csv. Got '.*s.xlsx'"):
        found.export(tmp_path / "s.xlsx")


def test_missing_and_doubled_ids_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 60)
    without = audit_of(text_task(sentences(rng, 60), label_N), rng.random(60) + 0.1, tmp_path)
    assert "The data have no column 'id', so samples are named by their index in the training split." in without.notes
    assert without.to_frame()["id"].tolist() == list(range(60))
    doubled = text_task(sentences(rng, 60), label_N, id=["a", "a", *map(str, range(58))])
    assert (
        "Ids are not unique: 1 of them stand on an earlier sample too."
        in audit_of(doubled, rng.random(60) + 0.1, tmp_path).notes
    )


def test_groups_that_are_known_stand_in_the_frame_and_are_no_hint(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = image_task(rng, conflict=0.9)
    found = audit_of(task, scores(rng, labels(task) == 0), tmp_path)
    names = task.train.features["group"].names
    assert found.to_frame()["group"].tolist() == [names[i] for i in task.train["group"]]
    assert found.hint.tested == {"colour": 1}
