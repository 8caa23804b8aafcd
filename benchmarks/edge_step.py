"""What a step of EDGE costs: ratios to a plain ERM step with AdamW, measured side by side.

python benchmarks/edge_step.py [--layers 2] [--batch 32] [--length 64] [--repeats 7] [--device cuda --bf16]

RoBERTa-base's width and vocabulary with fewer layers, full fine-tuning and LoRA (r = 8 on query and value, dropout 0.1,
classifier trained). A step is forward, backward, combination, AdamW, zero_grad. The rows:

    ERM        forward, backward
    released   what the released code does, written from its description: a forward and backward with GCE's loss,
               another with cross-entropy, and a loop over the rows of each matrix
    retained   one forward, two backwards, `EDGE(route="retain")`
    single     one forward, one backward, `EDGE(route="auto")`

Expected before measuring. FLOPs: a matrix product's forward is 1, its backward 2 (for its input and for its weight),
so in full fine-tuning the second weighted sum adds 1 to 3: 4/3 = 1.333; the embedding's lookup has none. In LoRA nearly
all products belong to frozen weights (backward 1): the added sums are those of rank 8, 1.002. `released` 2 by two
forwards and two backwards, `retained` (1 + 2 + 2)/3 = 1.67 in full and (1 + 1 + 1)/2 = 1.5 in LoRA. Times: between 1
and the FLOPs in full fine-tuning, as AdamW over 39 million embedding entries is in all of them; in LoRA a few per cent
for hooks. Peak memory: LoRA 1.0–1.05 (the inputs that are kept are in the graph anyway); full: one more gradient.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaForSequenceClassification

import evenhand as eh
from evenhand.losses import cross_entropy, generalized_cross_entropy

Step = Callable[[], None]


def model_of(kind: str, layers: int, device: str) -> Any:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265,
        hidden_size=768,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    config.id2label = {0: "entailment", 1: "neutral", 2: "contradiction"}
    model: Any = RobertaForSequenceClassification(config)
    if kind == "LoRA":
        lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["query", "value"])
        model = get_peft_model(model, lora)
    return model.to(device).train()


class PeakMemory(TorchDispatchMode):
    """Bytes of the storages alive that were made inside, at their highest."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and not tensor.is_sparse:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def released_update(model: Any, bias: dict[str, Tensor], alpha: float = 1.0) -> None:
    """The listing's loop over rows, for every matrix that has both gradients."""
    for name, p in model.named_parameters():
        if p.grad is None or name not in bias or p.ndim != 2:
            continue
        e, b = p.grad.clone(), bias[name]
        e_norm, b_norm = torch.linalg.norm(e) or 1.0, torch.linalg.norm(b) or 1.0
        shared = e / e_norm + b / b_norm
        projected = torch.stack([torch.dot(b[r], shared[r]) * shared[r] for r in range(len(e))])
        p.grad = e - alpha * (b - projected)


def steps_of(model: Any, optimizer: Any, ids: Tensor, labels: Tensor, autocast: Callable[[], Any]) -> dict[str, Step]:
    attached: dict[str, Any] = {}

    def logits() -> Tensor:
        with autocast():
            return model(input_ids=ids).logits

    def finish() -> None:
        optimizer.step()
        optimizer.zero_grad()

    def erm() -> None:
        cross_entropy(logits(), labels).mean().backward()
        finish()

    def released() -> None:
        generalized_cross_entropy(logits(), labels, 0.7).mean().backward()
        bias = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.zero_grad()
        cross_entropy(logits(), labels).mean().backward()
        released_update(model, bias)
        finish()

    def edge(route: Any) -> Step:
        def step() -> None:
            if route not in attached:
                for other in attached.values():
                    other.detach()
                attached.clear()
                attached[route] = eh.EDGE(projection="tensor", route=route).attach(model, verify=False)
            attached[route].backward(logits(), labels)
            finish()

        return step

    def plain(step: Step) -> Step:
        def run() -> None:
            for other in attached.values():
                other.detach()
            attached.clear()
            step()

        return run

    return {"ERM": plain(erm), "released": plain(released), "retained": edge("retain"), "single": edge("auto")}


def seconds(step: Step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def flops(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_bytes(step: Step, device: str) -> float:
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - base
    with PeakMemory() as memory:
        step()
    return memory.peak


def measured(kind: str, given: argparse.Namespace) -> list[str]:
    model = model_of(kind, given.layers, given.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    ids = torch.randint(5, 50_000, (given.batch, given.length), device=given.device)
    labels = torch.randint(0, 3, (given.batch,), device=given.device)
    autocast = lambda: torch.autocast(given.device, dtype=torch.bfloat16, enabled=given.bf16)  # noqa: E731
    steps = steps_of(model, optimizer, ids, labels, autocast)
    for step in steps.values():
        step()
    counted = {name: flops(step) for name, step in steps.items()}
    memory = {name: peak_bytes(step, given.device) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(given.repeats):
        for name, step in steps.items():
            step() if name in ("retained", "single") else None  # attaching is not part of a step
            times[name].append(seconds(step, given.device))
    lines = []
    for name in steps:
        ratios = [a / b for a, b in zip(times[name], times["ERM"], strict=True)]
        lines.append(
            f"| {kind} | {name} | {counted[name] / counted['ERM']:.3f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f}–{max(ratios):.2f} | {memory[name] / memory['ERM']:.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    lines = [
        "| fine-tuning | step | FLOPs / ERM | time / ERM (median) | range | peak memory / ERM |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("LoRA", "full"):
        lines += measured(kind, given)
    table = "\n".join(lines)
    print(table)
    settings = (
        f"{given.layers} layers, batch {given.batch}, length {given.length}, {'bf16' if given.bf16 else 'float32'}"
    )
    machine = f"{given.device}, {torch.get_num_threads()} threads"
    software = f"torch {torch.__version__}, transformers {transformers.__version__}"
    note = f"RoBERTa-base width, {settings}; {given.repeats} repeats in turn; {machine}, {software}"
    (Path(__file__).parent / f"edge-step-{given.device}.md").write_text(f"# A step of EDGE\n\n{table}\n\n{note}.\n")


if __name__ == "__main__":
    main()
