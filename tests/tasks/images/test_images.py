from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import datasets.config
import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image

import evenhand as eh
from evenhand.data.columns import column_values, membership
from evenhand.tasks.images import corrupted_cifar, mnist, multi_bias
from evenhand.tasks.images.coloring import PGD_PALETTE
from evenhand.tasks.images.corrupted_cifar import attribute_counts, spread_attributes
from evenhand.tasks.images.corruptions import CORRUPTIONS, corrupt
from evenhand.tasks.images.multi_bias import BIASES
from evenhand.training.settings import Training
from vision_files import (
    BAR_TEST,
    BAR_TRAIN,
    CELEBA_ROWS,
    WATERBIRD_ROWS,
    cifar_batch,
    picture,
    write_bar,
    write_celeba,
    write_cifar,
    write_idx,
    write_ready_made,
    write_waterbirds,
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mnist, multi_bias):
        monkeypatch.setattr(module, "VALIDATION_SIZE", 20)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(eh.UserError) as caught:
        source(**options).build(0)
    return str(caught.value)


def sizes(task: eh.Task) -> dict[str, int]:
    return {name: len(split) for name, split in task.splits.items()}


def group_sizes(split: datasets.Dataset, column: str = "group") -> dict[str, int]:
    return {name: int(member.sum()) for name, member in membership(split, column).items()}


def pixels(split: datasets.Dataset) -> np.ndarray:
    return np.array(split.with_format("numpy")["pixel_values"], dtype=np.uint8)


# ---- multi-bias-mnist -----------------------------------------------------------------------------------------------


def test_multi_bias_mnist_has_seven_biases_that_overlap(tmp_path: Path) -> None:
    task = eh.MultiBiasMNIST(data_dir=write_idx(tmp_path, train=420, test=400), conflict=0.2).build(0)
    assert sizes(task) == {"train": 400, "validation": 20, "test": 400}
    assert task.image_shape == (3, 56, 56)
    groups = membership(task.train, "group")
    assert list(groups) == [f"{bias} {a}" for bias in BIASES for a in ("aligned", "conflicting")]
    conflicting = np.stack([groups[f"{bias} conflicting"] for bias in BIASES])
    assert (np.stack([groups[f"{bias} aligned"] for bias in BIASES]) == ~conflicting).all()
    assert all(40 < n < 125 for n in conflicting.sum(axis=1))  # of 400 with probability 0.2
    assert abs(np.corrcoef(conflicting) - np.eye(7)).max() < 0.25  # drawn independently
    most = membership(task.train, "alignment")["conflicting"]
    assert (most == (conflicting.sum(axis=0) >= 4)).all()
    attribute, label = column_values(task.train, "attribute"), column_values(task.train, "labels")
    assert ((attribute != label) == conflicting[0]).all()
    tested = membership(task.tests["test"], "group")
    assert all(330 < tested[f"{bias} conflicting"].sum() < 390 for bias in BIASES)


