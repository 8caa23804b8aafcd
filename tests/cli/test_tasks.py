from __future__ import annotations

import re
import shlex
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.cli.samples import sample_lines, unreadable, write_contact_sheet
from evenhand.tasks import TASKS, Task
from evenhand.tasks.images import mnist
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.tasks.splits import compared, split_counts
from vision_files import picture, write_bar, write_idx, write_waterbirds


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist, "VALIDATION_SIZE", 20)


def shown(command: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main(shlex.split(command)) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("evenhand: error: ").strip()


def text_task(count: int = 2) -> Task:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "text_pair": datasets.Value("string"),
            "labels": datasets.ClassLabel(names=["no", "yes"]),
            "index": datasets.Value("int64"),
            "id": datasets.Value("string"),
        }
    )
    content = {"text": ["a [bold]\nword"] * count, "text_pair": ["x" * 500] * count, "labels": [0, 1] * (count // 2)}
    split = datasets.Dataset.from_dict(
        {**content, "index": list(range(count)), "id": [f"r{i}" for i in range(count)]}, features=features
    )
    return Task(name="t", kind="text", train=split, validation=split, tests={"test": split}, primary_test="test")


# ---- one task -------------------------------------------------------------------------------------------------------


def test_a_task_without_its_files_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("tasks waterbirds", capsys)
    source = eh.Waterbirds
    for fact in (source.origin, source.licence, source.bias, source.metric, source.files):
        assert fact in out
    assert re.search(r"waterbird, land +│ 56 +│ 133 +│ 642 ", out)
    assert "microsoft/resnet-50 (default): epochs 300, lr 0.001" in out
    assert "data_dir: Folder of metadata.csv" in out
    assert "Built" not in out


@pytest.mark.parametrize(
    "name",
    [
        "colored-digits",
        "colored-mnist",
        "multi-bias-mnist",
        "corrupted-cifar10",
        "bar",
        "bffhq",
        "waterbirds",
        "celeba",
    ],
)
def test_every_task_says_where_it_comes_from(name: str) -> None:
    source = TASKS[name]
    for fact in (source.origin, source.licence, source.bias, source.metric):
        assert fact
    for counts in source().expected_counts().values():
        assert counts["n"] > 0


def test_an_embedded_task_is_built_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("tasks colored-digits --conflict 0 --data-seed 3", capsys)
    assert "Built (primary test set 'test'):" in out
    assert re.search(r"│ all +│ 1,100 +│ 200 +│ 497 ", out)
    assert re.search(r"│ conflicting +│ 0 +│ 0 +│ \d{3} ", out)
    assert re.search(r"0: 6 · cyan · aligned · 8×8 pixels", out)


def test_a_task_with_its_files_is_built_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_waterbirds(tmp_path / "birds")
    out = shown("tasks waterbirds --data-dir birds --samples sheets/birds.png", capsys)
    assert re.search(r"│ landbird, land +│ 4 +│ 1 +│ 1 ", out)
    assert "0: landbird · land · aligned · 9×7 pixels · 000.Some_Bird/Some_Bird_0000.jpg" in out
    assert "Counts differ from the published ones: train: 7 found, 4,795 expected" in out
    assert "Sheet of pictures: sheets/birds.png" in out
    assert [p.name for p in (tmp_path / "sheets").iterdir()] == ["birds.png"]
    sheet = np.asarray(Image.open("sheets/birds.png"))
    assert sheet.shape[1] == 8 * 112
    colours = sheet[30 : 30 + 80, 4:100].reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50  # the first picture, noise


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tasks watrbirds", "Unknown task 'watrbirds' (did you mean 'waterbirds'?); known are"),
        ("tasks waterbirds --data-dir no", "The folder 'no' given as --data-dir does not exist; it must hold metadata"),
        ("tasks waterbirds --conflict 0.1", "The task 'waterbirds' has no option '--conflict'."),
        ("tasks colored-digits --conflict 3", "The 'conflict' parameter of colored-digits must be a float in"),
        (
            "tasks --conflict 0.1",
            "The option --conflict goes with one task: give its name, as in `evenhand tasks NAME`.",
        ),
        ("tasks --check --conflict 0.1", "The option --conflict goes with one task"),
        ("tasks --samples x.png", "The option --samples goes with one task"),
        ("tasks --check --data-dir no", "The folder 'no' given as --data-dir does not exist."),
        ("tasks bar --samples x.png", "The option --samples needs the task's files: give --data-dir; it must hold the"),
        ("tasks colored-digits --samples x.jpg", "The file given as --samples must end in .png. Got 'x.jpg'."),
        ("tasks colored-digits --data-seed -1", "The 'data_seed' parameter of tasks must be an integer of at least 0."),
        ("tasks bar --check", "The task 'bar' needs a folder with --data-dir: it must hold the folders train and test"),
    ],
)
def test_what_is_refused(command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(command, capsys).startswith(message)
    assert list(tmp_path.iterdir()) == []


# ---- checks ---------------------------------------------------------------------------------------------------------


def test_check_compares_each_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("tasks colored-digits --check", capsys).splitlines() == [
        "colored-digits: train: 1,100 found, 1,100 expected: ok",
        "colored-digits: validation: 200 found, 200 expected: ok",
        "colored-digits: test: 497 found, 497 expected: ok",
    ]


def test_check_fails_where_counts_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bar(tmp_path)
    lines = shown(f"tasks bar --check --data-dir {tmp_path}", capsys, code=1).splitlines()
    assert "bar: train: 48 found, 1,750 expected: DIFFERS" in lines
    assert "bar: test, vaulting: 3 found, 131 expected: DIFFERS" in lines
    assert "bar: test: all 10 pictures can be read: ok" in lines


def test_check_is_fine_where_counts_are_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_waterbirds(tmp_path)
    counts = {"train": {"n": 7, "waterbird, land": 1, "aligned": 5}, "test": {"n": 4}}
    monkeypatch.setattr(eh.Waterbirds, "expected_counts", lambda self: counts)
    lines = shown(f"tasks waterbirds --check --data-dir {tmp_path}", capsys).splitlines()
    assert lines[:4] == [
        "waterbirds: train: 7 found, 7 expected: ok",
        "waterbirds: train, waterbird, land: 1 found, 1 expected: ok",
        "waterbirds: train, aligned: 5 found, 5 expected: ok",
        "waterbirds: test: 4 found, 4 expected: ok",
    ]
    broken = tmp_path / "001.Some_Bird/Some_Bird_0005.jpg"  # not the first of its split
    broken.write_bytes(broken.read_bytes()[:200])
    out = shown(f"tasks waterbirds --check --data-dir {tmp_path}", capsys, code=1)
    assert f"waterbirds: validation: 1 of 4 pictures can't be read, first {broken} (" in out


def test_check_of_all_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: TASKS[name] for name in ("colored-digits", "colored-mnist", "bar", "celeba", "waterbirds")}
    monkeypatch.setattr("evenhand.cli.tasks.TASKS", chosen)
    out = shown("tasks --check", capsys)
    assert "colored-digits: test: 497 found, 497 expected: ok" in out
    for name in ("colored-mnist", "bar", "celeba", "waterbirds"):
        assert f"{name}: not checked: give --data-dir with a folder '{name}' in it; it must hold" in out
    write_idx(tmp_path / "data" / "colored-mnist")
    (tmp_path / "data" / "bar").mkdir()
    out = shown("tasks --check --data-dir data", capsys, code=1)
    assert "colored-mnist: train: 40 found, 54,000 expected: DIFFERS" in out
    assert "bar: failed: The folder 'data/bar/train' could not be read" in out
    assert "celeba: not checked: the folder 'data/celeba' does not exist; it must hold" in out
    assert out.endswith("Not as published, or failed: colored-mnist, bar.\n")


