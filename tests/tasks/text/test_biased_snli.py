from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from evenhand.data.columns import column_values, membership
from evenhand.tasks import BiasedSNLI, Task
from evenhand.tasks.text.biased_snli import token_probabilities
from evenhand.training.settings import ADAPTER_TUNING, FINE_TUNING
from evenhand.validation import UserError
from snli_files import write_pairs, write_snli
from text_replicas import SNLI_COLUMNS, jsonl, tabs

REAL_SNLI = Path(__file__).parents[4] / "shared/data/snli"


def texts(split: Any) -> list[str]:
    return list(split["text"])


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        BiasedSNLI(data_dir=folder, **options).build(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the recipe -----------------------------------------------------------------------------------------------------


def test_the_published_probabilities() -> None:
    # 182,764 of the 549,367 labelled pairs of SNLI's training part are neutral
    on_neutral, on_other = token_probabilities(182_764 / 549_367, 0.33, 0.9)
    assert round(on_neutral, 3) == 0.893
    assert round(on_other, 3) == 0.049
    on_neutral, on_other = token_probabilities(1 / 3, 0.95, 0.33)
    assert on_neutral == pytest.approx(0.9405)
    assert on_other == pytest.approx(0.95475)


@given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_probabilities_give_back_prevalence_and_strength(share: float, prevalence: float, strength: float) -> None:
    on_target, on_other = token_probabilities(share, prevalence, strength)
    joint = on_target * share
    assert joint + on_other * (1 - share) == pytest.approx(prevalence)
    assert joint == pytest.approx(prevalence * strength)


def test_probabilities_without_a_class() -> None:
    assert token_probabilities(0, 0.5, 0.5)[0] == float("inf")
    assert token_probabilities(0, 0.5, 0) == (0.0, 0.5)


def built(tmp_path: Path, **options: Any) -> Task:
    return BiasedSNLI(data_dir=write_snli(tmp_path / "snli", train=6000, dev=3000), **options).build(0)


def test_splits_carry_the_token_by_their_recipe(tmp_path: Path) -> None:
    task = built(tmp_path)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 6000,
        "validation": 60,
        "test": 3000,
        "in-distribution": 3000,
        "clean": 3000,
        "token-everywhere": 3000,
    }
    assert task.primary_test == "test"
    shares = {"train": (0.891, 0.0495), "in-distribution": (0.891, 0.0495), "test": (0.9405, 0.95475)}
    for name, (on_neutral, on_other) in (shares | {"clean": (0.0, 0.0), "token-everywhere": (1.0, 1.0)}).items():
        split = task.splits[name]
        token_N = np.array([text.endswith(" !!") for text in texts(split)])
        assert np.array_equal(token_N, column_values(split, "attribute") == 1)
        neutral_N = column_values(split, "labels") == 1
        for chosen_N, share in ((neutral_N, on_neutral), (~neutral_N, on_other)):
            low, high = stats.binom.interval(1 - 1e-6, int(chosen_N.sum()), share)
            assert low <= token_N[chosen_N].sum() <= high


def test_alignment_and_groups_are_of_pairs_with_the_token(tmp_path: Path) -> None:
    split = built(tmp_path).tests["test"]
    token_N = column_values(split, "attribute") == 1
    label_N = column_values(split, "labels")
    alignment, groups = membership(split, "alignment"), membership(split, "group")
    assert np.array_equal(alignment["aligned"], token_N & (label_N == 1))
    assert np.array_equal(alignment["conflicting"], token_N & (label_N != 1))
    assert np.array_equal(alignment["independent"], ~token_N)
    assert list(groups) == ["entailment conflicting", "neutral aligned", "contradiction conflicting"]
    assert np.array_equal(np.any(list(groups.values()), axis=0), token_N)
    assert np.array_equal(groups["contradiction conflicting"], token_N & (label_N == 2))
    assert column_values(split, "index").tolist() == list(range(len(split)))


