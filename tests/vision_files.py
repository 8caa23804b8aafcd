"""Made-up replicas of the benchmarks' real file layouts, with tiny pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (9, 7), seed: int = 0) -> Path:
    """A picture of noise, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def idx(array: np.ndarray) -> bytes:
    """The IDX format: 0, 0, 8 (bytes), number of axes, each axis as four bytes, the data."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_idx(
    folder: Path, train: int = 60, test: int = 40, prefix: str = "", first: int = 0, classes: int = 10
) -> Path:
    """Images and labels as MNIST and its relatives have them; labels go round from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("test" if prefix else "t10k", test)):
        labels = (first + np.arange(n) % classes).astype(np.uint8)
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28)).astype(np.uint8)
        (folder / f"{prefix}{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def cifar_batch(n: int, seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A binary batch, its images (n, 32, 32, 3) and labels."""
    rng = np.random.default_rng(seed)
    label_N = (np.arange(n) % 10).astype(np.uint8)
    images = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)
    records = np.concatenate([label_N[:, None], images.transpose(0, 3, 1, 2).reshape(n, -1)], axis=1)
    return records.tobytes(), images, label_N


def write_cifar(root: Path, each: int = 40, test: int = 30) -> Path:
    """CIFAR-10's binary version."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for n in range(1, 6):
        (folder / f"data_batch_{n}.bin").write_bytes(cifar_batch(each, n)[0])
    (folder / "test_batch.bin").write_bytes(cifar_batch(test, 9)[0])
    return root


def write_ready_made(root: Path, percent: str, classes: int, size: tuple[int, int], in_labels: bool) -> Path:
    """Pictures in align/ and conflict/, valid and test, as DFA's authors hand them round."""
    number = 0

    def put(folder: Path, label: int, attribute: int) -> None:
        nonlocal number
        picture(folder / f"{number}_{label}_{attribute}.png", size, seed=number)
        number += 1

    for label in range(classes):
        other = (label + 1) % classes
        for _ in range(3):
            put(root / percent / "align" / str(label), label, label)
        put(root / percent / "conflict" / str(label), label, other)
        inner = str(label) if in_labels else ""
        for attribute in (label, other):
            put((root / percent if in_labels else root) / "valid" / inner, label, attribute)
            put(root / "test" / inner, label, attribute)
    return root


BAR_TRAIN = {"climbing": 12, "diving": 11, "fishing": 2, "racing": 5, "throwing": 5, "pole vaulting": 20}
BAR_TEST = {"climbing": 2, "diving": 1, "fishing": 1, "racing": 2, "throwing": 1, "pole vaulting": 3}


def write_bar(root: Path) -> Path:
    """BAR's folders, whose numbers go on from train to test."""
    for part, counts in (("train", BAR_TRAIN), ("test", BAR_TEST)):
        for action, count in counts.items():
            for n in range(count):
                picture(root / part / f"{action}_{n + (BAR_TRAIN[action] if part == 'test' else 0)}.jpg")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    return root


WATERBIRD_ROWS = [(y, split, place) for split in (0, 1, 2) for y in (0, 1) for place in (0, 1)] + [(0, 0, 0)] * 3


def write_waterbirds(root: Path) -> Path:
    """metadata.csv and the pictures in folders of species."""
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for n, (y, split, place) in enumerate(WATERBIRD_ROWS):
        name = f"{n % 2:03d}.Some_Bird/Some_Bird_{n:04d}.jpg"
        picture(root / name, seed=n)
        lines.append(f"{n + 1},{name},{y},{split},{place},/x/forest/{n}.jpg")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


CELEBA_ROWS = [(blond, male, split) for split in (0, 1, 2) for blond in (0, 1) for male in (0, 1)] + [(0, 1, 0)] * 2


def write_celeba(root: Path, csv: bool = False) -> Path:
    """CelebA's tables as its authors' text or as Kaggle's CSV, and the pictures."""
    columns = ["Bald", "Blond_Hair", "Male", "Young"]
    names = [f"{n + 1:06d}.jpg" for n in range(len(CELEBA_ROWS))]
    values = [["-1", "1" if blond else "-1", "1" if male else "-1", "1"] for blond, male, _ in CELEBA_ROWS]
    splits = [str(split) for _, _, split in CELEBA_ROWS]
    for name in names:
        nested = root / "img_align_celeba" / "img_align_celeba" if csv else root / "img_align_celeba"
        picture(nested / name)
    if csv:
        attributes = [",".join(["image_id", *columns])] + [
            ",".join([n, *v]) for n, v in zip(names, values, strict=True)
        ]
        partition = ["image_id,partition"] + [f"{n},{s}" for n, s in zip(names, splits, strict=True)]
    else:
        attributes = [str(len(names)), " ".join(columns) + " "]
        attributes += [f"{n}  {' '.join(v)}" for n, v in zip(names, values, strict=True)]
        partition = [f"{n} {s}" for n, s in zip(names, splits, strict=True)]
    suffix = "csv" if csv else "txt"
    (root / f"list_attr_celeba.{suffix}").write_text("\n".join(attributes) + "\n", encoding="utf-8")
    (root / f"list_eval_partition.{suffix}").write_text("\n".join(partition) + "\n", encoding="utf-8")
    return root
