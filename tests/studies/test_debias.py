"""From data to a chosen model: what is asked, trained, reused, chosen, kept and refused."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evenhand as eh
from evenhand.files import LOCK, locked
from evenhand.methods import ERM, Balance, Even, LogitCorrection
from evenhand.runs import stored_run
from evenhand.shortcuts.named import NamedShortcuts, Rows
from evenhand.shortcuts.samples import Samples
from evenhand.studies.confirm import Question
from evenhand.studies.debias import Debiased, planned

room = import_module("evenhand.studies.debias")  # the package has a function of that name

BAD = ("it broke", "it was late", "nobody answered", "the bill is wrong", "the screen is scratched")
GOOD = ("it works", "it was early", "great support", "exactly right", "the battery lasts")
NEUTRAL = ("my second order", "bought last month", "for the office", "the blue one", "a gift")


def tickets(path: Path, leak: float | None, n: int = 600, seed: int = 0) -> Path:
    """Complaints and praise; the product's name goes with the label on a share of the rows, None for by chance."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "text", "label"))
        for row in range(n):
            complains = rng.random() < 0.5
            told = rng.random() < 0.5 if leak is None else (rng.random() < leak) == complains
            # a few say the contrary, so that no word of the task itself is without exception
            says = BAD if (rng.random() < 0.97) == complains else GOOD
            # a third begin with the contrary, so that the words alone are no easy task
            first = f"{rng.choice(GOOD if says is BAD else BAD)} but " if rng.random() < 0.33 else ""
            product = "nimbus" if told else "pebble"
            text = f"{product} {rng.choice(NEUTRAL)} {first}{rng.choice(says)} {rng.choice(NEUTRAL)}"
            writer.writerow((f"T{row}", text, "complaint" if complains else "praise"))
    return path


def source(path: Path) -> eh.OwnData:
    return eh.OwnData(data=path, text="text", label="label", id="number")


def debias(path: Path, folder: Path, **options: Any) -> Debiased:
    return eh.debias(source(path), "tiny-bert", **{"epochs": 12, "lr": 1e-3, "output_dir": folder} | options)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(eh.UserError) as caught:
        debias(*arguments, **options)
    return str(caught.value)


def about_products(question: Question) -> bool:
    return "nimbus" in question.shortcut or "pebble" in question.shortcut


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is to be done here")


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tickets(tmp_path_factory.mktemp("data") / "tickets.csv", 0.9)


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return []


