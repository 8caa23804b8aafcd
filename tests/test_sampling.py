from __future__ import annotations

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from transformers import TrainingArguments

import evenhand as eh
from evenhand import sampling
from evenhand.models.named import model_source
from evenhand.runs.fit import fit
from evenhand.sampling import (
    ImportanceSampler,
    collapse_limit,
    effective_sample_size,
    mixture,
    normalized,
    warn_of_collapse,
)
from evenhand.validation import UserError


def test_draws_follow_the_probabilities() -> None:
    weights = np.array([1.0, 2.0, 0.5, 4.0, 0.25, 3.0])
    draws = list(ImportanceSampler(weights, num_draws=60_000, seed=3))
    counts = np.array([draws.count(i) for i in range(6)])
    assert stats.chisquare(counts, 60_000 * weights / 10.75).pvalue > 0.01


@pytest.mark.parametrize("zeros", [[0], [4], [2], [0, 1], [3, 4], [0, 2, 4]])
def test_samples_of_probability_zero_are_never_drawn(zeros: list[int]) -> None:
    weights = np.ones(5)
    weights[zeros] = 0
    drawn = set(ImportanceSampler(weights, num_draws=5_000, seed=0))
    assert drawn == set(range(5)) - set(zeros)


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e300)), min_size=1, max_size=30).filter(any),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 99),
)
@settings(max_examples=25)
def test_every_draw_is_a_sample_with_weight(weights: list[float], seed: int, epoch: int) -> None:
    sampler = ImportanceSampler(np.array(weights), num_draws=200, seed=seed)
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == 200
    assert all(isinstance(i, int) and weights[i] > 0 for i in draws)


