"""Files that are read belong to what a run is: never are results of other files given for those asked for."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.files import READ_WHOLE, read_files
from evenhand.report import write_report
from evenhand.runs.card import model_card
from evenhand.runs.configuration import Configuration
from evenhand.runs.ledger import runs_of_study
from evenhand.runs.shared_stages import stage_key
from evenhand.studies import Study
from evenhand.studies.worker import Job, perform
from evenhand.tasks import TASKS, TaskSource
from evenhand.tasks.images import mnist
from evenhand.training.settings import Training
from text_replicas import (
    hans_beside_multinli,
    tabs,
    write_civil,
    write_fever,
    write_multinli,
    write_qqp,
    write_snli,
)
from vision_files import picture, write_bar, write_celeba, write_cifar, write_idx, write_ready_made, write_waterbirds

RESULTS = Path(__file__).parent.parent / "results"
RECIPES = Path(__file__).parent.parent / "recipes"
TABLE = "text,label\n" + "".join(f"words of {i},{'ab'[i % 2]}\n" for i in range(40))


def configuration(task: TaskSource | eh.Task, model: str = "mlp", **changes: Any) -> Configuration:
    training = eh.ColoredDigits().training_for("mlp").replaced(epochs=1)
    options = {"method": eh.ERM(), "seed": 0, "data_seed": 0} | changes
    return Configuration(task=task, model=model, training=training, **options)


def change_a_byte(path: Path) -> None:
    """Another content of the same size, with the same time."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def write_pairs(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.tsv", "dev.tsv"):
        rows = [{"premise": "a", "hypothesis": f"{name} {i}", "label": str(i % 3)} for i in range(30)]
        tabs(folder / name, ["premise", "hypothesis", "label"], rows)
    return folder


def write_mnli(folder: Path) -> Path:
    folder.mkdir()
    return write_multinli(folder)


