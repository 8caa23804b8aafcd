"""Study files: what they mean, and one sentence for every mistake in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import evenhand as eh
from evenhand.runs.configuration import Configuration
from evenhand.runs.prepared import Asked, prepare
from evenhand.studies.plan import Plan, read_plan

HEAD = "seeds: 2\ntask: colored-digits\n"


def plan_of(folder: Path, text: str, **options: Any) -> Plan:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return read_plan(path, **options)


def names(plan: Plan) -> list[str]:
    return [cell.name for cell in plan.cells]


def test_a_grid_is_every_combination_and_hashes_as_a_run_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, HEAD + "method: {name: pgd, q: 0.5}\ngrid: {method.source: [head, all], training.lr: [1e-3, 1e-2]}"
    )
    assert names(plan) == [
        "PGD, source=head, lr=0.001",
        "PGD, source=head, lr=0.01",
        "PGD, source=all, lr=0.001",
        "PGD, source=all, lr=0.01",
    ]
    task = eh.ColoredDigits()
    training = task.training_for("digits-cnn").replaced(lr=1e-2)
    method = eh.PGD(q=0.5, source="all")
    same = Configuration(method=method, task=task, model="digits-cnn", training=training, seed=1, data_seed=1)
    assert plan.cells[3].runs[1].run_hash == same.run_hash
    assert [[run.seed for run in cell.runs] for cell in plan.cells] == [[0, 1]] * 4


def test_adapters_are_a_section_of_their_own(tmp_path: Path) -> None:
    text = "seeds: 1\ntask: biased-snli\nmodel: roberta-base\nmethod: erm\n"
    plan = plan_of(tmp_path, text + "cells: [{}, {peft: lora}, {peft: {kind: dora, r: 2}}]")
    assert names(plan) == ["ERM", "ERM, peft=lora", "ERM, peft=dora, r=2"]
    full, lora, dora = (cell.first for cell in plan.cells)
    assert (full.adapters, lora.adapters) == (None, eh.Adapters())
    assert dora.adapters == eh.Adapters(kind="dora", r=2)
    task = eh.BiasedSNLI()
    assert lora.training == task.training_for("roberta-base", True) != full.training
    grid = plan_of(tmp_path, text + "peft: lora\ngrid: {peft.r: [1, 8]}")
    assert names(grid) == ["ERM, r=1", "ERM, r=8"]
    with pytest.raises(eh.UserError, match=r"s.yaml, line 5: the peft has no field 'rank'; it has kind, r"):
        plan_of(tmp_path, text + "peft: {kind: lora, rank: 2}")
    with pytest.raises(eh.UserError, match="'r'"):
        plan_of(tmp_path, text + "peft: {kind: lora, r: 0}")


def test_cells_have_their_own_fields_and_grids_on_top_of_the_common_ones(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
task: {name: colored-digits, conflict: 0.05}
training: {epochs: 3, optimizer: sgd, momentum: 0.9}
seeds: [4, 2]
data_seed: 7
grid: {model: [mlp, digits-cnn]}
cells:
  - {method: erm, seeds: 1}
  - {name: draws, method: pgd, grid: {method.init: [inherit, random]}, training: {epochs: 5}}
""",
    )
    assert names(plan) == [
        "ERM, model=mlp",
        "ERM, model=digits-cnn",
        "draws, model=mlp, init=inherit",
        "draws, model=mlp, init=random",
        "draws, model=digits-cnn, init=inherit",
        "draws, model=digits-cnn, init=random",
    ]
    last = plan.cells[-1].runs[0]
    assert (last.training.epochs, last.training.optimizer, last.training.lr) == (5, "sgd", 1e-3)
    assert (last.seed, last.data_seed) == (4, 7)
    assert last.task.settings()["conflict"] == 0.05  # type: ignore[union-attr]
    assert plan.cells[0].first.training.epochs == 3
    assert [run.seed for run in plan.cells[0].runs] == [0]
    assert plan.cells[0].first.command() is None  # no flag of `evenhand train` sets an optimizer


def test_another_method_takes_none_of_the_commons_fields(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + "method: {name: pgd, source: all}\ncells: [{}, {method: erm}, {method: {q: 0.5}}]")
    assert names(plan) == ["PGD", "ERM", "PGD, q=0.5"]
    assert plan.cells[2].first.method == eh.PGD(source="all", q=0.5)


def test_a_grid_may_name_whole_methods(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + "grid: {method: [erm, {name: pgd, source: all}], task.conflict: [0.02, 0.05]}")
    assert names(plan) == [
        "ERM, task.conflict=0.02",
        "ERM, task.conflict=0.05",
        "PGD, task.conflict=0.02",
        "PGD, task.conflict=0.05",
    ]


