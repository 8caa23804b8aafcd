from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import huggingface_hub.constants
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from scipy import stats
from sklearn.datasets import load_digits

from evenhand.data.columns import column_values, membership
from evenhand.tasks import TASKS, ColoredDigits, ColoredMNIST, Task
from evenhand.tasks.images import mnist
from evenhand.tasks.images.coloring import LFF_PALETTE, PGD_PALETTE, draw_attributes, draw_attributes_exactly, paint
from evenhand.training.settings import FINE_TUNING
from evenhand.validation import UserError

REAL_MNIST = Path(__file__).parents[3] / "shared/data/mnist"

PGD_COLORS = [
    (220, 20, 60),
    (0, 128, 128),
    (253, 233, 16),
    (0, 149, 182),
    (237, 145, 33),
    (145, 30, 188),
    (70, 240, 240),
    (250, 197, 187),
    (210, 245, 60),
    (128, 0, 0),
]
LFF_COLORS = [
    (251, 80, 43),
    (253, 233, 90),
    (172, 118, 148),
    (200, 212, 153),
    (22, 198, 250),
    (82, 245, 114),
    (6, 60, 193),
    (142, 26, 194),
    (53, 100, 5),
    (213, 52, 68),
]


@cache
def colored_digits(data_seed: int = 0, conflict: float = 0.02, test_conflict: float = 0.9) -> Task:
    return ColoredDigits(conflict=conflict, test_conflict=test_conflict).build(data_seed)


def pixels(split: datasets.Dataset) -> np.ndarray:
    return np.array(split.with_format("numpy")["pixel_values"], dtype=np.uint8)


def conflicts(split: datasets.Dataset) -> int:
    return int((column_values(split, "attribute") != column_values(split, "labels")).sum())


def gray_of(split: datasets.Dataset, colors: list[tuple[int, int, int]]) -> np.ndarray:
    """The gray image back from the brightest channel of each image's colour: max = gray · (largest channel / 255)."""
    largest = np.array([max(colors[a]) for a in column_values(split, "attribute")])
    return pixels(split).max(axis=1) * (255 / largest)[:, None, None]


def assert_within_binomial_bounds(count: int, n: int, share: float) -> None:
    low, high = stats.binom.interval(1 - 1e-6, n, share)
    assert low <= count <= high, (count, n, share)


# ---- colored-digits -------------------------------------------------------------------------------------------------


def test_colored_digits_has_its_splits() -> None:
    task = colored_digits()
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 1100, "validation": 200, "test": 497}
    assert list(task.splits) == ["train", "validation", "test"]
    assert (task.name, task.kind, task.primary_test) == ("colored-digits", "image", "test")
    assert task.label_names == tuple("0123456789")
    assert task.image_shape == (3, 8, 8)


def test_colored_digits_splits_are_disjoint_and_complete() -> None:
    """Every image of scikit-learn's set is found once, with its label, by its gray values."""
    source: Any = load_digits()
    keys: dict[bytes, list[int]] = {}
    for image, label in zip(source.images, source.target, strict=True):
        keys.setdefault(image.astype(np.uint8).tobytes(), []).append(int(label))
    found: dict[bytes, list[int]] = {}
    for split in colored_digits().splits.values():
        # 16 gray levels: 255/16 ≈ 16 between them, far more than the rounding of a painted byte (< 2 at colour 128)
        gray = np.rint(gray_of(split, PGD_COLORS) * 16 / 255).astype(np.uint8)
        for image, label in zip(gray, column_values(split, "labels"), strict=True):
            found.setdefault(image.tobytes(), []).append(int(label))
    assert {key: sorted(labels) for key, labels in found.items()} == {key: sorted(v) for key, v in keys.items()}


def test_aligned_images_have_the_palettes_color() -> None:
    split = colored_digits().splits["train"]
    image = pixels(split).astype(float)
    for i in np.flatnonzero(column_values(split, "labels") == column_values(split, "attribute"))[:200]:
        brightest = np.unravel_index(image[i].sum(axis=0).argmax(), (8, 8))
        gray = gray_of(split.select([i]), PGD_COLORS)[0][brightest]
        expected = np.array(PGD_COLORS[split[int(i)]["labels"]]) * gray / 255
        # σ = 1e-4 is 0.026 levels, rounding 0.5 in each channel and in the gray
        np.testing.assert_allclose(image[i][:, brightest[0], brightest[1]], expected, atol=1.6)


