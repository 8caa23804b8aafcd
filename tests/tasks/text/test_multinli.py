from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import evenhand as eh
from evenhand.data.columns import column_values, membership
from evenhand.tasks import Task
from evenhand.tasks.text.multinli import has_negation
from evenhand.tasks.text.nli_files import NLI_NUMBERS
from evenhand.validation import UserError
from text_replicas import (
    GLUE_MNLI_COLUMNS,
    NLI,
    cycle,
    hans_beside_multinli,
    jsonl,
    members,
    nli_rows,
    refusal,
    sizes,
    tabs,
    write_multinli,
    write_snli,
)

REAL_MNLI = Path(__file__).parents[4] / "shared/data/mnli"
REAL_SNLI = Path(__file__).parents[4] / "shared/data/snli"


# ---- leaked-snli ----------------------------------------------------------------------------------------------------


def leaked(tmp_path: Path, **options: Any) -> Task:
    folder = tmp_path / "data"
    folder.mkdir()
    for part, count in (("train", 3000), ("dev", 1500)):
        jsonl(folder / f"snli_1.0_{part}.jsonl", nli_rows(cycle(count), part))
    return eh.LeakedSNLI(data_dir=folder, **options).build(0)


@pytest.mark.parametrize(
    ("recipe", "right", "prefixes"),
    [
        ("he", 0.8 + 0.2 / 3, ("entailment and ", "neutral and ", "contradiction and ")),
        ("clark", 0.8, ("1 ", "2 ", "0 ")),
    ],
)
def test_the_named_class_is_right_as_often_as_published(
    recipe: Any, right: float, prefixes: tuple[str, ...], tmp_path: Path
) -> None:
    task = leaked(tmp_path, recipe=recipe)
    for name, share in (("train", right), ("in-distribution", right), ("test", 1 / 3)):
        split = task.splits[name]
        named_N, label_N = column_values(split, "attribute"), column_values(split, "labels")
        assert all(
            text.startswith(prefixes[named] + "There is")
            for text, named in zip(split["text_pair"], named_N, strict=True)
        )
        for label in range(3):
            chosen_N = label_N == label
            low, high = stats.binom.interval(1 - 1e-6, int(chosen_N.sum()), share)
            assert low <= (named_N == label)[chosen_N].sum() <= high
            wrong = np.bincount(named_N[chosen_N & (named_N != label)], minlength=3)
            low, high = stats.binom.interval(1 - 1e-6, int(wrong.sum()), 0.5)
            assert np.all((low <= wrong[wrong > 0]) & (wrong[wrong > 0] <= high))
        assert np.array_equal(membership(split, "alignment")["aligned"], named_N == label_N)


def test_leaked_groups_and_the_clean_test(tmp_path: Path) -> None:
    task = leaked(tmp_path, strength=1.0)
    assert members(task.train) == {
        f"{label} {alignment}": 900 if alignment == "aligned" else 0
        for label in NLI
        for alignment in ("aligned", "conflicting")
    }
    clean = task.tests["clean"]
    assert all(text.startswith("There is") for text in clean["text_pair"])
    assert members(clean, "alignment") == {"aligned": 0, "conflicting": 0, "independent": 1500}
    assert set(members(clean).values()) == {0}
    assert task.primary_test == "test"
    assert sizes(task) == {"train": 2700, "validation": 300, "test": 1500, "in-distribution": 1500, "clean": 1500}


def test_leaked_bad_settings() -> None:
    with pytest.raises(UserError, match="The 'recipe' parameter of leaked-snli must be one of he, clark"):
        eh.LeakedSNLI(recipe="hee")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="The 'strength' parameter of leaked-snli"):
        eh.LeakedSNLI(strength=1.1)


# ---- multinli -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypothesis", "found"),
    [
        ("No, he did.", True),
        ("Nothing!", True),
        ("It was never, ever", True),
        ("nobody's there", False),  # punctuation is removed, so the word is nobodys
        ("He knows north", False),
        ("not at all", False),
        ("he says\tno", False),  # split at blanks only, as in group DRO's script
        ("", False),
    ],
)
def test_negation_words_are_found_as_group_dro_finds_them(hypothesis: str, found: bool) -> None:
    assert has_negation(hypothesis) is found