def test_tests_are_of_the_same_pairs_and_hypotheses_stay(tmp_path: Path) -> None:
    task = built(tmp_path)
    plain = texts(task.tests["clean"])
    assert texts(task.tests["token-everywhere"]) == [text + " !!" for text in plain]
    assert plain == [f"a dev {i}" for i in range(3000)]
    for split in task.tests.values():
        assert list(split["text_pair"]) == [f"a hypothesis {i}" for i in range(3000)]


def test_equal_seeds_give_equal_data_and_others_other_tokens(tmp_path: Path) -> None:
    source = BiasedSNLI(data_dir=write_snli(tmp_path / "snli"))
    first, again, other = source.build(3), source.build(3), source.build(4)
    assert texts(first.train) == texts(again.train)
    assert texts(first.train) != texts(other.train)
    assert texts(first.tests["clean"]) == texts(other.tests["clean"])


def test_another_token_and_target(tmp_path: Path) -> None:
    task = built(tmp_path, token=" so", target="entailment", strength=1.0)
    marked = [label for text, label in zip(texts(task.train), task.train["labels"], strict=True) if " so" in text]
    assert set(marked) == {0}
    assert next(iter(membership(task.train, "group"))) == "entailment aligned"


def test_pairs_and_test_pairs_are_taken_from_the_beginning(tmp_path: Path) -> None:
    task = built(tmp_path, pairs=90, test_pairs=30, token="\t!")
    assert [t.removesuffix("\t!") for t in texts(task.train)] == [f"a train {i}" for i in range(90)]
    assert {len(split) for split in task.tests.values()} == {30}


def test_without_a_held_out_file_a_tenth_of_each_class_validates(tmp_path: Path) -> None:
    folder = write_snli(tmp_path / "snli", train=300, holdout=None)
    tasks = [BiasedSNLI(data_dir=folder, pairs=240).build(seed) for seed in (0, 0, 1)]
    assert [len(t.train) for t in tasks] == [216] * 3
    assert np.bincount(column_values(tasks[0].validation, "labels")).tolist() == [8, 8, 8]
    everything = [t.removesuffix(" !!") for t in texts(tasks[0].train) + texts(tasks[0].validation)]
    assert sorted(everything) == sorted(f"a train {i}" for i in range(240))
    assert texts(tasks[0].validation) == texts(tasks[1].validation) != texts(tasks[2].validation)


