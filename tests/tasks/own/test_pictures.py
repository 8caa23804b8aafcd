from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evenhand as eh
from evenhand.data.columns import column_values, membership
from evenhand.tasks import OwnData

MODES = ("RGB", "L", "CMYK", "P", "RGBA", "LA", "1", "I;16")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(values).convert(mode)


def folder_of(root: Path, n: int = 40, modes: Sequence[str] = ("RGB",)) -> list[str]:
    """Pictures in class folders; their names below the root."""
    names = []
    for i in range(n):
        mode = modes[i % len(modes)]
        name = f"{('cat', 'dog')[i % 2]}/{i}.{'tif' if mode == 'CMYK' else 'png'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i, mode).save(root / name)
        names.append(name)
    return names


def metadata(root: Path, names: list[str], **columns: Any) -> None:
    lines = [
        {"file_name": name, "light": ("day", "night")[i // 2 % 2]} | {key: value(i) for key, value in columns.items()}
        for i, name in enumerate(names)
    ]
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def refusal(data: Path, **options: Any) -> str:
    with pytest.raises(eh.UserError) as caught:
        OwnData(data=data, **options).build(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    folder_of(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    task = OwnData(data=tmp_path, image_side=16).build(0)
    assert (task.kind, task.label_names, task.inputs, task.image_shape) == (
        "image",
        ("cat", "dog"),
        "pictures",
        (3, 16, 16),
    )
    assert [len(split) for split in task.splits.values()] == [28, 4, 8]
    for row in task.train:
        assert row["id"].startswith(task.label_names[row["labels"]] + "/")
        assert np.array_equal(np.asarray(row["image"]), np.asarray(picture(int(Path(row["id"]).stem))))
    assert sorted(tmp_path.rglob("*")) == before


def test_split_folders(tmp_path: Path) -> None:
    for split, n in (("train", 20), ("val", 6), ("test", 10)):
        folder_of(tmp_path / split, n)
    task = OwnData(data=tmp_path).build(0)
    assert [len(task.splits[name]) for name in ("train", "validation", "test")] == [20, 6, 10]
    assert task.notes == (
        "16 rows repeat the picture of an earlier one: 16 with the same label and 0 with another one.",
        "The validation split has 6 rows whose picture is among the training rows too, so its numbers partly tell what "
        "was remembered.",
        "The test split has 10 rows whose picture is among the training rows too, so its numbers partly tell what was "
        "remembered.",
        "Classes with fewer than 20 training samples: 'cat' (10); 'dog' (10).",
    )


def test_groups_from_metadata_and_labels_from_folders_or_a_column(tmp_path: Path) -> None:
    names = folder_of(tmp_path, 42)
    metadata(tmp_path, names[:40], breed=lambda i: ("x", "y", "z")[i % 3])
    task = OwnData(data=tmp_path, group="light").build(0)
    assert task.notes[0] == f"2 pictures of '{tmp_path.name}' that metadata.jsonl doesn't list left out."
    assert list(membership(task.train, "group")) == ["cat, day", "cat, night", "dog, day", "dog, night"]
    for row in task.tests["test"]:
        assert (
            task.train.features["attribute"].names[row["attribute"]]
            == ("day", "night")[int(Path(row["id"]).stem) // 2 % 2]
        )
    assert task.train[0]["id"] in names
    metadata(tmp_path, names[:40], breed=lambda i: ("x", "y", "z")[i % 3], id=lambda i: f"own {i}")
    assert OwnData(data=tmp_path, id="id").build(0).train[0]["id"].startswith("own ")
    assert OwnData(data=tmp_path, label="breed").build(0).label_names == ("x", "y", "z")
    assert refusal(tmp_path, group="ligth").startswith(
        f"The file '{tmp_path}/metadata.jsonl' has no column 'ligth', given as --group (did you mean 'light'?)"
    )


def test_a_table_that_names_pictures_and_one_that_holds_them(tmp_path: Path) -> None:
    names = folder_of(tmp_path / "pictures", 20)
    rows = [{"file": f"pictures/{name}", "y": name[:3]} for name in names]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "named.parquet")
    held = [{"file": {"bytes": (tmp_path / row["file"]).read_bytes(), "path": None}, "y": row["y"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(held), tmp_path / "held.parquet")
    plain = [{"file": row["file"]["bytes"], "y": row["y"]} for row in held]
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "plain.parquet")
    trains = []
    for name in ("named", "held", "plain"):
        task = OwnData(data=tmp_path / f"{name}.parquet", image="file", label="y").build(0)
        trains.append([(np.asarray(row["image"]).tolist(), row["labels"]) for row in task.train])
    assert trains[0] == trains[1] == trains[2]
    assert refusal(tmp_path / "named.parquet", image="y", label="file").startswith("The picture '")


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    folder_of(tmp_path, 20, [mode])
    task = OwnData(data=tmp_path, image_side=8).build(0)
    from evenhand.data.inputs import pixels
    from evenhand.data.rows import Rows

    assert {row["image"].mode for row in task.train} == {mode}
    batch = pixels((8, 8), Rows(task.train, ["image"]).__getitems__([0, 1]))
    assert tuple(batch["pixel_values"].shape) == (2, 3, 8, 8)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    names = folder_of(tmp_path)
    whole = (tmp_path / names[4]).read_bytes()
    for content, fault in (
        (b"", "it has 0 bytes"),
        (b"no picture", "no known format"),
        (whole[: len(whole) // 2], "image file is truncated"),
    ):
        (tmp_path / names[4]).write_bytes(content)
        (tmp_path / names[6]).write_bytes(content)
        message = refusal(tmp_path)
        assert message.startswith(f"The picture '{tmp_path / names[4]}', row ")
        assert f"of '{tmp_path.name}', can't be read as a picture: {fault}" in message
        assert message.endswith("(2 in all).")


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    names = folder_of(tmp_path)
    metadata(tmp_path, names)
    (tmp_path / names[2]).unlink()
    assert refusal(tmp_path) == (
        f"The picture '{tmp_path / names[2]}', row 3 of 'metadata.jsonl', is not there (1 in all)."
    )


def test_pictures_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path)
    source = OwnData(data=tmp_path)
    first = source.build(0)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened again")

    monkeypatch.setattr(Image, "open", refused)
    assert np.array_equal(column_values(source.build(0).train, "labels"), column_values(first.train, "labels"))


def test_of_many_pictures_only_the_heads_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = folder_of(tmp_path)
    whole = (tmp_path / names[4]).read_bytes()
    (tmp_path / names[4]).write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr("evenhand.tasks.own.pictures.FULLY_CHECKED", 10)
    OwnData(data=tmp_path).build(0)
    (tmp_path / names[4]).write_bytes(b"no picture")
    assert "no known format (1 in all)" in refusal(tmp_path)


def test_folders_without_labels_or_metadata(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    assert refusal(tmp_path) == (
        f"The picture 'a.png' of '{tmp_path}' lies in no class folder (1 in all): put each picture into a folder "
        "named after its class, or add a metadata file (metadata.csv)."
    )
    assert refusal(tmp_path, group="light") == (
        f"The folder '{tmp_path}' has no metadata file (metadata.csv, metadata.tsv, metadata.jsonl, metadata.parquet), "
        "so there is no column 'light', given as --group."
    )
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", text="t") == (
        f"The folder '{tmp_path / 'empty'}' holds no tables (CSV, TSV, JSONL, Parquet) and no pictures."
    )


def test_archives_in_a_folder_stay_closed(tmp_path: Path) -> None:
    import zipfile

    folder_of(tmp_path / "pictures", 20)
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG")
    with zipfile.ZipFile(tmp_path / "pictures/more.zip", "w") as archive:
        archive.writestr("../outside.png", buffer.getvalue())
    assert sum(map(len, OwnData(data=tmp_path / "pictures").build(0).splits.values())) == 20
    assert not list(tmp_path.rglob("outside.png"))


def test_what_names_a_run_changes_with_the_pictures(tmp_path: Path) -> None:
    names = folder_of(tmp_path / "pictures")
    source = OwnData(data=tmp_path / "pictures")
    first = source.settings()
    assert str(tmp_path) not in json.dumps(first)
    picture(77).resize((30, 30)).save(tmp_path / "pictures" / names[0])
    assert source.settings() != first


def test_a_small_model_trains_from_a_folder(tmp_path: Path) -> None:
    metadata(tmp_path / "p", folder_of(tmp_path / "p", 40, MODES))
    task = OwnData(data=tmp_path / "p", group="light", image_side=8)
    result = eh.fit(eh.ERM(), task, output_dir=tmp_path / "run", epochs=1)
    assert result.record["model"]["name"] == "digits-cnn"
    assert set(result.metrics["by_group"]) == {"cat, day", "cat, night", "dog, day", "dog, night"}
    assert result.model.config.id2label == {0: "cat", 1: "dog"}
    assert result.record["command"] == (
        "evenhand train erm --task own-data --data p --group light --image-side 8 --epochs 1 --seed 0"
    )


def test_split_folders_count_beside_a_metadata_file(tmp_path: Path) -> None:
    names = [f"{split}/{kind}/{i}.png" for split, n in (("train", 30), ("test", 12)) for kind in "ab" for i in range(n)]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(tmp_path / name)
    metadata(tmp_path, names, light=lambda i: "xy"[i % 2])
    task = OwnData(data=tmp_path, group="light").build(0)
    assert task.label_names == ("a", "b")
    assert len(task.tests["test"]) == 24
    assert all(name.startswith("test/") for name in task.tests["test"]["id"])
    assert len(task.train) + len(task.validation) == 60


def test_a_folder_beside_split_folders_is_no_class(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "test/a/0.png", "unlabeled/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(eh.UserError, match=r"holds split folders and 'unlabeled', which names no split: move it away"):
        OwnData(data=tmp_path).build(0)


def test_further_columns_of_the_metadata_stand_beside_the_rows(tmp_path: Path) -> None:
    names = folder_of(tmp_path)
    metadata(tmp_path, names, scanner=lambda i: f"scanner {i % 3}", id=lambda i: i)
    task = OwnData(data=tmp_path, group="light", image_side=8).build(0)
    assert task.beside is not None
    beside = task.beside("train")
    assert set(beside.names) == {"light", "scanner", "id"}
    places = [names.index(name) for name in task.train["id"]]
    assert beside.column("scanner").to_pylist() == [f"scanner {i % 3}" for i in places]


def test_further_columns_follow_the_split_folders(tmp_path: Path) -> None:
    names = []
    for split in ("train", "test"):
        names += [f"{split}/{name}" for name in folder_of(tmp_path / split)]
    metadata(tmp_path, names, number=lambda i: i, label=lambda i: "ab"[i % 2])
    task = OwnData(data=tmp_path, image_side=8).build(0)
    assert task.beside is not None
    for split, rows in task.splits.items():
        numbers = [int(i) for i in task.beside(split).column("number").to_pylist()]
        assert [names[i] for i in numbers] == list(rows["id"])


def test_without_metadata_nothing_is_beside(tmp_path: Path) -> None:
    folder_of(tmp_path)
    task = OwnData(data=tmp_path, image_side=8).build(0)
    assert task.beside is not None
    assert task.beside("train").names == ()