def test_options_override_seeds_and_data_folder(tmp_path: Path) -> None:
    text = "seeds: [9]\ntask: {name: colored-mnist, data_dir: here}\nmethod: erm"
    plan = plan_of(tmp_path, text)
    other = plan_of(tmp_path, text, seeds=3, data_dir=Path("there"))
    assert plan.cells[0].first.task.data_dir == Path("here")  # type: ignore[union-attr]
    assert other.cells[0].first.task.data_dir == Path("there")  # type: ignore[union-attr]
    assert [run.seed for run in other.cells[0].runs] == [0, 1, 2]
    # a path is no part of what a run is
    assert plan.cells[0].first.cell_hash == other.cells[0].first.cell_hash


@pytest.mark.parametrize("recipe", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_right(recipe: Path) -> None:
    plan = read_plan(recipe)
    assert plan.cells
    assert recipe.read_text(encoding="utf-8").startswith("#")


SEEDS = "'seeds' must be a number of at least 1 or a list of different integers of at least 0. Got "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The file 's.yaml' is empty."),
        ("- 1", "s.yaml, line 1: a study file must be a mapping, such as 'task: colored-digits'."),
        (
            "seeds: 1\nmethod: [erm",
            "s.yaml, line 2: this is not valid YAML (expected ',' or ']', but got '<stream end>').",
        ),
        (
            "seeds: 1\n\tmethod: erm",
            "s.yaml, line 2: this is not valid YAML (found character '\\t' that cannot start any token).",
        ),
        ("seeds: 1\nseeds: 2", "s.yaml, line 2: the key 'seeds' stands twice, first in line 1."),
        (
            HEAD + "metod: pgd",
            "s.yaml, line 3: unknown key 'metod' (did you mean 'method' or 'model'?); known are task, model, method, "
            "training, peft, fresh, shortcuts, grid, study, title, seeds, data_seed, baseline, keep_models, cells.",
        ),
        (
            HEAD + "cells:\n  - method: erm\n    modle: mlp",
            "s.yaml, line 5: unknown key 'modle' (did you mean 'model' or 'method'?); known are task, model, method, "
            "training, peft, fresh, shortcuts, grid, name, seeds.",
        ),
        (
            HEAD + "method:\n  name: pgd\n  sorce: all",
            "s.yaml, line 5: the method 'pgd' has no field 'sorce' (did you mean 'source' or 'score_on'?); it has "
            + ", ".join(f.name for f in dataclasses.fields(eh.PGD))
            + ".",
        ),
        (
            HEAD + "method: {name: pgd, init: inherti}",
            "s.yaml, line 3: the field 'init' of the method 'pgd' must be one of 'inherit', 'random', 'pretrained' or "
            "'initial'. Got \"inherti\".",
        ),
        (
            HEAD + "method: pgd\ngrid:\n  method.q:\n    - 0.5\n    - seven",
            "s.yaml, line 7: the field 'q' of the method 'pgd' must be a number. Got \"seven\".",
        ),
        (
            HEAD + "method: {name: pgd, q: true}",
            "s.yaml, line 3: the field 'q' of the method 'pgd' must be a number. Got true.",
        ),
        (
            HEAD + "method:\n  name: pgd\n  q: 7",
            "s.yaml, line 5: The 'q' parameter of PGD must be a float in the range (0, 1]. Got 7.0.",
        ),
        (
            HEAD + "method: pgdd",
            "s.yaml, line 3: Unknown method 'pgdd' (did you mean 'pgd'?); known are " + ", ".join(eh.METHODS) + ".",
        ),
        (
            "seeds: 1\nmethod: erm\ntask: {name: colored-digits, confict: 1}",
            "s.yaml, line 3: the task 'colored-digits' has no field 'confict' (did you mean 'conflict' or "
            "'test_conflict'?); it has conflict, test_conflict, wrong_labels, imbalance, share.",
        ),
        (
            "seeds: 1\nmethod: erm\ntask: {name: colored-digits, conflict: 2}",
            "s.yaml, line 3: The 'conflict' parameter of colored-digits must be a float in the range [0, 1]. Got 2.0.",
        ),
        ("seeds: 1\nmethod: erm", "s.yaml, line 1: a cell has no task: give its name with the key 'task'."),
        (
            HEAD + "cells:\n  - method: erm\n  - model: mlp",
            "s.yaml, line 5: a cell has no method: give its name with the key 'method'.",
        ),
        (
            HEAD + "method: erm\ntraining: {epoch: 3}",
            "s.yaml, line 4: the training has no field 'epoch' (did you mean 'epochs' or 'step_epochs'?); it has "
            "epochs, lr, batch_size, optimizer, weight_decay, momentum, schedule, step_epochs, max_grad_norm, "
            "max_length, bf16.",
        ),
        (
            HEAD + "method: erm\ntraining: {epochs: 1.5}",
            "s.yaml, line 4: the field 'epochs' of the training must be an integer. Got 1.5.",
        ),
        (
            HEAD + "method: erm\ntraining: {optimizer: adm}",
            "s.yaml, line 4: the field 'optimizer' of the training must be one of 'adam', 'adamw' or 'sgd'. Got "
            '"adm".',
        ),
        (HEAD + "method: erm\nmodel: 3", "s.yaml, line 4: 'model' must be a text: a model's name. Got 3."),
        (
            HEAD + "method: erm\nmodel: pgd-cnn",
            "s.yaml, line 4: The task 'colored-digits' ships no training settings for the model 'pgd-cnn', only for "
            "digits-cnn, mlp and pretrained checkpoints.",
        ),
        (HEAD + "method: pgd\ngrid: {}", "s.yaml, line 4: 'grid' is empty, so there is nothing to run."),
        (
            HEAD + "method: pgd\ngrid: {method.source: []}",
            "s.yaml, line 4: 'grid.method.source' is empty, so there is nothing to run.",
        ),
        (HEAD + "cells: []", "s.yaml, line 3: 'cells' is empty, so there is nothing to run."),
        (
            HEAD + "method: pgd\ngrid: {method.source: head}",
            "s.yaml, line 4: 'grid.method.source' must be a list of values. Got \"head\".",
        ),
        (
            HEAD + "method: pgd\ngrid: {metod.source: [head]}",
            "s.yaml, line 4: a grid can't vary 'metod.source' (did you mean 'method' or 'model'?); it varies "
            "task.FIELD, method.FIELD, training.FIELD, peft.FIELD, task, method, peft, model, fresh, shortcuts.",
        ),
        (
            HEAD + "cells:\n  - method: erm\n  - method: gce\n  - method: {name: gce, q: 0.7}",
            "s.yaml, line 6: the cell 'GCE, q=0.7' is the same as 'GCE' (line 5): every field is equal, defaults "
            "included.",
        ),
        (
            HEAD + "method: pgd\ngrid:\n  method.source: [head, head]",
            "s.yaml, line 5: the cell 'PGD' is the same as 'PGD' (line 5): every field is equal, defaults included.",
        ),
        (
            HEAD + "cells:\n  - {name: a, method: erm}\n  - {name: a, method: gce}",
            "s.yaml, line 5: two cells are called 'a'.",
        ),
        ("method: erm\ntask: colored-digits", "s.yaml, line 1: the key 'seeds' is missing."),
        ("seeds: 0", f"s.yaml, line 1: {SEEDS}0."),
        ("seeds: 1.5", f"s.yaml, line 1: {SEEDS}1.5."),
        ("seeds: true", f"s.yaml, line 1: {SEEDS}true."),
        ("seeds: []", f"s.yaml, line 1: {SEEDS}[]."),
        ("seeds: [0, one]", f's.yaml, line 1: {SEEDS}"one".'),
        ("seeds: [0, 0]", f"s.yaml, line 1: {SEEDS}[0, 0]."),
        (HEAD + "cells: [{method: erm, seeds: x}]", f's.yaml, line 3: {SEEDS}"x".'),
        ("seeds: [-1]", f"s.yaml, line 1: {SEEDS}-1."),
        (
            HEAD + "baseline: er\ncells: [{method: erm}, {method: pgd}]",
            "s.yaml, line 3: No cell of s.yaml matches 'er' (did you mean 'ERM'?); its cells are ERM; PGD.",
        ),
        (
            HEAD + "baseline: '*'\ncells: [{method: erm}, {method: pgd}]",
            "s.yaml, line 3: the baseline '*' matches both 'ERM' and 'PGD', which are compared with each other: name "
            "one.",
        ),
        (
            HEAD + "method: erm\nshortcuts:\n  - token:!!\n  - toke:a",
            "s.yaml, line 6: Unknown kind of shortcut 'toke' (did you mean 'token'?); known are token, column, colour, "
            "brightness, contrast, size, aspect, sharpness, length, file.",
        ),
        (
            HEAD + "method: erm\nshortcuts:\n  - token:!!\n  - token: a",
            "s.yaml, line 6: 'shortcuts' must be a list of spellings, such as ['token:nimbus']. Got "
            '{"token": "a"}.',
        ),
        (
            HEAD + "shortcuts: 5",
            "s.yaml, line 3: 'shortcuts' must be a list of spellings, such as ['token:nimbus']. Got 5.",
        ),
        (
            HEAD + "cells:\n  - method: erm\n    shortcuts: [token:a, token:A]",
            "s.yaml, line 5: The shortcut 'token:a' is given 2 times; give it once.",
        ),
        (
            HEAD + "method: erm\ngrid:\n  shortcuts:\n    - token:a\n    - [colour, colour:hue]",
            "s.yaml, line 7: The hue is a part of the colour, so 'colour' and 'colour:hue' contradict each other: give "
            "one.",
        ),
        (
            HEAD + "method: erm\ngrid: {shortcuts: [5]}",
            "s.yaml, line 4: 'shortcuts' must be a list of spellings, such as ['token:nimbus']. Got 5.",
        ),
        (
            "seeds: 1\nmethod: erm\ntask:\n  name: own-data\n  data: t.csv\n  shortcuts: ['token:']",
            "s.yaml, line 6: A token is a word or a run of signs, as in 'token:nimbus' or 'token:!!'. Got none.",
        ),
        (
            "seeds: 1\nmethod: erm\ntask: {name: own-data, data: t.csv, shortcuts: length}\nshortcuts: token:a",
            "s.yaml, line 4: Shortcuts are named twice, with the data (length) and beside them (token:a): name all of "
            "them in one place.",
        ),
        (HEAD + "keep_models: 3", "s.yaml, line 3: 'keep_models' must be true or false. Got 3."),
        (
            HEAD + "study: a/b",
            "s.yaml, line 3: 'study' must be made of letters, digits, '.', '-' and '_'. Got \"a/b\".",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(eh.UserError) as caught:
        read_plan(Path("s.yaml"))
    assert str(caught.value) == message


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in {
        "no.yaml": "There is no file 'no.yaml'.",
        "binary.yaml": "The file 'binary.yaml' is no UTF-8 text.",
        ".": "The file '.' can't be read (Is a directory).",
    }.items():
        with pytest.raises(eh.UserError) as caught:
            read_plan(Path(name))
        assert str(caught.value) == message


# ---- shortcuts that have a name -------------------------------------------------------------------------------------


def test_shortcuts_are_those_of_the_study_unless_a_cell_has_its_own(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        HEAD + "shortcuts: [token:!!, length]\ncells:\n  - method: erm\n  - {method: balance, shortcuts: token:a|b}\n"
        "  - {method: gce, shortcuts: []}",
    )
    assert [[str(one) for one in cell.first.shortcuts] for cell in plan.cells] == [
        ["token:!!", "length"],
        ["token:a|b"],
        [],
    ]
    asked = Asked("digits-cnn", shortcuts=("colour",))
    by_hand = prepare("fit", eh.ERM(), eh.ColoredDigits(), asked).configuration
    (cell,) = plan_of(tmp_path, "seeds: 1\ntask: colored-digits\nmethod: erm\nshortcuts: colour").cells
    assert (cell.first.run_hash, cell.first.command()) == (by_hand.run_hash, by_hand.command())


def test_a_grid_of_shortcuts_has_names_that_patterns_can_match(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + "method: erm\ngrid: {shortcuts: [token:!!, [length, 'token:a|b'], []]}")
    expected = ["ERM, shortcuts=token:!!", "ERM, shortcuts=length + token:a|b", "ERM, shortcuts=none"]
    assert names(plan) == expected
    for name in expected:
        assert [cell.name for cell in plan.matching(name)] == [name]


def test_shortcuts_of_own_data_are_those_of_its_runs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na x,0\nb y,1\n")
    head = f"seeds: 1\nmethod: erm\ntask: {{name: own-data, data: {tmp_path / 't.csv'}, text: text"
    inside = plan_of(tmp_path, head + ", shortcuts: [length]}").cells[0].first
    beside = plan_of(tmp_path, head + "}\nshortcuts: [length]").cells[0].first
    assert inside.run_hash == beside.run_hash
    assert [str(one) for one in inside.shortcuts] == ["length"]


def test_cells_of_other_shortcuts_are_not_the_same_and_have_baselines_of_their_own(tmp_path: Path) -> None:
    two = "  - {name: a erm, method: erm, shortcuts: FIRST}\n  - {name: b erm, method: erm, shortcuts: SECOND}"
    text = HEAD + "baseline: '*erm'\ncells:\n" + two
    assert len(plan_of(tmp_path, text.replace("FIRST", "length").replace("SECOND", "token:a")).cells) == 2
    with pytest.raises(eh.UserError, match="is the same as 'a erm'"):
        plan_of(tmp_path, text.replace("FIRST", "'token:b|a'").replace("SECOND", "'token:a|b'"))
