"""What the Trainer costs: ratios of times measured side by side, alternating, in one process.

python benchmarks/training_speed.py [--data-dir DIR]

1. evenhand.Trainer with ERM against transformers.Trainer: same model, rows, collator and settings.
2. An epoch of the 3×100 MLP on 54,000 colored images of 28×28 against a bare PyTorch loop over tensors in memory,
   which shuffles, takes batches, and steps torch.optim.Adam. Without --data-dir the images are random: the work is
   the same.

Expected before measuring: (1) 1.00–1.02, since the per-sample loss costs one more sum of B numbers; (2) 1.2–1.6, since
a step of this model takes 3 ms and the Trainer's own work (callbacks, loader, gradient norm) about 1 ms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, TrainingArguments

import evenhand as eh
from evenhand.data.rows import Rows, collator_for
from evenhand.models.named import model_source
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset, draw_attributes, paint

BATCH = 256


def images(data_dir: Path | None) -> Rows:
    if data_dir is not None:
        train = eh.ColoredMNIST(data_dir=data_dir).build(0).train
    else:
        rng = np.random.default_rng(0)
        gray, label = rng.integers(0, 256, (54_000, 28, 28)).astype(np.uint8), rng.integers(0, 10, 54_000)
        color = draw_attributes(label, 0.01, rng)
        train = colored_dataset(paint(gray, color, PGD_PALETTE, 0.0, rng), label, color, PGD_PALETTE)
    return Rows(train, ["pixel_values", "labels", "index"])


def mlp() -> tuple[torch.nn.Module, object]:
    source = model_source("mlp", "image", tuple("0123456789"), (3, 28, 28))
    return source.random(0), collator_for(source.preprocessor()[0])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def trainer(cls: type, model: torch.nn.Module, rows: object, collate: object, epochs: int, batch: int) -> object:
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    made = cls(
        model,
        arguments,
        train_dataset=rows,
        data_collator=collate,
        optimizers=(torch.optim.Adam(model.parameters(), lr=1e-3), None),
    )
    made.remove_callback(PrinterCallback)
    return made


def without_index(collate):  # type: ignore[no-untyped-def]
    """transformers.Trainer would hand the index to the model."""
    return lambda rows: {k: v for k, v in collate(rows).items() if k != "index"}


def bare_epoch(image: torch.Tensor, label: torch.Tensor) -> None:
    model, _ = mlp()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(label))
    for start in range(0, len(label), BATCH):
        rows = order[start : start + BATCH]
        loss = F.cross_entropy(model(image[rows]).logits, label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> str:
    for work in (ours, theirs):  # the first of each warms up
        work()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
    return f"{statistics.median(ratios):.3f} | {min(ratios):.3f}–{max(ratios):.3f} | {a:.2f} s / {b:.2f} s"


def text_rows(n: int = 512) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    return [
        {
            "input_ids": rng.integers(1, 1000, 64).tolist(),
            "attention_mask": [1] * 64,
            "labels": int(rng.integers(3)),
        }
        for _ in range(n)
    ]


def bert() -> torch.nn.Module:
    config = BertConfig(
        vocab_size=1000, hidden_size=192, num_hidden_layers=3, num_attention_heads=3, intermediate_size=768
    )
    config.id2label = {0: "a", 1: "b", 2: "c"}
    return BertForSequenceClassification(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    rows = images(given.data_dir)
    _, collate = mlp()
    image = torch.from_numpy(rows.views["pixel_values"].copy()).float() / 255
    label = torch.from_numpy(rows.views["labels"].copy())
    texts = text_rows()
    text_collate = transformers.default_data_collator

    def mlp_epochs(cls: type, epochs: int) -> Callable[[], object]:
        fitted = without_index(collate) if cls is transformers.Trainer else collate
        return lambda: trainer(cls, mlp()[0], rows, fitted, epochs, BATCH).train()  # type: ignore[attr-defined]

    def text_epoch(cls: type) -> Callable[[], object]:
        return lambda: trainer(cls, bert(), texts, text_collate, 1, 32).train()  # type: ignore[attr-defined]

    lines = [
        "| what | ratio (median) | range | median times |",
        "| --- | ---: | ---: | ---: |",
    ]
    erm = ratio(mlp_epochs(eh.Trainer, 2), mlp_epochs(transformers.Trainer, 2), given.repeats)
    lines.append(f"| evenhand.Trainer, ERM / transformers.Trainer: MLP, 2 epochs of 54,000 images | {erm} |")
    text = ratio(text_epoch(eh.Trainer), text_epoch(transformers.Trainer), given.repeats)
    lines.append(f"| evenhand.Trainer, ERM / transformers.Trainer: BERT 3×192, 512 texts of 64 tokens | {text} |")
    bare = ratio(mlp_epochs(eh.Trainer, 1), lambda: bare_epoch(image, label), given.repeats)
    lines.append(f"| an epoch by evenhand.Trainer / by a bare loop over tensors: MLP, 54,000 images | {bare} |")
    table = "\n".join(lines)
    print(table)
    threads, version = torch.get_num_threads(), torch.__version__
    versions = f"torch {version}, transformers {transformers.__version__}"
    note = f"{given.repeats} alternating repeats, {threads} threads, {versions}"
    (Path(__file__).parent / "training-speed.md").write_text(f"# What the Trainer costs\n\n{table}\n\n{note}.\n")


if __name__ == "__main__":
    main()