def test_a_group_that_is_not_there_differs(tiny_task: Task) -> None:
    counts = compared(tiny_task.splits, {"train": {"n": 96, "no such": 3}, "nowhere": {"n": 1}})
    assert [count.ok for count in counts] == [True, False, False]
    assert str(counts[1]) == "train, no such: not found, 3 expected"
    assert split_counts(tiny_task.train)["n"] == 96


# ---- samples --------------------------------------------------------------------------------------------------------


def test_texts_are_shown_in_one_line() -> None:
    lines = sample_lines(text_task().train, 5)
    assert len(lines) == 2
    assert lines[1] == f"1: yes · a [bold] word ‖ {'x' * 159}… · r1"


def test_texts_have_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(eh.UserError, match=r"^The task 't' has texts, so there is no sheet of pictures"):
        write_contact_sheet(text_task(), tmp_path / "x.png")
    assert list(unreadable(text_task().train)) == []


def test_a_sheet_shows_every_group(tiny_task: Task, tmp_path: Path) -> None:
    write_contact_sheet(tiny_task, tmp_path / "x.png")
    sheet = np.asarray(Image.open(tmp_path / "x.png"))
    assert sheet.shape == (2 * (30 + 3 * (112 + 30)), 8 * 112, 3)
    shown_tiles = 0
    for block in range(2):
        for row in range(3):
            for column in range(8):
                top = block * (30 + 3 * 142) + 30 + row * 142
                tile = sheet[top + 2 : top + 110, column * 112 + 2 : column * 112 + 110]
                shown_tiles += int((tile != 255).any())
    assert shown_tiles == 48