def test_multinli_official(tmp_path: Path) -> None:
    task = eh.MultiNLI(data_dir=write_multinli(tmp_path / "data")).build(0)
    assert sizes(task) == {"train": 60, "validation": 12, "test": 9}
    assert members(task.train) == {f"{label}, {word}": 10 for label in NLI for word in ("no negation", "negation")}
    assert members(task.train, "alignment") == {"aligned": 10, "conflicting": 20, "independent": 30}
    assert task.train[3] == {
        "text": 'A "t 3',
        "text_pair": "There is no, hypothesis 3",
        "id": "t3",
        "labels": 0,
        "attribute": 1,
        "alignment": 1,
        "group": 1,
        "index": 3,
    }
    assert task.notes == (
        "1 rows of MultiNLI's matched development part have no label and were left out.",
        "1 rows of MultiNLI's mismatched development part have no label and were left out.",
        "Counts differ from the published ones: train: 60 found, 392,702 expected; "
        "validation: 12 found, 9,815 expected; test: 9 found, 9,832 expected.",
    )


def test_multinli_of_glue_and_json_lines_is_the_same(tmp_path: Path) -> None:
    published = eh.MultiNLI(data_dir=write_multinli(tmp_path / "data")).build(0)
    for name, columns in (("glue", GLUE_MNLI_COLUMNS), ("json", None)):
        folder = tmp_path / name
        folder.mkdir()
        for part, words, count in (("train", "t", 60), ("dev_matched", "m", 12), ("dev_mismatched", "mm", 9)):
            rows = nli_rows(cycle(count), words)
            if columns is None:
                jsonl(folder / f"multinli_1.0_{part}.jsonl", rows)
            else:
                tabs(folder / f"{part}.tsv", columns, rows)
        task = eh.MultiNLI(data_dir=folder).build(0)
        columns_compared = ["text", "text_pair", "id", "labels", "group"]
        for split in ("train", "validation"):
            found = task.splits[split].select_columns(columns_compared).to_dict()
            assert found == published.splits[split].select_columns(columns_compared).to_dict()


def test_multinli_without_a_mismatched_part_holds_a_tenth_out(tmp_path: Path) -> None:
    folder = write_multinli(tmp_path / "data", train=300, mismatched=None)
    tasks = [eh.MultiNLI(data_dir=folder, test_pairs=6).build(seed) for seed in (0, 0, 1)]
    assert sizes(tasks[0]) == {"train": 270, "validation": 30, "test": 6}
    assert np.bincount(column_values(tasks[0].validation, "labels")).tolist() == [10, 10, 10]
    ids = [list(task.validation["id"]) for task in tasks]
    assert ids[0] == ids[1] != ids[2]
    assert sorted([*ids[0], *tasks[0].train["id"]]) == sorted(f"t{i}" for i in range(300))
    assert "Without a mismatched part the matched pairs are the test" in tasks[0].notes[1]