# ---- files ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"))] * 2),
        min_size=1,
    )
)
def test_pairs_are_read_as_they_stand(pairs: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_snli(Path(folder)) / "dev.tsv"
        lines = [f"{premise}\t{hypothesis}\t{i % 3}" for i, (premise, hypothesis) in enumerate(pairs * 9)]
        path.write_text("\n".join(["premise\thypothesis\tlabel", *lines]), encoding="utf-8")
        clean = BiasedSNLI(data_dir=folder, test_prevalence=0.0, prevalence=0.0).build(0).tests["clean"]
    assert list(zip(texts(clean), clean["text_pair"], strict=True)) == pairs * 9
    assert clean["labels"][:] == [i % 3 for i in range(len(pairs) * 9)]


@pytest.mark.parametrize("ending", ["jsonl", "txt"])
def test_files_as_published_give_what_plain_tables_give(ending: str, tmp_path: Path) -> None:
    plain = BiasedSNLI(data_dir=write_snli(tmp_path / "plain", holdout=None)).build(5)
    (tmp_path / "published").mkdir()
    for part in ("train", "dev"):
        rows = [line.split("\t") for line in (tmp_path / "plain" / f"{part}.tsv").read_text().splitlines()[1:]]
        named = [dict(zip(("sentence1", "sentence2", "gold_label"), row, strict=True)) for row in rows]
        path = tmp_path / "published" / f"snli_1.0_{part}.{ending}"
        if ending == "jsonl":
            jsonl(path, [row | {"pairID": f"p{i}"} for i, row in enumerate(named)])
        else:
            tabs(path, SNLI_COLUMNS, [row | {"pairID": f"p{i}"} for i, row in enumerate(named)])
    task = BiasedSNLI(data_dir=tmp_path / "published").build(5)
    for name, split in task.splits.items():
        assert split.remove_columns("id").to_dict() == plain.splits[name].to_dict()
    assert task.tests["clean"]["id"][:2] == ["p0", "p1"]


def test_labels_are_names_or_numbers_and_pairs_without_one_are_counted(tmp_path: Path) -> None:
    folder = write_snli(tmp_path / "snli")
    write_pairs(folder / "train.tsv", ["0", "neutral", "2", "-1", "contradiction", "-", "1", "entailment"] * 20)
    task = BiasedSNLI(data_dir=folder).build(0)
    assert task.train["labels"][:6] == [0, 1, 2, 2, 1, 0]
    assert task.notes == ("40 rows of SNLI's train part have no label and were left out.",)
    assert BiasedSNLI(data_dir=write_snli(tmp_path / "whole")).build(0).notes == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("premise\thypothesis\nx\ty\n", "has no column 'gold_label' (or 'label')"),
        ("", "The file '{path}' is empty (0 bytes)."),
        ("premise,hypothesis,label\n", "its columns are 'premise,hypothesis,label'"),
        (
            "premise\thypothesis\tlabel\na\tb\tneutral\na\tb\tmaybe\n",
            "Line 3 of the file '{path}' has the label 'maybe'",
        ),
        ("premise\thypothesis\tlabel\na\tb\t3\n", "Line 2 of the file '{path}' has the label '3'"),
        ("premise\thypothesis\tlabel\na\tb\n", "Line 2 of the file '{path}' has 2 fields, but the first"),
        ("premise\thypothesis\tlabel\na\tb\t1\tc\n", "Line 2 of the file '{path}' has 4 fields, but the first"),
        ("premise\thypothesis\tlabel\na\tb\t-1\n", "The file '{path}' holds no rows with a label"),
        (b"premise\thypothesis\tlabel\n\xff\xfe\tb\t1\n", "Line 2 of the file '{path}' is not UTF-8 text (byte 1 of"),
    ],
)
def test_bad_files_are_named_with_their_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    folder = write_snli(tmp_path / "snli")
    path = folder / "dev.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = refusal(folder)
    assert str(path) in found
    assert message.format(path=path) in found


