"""evenhand.Trainer on two processes equals one process on the joint batch."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

import evenhand as eh
from trainer_models import arguments, image_data, image_model, text_data, text_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# samples a process and step, micro-batches a step
LAYOUTS = {"plain": (8, 1), "accumulated": (4, 2)}
METHODS: dict[str, Any] = {
    "erm": eh.ERM(),
    "published": eh.EDGE(),
    "tensor": eh.EDGE(projection="tensor", alpha=4.0, route="single"),
    "naive-retained": eh.EDGE(projection="naive", route="retain"),
    "global-double": eh.EDGE(projection="global", alpha=4.0, route="double"),
    "row-averaged": eh.EDGE(projection="row", signal="ema", alpha=4.0),
    "biased": eh.EDGE(projection="naive", signal="biased", alpha=1.3),
}
MODELS = {
    "text": (lambda: text_model(0.0), text_data),
    "lora": (lambda: _with_lora(), text_data),
    "image": (image_model, image_data),
}
CASES = [
    ("text", "erm", "plain"),
    ("text", "published", "plain"),
    ("text", "published", "accumulated"),
    ("text", "tensor", "accumulated"),
    ("text", "naive-retained", "accumulated"),
    ("text", "global-double", "accumulated"),
    ("text", "row-averaged", "accumulated"),
    ("lora", "published", "accumulated"),
    ("lora", "biased", "plain"),
    ("image", "biased", "accumulated"),
    ("image", "tensor", "plain"),
]


def _with_lora() -> Any:
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
    return peft.get_peft_model(text_model(0.0), settings)


def weights_after(case: tuple[str, str, str], folder: Path, processes: int) -> dict[str, np.ndarray]:
    kind, method, layout = case
    make, data = MODELS[kind]
    size, accumulated = LAYOUTS[layout]
    torch.manual_seed(0)
    options: dict[str, Any] = {"method": METHODS[method]}
    if METHODS[method].needs_signal:
        options["signal_probs"] = np.linspace(0, 1, 48, dtype=np.float32)
    model = make()
    trainer = eh.Trainer(
        model,
        arguments(
            folder,
            per_device_train_batch_size=size * 2 // processes,
            gradient_accumulation_steps=accumulated,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.5,
            logging_steps=1,
        ),
        train_dataset=data(48),
        **options,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    numbers = [[entry[key] for key in sorted(entry) if "norm" in key or "cosine" in key] for entry in logged]
    return {name: p.detach().numpy() for name, p in model.named_parameters() if p.requires_grad} | {
        "logged": np.array(numbers)
    }


def _process(rank: int, folder: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    own_loop(Path(folder), rank)
    for case in CASES:
        weights = weights_after(case, Path(folder), 2)
        np.savez(Path(folder) / f"{'-'.join(case)}.{rank}.npz", **weights)  # type: ignore[arg-type]
    torch.distributed.destroy_process_group()


def own_loop(folder: Path, rank: int | None) -> list[torch.Tensor]:
    """Gradients of two steps of two micro-batches; on a process its half of each, in DistributedDataParallel."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(9, 6), torch.nn.Flatten(), torch.nn.Linear(24, 3))
    x, y = torch.randint(0, 9, (16, 4)), torch.arange(16) % 3
    called: torch.nn.Module = model
    rows = slice(None)
    if rank is not None:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
        called, rows = torch.nn.parallel.DistributedDataParallel(model), slice(4 * rank, 4 * rank + 4)
    method = eh.EDGE(projection="tensor", alpha=4.0)
    with method.attach(called) as edge:
        for _ in range(2):
            model.zero_grad()
            with called.no_sync() if rank is not None else nullcontext():  # type: ignore[operator]
                edge.backward(called(x[:8][rows]), y[:8][rows], combine=False)
            edge.backward(called(x[8:][rows]), y[8:][rows])
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if rank is not None:
        torch.save(gradients, folder / f"loop.{rank}.pt")
    return gradients


def test_a_loop_of_ones_own_in_ddp(from_two: Path, tmp_path: Path) -> None:
    expected = own_loop(tmp_path, None)
    assert len(expected) == 3
    for rank in range(2):
        torch.testing.assert_close(torch.load(from_two / f"loop.{rank}.pt"), expected, rtol=1e-5, atol=1e-8)


@pytest.fixture(scope="module")
def from_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of every case after training on two processes."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (str(folder), port), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_processes_equal_one_on_the_joint_batch(case: tuple[str, str, str], from_two: Path, tmp_path: Path) -> None:
    one = weights_after(case, tmp_path, 1)
    first, second = (np.load(from_two / f"{'-'.join(case)}.{rank}.npz") for rank in range(2))
    assert set(first.files) == set(one)
    assert len(one["logged"]) == 6  # 3 steps an epoch
    total = np.sqrt(sum(float((w**2).sum()) for name, w in one.items() if name != "logged"))
    for name, expected in one.items():
        if name == "logged":
            np.testing.assert_allclose(first[name], expected, rtol=1e-3)
            continue
        np.testing.assert_array_equal(first[name], second[name])  # the same combination on every rank
        error = np.linalg.norm(first[name] - expected)
        assert error <= 1e-5 * max(np.linalg.norm(expected), 1e-6 * total), name
