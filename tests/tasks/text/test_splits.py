from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import evenhand as eh
from evenhand.data.columns import column_values
from evenhand.runs.configuration import Configuration
from evenhand.tasks import TASKS, Task, TaskSource
from evenhand.validation import UserError
from text_replicas import (
    civil_rows,
    hans_beside_multinli,
    members,
    refusal,
    sizes,
    tabs,
    write_civil,
    write_fever,
    write_multinli,
    write_qqp,
    write_snli,
)

WRITERS: dict[type[TaskSource], Callable[[Path], Path]] = {
    eh.LeakedSNLI: write_snli,
    eh.MultiNLI: write_multinli,
    eh.MNLIHANS: hans_beside_multinli,
    eh.SNLIHard: write_snli,
    eh.QQPPAWS: write_qqp,
    eh.FEVERSymmetric: write_fever,
    eh.CivilComments: write_civil,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", unreachable)


def built(source: type[TaskSource], folder: Path, **options: Any) -> Task:
    return source(data_dir=WRITERS[source](folder / "data"), **options).build(0)  # type: ignore[call-arg]


# ---- what all of them share -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", WRITERS)
def test_each_is_listed_built_twice_alike_and_describes_itself(source: type[TaskSource], tmp_path: Path) -> None:
    assert TASKS[source.name] is source
    first, again = built(source, tmp_path), built(source, tmp_path)
    for name, split in first.splits.items():
        assert split.to_dict() == again.splits[name].to_dict()
        assert column_values(split, "index").tolist() == list(range(len(split)))
    for words in (source.summary, source.origin, source.licence, source.bias, source.metric):
        assert words
    settings = source(data_dir=tmp_path).settings()  # type: ignore[call-arg]
    assert "data_dir" not in settings
    task = source()
    assert task.training_for("MiniLM").max_length == task.training_for("MiniLM", adapters=True).max_length
    for split, published in source().expected_counts().items():
        assert published["n"] == sum(n for name, n in published.items() if name != "n") or len(published) == 1, split


@pytest.mark.parametrize("source", WRITERS)
def test_without_files_each_says_how_to_get_them(source: type[TaskSource], tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        found = refusal(source(data_dir=folder))  # type: ignore[call-arg]
        assert "--data-dir" in found
        assert ": take " in found or ": download " in found or "made by hand" in found
    assert refusal(source(data_dir=tmp_path / "no")) == (  # type: ignore[call-arg]
        f"The folder '{tmp_path / 'no'}' given as --data-dir does not exist."
    )


@pytest.mark.parametrize("source", WRITERS)
def test_settings_out_of_range_are_refused(source: type[TaskSource]) -> None:
    field = "comments" if source is eh.CivilComments else "pairs"
    with pytest.raises(UserError, match=rf"^The '{field}' parameter of {source.name} must be an integer of at least 1"):
        source(**{field: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("source", WRITERS)
def test_a_limit_takes_rows_from_the_beginning(source: type[TaskSource], tmp_path: Path) -> None:
    field = "comments" if source is eh.CivilComments else "pairs"
    whole, part = built(source, tmp_path), built(source, tmp_path, **{field: 6})
    assert len(part.train) <= 6
    column = "id" if "id" in part.train.column_names else "text"
    if source is not eh.LeakedSNLI:  # of which a tenth validates
        assert list(part.train[column]) == list(whole.train[column])[:6]
    assert not [note for note in part.notes if note.startswith("The split 'train'")]


# ---- qqp-paws and fever-symmetric -----------------------------------------------------------------------------------


def test_qqp_paws(tmp_path: Path) -> None:
    task = built(eh.QQPPAWS, tmp_path)
    assert sizes(task) == {"train": 20, "validation": 8, "paws": 6}
    assert "2 broken lines of QQP's training part were left out." in task.notes
    assert task.train[1]["text"] == '"train 1'
    assert members(task.tests["paws"]) == {"non-duplicate": 4, "duplicate": 2}
    assert members(task.tests["paws"], "alignment") == {"aligned": 2, "conflicting": 4, "independent": 0}


def test_qqp_comes_from_the_hub_where_the_folder_has_paws_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_qqp(tmp_path / "data")
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").unlink()

    def load(name: str, subset: str, split: str) -> datasets.Dataset:
        assert (name, subset) == ("nyu-mll/glue", "qqp")
        texts = [f"{split} {i}" for i in range(4)]
        return datasets.Dataset.from_dict(
            {"question1": texts, "question2": texts, "label": [0, 1, 0, 1], "idx": [0, 1, 2, 2]}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    task = eh.QQPPAWS(data_dir=folder).build(0)
    assert (task.train[0]["text"], task.validation[0]["text"]) == ("train 0", "validation 0")
    assert "1 rows of QQP's training part have the id of an earlier row; they were kept." in task.notes


def test_paws_made_under_python_3_is_refused(tmp_path: Path) -> None:
    folder = write_qqp(tmp_path / "data")
    rows = [{"id": i, "sentence1": f"b'a {i}'", "sentence2": "b'x'", "label": 0} for i in range(3)]
    tabs(folder / "dev_and_test.tsv", ["id", "sentence1", "sentence2", "label"], rows)
    assert "are Python's byte literals (b'…')" in refusal(eh.QQPPAWS(data_dir=folder))


def test_fever_symmetric(tmp_path: Path) -> None:
    task = built(eh.FEVERSymmetric, tmp_path)
    assert sizes(task) == {"train": 30, "validation": 9, "symmetric": 6, "symmetric-v0.2": 6}
    assert task.label_names == ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
    assert members(task.tests["symmetric"]) == {"SUPPORTS": 3, "REFUTES": 3, "NOT ENOUGH INFO": 0}
    assert task.tests["symmetric"][1]["text_pair"] == "evidence"
    assert task.merged == {}  # a prediction of NOT ENOUGH INFO is wrong there
    assert "15 rows of FEVER's training part have the id of an earlier row; they were kept." in task.notes


def test_a_symmetric_set_has_two_classes(tmp_path: Path) -> None:
    folder = write_fever(tmp_path / "data")
    path = folder / "fever_symmetric_generated.jsonl"
    path.write_text(path.read_text().replace("REFUTES", "NOT ENOUGH INFO"))
    assert refusal(eh.FEVERSymmetric(data_dir=folder)).startswith(
        f"Line 2 of the file '{path}' has the label 'NOT ENOUGH INFO', which is none of SUPPORTS, REFUTES"
    )


# ---- civilcomments --------------------------------------------------------------------------------------------------


def test_civilcomments(tmp_path: Path) -> None:
    task = built(eh.CivilComments, tmp_path)
    assert sizes(task) == {"train": 8, "validation": 4, "test": 4}
    assert list(task.tests["test"]["labels"]) == [1, 0, 0, 1]
    found = members(task.train)
    assert len(found) == 16
    assert {name: n for name, n in found.items() if n} == {"male, non-toxic": 2, "male, toxic": 2, "white, toxic": 2}
    assert [list(groups) for groups in task.tests["test"]["group"]] == [[1, 15], [0], [], []]
    assert task.train[1]["text"] == 'He said, "line 1\nand more"'
    assert task.notes[0].startswith("Counts differ from the published ones: train: 8 found, 269,038 expected; ")


def test_civilcomments_gaps_and_mistakes(tmp_path: Path) -> None:
    rows = civil_rows()
    rows[0] |= {"toxicity": "", "male": ""}
    rows[1] |= {"male": "", "id": 5000}
    task = eh.CivilComments(data_dir=write_civil(tmp_path / "a", rows), test_comments=2).build(0)
    assert len(task.train) == 7
    assert task.notes[:2] == (
        "1 rows of CivilComments-WILDS have the id of an earlier row; they were kept.",
        "1 comments have no toxicity and were left out.",
    )
    assert members(task.train)["male, non-toxic"] == 1  # row 5, for row 1 has no answer
    assert sizes(task)["validation"] == sizes(task)["test"] == 2
    source = eh.CivilComments(data_dir=tmp_path / "b")
    write_civil(tmp_path / "b", [row | {"toxicity": "very"} for row in civil_rows()])
    assert "has 'very' as toxicity, which must be a number." in refusal(source)
    write_civil(tmp_path / "b", [row | {"split": "dev"} for row in civil_rows()])
    assert "has the split 'dev', which is none of train, val, test." in refusal(source)
    write_civil(tmp_path / "b", civil_rows()[:12])
    assert refusal(source).endswith("has no comments of the split 'test'.")
    write_civil(tmp_path / "b", [{k: v for k, v in row.items() if k != "LGBTQ"} for row in civil_rows()])
    assert "has no column 'LGBTQ'" in refusal(source)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_names_the_benchmark_and_its_changed_settings() -> None:
    source = eh.MultiNLI(data_dir="somewhere", recipe="group-dro", pairs=500)
    configuration = Configuration(
        method=eh.ERM(), task=source, model="MiniLM", training=source.training_for("MiniLM"), seed=1, data_seed=1
    )
    assert configuration.command() == (
        "evenhand train erm --task multinli --recipe group-dro --pairs 500 --data-dir DATA_DIR --seed 1"
    )