def test_conflicting_colors_are_spread_over_the_nine_others() -> None:
    label_N = np.repeat(np.arange(10), 2_000)
    attribute_N = draw_attributes(label_N, 1.0, np.random.default_rng(0))
    for label in range(10):
        counts = np.bincount(attribute_N[label_N == label], minlength=10)
        assert counts[label] == 0
        assert stats.chisquare(np.delete(counts, label)).pvalue > 1e-4


@pytest.mark.parametrize("conflict", [0.02, 0.3])
def test_conflict_shares_are_binomial(conflict: float) -> None:
    counts = [
        {name: conflicts(split) for name, split in colored_digits(seed, conflict).splits.items()} for seed in range(5)
    ]
    for name, n, share in (("train", 1100, conflict), ("validation", 200, conflict), ("test", 497, 0.9)):
        assert_within_binomial_bounds(sum(count[name] for count in counts), 5 * n, share)
    assert len({count["train"] for count in counts}) > 1  # i.i.d., not an exact number


@pytest.mark.parametrize(("conflict", "share"), [(0, 0.0), (0.0, 0.0), (1, 1.0), (1.0, 1.0)])
def test_no_and_all_conflicts(conflict: float, share: float) -> None:
    task = colored_digits(0, conflict, conflict)
    assert {name: conflicts(split) / len(split) for name, split in task.splits.items()} == {
        "train": share,
        "validation": share,
        "test": share,
    }


def test_wrong_labels_leave_colour_group_and_test_alone() -> None:
    clean, spoilt = ColoredDigits().build(3), ColoredDigits(wrong_labels=0.25).build(3)
    for split, size in (("train", 1100), ("validation", 200)):
        before, after = clean.splits[split], spoilt.splits[split]
        wrong = np.array(before["labels"]) != np.array(after["labels"])
        assert abs(wrong.mean() - 0.25) < 5 * (0.25 * 0.75 / size) ** 0.5
        assert len(np.unique((np.array(after["labels"]) - np.array(before["labels"]))[wrong] % 10)) == 9
        for column in ("group", "alignment", "attribute", "pixel_values"):
            assert before[column][:] == after[column][:], column
    assert clean.tests["test"]["labels"][:] == spoilt.tests["test"]["labels"][:]


@pytest.mark.parametrize(
    ("imbalance", "share", "first", "last"), [(10, 1, 111, 11), (1, 0.1, 11, 11), (4, 0.5, 56, 14)]
)
def test_classes_keep_their_share_of_training_images(imbalance: float, share: float, first: int, last: int) -> None:
    task = ColoredDigits(imbalance=float(imbalance), share=share).build(0)
    counts = np.bincount(task.train["labels"][:], minlength=10)
    assert (counts[0], counts[9]) == (first, last)
    assert (len(task.validation), len(task.tests["test"])) == (200, 497)


def test_data_that_are_not_spoilt_are_called_as_before() -> None:
    assert ColoredDigits(wrong_labels=0.1).settings() == {"conflict": 0.02, "test_conflict": 0.9, "wrong_labels": 0.1}
    assert ColoredDigits().expected_counts()
    assert not ColoredDigits(share=0.5).expected_counts()


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({"wrong_labels": 1.1}, "[0, 1]"), ({"imbalance": 0.5}, "[1, inf)"), ({"share": 0.0}, "(0, 1]")],
)
def test_bad_spoiling(options: dict[str, Any], allowed: str) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(UserError) as caught:
        ColoredDigits(**options)
    assert str(caught.value) == (
        f"The '{name}' parameter of colored-digits must be a float in the range {allowed}. Got {value}."
    )


def test_equal_seeds_give_equal_data() -> None:
    first, second = colored_digits(3), ColoredDigits().build(3)
    for name, split in first.splits.items():
        assert split.to_dict() == second.splits[name].to_dict()


def test_other_seeds_give_other_colors_of_the_same_split() -> None:
    first, second = colored_digits(0), colored_digits(1)
    for name, split in first.splits.items():
        other = second.splits[name]
        assert (column_values(split, "labels") == column_values(other, "labels")).all()
        assert (column_values(split, "attribute") != column_values(other, "attribute")).any()
        both = np.stack([gray_of(split, PGD_COLORS), gray_of(other, PGD_COLORS)]) * 16 / 255
        assert (np.rint(both[0]) == np.rint(both[1])).all()


