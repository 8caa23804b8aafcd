"""Thirty small drawings: ten letters, ten things and ten signs, which stand in for pictures that aren't at hand.

Legend: N images, G glyphs of a kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 28
_SCALE = 3  # each cell of a drawing becomes so many pixels a side
_SHIFT = 3  # drawings lie up to so many pixels off the middle

LETTERS = (
    ".###. #...# #...# ##### #...# #...# #...#",
    "####. #...# #...# ####. #...# #...# ####.",
    ".#### #.... #.... #.... #.... #.... .####",
    "####. #...# #...# #...# #...# #...# ####.",
    "##### #.... #.... ####. #.... #.... #####",
    "##### #.... #.... ####. #.... #.... #....",
    ".#### #.... #.... #.### #...# #...# .####",
    "#...# #...# #...# ##### #...# #...# #...#",
    "##### ..#.. ..#.. ..#.. ..#.. ..#.. #####",
    "..### ...#. ...#. ...#. ...#. #..#. .##..",
)
"""A to J."""
THINGS = (
    "....... .#####. .#####. .#####. .#####. .#####. .......",
    "...#... ..###.. ..###.. .#####. .#####. ####### #######",
    "..###.. .#####. ####### ####### ####### .#####. ..###..",
    "####### #.....# #.....# #.....# #.....# #.....# #######",
    "..###.. .#...#. #.....# #.....# #.....# .#...#. ..###..",
    "...#... ..###.. .#####. ####### .#####. ..###.. ...#...",
    ".##.##. ####### ####### ####### .#####. ..###.. ...#...",
    "...#... ..###.. .#####. ####### .##.##. .##.##. .#####.",
    "..###.. ..###.. ####### ####### ####### ..###.. ..###..",
    "####### .#####. ..###.. ...#... ..###.. .#####. #######",
)
"""A square, a triangle, a disc, a frame, a ring, a rhombus, a heart, a house, a cross, an hourglass."""
SIGNS = (
    "#...... .#..... ..#.... ...#... ....#.. .....#. ......#",
    "......# .....#. ....#.. ...#... ..#.... .#..... #......",
    "####### ....... ....... ####### ....... ....... #######",
    "#..#..# #..#..# #..#..# #..#..# #..#..# #..#..# #..#..#",
    "#.....# .#...#. ..#.#.. ...#... ..#.#.. .#...#. #.....#",
    "...#... ..#.#.. .#...#. #.....# ....... ....... #######",
    "#.#.#.# ....... #.#.#.# ....... #.#.#.# ....... #.#.#.#",
    "####### ......# #####.# #...#.# #.###.# #.....# #######",
    "...#... ...#... ...#... #..#..# .#.#.#. ..###.. ...#...",
    "...#... ..###.. .#.#.#. #..#..# ...#... ...#... ...#...",
)
"""Diagonals down and up, bars lying and standing, a cross, a roof, dots, a spiral, arrows down and up."""


def drawn(glyphs: tuple[str, ...], which_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Drawings on black, each shifted and of a brightness by its own draws; (N, 28, 28)."""
    canvas_G = np.stack([_canvas(glyph) for glyph in glyphs])
    shift_N2 = rng.integers(-_SHIFT, _SHIFT + 1, (len(which_N), 2))
    light_N = rng.integers(160, 256, len(which_N)).astype(np.uint8)
    row_NS = (np.arange(SIDE) - shift_N2[:, :1]) % SIDE
    column_NS = (np.arange(SIDE) - shift_N2[:, 1:]) % SIDE
    mask = canvas_G[which_N[:, None, None], row_NS[:, :, None], column_NS[:, None, :]]
    return mask * light_N[:, None, None]


def _canvas(glyph: str) -> NDArray[np.uint8]:
    """A drawing in the middle of a tile: 1 where it is, 0 elsewhere."""
    cells = np.array([[cell == "#" for cell in row] for row in glyph.split()], dtype=np.uint8)
    large = cells.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    tile = np.zeros((SIDE, SIDE), dtype=np.uint8)
    top, left = (SIDE - large.shape[0]) // 2, (SIDE - large.shape[1]) // 2
    tile[top : top + large.shape[0], left : left + large.shape[1]] = large
    return tile
