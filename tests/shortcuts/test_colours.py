"""Colours fitted on some pictures and used on others."""

from __future__ import annotations

import numpy as np

from evenhand.shortcuts.colours import Hues, Shades

RED, PINK, GREEN, GREY = [200, 20, 20], [200, 120, 120], [20, 200, 20], [90, 90, 90]


def noisy(colors: list[list[int]], each: int = 30) -> np.ndarray:
    color_N3 = np.repeat(np.array(colors, dtype=np.float64), each, axis=0)
    return color_N3 + np.random.default_rng(0).normal(size=color_N3.shape)


def test_shades_tell_pale_from_full_and_hues_do_not() -> None:
    shades, hues = Shades.fit(noisy([RED, PINK, GREEN])), Hues.fit(noisy([RED, PINK, GREEN]))
    assert shades is not None
    found = shades.codes(np.array([RED, PINK, GREEN], dtype=np.float64))
    assert len(set(found.tolist())) == len(shades.names) == 3
    red, pink, green = hues.codes(np.array([RED, PINK, GREEN], dtype=np.float64))
    assert red == pink != green


def test_brighter_pictures_have_the_same_shade() -> None:
    shades = Shades.fit(noisy([RED, GREEN]))
    assert shades is not None
    assert (shades.codes(noisy([RED, GREEN])) == shades.codes(noisy([RED, GREEN]) / 3)).all()


def test_a_picture_unlike_all_and_one_that_cannot_be_read_have_no_shade() -> None:
    shades = Shades.fit(noisy([RED, GREEN]))
    assert shades is not None
    assert shades.codes(np.array([[0, 0, 0], [np.nan] * 3, [20, 20, 200]], dtype=np.float64)).tolist() == [-1, -1, -1]
    assert Hues.fit(noisy([RED])).codes(np.array([GREY, [np.nan] * 3], dtype=np.float64)).tolist() == [-1, -1]


def test_one_shade_is_no_colour() -> None:
    assert Shades.fit(noisy([GREY])) is None
    assert Shades.fit(noisy([RED])) is None
    assert Shades.fit(np.zeros((5, 3))) is None