def draws_of(uniform: float, weights: list[float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One draw, made by this number in [0, 1) instead of a random one."""

    class Fixed:
        def random(self, size: int) -> np.ndarray:
            return np.full(size, uniform)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Fixed())
    return list(ImportanceSampler(np.array(weights), num_draws=1))


@pytest.mark.parametrize(
    ("uniform", "weights", "expected"),
    [(0.0, [0, 0, 1, 1], 2), (0.5, [1, 0, 0, 1], 3), (0.5, [1, 1], 1), (0.0, [1, 1], 0), (0.25, [1, 1, 0, 2], 1)],
)
def test_a_number_on_the_border_of_two_samples_draws_the_next_with_weight(
    uniform: float, weights: list[float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draws_of(uniform, weights, monkeypatch) == [expected]


@pytest.mark.parametrize("n", [1, 3, 7, 49, 1000])
def test_the_largest_number_below_one_draws_the_last_with_weight(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draws_of(math.nextafter(1, 0), [1.0] * n, monkeypatch) == [n - 1]
    assert draws_of(math.nextafter(1, 0), [1.0] * n + [0.0], monkeypatch) == [n - 1]


def test_equal_seed_and_epoch_give_equal_draws() -> None:
    weights = np.arange(1.0, 101.0)
    first, second = ImportanceSampler(weights, seed=5), ImportanceSampler(weights, seed=5)
    np.random.default_rng(0).random()
    assert list(first) == list(second)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    first.set_epoch(1)
    assert list(first) == list(second)
    assert list(first) != list(ImportanceSampler(weights, seed=6))


def test_draws_leave_the_global_generator_alone() -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    list(ImportanceSampler(np.ones(10)))
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


def test_an_epoch_has_as_many_draws_as_samples_unless_told() -> None:
    assert len(ImportanceSampler(np.ones(7))) == len(list(ImportanceSampler(np.ones(7)))) == 7
    assert len(ImportanceSampler(np.ones(7), 3)) == len(list(ImportanceSampler(np.ones(7), 3))) == 3


def test_normalized_by_hand() -> None:
    assert normalized(np.array([1, 3, 0])).tolist() == [0.25, 0.75, 0.0]
    assert normalized(np.array([2.0], dtype=np.float32)).dtype == np.float64


def test_weights_whose_sum_overflows_are_still_weights() -> None:
    np.testing.assert_allclose(normalized(np.array([1e308, 1e308, 0.5e308])), [0.4, 0.4, 0.2])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -0.5, 2.0], "finite and not negative. Got -0.5 for sample 1 (1 such samples)."),
        ([1.0, 2.0, math.nan, math.nan], "finite and not negative. Got nan for sample 2 (2 such samples)."),
        ([math.inf, 1.0], "finite and not negative. Got inf for sample 0 (1 such samples)."),
        ([0.0, 0.0], "The sampling weights are all zero, so no sample can be drawn."),
        ([[1.0], [2.0]], "The sampling weights must have shape (n,) with n > 0. Got (2, 1)."),
        (1.0, "The sampling weights must have shape (n,) with n > 0. Got ()."),
        ([], "The sampling weights must have shape (n,) with n > 0. Got (0,)."),
    ],
)
def test_bad_weights(weights: object, message: str) -> None:
    for use in (normalized, ImportanceSampler):
        with pytest.raises(UserError) as caught:
            use(np.array(weights))
        assert str(caught.value).endswith(message)


def test_bad_weights_are_called_by_their_owners_name() -> None:
    with pytest.raises(UserError, match=r"^The score weights must be finite"):
        normalized(np.array([-1.0]), "score")


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == 1.0
    assert effective_sample_size(np.array([0.5, 0.25, 0.25])) == pytest.approx(1 / (0.25 + 0.0625 + 0.0625))


# ---- in a Trainer, on one process and on two ------------------------------------------------------------------------

N, BATCH = 50, 4
STEP = 10  # of 13 steps an epoch on one process and 7 on two: in mid-epoch on both


class Watching(eh.Trainer):
    """Remembers which samples each of its steps saw."""

    rows: list[list[int]]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self.rows.append((inputs["pixel_values"][:, 0, 0, 0] * N).round().int().tolist())
        return super().training_step(model, inputs, num_items_in_batch)


def watched_training(folder: str, rank: int, ranks: int, resume: str | None) -> tuple[list[list[int]], dict[str, Any]]:
    """The rows of each step of this process, and the weights at the end."""
    if ranks > 1:
        # accelerate asks for the address, though the processes meet by a file
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    pixels = np.broadcast_to(np.arange(N, dtype=np.float32)[:, None, None, None] / N, (N, 3, 8, 8))
    data = datasets.Dataset.from_dict({"pixel_values": pixels.tolist(), "labels": (np.arange(N) % 3).tolist()})
    arguments = TrainingArguments(
        output_dir=f"{folder}/out",
        per_device_train_batch_size=BATCH,
        num_train_epochs=3,
        save_steps=STEP,
        learning_rate=1e-2,
        seed=3,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if ranks > 1 else None,
        ddp_find_unused_parameters=False,
    )
    model = model_source("mlp", "image", tuple("012"), (3, 8, 8)).random(0)
    trainer = Watching(model, arguments, train_dataset=data, sampling=np.arange(N) + 1.0)
    trainer.rows = []
    trainer.train(resume_from_checkpoint=resume)
    return trainer.rows, {name: p.detach().numpy() for name, p in model.named_parameters()}


def in_processes(folder: Path, ranks: int, resume: str | None = None) -> list[tuple[list[list[int]], dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    if ranks == 1:
        return [watched_training(str(folder), 0, 1, resume)]
    (folder / "meet").unlink(missing_ok=True)
    with ProcessPoolExecutor(ranks, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(watched_training, str(folder), rank, ranks, resume) for rank in range(ranks)]
        return [future.result(timeout=900) for future in futures]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_process_takes_its_part_of_the_same_draws_and_goes_on_in_mid_epoch(ranks: int, tmp_path: Path) -> None:
    whole = in_processes(tmp_path / "run", ranks)
    sampler = ImportanceSampler(np.arange(N) + 1.0, seed=3)
    steps = math.ceil(math.ceil(N / BATCH) / ranks)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        for step in range(steps - 1):  # accelerate fills up an epoch's last batches
            for rank, (rows, _) in enumerate(whole):
                start = BATCH * (step * ranks + rank)
                assert rows[epoch * steps + step] == draws[start : start + BATCH]
    resumed = in_processes(tmp_path / "run", ranks, str(tmp_path / "run" / "out" / f"checkpoint-{STEP}"))
    for (rows, weights), (rows_after, weights_after) in zip(whole, resumed, strict=True):
        assert rows_after == rows[STEP:]
        for name, value in weights.items():
            np.testing.assert_array_equal(weights_after[name], value)


# ---- what scores become ---------------------------------------------------------------------------------------------


def test_chunks_are_one_search_for_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(0).random(1000) ** 8
    whole = ImportanceSampler(weights, num_draws=777, seed=4).draws()
    uniform = np.random.default_rng([4, 0]).random(777)
    cumulative = np.cumsum(weights / weights.sum())
    np.testing.assert_array_equal(whole, np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    monkeypatch.setattr(sampling, "CHUNK", 100)
    assert list(ImportanceSampler(weights, num_draws=777, seed=4)) == whole.tolist()
    assert ImportanceSampler(weights, num_draws=0).draws().tolist() == []


@given(
    scores=st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(any),
    mix=st.floats(0.01, 1),
    floor=st.floats(0, 0.2),
)
@settings(max_examples=50)
def test_mixture_by_hand(scores: list[float], mix: float, floor: float) -> None:
    ours = mixture(np.array(scores), mix, floor)
    expected = [mix * max(s / sum(scores), floor) + (1 - mix) / len(scores) for s in scores]
    assert ours is not None
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-300)


def test_nothing_is_mixed_in_at_zero() -> None:
    assert mixture(np.array([1.0, 2.0]), 0, 1e-8) is None
    assert mixture(np.zeros(2), 0, 1e-8) is None  # the scores don't matter then


@pytest.mark.parametrize(("n", "limit"), [(54_000, 54.0), (1_000_000, 1000.0), (1_100, 10.0), (96, 9.6), (30, 3.0)])
def test_a_collapse_is_warned_of_below_its_limit(n: int, limit: float, caplog: pytest.LogCaptureFixture) -> None:
    assert collapse_limit(n) == limit
    for drawn, warned in ((math.ceil(limit) + 1, False), (math.ceil(limit) - 1, True)):
        caplog.clear()
        weights = np.zeros(n)
        weights[:drawn] = 1 / drawn
        warn_of_collapse(weights)
        assert bool(caplog.records) is warned
    assert caplog.records[0].message.startswith(f"The sampling has collapsed: draws from {n} samples are worth")


def test_a_stage_that_draws_warns_of_a_collapse(
    tiny_task: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Collapsed(eh.PGD):
        def fit(self, run: Any) -> Any:
            return run.train("debiased", eh.ERM(), sampling=np.arange(96) == 5)

    fit(Collapsed(), tiny_task, "mlp", output_dir=tmp_path / "run", epochs=1, batch_size=16, lr=1e-3)
    message = "The sampling has collapsed: draws from 96 samples are worth 1.0 equally likely ones"
    assert [r.message.startswith(message) for r in caplog.records if r.name == "evenhand.sampling"] == [True]