def made(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def writes(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        write(folder)

    return writes


def write_objects(folder: Path) -> None:
    write_idx(folder)
    write_idx(folder / "emnist-letters", 52, 52, prefix="emnist-letters-", first=1, classes=26)
    for name in ("fashion-mnist", "kmnist"):
        write_idx(folder / name)


# name → what writes its files, a file that must count, the task's settings
FILE_BACKED: dict[str, tuple[Callable[[Path], Any], str, dict[str, Any]]] = {
    "colored-mnist": (write_idx, "t10k-labels-idx1-ubyte", {}),
    "colored-mnist lff": (write_idx, "train-images-idx3-ubyte", {"recipe": "lff"}),
    "multi-bias-mnist": (write_idx, "train-labels-idx1-ubyte", {}),
    "multi-bias-mnist real": (write_objects, "kmnist/t10k-images-idx3-ubyte", {"objects": "real"}),
    "corrupted-cifar10": (write_cifar, "cifar-10-batches-bin/data_batch_3.bin", {}),
    "corrupted-cifar10 prepared": (
        lambda f: write_ready_made(f, "1pct", 10, (32, 32), in_labels=True),
        "1pct/conflict/3/27_3_4.png",
        {"recipe": "prepared"},
    ),
    "bar": (write_bar, "test/racing_5.jpg", {}),
    "bffhq": (lambda f: write_ready_made(f, "0.5pct", 2, (16, 16), in_labels=False), "0.5pct/align/1/8_1_1.png", {}),
    "waterbirds": (write_waterbirds, "001.Some_Bird/Some_Bird_0003.jpg", {}),
    "celeba": (write_celeba, "img_align_celeba/000004.jpg", {}),
    "biased-snli": (write_pairs, "dev.tsv", {}),
    "leaked-snli": (made(write_snli), "snli_1.0_train.jsonl", {}),
    "multinli": (write_mnli, "multinli_1.0_dev_mismatched.txt", {}),
    "mnli-hans": (made(hans_beside_multinli), "heuristics_evaluation_set.txt", {}),
    "snli-hard": (made(write_snli), "snli_1.0_test_hard.jsonl", {}),
    "qqp-paws": (made(write_qqp), "dev_and_test.tsv", {}),
    "fever-symmetric": (made(write_fever), "fever_symmetric_generated.jsonl", {}),
    "civilcomments": (made(write_civil), "all_data_with_identities.csv", {}),
}


def test_every_task_of_files_is_tried_here() -> None:
    reading = {name for name, cls in TASKS.items() if "data_dir" in cls.__dataclass_fields__}  # type: ignore[attr-defined]
    assert reading == {name.split()[0] for name in FILE_BACKED}
    for name in reading:
        assert TASKS[name].read_paths is not TaskSource.read_paths


@pytest.mark.parametrize("name", FILE_BACKED)
def test_every_file_of_a_task_decides_its_hash(name: str, tmp_path: Path) -> None:
    write, file, settings = FILE_BACKED[name]
    write(tmp_path / "a")

    def run(folder: str) -> Configuration:
        return configuration(TASKS[name.split()[0]](data_dir=tmp_path / folder, **settings))  # type: ignore[call-arg]

    first = run("a")
    assert first.files["data_dir"] is not None
    assert str(tmp_path) not in json.dumps(first.as_dict())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("read by nobody")
    assert run("b").run_hash == first.run_hash
    assert run("b").cell_hash == first.cell_hash
    change_a_byte(tmp_path / "b" / file)
    other = run("b")
    assert other.run_hash != first.run_hash
    assert other.cell_hash != first.cell_hash
    assert stage_key(other, {}) != stage_key(first, {})
    assert other.former_run_hash == first.former_run_hash
    assert first.former_run_hash == configuration(first.task, files={}).run_hash


def test_packed_and_plain_files_are_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain")
    (tmp_path / "packed").mkdir()
    for path in (tmp_path / "plain").iterdir():
        (tmp_path / "packed" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "my.csv").write_text(TABLE)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/my.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
    pairs = [
        [eh.ColoredMNIST(data_dir=tmp_path / name) for name in ("plain", "packed")],
        [eh.OwnData(data=tmp_path / name, text="text") for name in ("my.csv", "deeper/my.csv.gz")],
    ]
    for plain, packed in pairs:
        assert configuration(plain).run_hash == configuration(packed).run_hash
        assert configuration(plain).as_dict() == configuration(packed).as_dict()


def test_own_pictures_of_one_size_and_other_content_differ(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"{'ab'[i % 2]}/{i}.bmp", seed=i)
    first = configuration(eh.OwnData(data=tmp_path))
    change_a_byte(tmp_path / "a/0.bmp")
    second = configuration(eh.OwnData(data=tmp_path))
    assert first.run_hash != second.run_hash
    assert first.former_run_hash == second.former_run_hash  # names and sizes alone


def test_of_very_many_pictures_names_and_sizes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [picture(tmp_path / f"{i}.bmp", seed=i) for i in range(3)]
    table = tmp_path / "metadata.csv"
    table.write_text("a,b\n")
    monkeypatch.setattr("evenhand.files.READ_WHOLE", 10)
    assert READ_WHOLE > 10
    before = read_files([*paths, table])
    assert [file.sha256 is None for file in before.files] == [True, True, True, False]
    change_a_byte(paths[0])
    assert read_files([*paths, table]) == before
    change_a_byte(table)
    assert read_files([*paths, table]).sha256 != before.sha256
    paths[0].write_bytes(b"longer" * 1000)
    assert read_files(paths).sha256 != read_files(paths[1:]).sha256


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=8)), min_size=1, max_size=3, unique_by=lambda f: f[0])
)
def test_a_digest_is_of_names_and_contents(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name, content in files:
        (folder / name).write_bytes(content)
    found = read_files(folder.iterdir(), folder)
    again = read_files(sorted(folder.iterdir(), reverse=True), folder)
    assert found == again
    assert [(file.name, file.size) for file in found.files] == sorted((name, len(content)) for name, content in files)
    name, content = files[0]
    (folder / name).write_bytes(content + b"!")
    assert read_files(folder.iterdir(), folder).sha256 != found.sha256
    (folder / name).write_bytes(content)
    (folder / name).rename(folder / "other")
    assert read_files(folder.iterdir(), folder).sha256 != found.sha256


def test_a_damaged_packed_file_and_a_missing_folder_are_left_to_the_reader(tmp_path: Path) -> None:
    write_idx(tmp_path)
    whole = gzip.compress((tmp_path / "t10k-labels-idx1-ubyte").read_bytes())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(whole[:-9])
    task = eh.ColoredMNIST(data_dir=tmp_path)
    assert configuration(task).files["data_dir"] is not None
    with pytest.raises(eh.UserError, match="truncated"):
        task.build(0)
    missing = configuration(eh.ColoredMNIST(data_dir=tmp_path / "none"))
    assert missing.files == {"data_dir": None}
    assert missing.run_hash == missing.former_run_hash


def test_a_checkpoint_folder_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "README.md").write_text("about it")
    first = configuration(eh.ColoredDigits(), model=str(tmp_path))
    (tmp_path / "README.md").write_text("more about it")
    assert configuration(eh.ColoredDigits(), model=str(tmp_path)).run_hash == first.run_hash
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        before = configuration(eh.ColoredDigits(), model=str(tmp_path))
        change_a_byte(tmp_path / name)
        after = configuration(eh.ColoredDigits(), model=str(tmp_path))
        assert after.run_hash != before.run_hash
        assert stage_key(after, {}) != stage_key(before, {})
    assert configuration(eh.ColoredDigits()).as_dict().get("files") is None