def test_pictures_in_memory_are_checked_too() -> None:
    feature = datasets.Features({"image": datasets.Image()})
    good = datasets.Dataset.from_dict({"image": [Image.new("RGB", (3, 3))]}, features=feature)
    assert list(unreadable(good)) == [None]
    bad = datasets.Dataset.from_dict({"image": [{"bytes": b"nothing", "path": None}]}, features=feature)
    assert [str(problem).startswith("a picture of the hub (") for problem in unreadable(bad)] == [True]


def test_a_missing_picture_is_found_by_the_check(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    split = datasets.Dataset.from_dict(
        {"image": [str(path), str(tmp_path / "b.png")]}, features=datasets.Features({"image": datasets.Image()})
    )
    first, second = unreadable(split)
    assert first is None
    assert second is not None
    assert second.startswith(str(tmp_path / "b.png"))


# ---- shortcuts that have a name -------------------------------------------------------------------------------------


def test_a_named_shortcut_is_shown_with_its_values_sides_and_samples(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("tasks colored-digits --shortcut column:attribute --shortcut brightness", capsys)
    task = with_shortcuts(eh.ColoredDigits().build(0), ["column:attribute", "brightness"])
    assert task.shortcuts is not None
    rows = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in out.splitlines()]
    one = task.shortcuts.fitted[0]
    for value, place in enumerate(one.points_to):
        share = f"{100 * one.table[value, place] / one.table[value].sum():.1f}"
        assert [one.names[value], f"{one.table[value].sum():,}", one.classes[place], share] in rows
    sizes = {split: task.shortcuts.sizes(split)["column:attribute"] for split in task.splits}
    assert ["column:attribute", "aligned", *(f"{of['aligned']:,}" for of in sizes.values())] in rows
    assert ["conflicting", *(f"{of['conflicting']:,}" for of in sizes.values())] in rows
    side_N, points_N = task.shortcuts.standings("train")[0], task.shortcuts.points("train")[0]
    first = int(np.flatnonzero(side_N == 1)[0])
    said = out.split("Training rows that are conflicting (column:attribute):\n")[1].splitlines()[0]
    assert said.strip().startswith(f"{first}: ")
    assert said.endswith(f"(points to {task.label_names[points_N[first]]})")


def test_a_check_counts_the_sides_of_a_named_shortcut(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("tasks marked-notes --check --shortcut length", capsys)
    assert re.search(r"length +│ aligned +│", out)


def test_shortcuts_go_with_one_task_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "The option --shortcut goes with one task" in refusal("tasks --shortcut length", capsys)
    assert "The option --shortcut needs the task's files" in refusal("tasks waterbirds --shortcut colour", capsys)
    assert "No training row has the token 'absent'" in refusal("tasks marked-notes --shortcut token:absent", capsys)