@pytest.mark.parametrize(("missing", "files"), [("train", "snli_1.0_train.jsonl"), ("dev", "snli_1.0_dev.jsonl")])
def test_a_missing_file_is_named(missing: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    folder = write_snli(tmp_path / "snli")
    (folder / f"{missing}.tsv").unlink()
    message = refusal(folder)
    assert message.startswith(f"The folder '{folder}' has no file for SNLI's {missing} part ({files} or ")
    assert f"or {missing}.tsv), and it could not be loaded from the hub as 'stanfordnlp/snli'" in message
    assert refusal(tmp_path / "none") == f"The folder '{tmp_path / 'none'}' given as --data-dir does not exist."


def test_classes_that_are_uneven_by_chance_are_no_mistake(tmp_path: Path) -> None:
    folder = write_snli(tmp_path / "snli")
    write_pairs(folder / "dev.tsv", ["neutral"] * 30 + ["entailment"] * 35 + ["contradiction"] * 35)
    test = BiasedSNLI(data_dir=folder).build(0).tests["test"]  # 0.95 · 0.33 / 0.3 = 1.045
    token_N = column_values(test, "attribute") == 1
    assert token_N[:30].all()
    assert not token_N[30:].all()
    write_pairs(folder / "dev.tsv", ["neutral"] * 20 + ["entailment"] * 40 + ["contradiction"] * 40)
    assert "in the split 'test', where 20.0 %" in refusal(folder)


def test_what_the_data_cannot_give_is_refused(tmp_path: Path) -> None:
    folder = write_snli(tmp_path / "snli")
    message = refusal(folder, test_strength=0.5)
    assert message.startswith(
        "The prevalence 0.95 and strength 0.5 of biased-snli can't be reached in the split 'test', "
        "where 33.3 % of the pairs are labelled 'neutral'"
    )
    write_pairs(folder / "train.tsv", ["0", "2"] * 50)
    assert "in the split 'train', where 0.0 %" in refusal(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "  "}, "The 'token' parameter of biased-snli must be a text that isn't blank"),
        ({"prevalence": 1.5}, "The 'prevalence' parameter of biased-snli must be a float in the range [0, 1]"),
        ({"strength": float("nan")}, "The 'strength' parameter of biased-snli"),
        ({"test_prevalence": -1}, "The 'test_prevalence' parameter of biased-snli"),
        ({"test_strength": True}, "The 'test_strength' parameter of biased-snli"),
        ({"target": "neutrl"}, "The 'target' parameter of biased-snli must be one of entailment, neutral"),
        ({"pairs": 0}, "The 'pairs' parameter of biased-snli must be an integer of at least 1"),
        ({"test_pairs": 2.5}, "The 'test_pairs' parameter of biased-snli must be an integer"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        BiasedSNLI(**options)
    assert str(caught.value).startswith(message)


# ---- the hub, settings, the real files ------------------------------------------------------------------------------


def test_the_hubs_pairs_without_labels_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(labels: list[int]) -> datasets.Dataset:
        texts = [f"text {i}" for i in range(len(labels))]
        return datasets.Dataset.from_dict({"premise": texts, "hypothesis": texts, "label": labels})

    loaded = {"train": part([0, 1, 2, -1] * 30), "validation": part([0, 1, 2] * 10), "test": part([0, 1, 2])}
    monkeypatch.setattr(datasets, "load_dataset", lambda _name, _subset, split: loaded[split])
    task = BiasedSNLI().build(0)
    assert (len(task.train), len(task.validation), len(task.tests["test"])) == (81, 9, 30)
    assert task.notes == ("30 rows of SNLI's train part have no label and were left out.",)


def test_without_files_and_network_the_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    expected = (
        r"^No folder for SNLI's train part was given with --data-dir, and it could not be loaded from the hub as "
        r"'stanfordnlp/snli'"
    )
    with pytest.raises(UserError, match=expected) as caught:
        BiasedSNLI().build(0)
    assert str(caught.value).endswith("unpack it, and give its folder with --data-dir.")


def test_settings_hold_no_path_and_training_is_by_model_and_adapters() -> None:
    task = BiasedSNLI(data_dir=Path("somewhere"))
    assert "data_dir" not in task.settings()
    assert task.settings()["token"] == " !!"
    whole, released = task.training_for("MiniLM"), task.training_for("roberta-base", adapters=True)
    assert (whole.epochs, whole.lr, whole.batch_size, whole.optimizer, whole.schedule) == (
        2,
        1e-4,
        32,
        "adamw",
        "linear",
    )
    assert whole.max_grad_norm == 1.0
    assert (released.epochs, released.lr, released.batch_size, released.max_length) == (15, 3e-4, 64, 128)
    assert (released.weight_decay, released.optimizer) == (0.1, "adamw")
    assert task.training_for("some/checkpoint") == FINE_TUNING
    assert task.training_for("some/checkpoint", adapters=True) == ADAPTER_TUNING


def test_real_snli_has_its_counts() -> None:
    if not REAL_SNLI.is_dir():
        pytest.skip(f"SNLI's files are not in {REAL_SNLI}")
    task = BiasedSNLI(data_dir=REAL_SNLI).build(0)
    assert (len(task.train), len(task.validation), len(task.tests["test"])) == (18_000, 2_000, 9_842)
    aligned, conflicting = (int(membership(task.train, "alignment")[name].sum()) for name in ("aligned", "conflicting"))
    assert abs(aligned - 18_000 * 0.297) < 200
    assert abs(conflicting - 18_000 * 0.033) < 120