def test_a_task_of_ones_own_counts_its_pictures_and_what_its_numbers_mean(tmp_path: Path) -> None:
    for i in range(30):
        picture(tmp_path / f"{'ab'[i % 2]}/{i}.bmp", seed=i)
    task = eh.OwnData(data=tmp_path).build(0)
    first = configuration(task)
    other_test = dataclasses.replace(task, tests={**task.tests, "again": task.tests["test"]})
    heads = [configuration(dataclasses.replace(other_test, primary_test=name)) for name in ("test", "again")]
    assert heads[0].run_hash != heads[1].run_hash
    assert configuration(dataclasses.replace(task, image_side=32)).run_hash != first.run_hash
    change_a_byte(tmp_path / "a/0.bmp")
    assert configuration(task).run_hash != first.run_hash


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """MNIST's files, and the same but for one byte of an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist, "VALIDATION_SIZE", 20)
    write_idx(tmp_path / "A")
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    change_a_byte(tmp_path / "B/t10k-images-idx3-ubyte")
    return tmp_path / "A", tmp_path / "B"


def train(folder: Path, output: str = "run", **options: Any) -> eh.Result:
    return eh.fit(eh.ERM(), eh.ColoredMNIST(data_dir=folder), "mlp", output_dir=output, epochs=1, **options)


def test_a_run_on_other_files_is_never_given_for_this_one(two_folders: tuple[Path, Path]) -> None:
    a, b = two_folders
    record = train(a).record
    told = record["files"]["data_dir"]
    assert told["count"] == 4
    assert told["listed"][0]["name"] == "t10k-images-idx3-ubyte"
    assert told["listed"][0]["size"] == (a / "t10k-images-idx3-ubyte").stat().st_size
    with pytest.raises(
        eh.UserError, match=r"^The output folder 'run' holds a run of other files \(--data-dir\): choose"
    ):
        train(b)
    assert train(a).record == record  # the same files: as it is
    first = eh.fit(eh.ERM(), eh.ColoredMNIST(data_dir=a), "mlp", epochs=1)
    second = eh.fit(eh.ERM(), eh.ColoredMNIST(data_dir=b), "mlp", epochs=1)
    assert first.folder != second.folder
    change_a_byte(a / "train-images-idx3-ubyte")
    with pytest.raises(eh.UserError, match="other files"):
        train(a)


def test_an_older_record_is_taken_as_done_and_marked(
    two_folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = two_folders
    record = train(a).record
    older(Path("run/record.json"), a)
    assert (
        main(["train", "erm", "--task", "colored-mnist", "--data-dir", str(a), "--epochs", "1", "--output-dir", "run"])
        == 0
    )
    assert "Files unknown: the record was made before records said which files were read." in capsys.readouterr().out
    assert train(a).metrics == record["metrics"]
    unfinished = json.loads(Path("run/record.json").read_text()) | {"status": "running"}
    Path("run/record.json").write_text(json.dumps(unfinished))
    with pytest.raises(eh.UserError, match="unfinished run whose record doesn't say which files it reads"):
        train(a)


def older(path: Path, folder: Path) -> None:
    """Make a record one of before records told of files."""
    record = json.loads(path.read_text())
    run = configuration(eh.ColoredMNIST(data_dir=folder), seed=record["seed"], data_seed=record["data_seed"])
    del record["files"]
    run = Configuration(
        method=run.method,
        task=run.task,
        model="mlp",
        training=Training(**record["training"]),
        seed=record["seed"],
        data_seed=record["data_seed"],
    )
    assert record["configuration"] == run.run_hash
    record |= {"configuration": run.former_run_hash, "cell": run.former_cell_hash}
    path.write_text(json.dumps(record))


def test_a_run_is_evaluated_and_audited_on_its_own_files(two_folders: tuple[Path, Path]) -> None:
    a, b = two_folders
    train(a)
    assert eh.evaluate("run", data_dir=a)["test"].result.metrics["average"] is not None
    other = r"^'.*B' doesn't hold what the folder held when the run was trained \('t10k-images-idx3-ubyte' differs\)\.$"
    with pytest.raises(eh.UserError, match=other):
        eh.evaluate("run", data_dir=b)
    with pytest.raises(
        eh.UserError, match=r"^The data were 't10k-images-idx3-ubyte' and 3 more files: say where they "
    ):
        eh.evaluate("run")
    assert eh.evaluate("run", eh.ColoredMNIST(data_dir=b))  # asked for by name
    with pytest.raises(eh.UserError, match=other):
        eh.audit("run", places={"data_dir": b})
    with pytest.raises(eh.UserError, match="was trained on other files than the data given now"):
        eh.audit("run", task=eh.ColoredMNIST(data_dir=b))
    with pytest.raises(eh.UserError, match=other):  # also where other settings are asked for
        eh.evaluate("run", data_dir=b, settings={"test_conflict": 0.5})
    assert eh.evaluate("run", data_dir=a, settings={"test_conflict": 0.5})


def test_an_audit_knows_the_data_that_a_user_built(two_folders: tuple[Path, Path]) -> None:
    a, b = two_folders
    tasks = [eh.ColoredMNIST(data_dir=folder).build(0) for folder in (a, b)]
    eh.fit(eh.ERM(), tasks[0], "mlp", output_dir="own", epochs=1)
    eh.audit("own", task=tasks[0], output_dir="same")
    with pytest.raises(eh.UserError, match="they hold other rows than those that it was trained and tested on"):
        eh.audit("own", task=tasks[1], output_dir="other")


def test_an_audit_of_other_files_takes_no_scores_of_these(two_folders: tuple[Path, Path]) -> None:
    a, b = two_folders
    eh.audit(eh.ColoredMNIST(data_dir=a), "mlp", epochs=1, output_dir="audit")
    with pytest.raises(eh.UserError, match="holds a biased model of another audit"):
        eh.audit(eh.ColoredMNIST(data_dir=b), "mlp", epochs=1, output_dir="audit")


def test_tasks_and_model_cards_tell_of_the_files(
    two_folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = two_folders
    told = train(a).record["files"]["data_dir"]
    card = Path("run/model/README.md").read_text()
    assert told["sha256"] in card
    assert "| train-labels-idx1-ubyte | 68 |" in card
    record = json.loads(Path("run/record.json").read_text())
    assert "Files of --data-dir: unknown" in model_card(record | {"files": {"data_dir": None}})
    assert main(["tasks", "colored-mnist", "--data-dir", str(a)]) == 0
    assert f"SHA-256 {told['sha256']}" in " ".join(capsys.readouterr().out.split())


# ---- studies --------------------------------------------------------------------------------------------------------

STUDY = "{task: colored-mnist, model: mlp, training: {epochs: 1}, seeds: 1, cells: [{method: gce}, {method: pgd}]}"


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study has run on the files of A."""
    folder = tmp_path_factory.mktemp("studied")
    write_idx(folder / "A", train=6_060)
    shutil.copytree(folder / "A", folder / "B")
    change_a_byte(folder / "B/train-images-idx3-ubyte")
    (folder / "small.yaml").write_text(STUDY)
    eh.study(folder / "small.yaml", data_dir=folder / "A", **places(folder))
    return folder


