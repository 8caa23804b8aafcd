"""The scripts in examples/ on tiny data, and what is left of them without the four lines of EDGE."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, ViTConfig, ViTImageProcessorPil
from transformers import ViTForImageClassification as ViT

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMON = ["--num_train_epochs", "2", "--use_cpu", "--report_to", "none", "--disable_tqdm", "True"]
COMMON += ["--per_device_train_batch_size", "4", "--learning_rate", "1e-2", "--dataloader_pin_memory", "False"]

pytestmark = [
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the scripts lie in the repository only"),
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
]


def text_arguments(folder: Path) -> list[str]:
    words = ["good", "bad", "film", "play", "[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "model")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    rows = ["text,label", *(f"{word} {what},{word}" for word in ("good", "bad") for what in ("film", "play") * 3)]
    (folder / "train.csv").write_text("\n".join(rows))
    files = ["--train_file", str(folder / "train.csv"), "--validation_file", str(folder / "train.csv")]
    return ["--model_name_or_path", str(folder / "model"), *files, *COMMON]


def image_arguments(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 100, (12, 12, 3)) + 150 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "train" / name / f"{i}.png")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder / "model")
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    torch.manual_seed(0)
    ViT(config).save_pretrained(folder / "model")
    folders = ["--train_dir", str(folder / "train"), "--validation_dir", str(folder / "train")]
    return ["--model_name_or_path", str(folder / "model"), *folders, *COMMON]


def run(script: Path, words: list[str], output: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a user's `python script …` leaves."""
    monkeypatch.setattr(sys, "argv", [str(script), *words, "--output_dir", str(output)])
    runpy.run_path(str(script), run_name="__main__")
    weights = next(output.glob("*.safetensors"))
    return load_file(weights), json.loads((output / "eval_results.json").read_text())


def without_edge(script: Path, folder: Path) -> Path:
    """The script for transformers.Trainer: the marked lines taken out, or back to what they stand for."""
    lines = script.read_text().splitlines()
    marked = [line for line in lines if "# EDGE" in line]
    assert len(marked) == 4
    kept = []
    for line in lines:
        if stands_for := re.search(r"# EDGE, in place of (.*)", line):
            kept.append(f"    trainer = {stands_for[1]}")
        elif "# EDGE" not in line:
            kept.append(line)
    plain = folder / "plain.py"
    plain.write_text("\n".join(kept).replace("  # noqa: F401  (what the EDGE line stands in for)", ""))
    assert "eh." not in plain.read_text()
    return plain


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_script_with_edge(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = EXAMPLES / f"run_{kind}_classification.py"
    words = text_arguments(tmp_path) if kind == "text" else image_arguments(tmp_path)
    plain, _ = run(without_edge(script, tmp_path), words, tmp_path / "plain", monkeypatch)
    zero, _ = run(script, [*words, "--alpha", "0"], tmp_path / "zero", monkeypatch)
    edge, metrics = run(script, [*words, "--alpha", "2"], tmp_path / "edge", monkeypatch)
    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    assert any(not torch.equal(plain[name], edge[name]) for name in plain)
    assert metrics["eval_accuracy"] >= 0.5


def test_the_text_script_with_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*text_arguments(tmp_path), "--lora_rank", "2"]
    weights, _ = run(EXAMPLES / "run_text_classification.py", words, tmp_path / "lora", monkeypatch)
    assert any("lora_B" in name for name in weights)
