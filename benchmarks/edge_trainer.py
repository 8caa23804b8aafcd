"""What EDGE costs in the Trainer: 200 steps of evenhand.Trainer with EDGE against 200 with ERM, side by side.

python benchmarks/edge_trainer.py [--steps 200] [--blocks 4]       # about nine minutes on two cores

MiniLM's shape (BERT 6×384, random weights, dropout 0.1), 16 texts of 64 tokens a step, AdamW, clipping, logging each 10
steps; full fine-tuning, and LoRA (r = 8 on query and value, classifier trained). The steps come in blocks that
alternate between the sides, so that what else the machine does falls on both.

Expected before measuring: what edge_step.py gives for the step itself (LoRA 1.02, full 1.27), nearer to 1 by what the
Trainer does beside it, plus the norms of e and b for the logs, which read both gradients twice more (full: 2 %).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, TrainingArguments

import evenhand as eh

BATCH, LENGTH, CLASSES = 16, 64, 3

METHODS = {"ERM": eh.ERM(), "EDGE, published": eh.EDGE(), "EDGE, tensor": eh.EDGE(projection="tensor")}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    config.id2label = {i: str(i) for i in range(CLASSES)}
    model: Any = BertForSequenceClassification(config)
    if kind == "full":
        return model
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["query", "value"])
    return get_peft_model(model, lora)


def rows(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "input_ids": rng.integers(1, 30_000, LENGTH).tolist(),
            "attention_mask": [1] * LENGTH,
            "labels": int(rng.integers(CLASSES)),
        }
        for _ in range(n)
    ]


def trainer(kind: str, method: Any, steps: int) -> Any:
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        logging_steps=10,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    made = eh.Trainer(model_of(kind), arguments, train_dataset=rows(BATCH * steps), method=method)  # type: ignore[arg-type]
    made.remove_callback(PrinterCallback)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    each = given.steps // given.blocks
    lines = [
        "| fine-tuning | method | time / ERM | range over blocks | seconds a step |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for kind in ("LoRA", "full"):
        times: dict[str, list[float]] = {name: [] for name in METHODS}
        for method in METHODS.values():
            trainer(kind, method, 3).train()  # warms up
        for _ in range(given.blocks):
            for name, method in METHODS.items():
                made = trainer(kind, method, each)
                start = time.perf_counter()
                made.train()
                times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            ratios = [t / e for t, e in zip(taken, times["ERM"], strict=True)]
            seconds = statistics.median(taken) / each
            total = sum(taken) / sum(times["ERM"])
            lines.append(f"| {kind} | {name} | {total:.3f} | {min(ratios):.3f}–{max(ratios):.3f} | {seconds:.3f} |")
    table = "\n".join(lines)
    note = (
        f"BERT 6×384, batch {BATCH}, length {LENGTH}, {given.blocks} alternating blocks of {each} steps, each with its "
        f"set-up and check of the first batch; {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    page = f"# EDGE in the Trainer\n\n{table}\n\n{note}.\n"
    print(page)
    (Path(__file__).parent / "edge-trainer.md").write_text(page)


if __name__ == "__main__":
    main()