def places(folder: Path) -> dict[str, Any]:
    return {"output_dir": folder / "runs", "results_dir": folder / "results"}


def test_a_study_on_other_files_shares_nothing_with_this_one(studied: Path, tmp_path: Path) -> None:
    shutil.copytree(studied, tmp_path, dirs_exist_ok=True)
    opened = Study.open(tmp_path / "small.yaml", data_dir=tmp_path / "A", **places(tmp_path))
    assert set(opened.states.values()) == {"done"}
    assert not opened.files_unknown
    with pytest.raises(eh.UserError, match="holds this study on other files: give those with --data-dir, or choose"):
        Study.open(tmp_path / "small.yaml", data_dir=tmp_path / "B", **places(tmp_path))
    other = Study.open(tmp_path / "small.yaml", data_dir=tmp_path / "B", output_dir=tmp_path / "b").plan.cells
    ours = {stage_key(cell.first, {"kind": "train"}) for cell in _plan(studied)}
    theirs = {stage_key(cell.first, {"kind": "train"}) for cell in other}
    assert len(ours) == len(theirs) == 1  # a stage is shared by methods, never by files
    assert ours != theirs


def _plan(folder: Path) -> Any:
    return Study.open(folder / "small.yaml", data_dir=folder / "A", **places(folder)).plan.cells