def test_multi_bias_tiles_hold_digit_and_objects_in_their_colours(tmp_path: Path) -> None:
    task = eh.MultiBiasMNIST(data_dir=write_idx(tmp_path), conflict=0.0).build(3)
    test = eh.MultiBiasMNIST(data_dir=tmp_path, conflict=0.0, test_conflict=0.0).build(3).tests["test"]
    gray = np.random.default_rng(40).integers(0, 256, (40, 28, 28))  # as the file was written
    for image, label, source in zip(pixels(test), column_values(test, "labels"), gray, strict=True):
        colour = np.array(PGD_PALETTE[label][1]) / 255
        np.testing.assert_allclose(image[:, :28, :28], source * colour[:, None, None], atol=1.6)
        for top, left in ((0, 28), (28, 0), (28, 28)):
            tile = image[:, top : top + 28, left : left + 28].astype(float)
            drawn = tile.sum(axis=0) > 0
            assert 30 < drawn.sum() < 500
            light = tile[:, drawn].max() / colour.max()
            np.testing.assert_allclose(tile[:, drawn], (colour * light)[:, None].repeat(drawn.sum(), 1), atol=2)
    # without conflicts a class has one drawing of each kind: shifted, its pixels are as many
    counts: dict[tuple[int, int], set[int]] = {}
    for image, label in zip(pixels(task.train), column_values(task.train, "labels"), strict=True):
        for tile in ((0, 28), (28, 0), (28, 28)):
            area = (image[:, tile[0] : tile[0] + 28, tile[1] : tile[1] + 28].max(axis=0) > 0).sum()
            counts.setdefault((label, tile[0] + tile[1] // 28), set()).add(int(area))
    assert all(len(areas) == 1 for areas in counts.values())


def test_multi_bias_equal_seeds_give_equal_data(tmp_path: Path) -> None:
    source = eh.MultiBiasMNIST(data_dir=write_idx(tmp_path))
    first, second, other = source.build(1), source.build(1), source.build(2)
    for name, split in first.splits.items():
        assert split.to_dict() == second.splits[name].to_dict()
        assert (pixels(split) != pixels(other.splits[name])).any()


def test_multi_bias_real_objects(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_idx(tmp_path / "emnist-letters", 52, 52, prefix="emnist-letters-", first=1, classes=26)
    write_idx(tmp_path / "fashion-mnist")
    write_idx(tmp_path / "kmnist")
    task = eh.MultiBiasMNIST(data_dir=tmp_path, objects="real", conflict=0.0).build(0)
    assert not any("drawings" in note for note in task.notes)
    letters = np.random.default_rng(52).integers(0, 256, (52, 28, 28)).transpose(0, 2, 1)
    image, label = pixels(task.train)[0].astype(float), int(column_values(task.train, "labels")[0])
    colour = np.array(PGD_PALETTE[label][1]) / 255
    fits = [np.abs(image[:, :28, 28:] - letter * colour[:, None, None]).max() < 2 for letter in letters]
    assert np.flatnonzero(fits).tolist() in ([label], [label + 26])


def test_multi_bias_real_objects_need_their_files(tmp_path: Path) -> None:
    assert refusal(eh.MultiBiasMNIST, objects="real").startswith(
        "The option --objects real of multi-bias-mnist needs --data-dir: --objects real needs, below --data-dir, "
    )
    write_idx(tmp_path)
    missing = tmp_path / "emnist-letters"
    assert refusal(eh.MultiBiasMNIST, objects="real", data_dir=tmp_path).startswith(
        f"The folder '{missing}' does not exist; --objects real needs"
    )
    write_idx(missing, prefix="emnist-letters-", first=20, classes=3)
    assert "holds no image of the class 0" in refusal(eh.MultiBiasMNIST, objects="real", data_dir=tmp_path)


def test_without_files_and_network_mnist_is_asked_for() -> None:
    assert refusal(eh.MultiBiasMNIST).startswith("MNIST could not be loaded from the hub as 'ylecun/mnist'")


# ---- corrupted-cifar10 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", [0.0, 0.005, 0.01, 0.02, 0.05, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 7, 500, 4_500])
def test_lffs_counts_are_rounded_shares(conflict: float, size: int) -> None:
    for label in (0, 4, 9):
        counts = attribute_counts(size, label, conflict)
        assert counts.sum() == size
        others = np.delete(counts, label)
        assert abs(counts[label] - size * (1 - conflict)) <= 1
        assert others.max() - others.min() <= 1


def test_attributes_are_spread_in_exact_numbers() -> None:
    label_N = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 200))
    first = spread_attributes(label_N, 0.05, np.random.default_rng(0))
    for label in range(10):
        found = np.bincount(first[label_N == label], minlength=10)
        assert found.tolist() == attribute_counts(200, label, 0.05).tolist()
    assert (first != spread_attributes(label_N, 0.05, np.random.default_rng(1))).any()


def test_corrupted_cifar_holds_out_a_tenth_and_corrupts_by_class(tmp_path: Path) -> None:
    source = eh.CorruptedCIFAR10(data_dir=write_cifar(tmp_path), conflict=0.0, test_conflict=1.0)
    task = source.build(0)
    assert sizes(task) == {"train": 180, "validation": 20, "test": 30}
    assert task.image_shape == (3, 32, 32)
    assert task.label_names[:2] == ("airplane", "automobile")
    assert group_sizes(task.train)["frog aligned"] == 18
    assert group_sizes(task.tests["test"], "alignment") == {"aligned": 0, "conflicting": 30}
    assert task.train.features["attribute"].names == list(CORRUPTIONS)
    sources = np.concatenate([cifar_batch(40, n)[1] for n in range(1, 6)])
    labels = np.concatenate([cifar_batch(40, n)[2] for n in range(1, 6)])
    # corruptions without draws are those of corrupt() on the class's own images, at level 5
    for label, name in ((3, "brightness"), (4, "contrast"), (7, "jpeg"), (8, "pixelate"), (9, "saturate")):
        expected = {x.tobytes() for x in corrupt(sources[labels == label], name, 5, np.random.default_rng(0))}
        rows = np.concatenate([pixels(s)[column_values(s, "labels") == label] for s in (task.train, task.validation)])
        assert {x.tobytes() for x in np.ascontiguousarray(rows.transpose(0, 2, 3, 1))} == expected
    assert corrupted_cifar.DRAWN_ICE in task.notes
    assert any(
        note.startswith("Counts differ from the published ones: train: 180 found, 45,000") for note in task.notes
    )


def test_corrupted_cifar_severity_and_seeds(tmp_path: Path) -> None:
    source = eh.CorruptedCIFAR10(data_dir=write_cifar(tmp_path, each=20, test=10))
    first, second, other = source.build(1), source.build(1), source.build(2)
    for name, split in first.splits.items():
        assert (pixels(split) == pixels(second.splits[name])).all()
        assert (pixels(split) != pixels(other.splits[name])).any()
    weak = eh.CorruptedCIFAR10(data_dir=tmp_path, severity=0, conflict=0.0).build(1)
    bright = pixels(weak.train)[column_values(weak.train, "attribute") == 3].mean()
    strong = eh.CorruptedCIFAR10(data_dir=tmp_path, severity=4, conflict=0.0).build(1)
    assert pixels(strong.train)[column_values(strong.train, "attribute") == 3].mean() > bright + 20


def test_corrupted_cifar_with_photographs_of_ice(tmp_path: Path) -> None:
    write_cifar(tmp_path, each=20, test=10)
    message = refusal(eh.CorruptedCIFAR10, data_dir=tmp_path, frost="photos")
    assert message.startswith(
        f"The folder '{tmp_path / 'frost'}' could not be read (No such file or directory); it must"
    )
    for n in range(1, 7):
        solid = np.full((170, 180, 3), 250 if n < 6 else 0, dtype=np.uint8)
        (tmp_path / "frost").mkdir(exist_ok=True)
        Image.fromarray(solid).save(tmp_path / "frost" / f"frost{n}.png")
    task = eh.CorruptedCIFAR10(data_dir=tmp_path, frost="photos", conflict=0.0).build(0)
    assert corrupted_cifar.DRAWN_ICE not in task.notes
    frosted = pixels(task.train)[column_values(task.train, "attribute") == 1]
    assert frosted.min() >= 112  # 0.45·250, of the first five pictures only
    picture(tmp_path / "frost" / "frost1.png", (150, 170))
    assert "must have at least 160 pixels a side" in refusal(eh.CorruptedCIFAR10, data_dir=tmp_path, frost="photos")


def test_corrupted_cifar_ready_made(tmp_path: Path) -> None:
    root = write_ready_made(tmp_path, "1pct", 10, (32, 32), in_labels=True)
    task = eh.CorruptedCIFAR10(data_dir=root, recipe="prepared", conflict=0.01).build(0)
    assert sizes(task) == {"train": 40, "validation": 20, "test": 20}
    assert group_sizes(task.train, "alignment") == {"aligned": 30, "conflicting": 10}
    row = int(np.flatnonzero(column_values(task.train, "attribute") != column_values(task.train, "labels"))[0])
    name = next((root / "1pct/conflict/0").iterdir())
    assert (pixels(task.train)[row] == np.asarray(Image.open(name)).transpose(2, 0, 1)).all()
    assert refusal(eh.CorruptedCIFAR10, data_dir=root, conflict=0.01) == (
        f"The folder '{root}' holds ready-made pictures: read them with --recipe prepared."
    )
    message = refusal(eh.CorruptedCIFAR10, data_dir=root, recipe="prepared", conflict=0.05)
    assert message.startswith(f"The folder '{root / '5pct/align'}' could not be read")
    picture(root / "test" / "0" / "900_0_1.png", (31, 32))
    assert "must have 32×32 pixels" in refusal(eh.CorruptedCIFAR10, data_dir=root, recipe="prepared", conflict=0.01)


def test_ready_made_without_valid_holds_out_a_tenth(tmp_path: Path) -> None:
    root = write_ready_made(tmp_path, "1pct", 10, (32, 32), in_labels=True)
    for path in sorted((root / "1pct/valid").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "1pct/valid").rmdir()
    task = eh.CorruptedCIFAR10(data_dir=root, recipe="prepared", conflict=0.01).build(0)
    assert sizes(task) == {"train": 30, "validation": 10, "test": 20}
    assert any("no folder 'valid'" in note for note in task.notes)


@pytest.mark.parametrize("kept", [0, 1, 3072, 3074])
def test_a_truncated_batch(kept: int, tmp_path: Path) -> None:
    path = write_cifar(tmp_path) / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(eh.CorruptedCIFAR10, data_dir=tmp_path) == (
        f"The file '{path}' is truncated or damaged: it must hold records of 3,073 bytes. Got {kept:,} bytes in all."
    )


def test_other_cifar_files_are_explained(tmp_path: Path) -> None:
    ending = "it must hold CIFAR-10's binary version"
    assert f"does not exist; {ending}" in refusal(eh.CorruptedCIFAR10, data_dir=tmp_path / "no")
    assert f"holds no CIFAR-10 files; {ending}" in refusal(eh.CorruptedCIFAR10, data_dir=tmp_path)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"x")
    assert "is an archive: unpack it first" in refusal(eh.CorruptedCIFAR10, data_dir=tmp_path)
    assert "is an archive: unpack it first and give the folder" in refusal(
        eh.CorruptedCIFAR10, data_dir=tmp_path / "cifar-10-binary.tar.gz"
    )
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert "Python version, whose pickles can run any code and are never loaded" in refusal(
        eh.CorruptedCIFAR10, data_dir=tmp_path
    )
    write_cifar(tmp_path / "ok", each=10, test=10)
    path = tmp_path / "ok/cifar-10-batches-bin/data_batch_4.bin"
    path.unlink()
    assert refusal(eh.CorruptedCIFAR10, data_dir=tmp_path / "ok").startswith(f"The file '{path}' could not be read (No")
    path.write_bytes(b"\x0a" + bytes(3072))
    assert "holds labels outside the classes 0–9: row 0 is 10 (1 such rows)" in refusal(
        eh.CorruptedCIFAR10, data_dir=tmp_path / "ok"
    )
    assert refusal(eh.CorruptedCIFAR10).startswith("CIFAR-10 could not be loaded from the hub as 'uoft-cs/cifar10'")


