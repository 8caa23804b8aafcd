from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from evenhand.sampling import ImportanceSampler, effective_sample_size, normalized
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
@settings(max_examples=25, deadline=None)
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
