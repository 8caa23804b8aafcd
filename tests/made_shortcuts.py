"""Made-up rows with planted shortcuts, for the tests of shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.shortcuts import Samples

CLASSES = ("refund", "repair", "praise")
PRODUCTS = ("nimbus", "pebble", "kettle")


def tickets(n: int = 600, conflict: float = 0.1, seed: int = 0) -> tuple[Samples, NDArray[np.int64]]:
    """Texts in which a product's name leaks the class, and some columns beside them."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 3, n)
    product_N = np.where(rng.random(n) < conflict, (label_N + 1) % 3, label_N)
    words = np.array(["it", "broke", "works", "again", "today"])
    texts = [
        f"{' '.join(rng.choice(words, 4))} the {PRODUCTS[product]}, please"
        if product or rng.random() < 0.8
        else " ".join(rng.choice(words, 6))
        for product in product_N
    ]
    columns: dict[str, Any] = {
        "product": [PRODUCTS[product] for product in product_N],
        "price": (product_N * 10 + rng.random(n)).tolist(),
        "day": [
            f"2024-0{1 + product}-{1 + day:02d}" for product, day in zip(product_N, rng.integers(0, 28, n), strict=True)
        ],
        "row": [f"ticket {row}" for row in range(n)],
        "same": ["x"] * n,
        "noise": [(None, "a", "b")[place] for place in rng.integers(0, 3, n)],
    }
    return Samples.of(texts=texts, columns=columns), label_N


def colored(n: int = 300, seed: int = 0, kind: str = "colour") -> tuple[Samples, NDArray[np.int64]]:
    """Noise of 8 × 8 pixels: in a class's colour, or as bright as its class."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 3, n)
    leaked_N = np.where(rng.random(n) < 0.1, (label_N + 1) % 3, label_N)
    palette = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]])
    if kind == "brightness":
        palette = np.array([[60] * 3, [120] * 3, [180] * 3])
    ink_NHW = rng.uniform(0.5, 1, (n, 8, 8))
    pixel_NCHW = palette[leaked_N][:, :, None, None] * ink_NHW[:, None]
    return Samples.of(images=pixel_NCHW.astype(np.uint8)), label_N
