"""What an audit makes of scores: suspicious labels, measures, advice, and the table of samples."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from audit_data import (
    ORDINARY,
    audit_of,
    certain,
    hints_of,
    image_task,
    labels,
    scores,
    sentences,
    text_task,
    with_token,
)
from evenhand.auditing.advice import advise, command
from evenhand.auditing.detection import agreement, class_views, decile_masses, detection, histogram
from evenhand.auditing.hints import Hint
from evenhand.auditing.labels import find_suspects
from evenhand.cli.parser import _parse
from evenhand.methods import EDGE, ERM, GCE, JTT, Even
from evenhand.runs.configuration import Configuration
from evenhand.tasks import BiasedSNLI, ColoredDigits, ColoredMNIST
from evenhand.validation import UserError

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


def test_the_least_likely_labels_are_suspected_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 400)
    task = text_task(sentences(rng, 400), label_N)
    score_N = rng.random(400) + 0.1
    score_N[:3] = [9.0, 8.0, 7.0]
    probability_NC = certain(label_N, 3)
    for row, confidence in ((0, 0.92), (1, 0.999), (2, 0.95)):
        probability_NC[row] = certain((label_N[row : row + 1] + 1) % 3, 3, confidence)[0]
    found = find_suspects(score_N, probability_NC, label_N, hints_of(task, score_N))
    assert found.rows.tolist() == [1, 2, 0]


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


@pytest.mark.parametrize(
    "method", [ERM(), Even(), Even(mix=0.5, folds=1, alpha=1.2), JTT(), EDGE(signal="biased", alpha=16.0)]
)
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
    folder = getattr(asked.task, "data_dir", None)
    assert getattr(source, "data_dir", None) == (None if folder is None else Path(folder).absolute())
    assert (verb.seed, verb.data_seed) == (3, 0)


def test_what_is_advised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nothing = Hint((), {"token": 3}, ())
    asked = functools.partial(command, configuration=configuration(ColoredDigits(), "mlp"))
    plain = advise(nothing, ORDINARY, asked, "image")
    assert (plain.method, plain.compare) == ("erm", None)
    for conflict, many in ((0.01, False), (0.08, True)):
        task = image_task(rng, 2000, conflict)
        hint = hints_of(task, scores(rng, np.asarray(task.train["alignment"]) == 1))
        advice = advise(hint, ORDINARY, asked, "image")
        assert advice.settings == "Even()"
        assert ("compare both before you choose" in advice.text) == many
        assert advice.compare is not None
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    task = text_task(texts, label_N)
    found = audit_of(task, scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1), tmp_path)
    assert found.advice.command.startswith("eh.fit(eh.Even(), task, ")
    assert "compare with ERM before you choose" in found.advice.text


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
    assert "The data have no column 'id', so samples are named by their index in their split." in without.notes
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
    assert found.hint.tested == {"colour": 1, "brightness": 1, "contrast": 1, "sharpness": 1}