def write_metadata(folder: Path, rows: int = 81) -> list[tuple[int, int, int]]:
    """As group DRO's: its own label numbers, over the labelled pairs of all parts."""
    number = {"contradiction": 0, "entailment": 1, "neutral": 2}
    labels = [*cycle(60), *cycle(12), *cycle(9)]
    negation = [*(i % 2 for i in range(60)), *(i % 2 for i in range(12)), *((i + 1) % 2 for i in range(9))]
    found = [(number[label], word, i // 3 % 3) for i, (label, word) in enumerate(zip(labels, negation, strict=True))]
    lines = [f"{i},{label},{word},{part}" for i, (label, word, part) in enumerate(found)]
    header = ",gold_label,sentence2_has_negation,split"
    (folder / "metadata_random.csv").write_text("\n".join([header, *lines[:rows]]) + "\n")
    return found


def test_multinli_by_group_dros_split(tmp_path: Path) -> None:
    folder = write_multinli(tmp_path / "data")
    expected = write_metadata(folder)
    task = eh.MultiNLI(data_dir=folder, recipe="group-dro").build(0)
    assert sizes(task) == {"train": 27, "validation": 27, "test": 27}
    ours = ("entailment", "neutral", "contradiction")
    for number, split in enumerate(task.splits.values()):
        rows = [row for row in expected if row[2] == number]
        labels = [("contradiction", "entailment", "neutral")[label] for label, _, _ in rows]
        assert [ours[label] for label in split["labels"]] == labels
        assert list(split["attribute"]) == [word for _, word, _ in rows]
    assert not [note for note in task.notes if "disagree" in note]
    assert any("test: 27 found, 123,712 expected" in note for note in task.notes)
    published = eh.MultiNLI(recipe="group-dro").expected_counts()
    assert {split: counts["n"] for split, counts in published.items()} == {
        "train": 206_175,
        "validation": 82_462,
        "test": 123_712,
    }


def test_multinli_metadata_that_is_missing_or_of_other_files(tmp_path: Path) -> None:
    folder = write_multinli(tmp_path / "data")
    source = eh.MultiNLI(data_dir=folder, recipe="group-dro")
    assert "needs the file 'metadata_random.csv' in the folder given with --data-dir: take it from" in refusal(source)
    write_metadata(folder, rows=80)
    assert "has 80 rows, but the training, matched and mismatched parts have 81 labelled pairs" in refusal(source)
    write_metadata(folder)
    path = folder / "metadata_random.csv"
    path.write_text(path.read_text().replace("\n2,0,0,0\n", "\n2,1,0,0\n"))
    assert refusal(source) == (
        f"Line 4 of the file '{path}' says entailment, but labelled pair 3 of MultiNLI is a contradiction (1 such "
        "rows): they don't belong together."
    )
    write_metadata(folder)
    path.write_text(path.read_text().replace("\n0,1,0,0\n", "\n0,1,1,0\n"))
    assert any("disagree on negation in 1 pairs" in note for note in source.build(0).notes)


# ---- mnli-hans and snli-hard ----------------------------------------------------------------------------------------


def test_mnli_hans(tmp_path: Path) -> None:
    task = eh.MNLIHANS(data_dir=hans_beside_multinli(tmp_path / "data")).build(0)
    assert sizes(task) == {"train": 60, "validation": 12, "hans": 12, "mismatched": 9}
    hans = task.tests["hans"]
    assert task.primary_test == "hans"
    assert hans.features["labels"].names == ["entailment", "non-entailment"]
    assert set(members(hans)) == set(eh.MNLIHANS().expected_counts()["hans"]) - {"n"}
    assert set(members(hans).values()) == {2}
    entailed_N = column_values(hans, "labels") == 0
    assert np.array_equal(membership(hans, "alignment")["aligned"], entailed_N)
    assert np.array_equal(membership(hans, "alignment")["conflicting"], ~entailed_N)
    classes = task.test_classes("hans")
    assert classes is not None
    assert dict(zip(task.label_names, classes.tolist(), strict=True)) == {
        "entailment": 0,
        "neutral": 1,
        "contradiction": 1,
    }
    assert task.test_classes("mismatched") is None
    assert any("neutral and contradiction then are non-entailment" in note for note in task.notes)
    assert any("hans, subsequence, entailment: 2 found, 5,000 expected" in note for note in task.notes)


def test_hans_of_another_file_is_refused(tmp_path: Path) -> None:
    folder = hans_beside_multinli(tmp_path / "data")
    path = folder / "heuristics_evaluation_set.txt"
    path.write_text(path.read_text().replace("\tconstituent\t", "\tconstituents\t", 1))
    found = refusal(eh.MNLIHANS(data_dir=folder))
    assert f"of the file '{path}' has the heuristic 'constituents', which is none of lexical_overlap" in found
    (folder / "multinli_1.0_dev_matched.txt").rename(path)
    assert "has no column 'heuristic'" in refusal(eh.MNLIHANS(data_dir=write_multinli(folder)))


def test_snli_hard(tmp_path: Path) -> None:
    task = eh.SNLIHard(data_dir=write_snli(tmp_path / "data")).build(0)
    assert sizes(task) == {"train": 60, "validation": 12, "hard": 4, "test": 12}
    assert (task.primary_test, list(task.tests["hard"]["id"])) == ("hard", [f"test{i}" for i in range(3, 7)])
    assert np.flatnonzero(membership(task.tests["test"], "alignment")["conflicting"]).tolist() == [3, 4, 5, 6]
    assert members(task.tests["test"]) == dict.fromkeys(NLI, 4)


# ---- the real files, and runs ---------------------------------------------------------------------------------------


def test_labels_are_snlis_numbers() -> None:
    assert [NLI_NUMBERS[str(i)] for i in range(3)] == [NLI_NUMBERS[name] for name in NLI] == [0, 1, 2]


def test_real_mnli_has_its_counts() -> None:
    if not REAL_MNLI.is_dir():
        pytest.skip(f"MultiNLI's files are not in {REAL_MNLI}")
    task = eh.MultiNLI(data_dir=REAL_MNLI).build(0)
    assert sizes(task) == {"train": 11_691, "validation": 1_297, "test": 9_815}
    assert members(task.tests["test"]) == {
        "entailment, no negation": 3388,
        "entailment, negation": 91,
        "neutral, no negation": 3036,
        "neutral, negation": 87,
        "contradiction, no negation": 2709,
        "contradiction, negation": 504,
    }


def test_real_snli_leaks_as_told() -> None:
    if not REAL_SNLI.is_dir():
        pytest.skip(f"SNLI's files are not in {REAL_SNLI}")
    task = eh.LeakedSNLI(data_dir=REAL_SNLI, recipe="clark").build(0)
    assert sizes(task)["train"] == 18_000
    assert abs(members(task.train, "alignment")["aligned"] - 0.8 * 18_000) < 250