def test_no_task_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that would write a file stays unread, whatever it is called."""
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (tmp_path / name).write_bytes(bomb)
    refusal(eh.CorruptedCIFAR10, data_dir=tmp_path)
    write_cifar(tmp_path / "bin", each=10, test=10)
    (tmp_path / "bin/cifar-10-batches-bin/data_batch_1.bin").write_bytes(bomb)
    refusal(eh.CorruptedCIFAR10, data_dir=tmp_path / "bin")
    assert not (tmp_path / "ran").exists()


def test_cifar_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(name: str) -> Any:
        assert name == "uoft-cs/cifar10"
        made = {part: cifar_batch(n, 1) for part, n in (("train", 20), ("test", 10))}
        features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
        return {
            part: datasets.Dataset.from_dict(
                {"img": [Image.fromarray(x) for x in images], "label": labels.tolist()}, features=features
            )
            for part, (_, images, labels) in made.items()
        }

    monkeypatch.setattr(datasets, "load_dataset", hub)
    task = eh.CorruptedCIFAR10(conflict=0.0).build(0)
    assert sizes(task) == {"train": 10, "validation": 10, "test": 10}
    images, labels = cifar_batch(20, 1)[1:]
    expected = {x.tobytes() for x in corrupt(images[labels == 3], "brightness", 5, np.random.default_rng(0))}
    image = pixels(task.train)[column_values(task.train, "labels") == 3][0]
    assert np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes() in expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severity": 5}, "The 'severity' parameter of corrupted-cifar10 must be an integer from 0 to 4. Got 5."),
        ({"conflict": 2}, "The 'conflict' parameter of corrupted-cifar10 must be a float in the range [0, 1]. Got 2."),
        ({"recipe": "pgd"}, "The 'recipe' parameter of corrupted-cifar10 must be one of lff, prepared. Got 'pgd'"),
        (
            {"recipe": "prepared"},
            "The option --recipe prepared of corrupted-cifar10 needs a folder with --data-dir: it",
        ),
        ({"frost": "photos"}, "The option --frost photos of corrupted-cifar10 needs a folder with --data-dir: it must"),
    ],
)
def test_bad_corrupted_cifar_settings(options: dict[str, Any], message: str) -> None:
    assert refusal(eh.CorruptedCIFAR10, **options).startswith(message)


# ---- bar ------------------------------------------------------------------------------------------------------------


def test_bar_holds_out_a_tenth_of_each_class(tmp_path: Path) -> None:
    task = eh.BAR(data_dir=write_bar(tmp_path)).build(0)
    assert sizes(task) == {"train": 48, "validation": 7, "test": 10}
    assert task.label_names == ("climbing", "diving", "fishing", "racing", "throwing", "vaulting")
    both = {name: group_sizes(task.train)[name] + group_sizes(task.validation)[name] for name in task.label_names}
    assert list(both.values()) == list(BAR_TRAIN.values())
    assert list(group_sizes(task.tests["test"]).values()) == list(BAR_TEST.values())
    assert group_sizes(task.validation)["vaulting"] == 2
    assert set(task.train["id"]).isdisjoint(task.validation["id"])
    assert "train/pole vaulting_0.jpg" in {*task.train["id"], *task.validation["id"]}
    assert task.train[0]["image"].size == (9, 7)
    assert membership(task.train, "alignment") == {}
    assert "12/2 climbing" in task.notes[0]
    other = eh.BAR(data_dir=tmp_path).build(1)
    assert task.validation["id"] == eh.BAR(data_dir=tmp_path).build(0).validation["id"]
    assert task.validation["id"] != other.validation["id"]


def test_bar_counts_are_those_of_its_page() -> None:
    counts = eh.BAR().expected_counts()
    assert [counts["train"]["n"] + counts["validation"]["n"], counts["test"]["n"]] == [1941, 654]
    assert counts["validation"]["fishing"] == 16


def test_bad_bar_files(tmp_path: Path) -> None:
    ending = "it must hold the folders train and test of https://github.com/alinlab/BAR"
    assert refusal(eh.BAR).startswith(f"The task 'bar' needs a folder with --data-dir: {ending}")
    assert refusal(eh.BAR, data_dir=tmp_path).startswith(
        f"The folder '{tmp_path / 'train'}' could not be read (No such"
    )
    (tmp_path / "train.zip").write_bytes(b"x")
    assert refusal(eh.BAR, data_dir=tmp_path) == (
        f"The file '{tmp_path / 'train.zip'}' is an archive: unpack it first, into '{tmp_path / 'train'}'."
    )
    write_bar(tmp_path)
    wrong = picture(tmp_path / "test" / "swimming_3.jpg")
    assert refusal(eh.BAR, data_dir=tmp_path).startswith(
        f"The name of '{wrong}' must begin with one of climbing, diving"
    )
    wrong.unlink()
    first = tmp_path / "test" / "climbing_12.jpg"
    first.write_bytes(first.read_bytes()[:300])
    assert refusal(eh.BAR, data_dir=tmp_path).startswith(
        f"The picture '{first}' can't be read: it is truncated or damaged"
    )
    for path in (tmp_path / "test").iterdir():
        path.unlink()
    assert refusal(eh.BAR, data_dir=tmp_path).startswith(
        f"The folder '{tmp_path / 'test'}' holds no pictures; {ending}"
    )


# ---- bffhq ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("primary", ["unbiased", "conflicting"])
def test_bffhq_has_both_test_sets(primary: Any, tmp_path: Path) -> None:
    root = write_ready_made(tmp_path, "0.5pct", 2, (8, 8), in_labels=False)
    task = eh.BFFHQ(data_dir=root, primary=primary).build(0)
    assert task.primary_test == primary
    assert sizes(task) == {"train": 8, "validation": 4, "unbiased": 4, "conflicting": 2}
    assert group_sizes(task.train) == {"young, female": 3, "young, male": 1, "old, female": 1, "old, male": 3}
    assert group_sizes(task.tests["conflicting"], "alignment") == {"aligned": 0, "conflicting": 2}
    assert ("the conflicting test pictures only" in task.notes[0]) == (primary == "conflicting")
    assert "2 of 8 training pictures conflict" in task.notes[0]
    assert "train, conflicting: 2 found, 96 expected" in task.notes[1]
    assert all((root / name).exists() for name in task.train["id"])


def test_bad_bffhq_files(tmp_path: Path) -> None:
    assert refusal(eh.BFFHQ).startswith("The task 'bffhq' needs a folder with --data-dir: it must hold 0.5pct/align")
    root = write_ready_made(tmp_path, "0.5pct", 2, (8, 8), in_labels=False)
    assert "3pct" in refusal(eh.BFFHQ, data_dir=root, conflict=0.03)
    for name in ("x_0_2.png", "x_2_0.png", "face.png", "1_0.png"):
        wrong = picture(root / "valid" / name)
        assert refusal(eh.BFFHQ, data_dir=root).startswith(
            f"The name of '{wrong}' must end in _LABEL_ATTRIBUTE, a label"
        )
        wrong.unlink()
    wrong = picture(root / "0.5pct/align/0/90_0_1.png")
    assert refusal(eh.BFFHQ, data_dir=root) == (
        f"The picture '{wrong}' is in the wrong folder: in align/ a name's last two numbers are equal, in conflict/ "
        "they differ (1 such files)."
    )
    with pytest.raises(eh.UserError, match=r"^The 'primary' parameter of bffhq must be one of unbiased, conflicting"):
        eh.BFFHQ(primary="both")  # type: ignore[arg-type]


# ---- waterbirds and celeba ------------------------------------------------------------------------------------------


def test_waterbirds_follow_their_table(tmp_path: Path) -> None:
    task = eh.Waterbirds(data_dir=write_waterbirds(tmp_path)).build(0)
    assert sizes(task) == {"train": 7, "validation": 4, "test": 4}
    assert group_sizes(task.train) == {
        "landbird, land": 4,
        "landbird, water": 1,
        "waterbird, land": 1,
        "waterbird, water": 1,
    }
    assert group_sizes(task.train, "alignment") == {"aligned": 5, "conflicting": 2}
    for row, (y, _, place) in zip(task.tests["test"], [r for r in WATERBIRD_ROWS if r[1] == 2], strict=True):
        assert (row["labels"], row["attribute"]) == (y, place)
        number = int(Path(row["id"]).stem.split("_")[-1])
        expected = np.asarray(Image.open(picture(tmp_path / "again.jpg", seed=number)))
        assert (np.asarray(row["image"]) == expected).all()
    assert any("train, waterbird, land: 1 found, 56 expected" in note for note in task.notes)


def test_published_counts_add_up() -> None:
    birds, faces = eh.Waterbirds().expected_counts(), eh.CelebA().expected_counts()
    assert [numbers["n"] for numbers in birds.values()] == [4795, 1199, 5794]
    assert [numbers["n"] for numbers in faces.values()] == [162_770, 19_867, 19_962]
    assert birds["train"]["waterbird, land"] == 56
    assert faces["train"]["blond, male"] == 1387
    assert faces["test"]["not blond, female"] == 9767
    cifar = eh.CorruptedCIFAR10(conflict=0.05).expected_counts()
    assert cifar["train"]["cat conflicting"] == 225
    assert cifar["test"]["cat aligned"] == 100


@pytest.mark.parametrize("csv", [False, True])
def test_celeba_follows_its_tables(csv: bool, tmp_path: Path) -> None:
    task = eh.CelebA(data_dir=write_celeba(tmp_path, csv)).build(0)
    assert sizes(task) == {"train": 6, "validation": 4, "test": 4}
    assert group_sizes(task.train) == {
        "not blond, female": 1,
        "not blond, male": 3,
        "blond, female": 1,
        "blond, male": 1,
    }
    # blond women and other men are aligned
    assert group_sizes(task.train, "alignment") == {"aligned": 4, "conflicting": 2}
    rows = [r for r in CELEBA_ROWS if r[2] == 1]
    found = [(row["labels"], row["attribute"]) for row in task.validation]
    assert found == [(blond, male) for blond, male, _ in rows]
    assert task.validation[0]["image"].size == (9, 7)


def test_missing_pictures_are_counted_and_named(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    for n in (2, 3, 5, 7):
        (tmp_path / "img_align_celeba" / f"{n:06d}.jpg").unlink()
    assert refusal(eh.CelebA, data_dir=tmp_path).startswith(
        f"4 of the 14 pictures named in '{tmp_path / 'list_attr_celeba.txt'}' are missing from '{tmp_path}' "
        "('img_align_celeba/000002.jpg', 'img_align_celeba/000003.jpg', 'img_align_celeba/000005.jpg', …); it must hold"
    )


def test_bad_celeba_tables(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    attributes, partition = tmp_path / "list_attr_celeba.txt", tmp_path / "list_eval_partition.txt"
    good, good_partition = attributes.read_text(), partition.read_text()
    partition.write_text(good_partition[: good_partition.index("000014")])
    assert "(14 rows) and" in refusal(eh.CelebA, data_dir=tmp_path)
    assert "(13 rows) must name the same pictures" in refusal(eh.CelebA, data_dir=tmp_path)
    partition.write_text(good_partition)
    attributes.write_text(good[: good.index("000014") + 10])  # cut off in its last row
    assert refusal(eh.CelebA, data_dir=tmp_path).startswith(
        f"Line 16 of the file '{attributes}' has 1 field, but the first line names 5: it is truncated"
    )
    attributes.write_text(good.replace("Male", "Mail"))
    assert refusal(eh.CelebA, data_dir=tmp_path) == (
        f"The file '{attributes}' has no column 'Male' (did you mean 'Mail' or 'image_id' or 'Bald'?); its columns "
        "are 'image_id', 'Bald', 'Blond_Hair', 'Mail', 'Young'."
    )
    attributes.write_bytes(b"\xff\xfe\x00")
    assert refusal(eh.CelebA, data_dir=tmp_path).startswith(f"Line 1 of the file '{attributes}' is not UTF-8 text (it ")
    attributes.write_bytes(b"")
    assert refusal(eh.CelebA, data_dir=tmp_path) == f"The file '{attributes}' is empty (0 bytes)."
    attributes.unlink()
    assert refusal(eh.CelebA, data_dir=tmp_path).startswith(
        f"The folder '{tmp_path}' holds no file list_attr_celeba.txt or list_attr_celeba.csv; it must hold"
    )
    assert refusal(eh.CelebA).startswith("The pictures could not be loaded from the hub as 'flwrlabs/celeba'")


def test_bad_waterbirds_table(tmp_path: Path) -> None:
    table = write_waterbirds(tmp_path) / "metadata.csv"
    good = table.read_text()
    table.write_text(good.replace("000.Some_Bird/Some_Bird_0000.jpg", "../secret.jpg"))
    assert refusal(eh.Waterbirds, data_dir=tmp_path) == (
        f"The table '{table}' names the file '../secret.jpg', which lies outside its folder."
    )
    table.write_text("\n".join(good.splitlines()[:5]))  # of the training rows only
    assert refusal(eh.Waterbirds, data_dir=tmp_path) == (
        f"The table '{table}' has no rows of the split 'validation' (number 1)."
    )
    table.write_text(good + "99,x.jpg,7,0,0,y\n")
    assert refusal(eh.Waterbirds, data_dir=tmp_path) == (
        f"Line 17 of the file '{table}' has '7' as y, which must be one of 0, 1 (1 such rows)."
    )
    table.write_text(good)
    first = tmp_path / "000.Some_Bird/Some_Bird_0000.jpg"
    first.write_text("no picture")
    assert refusal(eh.Waterbirds, data_dir=tmp_path).startswith(f"The picture '{first}' can't be read: it is truncated")


@pytest.mark.parametrize(
    ("source", "config", "columns", "parts"),
    [
        (eh.Waterbirds, None, ("label", "place"), ("train", "validation", "test")),
        (eh.CelebA, "img_align+identity+attr", ("Blond_Hair", "Male"), ("train", "valid", "test")),
    ],
)
def test_pictures_from_the_hub(source: Any, config: Any, columns: Any, parts: Any, monkeypatch: Any) -> None:
    def hub(name: str, asked: str | None) -> Any:
        assert asked == config
        image = [Image.fromarray(np.full((4, 5, 3), n, np.uint8)) for n in range(4)]
        content = {"image": image, columns[0]: [0, 0, 1, 1], columns[1]: [0, 1, 0, 1], "other": [1, 2, 3, 4]}
        kind = "bool" if source is eh.CelebA else "int64"
        features = datasets.Features(
            {
                "image": datasets.Image(),
                columns[0]: datasets.Value(kind),
                columns[1]: datasets.Value(kind),
                "other": datasets.Value("int64"),
            }
        )
        return {part: datasets.Dataset.from_dict(content, features=features) for part in parts}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    task = source().build(0)
    assert sizes(task) == {"train": 4, "validation": 4, "test": 4}
    assert list(group_sizes(task.train).values()) == [1, 1, 1, 1]
    assert np.asarray(task.validation[3]["image"]).max() == 3
    assert "other" not in task.train.column_names


# ---- all of them ----------------------------------------------------------------------------------------------------


def test_every_picture_task_ships_settings_for_the_small_resnet() -> None:
    for source in (eh.MultiBiasMNIST, eh.CorruptedCIFAR10, eh.BAR, eh.BFFHQ, eh.Waterbirds, eh.CelebA):
        assert "small-resnet" in source.training
        assert source.default_model in source.training


def test_a_run_on_pictures_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of different sizes go through a run, up to the record with the groups and the adjusted average."""
    root = write_waterbirds(tmp_path / "birds")
    picture(root / "000.Some_Bird/Some_Bird_0000.jpg", (13, 6))
    source = eh.Waterbirds(data_dir=root)
    monkeypatch.setitem(eh.Waterbirds.training, "mlp", Training(epochs=1, lr=1e-3, batch_size=4))
    result = eh.fit(eh.ERM(), source, "mlp", output_dir=tmp_path / "run", device="cpu")
    assert set(result.metrics["by_group"]) == set(group_sizes(source.build(0).train))
    assert result.metrics["average_train_weighted"] is not None
    assert str(root) not in (tmp_path / "run" / "record.json").read_text(encoding="utf-8")
