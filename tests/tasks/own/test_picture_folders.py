"""What of a folder is read, passed over and refused, and how pictures are looked at before anything trains."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.data.folders import files_below
from evenhand.tasks import OwnData, Task
from evenhand.tasks.own import pictures as own_pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8))


def pictures(folder: Path, n: int = 30, ending: str = ".png", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        noise(i).save(folder / f"{i}{ending}", **options)
    return folder


def two_classes(root: Path) -> Path:
    for name in ("cat", "dog"):
        pictures(root / name)
    return root


def refusal(data: Path, **options: Any) -> str:
    with pytest.raises(eh.UserError) as caught:
        OwnData(data=data, **options).build(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sizes(task: Task) -> int:
    return sum(map(len, task.splits.values()))


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_every_ending_that_pillow_can_read_makes_a_class(tmp_path: Path) -> None:
    two_classes(tmp_path)
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".PNG": "PNG", ".pnm": "PPM", ".TiFf": "TIFF", ".dib": "DIB"}
    kinds |= {".jp2": "JPEG2000", ".avif": "AVIF"}
    for ending, form in kinds.items():
        pictures(tmp_path / ending[1:], 6, ending, format=form)
    task = OwnData(data=tmp_path).build(0)
    assert set(task.label_names) == {"cat", "dog", *(ending[1:] for ending in kinds)}
    assert not any("left out" in note for note in task.notes)


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for name in ("third/0.heic", "third/1.HEIC", "cat/scan", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "fourth").mkdir()
    task = OwnData(data=tmp_path).build(0)
    assert task.label_names == ("cat", "dog")
    assert task.notes[:2] == (
        f"The folders 'fourth', 'third' of '{tmp_path.name}' hold no picture that can be read.",
        f"4 files of '{tmp_path.name}' are left out as no pictures that can be read: 2 .heic (such as third/0.heic), "
        "1 without an ending (such as cat/scan), 1 .txt (such as notes.txt).",
    )


def test_a_split_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    (tmp_path / "test/cat").mkdir(parents=True)
    (tmp_path / "test/cat/0.heic").write_text("x")
    notes = OwnData(data=tmp_path).build(0).notes
    assert f"The folder 'test' of '{tmp_path.name}' holds no picture that can be read." in notes
    assert any("1 .heic (such as test/cat/0.heic)" in note for note in notes)


def test_files_that_metadata_lists_or_not(tmp_path: Path) -> None:
    two_classes(tmp_path)
    shutil.move(tmp_path / "cat/0.png", tmp_path / "cat/first")  # listed, so its ending doesn't matter
    (tmp_path / "cat/1.heic").write_text("x")
    names = [f"{c}/{'first' if (c, i) == ('cat', 0) else f'{i}.png'}" for c in ("cat", "dog") for i in range(30)]
    (tmp_path / "metadata.csv").write_text("file_name\n" + "\n".join(names) + "\n")
    task = OwnData(data=tmp_path).build(0)
    assert sizes(task) == 60
    left_out = f"1 file of '{tmp_path.name}' is left out as no pictures that can be read: 1 .heic (such as cat/1.heic)."
    assert task.notes[0] == left_out


HIDDEN = (".git", ".ipynb_checkpoints", "__MACOSX", "._x", "@eaDir")


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_is_no_data(name: str, tmp_path: Path) -> None:
    for root in (tmp_path / "classes", tmp_path / "splits/train"):
        two_classes(root)
        clean = OwnData(data=root.parent if root.name == "train" else root)
        before = clean.settings()["sha256"], clean.data_files()["data"]
        pictures(root / name, 2)
        pictures(root / "cat" / name, 2)
        pictures(root.parent / name, 2) if root.name == "train" else None
        (root / name / "metadata.csv").write_text("file_name\nx.png\n")
        for file in ("Thumbs.db", "desktop.ini", "._1.png", ".DS_Store", "cat/Thumbs.db", "cat/._2.png"):
            (root / file).write_text("x")
        task = clean.build(0)
        assert (task.label_names, sizes(task)) == (("cat", "dog"), 60)
        assert not any("left out" in note or "no picture" in note for note in task.notes)
        assert (clean.settings()["sha256"], clean.data_files()["data"]) == before
    assert refusal(pictures(tmp_path / "only" / name).parent, text="t").startswith("The folder '")


def test_hidden_files_beside_tables(tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "train.csv").write_text(rows)
    for name in ("._train.csv", ".test.csv", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "test.doc").write_text("x")
    task = OwnData(data=tmp_path, text="text").build(0)
    assert sizes(task) == 40
    assert task.notes[0] == (
        f"1 file of '{tmp_path.name}' is left out as no tables that can be read: 1 .doc (such as test.doc)."
    )
    (tmp_path / "validation.csv").symlink_to("gone.csv")
    assert refusal(tmp_path, text="text") == (
        f"The link '{tmp_path / 'validation.csv'}' leads to 'gone.csv', which is not there."
    )


# ---- links ----------------------------------------------------------------------------------------------------------


def test_class_folders_that_are_links_count(tmp_path: Path) -> None:
    two_classes(tmp_path / "data")
    (tmp_path / "data/zebra").symlink_to(pictures(tmp_path / "elsewhere"))
    source = OwnData(data=tmp_path / "data")
    task = source.build(0)
    assert task.label_names == ("cat", "dog", "zebra")
    assert sizes(task) == 90
    first = source.settings()
    noise(77).resize((30, 30)).save(tmp_path / "elsewhere/0.png")
    assert source.settings() != first


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    two_classes(tmp_path / "data")
    (tmp_path / "data/cat/again").symlink_to("..")
    (tmp_path / "data/dog/self").symlink_to(".")
    task = OwnData(data=tmp_path / "data").build(0)
    assert sizes(task) == 60
    assert task.notes[0] == (
        "2 files of 'data' are left out as no pictures that can be read: 2 links back (such as cat/again)."
    )
    (tmp_path / "data/cat/round").symlink_to("round")
    assert "cat/round' leads to 'round', which is not there." in refusal(tmp_path / "data")


@pytest.mark.parametrize("name", ["zebra", "cat/100.png", "metadata.csv"])
def test_links_to_nowhere_are_named(name: str, tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / name).symlink_to("/gone/there")
    assert refusal(tmp_path) == f"The link '{tmp_path / name}' leads to '/gone/there', which is not there."


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    scandir = os.scandir

    def refused(path: Path) -> Any:
        if path.name == "cat":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(eh.UserError, match=r"^The folder '.*cat' can't be read \(Permission denied\)\.$"):
        list(files_below(tmp_path))


# ---- pictures that a table names ------------------------------------------------------------------------------------


def named(tmp_path: Path, kind: str) -> Path:
    """A folder whose table names one picture outside it."""
    two_classes(tmp_path / "data")
    outside = pictures(tmp_path / "outside", 1) / "0.png"
    (tmp_path / "data/link.png").symlink_to(outside)
    (tmp_path / "data/inner").symlink_to(outside.parent)
    name = {"up": "../outside/0.png", "root": str(outside), "link": "link.png", "folder": "inner/0.png"}[kind]
    names = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(20)] + [name]
    rows = [{"file_name": n, "label": "ab"[i % 2]} for i, n in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/metadata.parquet")
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["up", "root", "link", "folder"])
def test_pictures_outside_the_folder_are_refused_unless_allowed(kind: str, tmp_path: Path) -> None:
    folder = named(tmp_path, kind)
    options: tuple[tuple[Path, dict[str, Any]], ...] = (
        (folder, {}),
        (folder / "metadata.parquet", {"image": "file_name"}),
    )
    for data, more in options:
        sentence = refusal(data, **more)
        assert sentence.startswith("Row 41 of 'metadata.parquet' names the picture '")
        assert sentence.endswith(
            f"which lies outside the folder '{folder}': move it there, or allow such pictures with --allow-outside."
        )
        source = OwnData(data=data, allow_outside=True, **more)
        assert sizes(source.build(0)) == 41
        assert source.options()["allow_outside"] is True
    assert OwnData(data=folder / "metadata.parquet", image="file_name").data_files() == {"data": None}


def test_pictures_of_a_parquet_table_that_stand_for_files(tmp_path: Path) -> None:
    pictures(tmp_path / "p")
    held = [{"image": {"bytes": None, "path": f"p/{i}.png"}, "label": "ab"[i % 2]} for i in range(29)]
    held.append({"image": {"bytes": (tmp_path / "p/29.png").read_bytes(), "path": "any"}, "label": "a"})
    pq.write_table(pa.Table.from_pylist(held), tmp_path / "my.parquet")
    task = OwnData(data=tmp_path / "my.parquet", image="image").build(0)
    assert sizes(task) == 30
    assert sizes(OwnData(data=tmp_path / "my.parquet", image="image", allow_outside=True).build(0)) == 30
    held[0]["image"]["path"] = "../other/0.png"
    pq.write_table(pa.Table.from_pylist(held), tmp_path / "my.parquet")
    assert "which lies outside the folder" in refusal(tmp_path / "my.parquet", image="image")


def test_paths_from_the_root_within_the_folder_and_names_of_no_file(tmp_path: Path) -> None:
    two_classes(tmp_path)
    names = [str(tmp_path / f"{c}/{i}.png") for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "metadata.csv").write_text("file_name\n" + "\n".join(names) + "\n")
    assert sizes(OwnData(data=tmp_path).build(0)) == 40
    (tmp_path / "metadata.csv").write_text("file_name\n" + "\n".join([*names, "cat/" + "x" * 300 + ".png"]) + "\n")
    assert refusal(tmp_path).endswith("row 41 of 'metadata.csv', is not there (1 in all).")


# ---- what the pictures show -----------------------------------------------------------------------------------------


def test_a_split_of_one_colour_is_refused_and_single_ones_are_counted(tmp_path: Path, own_cache: Path) -> None:
    two_classes(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "cat/0.png")
    note = f"1 of the 60 pictures of '{tmp_path.name}' is of one colour throughout."
    for _ in range(2):  # the second time without a look
        assert note in OwnData(data=tmp_path).build(0).notes
    for cached in (own_cache / "evenhand").glob("*.npy"):  # damaged, it is made again
        cached.write_bytes(cached.read_bytes()[:40])
    assert note in OwnData(data=tmp_path).build(0).notes
    for path in tmp_path.rglob("*.png"):
        Image.new("RGBA", (8, 8), (255, 255, 255, 99)).save(path)
    assert refusal(tmp_path) == (
        f"All 60 pictures of '{tmp_path.name}' that were looked at are of one colour throughout, #ffffff, so they show "
        "nothing."
    )
    for i, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)  # colours may be what there is to learn
    assert sizes(OwnData(data=tmp_path).build(0)) == 60


def test_a_test_split_of_one_colour_is_refused_by_its_column(tmp_path: Path) -> None:
    two_classes(tmp_path)
    lines = []
    for c in ("cat", "dog"):
        for i in range(30):
            split = "test" if i < 10 else "train"
            lines.append(f"{c}/{i}.png,{split}")
            if split == "test":
                Image.new("L", (8, 8), 7).save(tmp_path / f"{c}/{i}.png")
    (tmp_path / "metadata.csv").write_text("file_name,part\n" + "\n".join(lines) + "\n")
    assert refusal(tmp_path, split="part").startswith("All 20 pictures of the test split of 'metadata.csv' that were")


def test_of_a_large_set_some_pictures_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    monkeypatch.setattr(own_pictures, "_AT_ONCE", 7)
    monkeypatch.setattr(own_pictures, "FULLY_CHECKED", 50)
    OwnData(data=tmp_path).build(0)
    for path in tmp_path.rglob("*.png"):
        Image.new("RGB", (8, 8), "red").save(path)
    monkeypatch.setattr(own_pictures, "_ENOUGH", 1)
    assert "#ff0000" in refusal(tmp_path)


def test_floats_of_two_scales_are_refused_and_of_one_are_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(20):
            value = np.random.default_rng(i).random((6, 6)).astype(np.float32) * (i > 0)
            Image.fromarray(value).save(tmp_path / name / f"{i}.tif")
    assert sizes(OwnData(data=tmp_path).build(0)) == 40
    Image.fromarray(np.full((6, 6), 200, dtype=np.float32)).save(tmp_path / "dog/19.tif")
    assert refusal(tmp_path) == (
        f"The pictures of '{tmp_path.name}' of mode F go up to 1 (row 2) and up to 255 (row 32), so nothing says what "
        "is white: save them with 8 or 16 bits."
    )
    Image.fromarray(np.full((6, 6), -1, dtype=np.float32)).save(tmp_path / "dog/19.tif")
    assert "dog/19.tif', row 32 of" in refusal(tmp_path)


def test_postscript_called_png_is_refused_before_training(tmp_path: Path) -> None:
    two_classes(tmp_path)
    noise(1).save(tmp_path / "cat/3.png", "EPS")
    assert main(["train", "erm", "--data", str(tmp_path), "--output-dir", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    assert "cat/3.png', row " in refusal(tmp_path)
    assert "no known format" in refusal(tmp_path)