def test_a_study_takes_older_records_as_done_and_marks_them(
    studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(studied / "A", tmp_path / "A")
    shutil.copy(studied / "small.yaml", tmp_path)
    by_hash = {cell.first.run_hash: cell.first for cell in _plan(studied)}
    for found in runs_of_study(studied / "results"):
        run = by_hash[found.raw["configuration"]]
        record = {key: value for key, value in found.raw.items() if key != "files"}
        record |= {"configuration": run.former_run_hash, "cell": run.former_cell_hash}
        old = tmp_path / "results" / run.former_run_hash / "record.json"
        old.parent.mkdir(parents=True)
        old.write_text(json.dumps(record))
    plan = json.loads((studied / "results/study.json").read_text())
    for cell, run in zip(plan["cells"], by_hash.values(), strict=True):
        for key in ("files", "former"):
            del cell[key]
        cell["cell"], cell["runs"][0]["configuration"] = run.former_cell_hash, run.former_run_hash
    (tmp_path / "results/study.json").write_text(json.dumps(plan))
    words = ["study", str(tmp_path / "small.yaml"), "--data-dir", str(tmp_path / "A")]
    words += [f"--{name.replace('_', '-')}={place}" for name, place in places(tmp_path).items()]
    assert main([*words, "--dry-run"]) == 0
    assert "1 done (1 of them: files unknown)" in capsys.readouterr().out
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "2 done (2 of them: files unknown)" in told
    assert "2 runs taken as done though the record doesn't say which files were read" in " ".join(told.split())
    tables = (tmp_path / "results/tables/methods.md").read_text()
    assert "Files unknown: 2 of 2 runs, made before records told of files." in tables
    assert "GCE" in tables
    assert "planned" not in (tmp_path / "results/tables/runs.csv").read_text()
    assert len(runs_of_study(tmp_path / "results")) == 2
    assert main(words) == 0  # and again, now that the plan tells of files


def test_a_report_puts_runs_on_other_files_apart(studied: Path, tmp_path: Path) -> None:
    for name in ("A", "B"):
        for found in runs_of_study(studied / "results"):
            record = copy.deepcopy(found.raw)
            record["files"]["data_dir"]["sha256"] = f"{name.lower() * 8}{record['files']['data_dir']['sha256'][8:]}"
            there = tmp_path / name / record["configuration"] / "record.json"
            there.parent.mkdir(parents=True)
            there.write_text(json.dumps(record | {"cell": record["cell"] + name}))
    text = write_report(tmp_path).markdown.read_text()
    assert "aaaaaaaa" in text
    assert "bbbbbbbb" in text
    sections = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert [len(section["methods"]) for section in sections] == [2, 2]


def test_the_files_are_looked_at_once_for_a_study(studied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    ours = eh.ColoredMNIST.data_files
    monkeypatch.setattr(eh.ColoredMNIST, "data_files", lambda self: looked.append(self) or ours(self))
    opened = Study.open(studied / "small.yaml", seeds=3, data_dir=studied / "A", **places(studied))
    assert len(opened.states) == 6
    assert len(looked) == 1


def test_a_machine_with_other_files_refuses_a_run(studied: Path, tmp_path: Path) -> None:
    run = _plan(studied)[0].first
    moved = dataclasses.replace(run, task=dataclasses.replace(run.task, data_dir=studied / "B"), files=run.files)
    job = Job("x", "x", moved, tmp_path / "run", tmp_path / "stages", "cpu", 1, keep_models=False, elsewhere=True)
    record = perform(job).record
    assert record.status == "failed"
    assert "The files on this machine aren't those that the study was started with." in (record.error or "")


@pytest.mark.parametrize("recipe", sorted(path.name for path in RESULTS.iterdir() if path.is_dir()))
def test_committed_records_are_still_taken_as_done(recipe: str, tmp_path: Path) -> None:
    """Whatever files are given: what they held isn't told by these records."""
    task = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    writers = {"mnist": write_idx, "snli": write_pairs, "multinli": write_mnli}
    kind = next((name for name in writers if name in json.dumps(task)), None)
    if kind is not None:
        writers[kind](tmp_path / "data")
    opened = Study.open(
        RECIPES / f"{recipe}.yaml",
        data_dir=None if kind is None else tmp_path / "data",
        output_dir=tmp_path / "runs",
        results_dir=RESULTS / recipe,
    )
    statuses = [run.raw["status"] for run in runs_of_study(RESULTS / recipe)]
    assert opened.count()["done"] == statuses.count("done") > 0
    reading = [run for cell in opened.plan.cells for run in cell.runs if run.files]
    assert opened.files_unknown == {run.run_hash for run in reading if opened.states[run.run_hash] == "done"}


def test_files_of_own_data_are_told(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(TABLE)
    run = configuration(eh.OwnData(data=path, text="text"))
    told = run.as_dict()
    assert told["files"]["data"]["listed"][0]["name"] == "my.csv"
    assert "sha256" not in told["task"]["settings"]
    older_record = {"configuration": run.former_run_hash, "task": {"settings": run.task.settings()}}  # type: ignore[union-attr]
    assert run.is_record(older_record)
    assert not run.has_unknown_files(older_record)  # it had a digest of its own
    assert np.all([run.is_record({"configuration": run.run_hash, "files": {}})])