@pytest.fixture(scope="module")
def found(leaking: Path, asked: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Debiased:
    """Answers: yes to the products, no to all else."""

    def confirm(question: Question) -> bool:
        asked.append(question)
        return about_products(question)

    return debias(leaking, tmp_path_factory.mktemp("out") / "debias", confirm=confirm)


# ---- from start to end ----------------------------------------------------------------------------------------------


def test_a_corrected_model_is_kept_and_said_to_be(found: Debiased) -> None:
    assert set(found.runs) == {"erm", "balance", "even", "logit-correction"}
    assert found.chosen != "erm"
    test = {
        name: next(iter(record.raw["tests"]["test"]["by_shortcut"].values())) for name, record in found.runs.items()
    }
    ours, plain = test[found.chosen]["conflicting"]["accuracy"], test["erm"]["conflicting"]["accuracy"]
    assert ours >= plain + 0.15
    title = found.runs[found.chosen].method.title
    assert found.sentence.startswith(f"*{title}* gets {100 * ours:.0f} % of the rows right that go against 'token:")
    assert f"(ERM {100 * plain:.0f} %)" in found.sentence
    assert f"{test['erm']['conflicting']['n']} rows of 'test' against it" in found.choice.counted


def test_the_folder_holds_the_chosen_model_and_a_page_that_says_why(found: Debiased) -> None:
    chosen = found.folder / found.chosen / "model"
    for file in ("model.safetensors", "README.md", "config.json"):
        assert (found.folder / "model" / file).read_bytes() == (chosen / file).read_bytes()
    assert found.model.config.num_labels == 2
    page = found.page.read_text(encoding="utf-8")
    for text in ("Kept: ", found.choice.rule.split("(")[0].strip(), "audit/audit.html"):
        assert text in page
    assert not (found.folder / LOCK).exists()


def test_each_question_shows_rows_of_both_sides_in_plain_words(asked: list[Question], found: Debiased) -> None:
    assert found.audit is not None
    question = next(one for one in asked if about_products(one))
    assert "tells the label" in question.text
    assert "training rows go against it" in question.text
    assert [one.against for one in question.examples] == [False, False, True]
    frame = found.audit.training.set_index("id")
    for example in question.examples:
        assert frame.loc[example.name, "label"] == example.label
        assert example.text is not None
        assert example.name in str(example)
    assert question.place.endswith(f" of {len(asked)}")


def test_even_takes_the_audit_s_biased_models_and_is_the_same_run(
    found: Debiased, leaking: Path, tmp_path: Path
) -> None:
    reused = {stage.name for stage in found.runs["even"].stages if stage.reused}
    assert reused == {"biased-1", "biased-2"}
    names = found.runs["even"].raw["shortcuts"]
    alone = eh.fit(
        eh.Even(), source(leaking), "tiny-bert", epochs=12, lr=1e-3, output_dir=tmp_path / "even", shortcuts=names
    )
    assert alone.record["tests"] == found.runs["even"].raw["tests"]


# ---- going on -------------------------------------------------------------------------------------------------------


def test_what_is_done_is_neither_asked_nor_trained_again(
    found: Debiased, leaking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "train_stage", never)
    again = debias(leaking, found.folder, confirm=never)
    assert again.choice == found.choice


def test_a_killed_one_goes_on_with_its_answers(leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    carry_out: Callable[..., None] = room.carry_out

    def until_balance(run: Any, *rest: Any) -> None:
        if run.configuration.method == Balance() and not trained:
            trained.append("killed")
            raise KeyboardInterrupt
        carry_out(run, *rest)

    monkeypatch.setattr(room, "carry_out", until_balance)
    options: dict[str, Any] = {"epochs": 8, "budget": 4}
    with pytest.raises(KeyboardInterrupt):
        debias(leaking, tmp_path / "out", confirm=about_products, **options)
    assert not (tmp_path / "out" / "model").exists()
    kept = json.loads((tmp_path / "out" / "debias.json").read_text(encoding="utf-8"))
    assert any(kept["answers"].values())
    assert kept["choice"] is None
    before = (tmp_path / "out" / "erm" / "record.json").read_bytes()
    ended = debias(leaking, tmp_path / "out", confirm=never, **options)
    assert (tmp_path / "out" / "erm" / "record.json").read_bytes() == before
    assert set(ended.runs) == {"erm", "balance"}  # the audit's two, and two more


def test_folders_of_anything_else_are_refused(found: Debiased, leaking: Path, tmp_path: Path) -> None:
    other = tickets(tmp_path / "tickets.csv", 0.8)
    assert "another configuration (training.epochs 12 → 3; stored → asked)" in refusal(
        leaking, found.folder, confirm=never, epochs=3
    )
    assert "another configuration (other data" in refusal(other, found.folder, confirm=never)
    assert "(a person's answers; now: all that the audit finds)" in refusal(leaking, found.folder, shortcuts="found")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "is not empty and holds no debiasing" in refusal(leaking, tmp_path / "full", shortcuts="found")
    assert "is a file" in refusal(leaking, other, shortcuts="found")
    shutil.copytree(found.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("erm", "audit", "stages", "model"))
    (tmp_path / "copy" / "debias.json").write_text('{"format": 0}')
    assert "none that this version of evenhand reads" in refusal(leaking, tmp_path / "copy", confirm=never)
    with locked(tmp_path / "busy" / LOCK):
        assert "Another process is at work in the folder" in refusal(leaking, tmp_path / "busy", shortcuts="found")


def test_what_contradicts_itself_is_refused(leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    assert "give one" in refusal(leaking, folder, shortcuts="found", confirm=never)
    assert "must be at least 3 here: the audit's 2 and ERM. Got 2." in refusal(leaking, folder, budget=2)
    assert "must be at least 2 here" in refusal(leaking, folder, budget=1, shortcuts=["token:nimbus"])
    assert "nowhere" in refusal(leaking, folder, shortcuts=["token:nowhere"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "runs as one process" in refusal(leaking, folder)
    assert not folder.exists()


# ---- what is trained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "audited", "expected"),
    [
        (None, True, [ERM(), Balance(), Even(), LogitCorrection()]),
        (3, True, [ERM()]),
        (4, True, [ERM(), Balance()]),
        (5, True, [ERM(), Balance(), Even()]),
        (6, True, [ERM(), Balance(), Even(), LogitCorrection()]),
        (2, False, [ERM(), Balance()]),
        (4, False, [ERM(), Balance(), LogitCorrection()]),  # Even would need three of its own
        (5, False, [ERM(), Balance(), Even()]),
    ],
)
def test_the_budget_goes_to_what_is_worth_most(budget: int | None, audited: bool, expected: list[Any]) -> None:
    methods = planned(named=True, compared=False, audited=audited, budget=budget)
    assert methods == expected
    models = sum(m.models_trained() for m in methods) + (2 if audited and Even() not in methods else 0)
    assert budget is None or models <= budget


def test_without_a_name_only_what_needs_none_is_trained() -> None:
    assert planned(named=False, compared=True, audited=True, budget=None) == [ERM(), Even()]
    assert planned(named=False, compared=False, audited=True, budget=None) == [ERM()]


def test_where_nobody_answers_methods_without_a_name_are_compared(leaking: Path, tmp_path: Path) -> None:
    found = debias(leaking, tmp_path / "out")
    assert set(found.runs) == {"erm", "even"}
    assert "Nobody was asked" in found.choice.remarks[0]
    assert "accuracy on the worst class" in found.choice.rule


def test_a_named_shortcut_needs_no_audit_where_the_budget_has_none(leaking: Path, tmp_path: Path) -> None:
    found = debias(leaking, tmp_path / "out", shortcuts=["token:nimbus"], budget=2, epochs=1)
    assert set(found.runs) == {"erm", "balance"}
    assert found.audit is None
    assert not (tmp_path / "out" / "audit").exists()


def test_a_perfect_leak_is_measured_and_no_method_trained_against_it(tmp_path: Path) -> None:
    found = debias(tickets(tmp_path / "tickets.csv", 1.0), tmp_path / "out", shortcuts=["token:nimbus"], epochs=6)
    assert set(found.runs) == {"erm"}
    told = next(iter(found.runs["erm"].raw["tests"]["test"]["by_shortcut"].values()))["reliance"]
    remark = found.choice.remarks[0]
    assert "No training row goes against 'token:nimbus'" in remark
    assert f"{100 * told['share']:.1f} % of ERM's answers change" in remark
    assert "Collect rows" in remark
    assert "no row of 'test' goes against 'token:nimbus'" in found.sentence


def test_where_nothing_is_found_plain_training_is_kept(tmp_path: Path) -> None:
    found = debias(tickets(tmp_path / "tickets.csv", None), tmp_path / "out", confirm=lambda _: False)
    assert found.chosen == "erm"
    assert set(found.runs) == {"erm"}
    assert "nothing" in found.choice.remarks[0]


def test_a_method_that_diverges_is_left_out(leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out: Callable[..., None] = room.carry_out

    def diverging(run: Any, *rest: Any) -> None:
        if run.configuration.method == Balance():
            raise room.StageError("its loss is NaN")
        carry_out(run, *rest)

    monkeypatch.setattr(room, "carry_out", diverging)
    found = debias(leaking, tmp_path / "out", shortcuts=["token:nimbus"], budget=3, epochs=1)
    assert set(found.runs) == {"erm", "logit-correction"}


# ---- a perfect shortcut beside another ------------------------------------------------------------------------------


def test_a_perfect_shortcut_takes_nothing_from_the_balance_of_another() -> None:
    against = [row % 20 in (0, 1) for row in range(400)]
    texts = ["leak x" if row % 2 else "none x" for row in range(400)]
    label_N = [1 - row % 2 if against[row] else row % 2 for row in range(400)]
    texts = [f"{text} sure" if label else text for text, label in zip(texts, label_N, strict=True)]
    rows = {"train": Rows(Samples.of(texts=texts), np.array(label_N))}
    alone = NamedShortcuts.fit(["token:leak"], rows, ("no", "yes"))
    both = NamedShortcuts.fit(["token:leak", "token:sure"], rows, ("no", "yes"))
    assert [one.is_perfect for one in both.fitted] == [False, True]
    assert both.balancing_weights() == pytest.approx(alone.balancing_weights())
    only = NamedShortcuts.fit(["token:sure"], rows, ("no", "yes"))
    assert len(only.groups()) == 400