def test_columns_are_consistent_and_groups_have_names() -> None:
    for split in colored_digits().splits.values():
        label_N, attribute_N = column_values(split, "labels"), column_values(split, "attribute")
        assert column_values(split, "index").tolist() == list(range(len(split)))
        assert column_values(split, "alignment").tolist() == (label_N != attribute_N).astype(int).tolist()
        groups, alignments = split.features["group"], split.features["alignment"]
        for row in split.select_columns(["labels", "alignment", "group"]).select(range(50)):
            assert groups.int2str(row["group"]) == f"{row['labels']} {alignments.int2str(row['alignment'])}"
        assert set(membership(split, "alignment")) == {"aligned", "conflicting"}
        assert len(membership(split, "group")) == 20
        assert sum(int(m.sum()) for m in membership(split, "group").values()) == len(split)
    assert colored_digits().train.features["attribute"].names[:3] == ["crimson", "teal", "yellow"]


def test_rows_keep_their_index_when_they_are_shuffled() -> None:
    shuffled = colored_digits().train.shuffle(seed=0)
    plain = pixels(colored_digits().train)
    assert column_values(shuffled, "index").tolist() != list(range(1100))
    assert (pixels(shuffled.select(range(20))) == plain[column_values(shuffled, "index")[:20]]).all()
    assert membership(shuffled, "nothing") == {}


def test_palettes_are_the_papers() -> None:
    assert [rgb for _, rgb in PGD_PALETTE] == PGD_COLORS
    assert [rgb for _, rgb in LFF_PALETTE] == LFF_COLORS
    for palette in (PGD_PALETTE, LFF_PALETTE):
        assert len({name for name, _ in palette}) == 10


def test_paint_multiplies_gray_and_color() -> None:
    gray = np.array([[[0, 51], [128, 255]]], dtype=np.uint8)
    painted = paint(gray, np.array([0]), PGD_PALETTE, 0.0, np.random.default_rng(0))
    expected = [[[round(g * c / 255) for g in row] for row in [[0, 51], [128, 255]]] for c in (220, 20, 60)]
    assert painted.tolist() == [expected]


def test_paint_noise_is_one_per_image_and_channel_and_stays_in_range() -> None:
    gray = np.full((4_000, 1, 2), 255, dtype=np.uint8)
    painted = paint(gray, np.full(4_000, 2), PGD_PALETTE, 0.05, np.random.default_rng(0)).astype(float)
    assert (painted[..., 0] == painted[..., 1]).all()
    assert painted.max() == 255.0  # 253/255 + 0.05 is cut off, not wrapped around to black
    assert painted[:, 0].min() > 180
    assert painted[:, 1].std() == pytest.approx(0.05 * 255, rel=0.15)
    assert np.corrcoef(painted[:, 1, 0, 0], painted[:, 2, 0, 0])[0, 1] == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("name", ["conflict", "test_conflict"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "0.1", True])
@pytest.mark.parametrize("source", [ColoredDigits, ColoredMNIST])
def test_bad_conflict_shares(source: Any, value: Any, name: str) -> None:
    with pytest.raises(UserError) as caught:
        source(**{name: value})
    assert str(caught.value) == (
        f"The '{name}' parameter of {source.name} must be a float in the range [0, 1]. Got {value!r}."
    )


# ---- LfF's exact counts ---------------------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(1, 60), min_size=10, max_size=10),
    percent=st.sampled_from([0, 0.5, 1, 2, 5, 10, 30, 50, 90, 100]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_lff_conflicts_are_exact_in_every_class(counts: list[int], percent: float, seed: int) -> None:
    label_N = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), counts))
    attribute_N = draw_attributes_exactly(label_N, percent / 100, np.random.default_rng(seed))
    for label, n in enumerate(counts):
        aligned = int(((label_N == label) & (attribute_N == label)).sum())
        assert aligned == int((1000 - 10 * percent) * n) // 1000  # in integers, without rounding errors
    assert attribute_N.min() >= 0
    assert attribute_N.max() <= 9


# ---- colored-mnist from files that the test makes -------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    """The IDX format: 0, 0, 8 (bytes), number of axes, each axis as four bytes, the data."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def digits_of(n: int, seed: int, size: int = 28) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size)).astype(np.uint8), (np.arange(n) % 10).astype(np.uint8)


def write_mnist(folder: Path, train: int = 60, test: int = 40, zipped: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for n, seed, images, labels in ((train, 0, IMAGES, LABELS), (test, 1, TEST_IMAGES, TEST_LABELS)):
        for name, array in zip((images, labels), digits_of(n, seed), strict=True):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture(autouse=True)
def _small_validation(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:
        monkeypatch.setattr(mnist, "VALIDATION_SIZE", 20)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        ColoredMNIST(data_dir=folder, **options).build(0)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_files_plain_and_gzipped(zipped: bool, tmp_path: Path) -> None:
    task = ColoredMNIST(data_dir=write_mnist(tmp_path, zipped=zipped), conflict=0.0).build(0)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 40, "validation": 20, "test": 40}
    assert task.image_shape == (3, 28, 28)
    image, label = digits_of(40, 1)
    test = task.tests["test"]
    assert column_values(test, "labels").tolist() == label.tolist()
    np.testing.assert_allclose(gray_of(test, PGD_COLORS), image, atol=1.5)
    # train and validation are the training images, each once; the first column of pixels tells them apart
    source, source_label = digits_of(60, 0)
    seen = []
    for name in ("train", "validation"):
        split = task.splits[name]
        assert column_values(split, "index").tolist() == list(range(len(split)))
        for gray, digit in zip(gray_of(split, PGD_COLORS), column_values(split, "labels"), strict=True):
            origin = int(np.abs(source - gray).mean(axis=(1, 2)).argmin())
            assert source_label[origin] == digit
            seen.append(origin)
    assert sorted(seen) == list(range(60))


def test_mnist_seeds_draw_split_and_colors(tmp_path: Path) -> None:
    source = ColoredMNIST(data_dir=write_mnist(tmp_path), conflict=0.5)
    first, second, other = source.build(0), source.build(0), source.build(1)
    for name in first.splits:
        assert first.splits[name].to_dict() == second.splits[name].to_dict()
        assert pixels(first.splits[name]).tolist() != pixels(other.splits[name]).tolist()
    assert column_values(first.train, "labels").tolist() != column_values(other.train, "labels").tolist()


def test_recipes_have_their_own_palette_and_counts(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=420, test=400)
    lff = ColoredMNIST(data_dir=folder, conflict=0.1, recipe="lff", severity=5, test_conflict=0.9).build(0)
    test = lff.tests["test"]
    for label in range(10):  # 40 of each: ⌊0.1·40⌋ = 4 keep their colour
        own = column_values(test, "labels") == label
        assert int((column_values(test, "attribute")[own] == label).sum()) == 4
    assert test.features["attribute"].names[0] == "red"
    np.testing.assert_allclose(gray_of(test, LFF_COLORS), digits_of(400, 1)[0], rtol=0.05, atol=2)
    pgd = ColoredMNIST(data_dir=folder, conflict=0.1).build(0)
    assert pgd.tests["test"].features["attribute"].names[0] == "crimson"


def test_severity_sets_lffs_noise(tmp_path: Path) -> None:
    folder, image = write_mnist(tmp_path, test=300), digits_of(300, 1)[0].astype(float)
    for severity, sigma in enumerate([0.05, 0.02, 0.01, 0.005, 0.002], start=1):
        test = ColoredMNIST(data_dir=folder, recipe="lff", severity=severity).build(0).tests["test"]
        color_N3 = np.array(LFF_COLORS)[column_values(test, "attribute")] / 255
        # least squares gives each image's and channel's disturbed colour; those near 0 and 1 are cut off
        found_N3 = (pixels(test) * image[:, None]).sum(axis=(2, 3)) / (image**2).sum(axis=(1, 2))[:, None]
        inner = (color_N3 > 0.15) & (color_N3 < 0.85)
        assert (found_N3 - color_N3)[inner].std() == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("missing", [IMAGES, LABELS, TEST_IMAGES, TEST_LABELS])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    (write_mnist(tmp_path) / missing).unlink()
    assert refusal(tmp_path) == (
        f"The folder '{tmp_path}' must hold MNIST's IDX file '{missing}' or '{missing}.gz', and holds neither."
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    assert refusal(folder) == f"The folder '{folder}' given as --data-dir does not exist."


@pytest.mark.parametrize("kept", [0, 3, 7, 15, 16, 100, -1])
def test_a_truncated_plain_file(kept: int, tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / IMAGES
    raw = path.read_bytes()[:kept]
    path.write_bytes(raw)
    assert refusal(tmp_path).startswith(f"The file '{path}' is truncated or damaged: expected ")
    assert refusal(tmp_path).endswith(f"Got {len(raw)}.")


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / LABELS
    path.write_bytes(path.read_bytes() + b"\0")
    assert refusal(tmp_path) == f"The file '{path}' is truncated or damaged: expected 68 bytes. Got 69."


@given(share=st.floats(0, 0.999))
@settings(max_examples=25)
def test_a_truncated_gzip_file(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_mnist(tmp_path_factory.mktemp("mnist"), train=21, zipped=True) / f"{IMAGES}.gz"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    assert refusal(path.parent).startswith(f"The file '{path}' is truncated or ")


@pytest.mark.parametrize("damage", [lambda raw: b"no gzip" + raw, lambda raw: raw[:40] + b"\xff" * 20 + raw[60:]])
def test_a_damaged_gzip_file(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_mnist(tmp_path, zipped=True) / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert refusal(tmp_path).startswith(f"The file '{path}' is truncated or no gzip file (")


def test_swapped_files_are_recognised(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    images, labels = (folder / IMAGES).read_bytes(), (folder / LABELS).read_bytes()
    (folder / IMAGES).write_bytes(labels)
    (folder / LABELS).write_bytes(images)
    assert refusal(folder) == (
        f"The file '{folder / IMAGES}' should hold IDX images but holds labels (were two files swapped?)."
    )


def test_something_else_than_idx(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / LABELS
    path.write_bytes(b"\x89PNG" + bytes(64))
    assert refusal(tmp_path) == (
        f"The file '{path}' should hold IDX labels but holds something else (magic number {0x89504E47})."
    )


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / IMAGES
    path.unlink()
    path.mkdir()
    assert refusal(tmp_path).startswith(f"The file '{path}' could not be read (")


@pytest.mark.parametrize("bad", [10, 255])
def test_labels_that_are_no_digits(bad: int, tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / LABELS
    label_N = digits_of(60, 0)[1]
    label_N[[7, 9]] = bad
    path.write_bytes(idx(label_N))
    assert refusal(tmp_path) == (
        f"The file '{path}' holds labels outside the classes 0–9: row 7 is {bad} (2 such rows)."
    )


def test_images_and_labels_of_different_counts(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    (folder / TEST_LABELS).write_bytes(idx(digits_of(39, 0)[1]))
    assert refusal(folder) == (
        f"The files '{folder / TEST_IMAGES}' and '{folder / TEST_LABELS}' don't belong together: 40 images, 39 labels."
    )


def test_images_of_another_size(tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / IMAGES
    path.write_bytes(idx(digits_of(60, 0, size=27)[0]))
    assert refusal(tmp_path) == f"The file '{path}' must hold images of 28×28 pixels. Got (27, 27)."


@pytest.mark.parametrize("train", [0, 19, 20])
def test_too_few_images_for_a_validation_split(train: int, tmp_path: Path) -> None:
    assert refusal(write_mnist(tmp_path, train=train)) == (
        f"MNIST's training part must hold more than 20 images, since as many make the validation split. Got {train}."
    )


def test_an_empty_test_part(tmp_path: Path) -> None:
    assert refusal(write_mnist(tmp_path, test=0)) == "The split 'test' of the task 'colored-mnist' is empty."


def test_without_files_and_network_the_folder_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"^MNIST could not be loaded from the hub as 'ylecun/mnist'") as caught:
        ColoredMNIST().build(0)
    assert str(caught.value).endswith("give a folder of its four IDX files with --data-dir instead.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "lfff"}, "The 'recipe' parameter of colored-mnist must be one of pgd, lff. Got 'lfff'"),
        ({"severity": 0}, "The 'severity' parameter of colored-mnist must be"),
        ({"severity": 6}, "The 'severity' parameter of colored-mnist must be"),
        ({"severity": 2.5}, "The 'severity' parameter of colored-mnist must be an integer"),
    ],
)
def test_bad_recipe_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ColoredMNIST(**options)
    assert str(caught.value).startswith(message)


def test_real_mnist_has_its_counts() -> None:
    if not REAL_MNIST.is_dir():
        pytest.skip(f"MNIST's files are not in {REAL_MNIST}")
    task = ColoredMNIST(data_dir=REAL_MNIST, conflict=0.01).build(0)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 54_000,
        "validation": 6_000,
        "test": 10_000,
    }
    assert_within_binomial_bounds(conflicts(task.train), 54_000, 0.01)
    assert_within_binomial_bounds(conflicts(task.validation), 6_000, 0.01)
    assert_within_binomial_bounds(conflicts(task.tests["test"]), 10_000, 0.9)
    label_N = np.concatenate([column_values(task.train, "labels"), column_values(task.validation, "labels")])
    # MNIST's known training counts of the digits 0–9
    assert np.bincount(label_N).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


# ---- settings -------------------------------------------------------------------------------------------------------


def test_tasks_are_known_by_their_names() -> None:
    assert {"colored-digits", "colored-mnist", "biased-snli", "waterbirds"} <= set(TASKS)
    for name, source in TASKS.items():
        assert source.name == name
        assert source.default_model in source.training


def test_settings_hold_no_path() -> None:
    assert ColoredMNIST(data_dir=Path("somewhere"), conflict=0.05).settings() == {
        "conflict": 0.05,
        "test_conflict": 0.9,
        "recipe": "pgd",
        "severity": 4,
    }
    assert ColoredDigits().settings() == {"conflict": 0.02, "test_conflict": 0.9}


def test_training_settings_of_each_model() -> None:
    shipped = ColoredDigits().training_for("digits-cnn")
    assert (shipped.epochs, shipped.lr, shipped.batch_size, shipped.optimizer) == (30, 1e-3, 64, "adam")
    released = ColoredMNIST().training_for("pgd-cnn")
    assert (released.epochs, released.lr, released.batch_size, released.optimizer) == (100, 0.02, 128, "sgd")
    assert (released.momentum, released.weight_decay, released.schedule) == (0.9, 1e-3, "step")
    assert released.step_epochs == 40
    assert ColoredDigits().training_for("google/vit-base-patch16-224") == FINE_TUNING


def test_a_small_model_without_settings_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        ColoredDigits().training_for("pgd-cnn")
    assert str(caught.value) == (
        "The task 'colored-digits' ships no training settings for the model 'pgd-cnn', only for digits-cnn, mlp and "
        "pretrained checkpoints."
    )


# ---- a user's own task ----------------------------------------------------------------------------------------------


def own_split(labels: list[int | None], drop: str | None = None, named: bool = True) -> datasets.Dataset:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.ClassLabel(names=["no", "yes"]) if named else datasets.Value("int64"),
            "index": datasets.Value("int64"),
        }
    )
    content = {"text": ["word"] * len(labels), "labels": labels, "index": list(range(len(labels)))}
    split = datasets.Dataset.from_dict(content, features=features)
    return split if drop is None else split.remove_columns(drop)


def own_task(train: datasets.Dataset, test: datasets.Dataset | None = None, **options: Any) -> Task:
    good = own_split([0, 1])
    settings_ = {"name": "mine", "kind": "text", "validation": good, "primary_test": "test"} | options
    return Task(train=train, tests={"test": good if test is None else test}, **settings_)


def test_a_task_of_ones_own() -> None:
    task = own_task(own_split([0, 1, 1]))
    assert task.label_names == ("no", "yes")
    assert task.image_shape is None
    assert membership(task.train, "group") == {}
    assert own_task(own_split([0, 1]), test=own_split([1, 1])).tests["test"].num_rows == 2  # one class is fine in test


@pytest.mark.parametrize("column", ["labels", "index"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(UserError) as caught:
        own_task(own_split([0, 1]), test=own_split([0, 1], drop=column))
    assert str(caught.value) == f"The split 'test' of the task 'mine' has no column {column}."


@pytest.mark.parametrize(("kind", "column"), [("text", "text"), ("image", "pixel_values or image")])
def test_missing_inputs_are_named(kind: str, column: str) -> None:
    with pytest.raises(UserError, match=f"^The split 'train' of the task 'mine' has no column {column}[.]$"):
        own_task(own_split([0, 1], drop="text"), kind=kind)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"^The split 'test' of the task 'mine' is empty\.$"):
        own_task(own_split([0, 1]), test=own_split([]))


@pytest.mark.parametrize("bad", [-1, -100])
def test_labels_outside_the_classes_are_refused(bad: int) -> None:
    labels = pa.array([0, 1, bad, bad])
    split = own_split([0, 1, 0, 1])
    table = split.data.table.set_column(1, split.data.table.schema.field("labels"), labels)
    with pytest.raises(UserError) as caught:
        own_task(datasets.Dataset(table))
    assert str(caught.value) == (
        f"The split 'train' of the task 'mine' has labels outside its 2 classes: row 2 is {bad} (2 such rows)."
    )


def test_missing_labels_are_refused() -> None:
    with pytest.raises(UserError, match=r"^The split 'train' of the task 'mine' has .*label.*row 2"):
        own_task(own_split([0, 1, None, 1]))


def test_labels_without_class_names_are_refused() -> None:
    with pytest.raises(UserError, match="ClassLabel"):
        own_task(own_split([0, 1], named=False))


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        own_task(own_split([1, 1, 1]))
    assert str(caught.value) == (
        "The training split of the task 'mine' has one class only, so there is nothing to learn."
    )


def test_an_unknown_primary_test_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        own_task(own_split([0, 1]), primary_test="tset")
    assert str(caught.value) == "The task 'mine' has no test set 'tset'."


def test_overlapping_groups_are_lists(tiny_task: Task) -> None:
    names = ["a", "b", "c"]
    groups = [[0, 2], [], [1], [0, 1, 2]]
    split = tiny_task.train.select(range(4))
    split = split.remove_columns("group").add_column(  # type: ignore[call-arg]
        "group", groups, feature=datasets.List(datasets.ClassLabel(names=names))
    )
    expected = {name: [i in row for row in groups] for i, name in enumerate(names)}
    for rows in ([0, 1, 2, 3], [3, 1], [2]):
        found = membership(split.select(rows), "group")
        assert {name: member.tolist() for name, member in found.items()} == {
            name: [member[row] for row in rows] for name, member in expected.items()
        }


# ---- a task made of its splits ---------------------------------------------------------------------------------------


def test_the_first_test_set_heads_and_other_counts_are_noted() -> None:
    source, splits = ColoredDigits(), colored_digits().splits
    named = {
        "hard": splits["test"],
        "train": splits["train"],
        "easy": splits["test"],
        "validation": splits["validation"],
    }
    task = source.task(named, ["One.", "Two."], {"easy": {"n": 497, "0 aligned": -1}, "lost": {"n": 3}}, image_side=7)
    assert (task.name, task.kind, task.image_side) == ("colored-digits", "image", 7)
    assert (list(task.tests), task.primary_test) == (["hard", "easy"], "hard")
    found = int(membership(splits["test"], "group")["0 aligned"].sum())
    assert task.notes == (
        "One.",
        "Two.",
        f"Counts differ from the published ones: easy, 0 aligned: {found} found, -1 expected; "
        "lost: not found, 3 expected.",
    )
    assert source.task(splits).notes == ()


def test_a_mnist_of_another_size_is_noted(tmp_path: Path) -> None:
    (note,) = ColoredMNIST(data_dir=write_mnist(tmp_path)).build(0).notes
    assert note.startswith("Counts differ from the published ones: train: 40 found, 54,000 expected; validation: 20 ")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("colored-mnist", {"severity": 6}, "must be an integer from 1 to 5. Got 6."),
        (
            "corrupted-cifar10",
            {"frost": "fotos"},
            "must be one of drawn, photos. Got 'fotos' (did you mean 'photos'?).",
        ),
        ("marked-notes", {"sentences": 7}, "must be an integer of at least 8. Got 7."),
        ("civilcomments", {"test_comments": True}, "must be an integer of at least 1. Got True."),
        ("bffhq", {"conflict": -1}, "must be a float in the range [0, 1]. Got -1."),
        ("multinli", {"recipe": "official "}, "must be one of official, group-dro."),
        ("qqp-paws", {"pairs": 0}, "must be an integer of at least 1. Got 0."),
    ],
)
def test_settings_are_checked_by_their_fields(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        TASKS[task](**options)
    assert str(caught.value).startswith(f"The '{next(iter(options))}' parameter of {task} {message}")
