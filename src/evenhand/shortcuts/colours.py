"""A picture's mean colour as a value: its shade (hue and saturation), or its hue alone.

Legend: N pictures, V values, K centres of shades.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHADES = 24  # more than a palette has; what looks alike is joined
_ALIKE = 0.03  # in units of chromaticity, whose sum over red, green and blue is 1
_LEAST_CHROMA = 0.02  # of a picture's brightness; what has less is grey


@dataclass(frozen=True)
class Shades:
    """Shades that the training pictures have.

    Attributes:
        centres: Chromaticity of each centre, (red, green) as parts of the sum of all three colours.
        reach: How far from its centre a picture may be to be of its shade, for each centre.
        joined: The value that each centre belongs to, since centres that look alike are one.
        names: Code of each value's mean colour, as in "#dc143c".
    """

    centres: tuple[tuple[float, float], ...]
    reach: tuple[float, ...]
    joined: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, color_N3: NDArray[np.float64]) -> Shades | None:
        """Group the training pictures by shade; None where all are of one, such as grey."""
        from sklearn.cluster import AgglomerativeClustering, KMeans

        point_N2, known_N = _chromaticity(color_N3)
        if not known_N.any() or _spread(point_N2[known_N]) < _ALIKE:
            return None
        different = len(np.unique(point_N2[known_N].round(4), axis=0))
        few: Any = KMeans
        shades = few(min(_SHADES, different), n_init=1, random_state=0).fit(point_N2[known_N])
        centre_K2 = shades.cluster_centers_
        joined_K = np.zeros(1, dtype=np.int64)
        if len(centre_K2) > 1:
            joining: Any = AgglomerativeClustering
            joined_K = joining(None, distance_threshold=_ALIKE, linkage="complete").fit_predict(centre_K2)
        nearest_N, distance_N = _nearest(centre_K2, point_N2)
        reach_K = [max(_ALIKE, distance_N[known_N & (nearest_N == k)].max(initial=0.0)) for k in range(len(centre_K2))]
        value_N = np.where(known_N, joined_K[nearest_N], -1)
        mean_V3 = np.stack([color_N3[value_N == v].mean(axis=0) for v in range(joined_K.max() + 1)])
        return cls(
            centres=tuple((float(red), float(green)) for red, green in centre_K2),
            reach=tuple(float(reach) for reach in reach_K),
            joined=tuple(joined_K.tolist()),
            names=tuple(_code(mean_3 / mean_V3.max()) for mean_3 in mean_V3),
        )

    def codes(self, color_N3: NDArray[np.float64]) -> NDArray[np.int64]:
        """Each picture's shade; −1 for one that is black, can't be read, or is unlike all training pictures."""
        point_N2, known_N = _chromaticity(color_N3)
        nearest_N, distance_N = _nearest(np.asarray(self.centres), point_N2)
        known_N &= distance_N <= np.asarray(self.reach)[nearest_N] + 1e-9
        return np.where(known_N, np.asarray(self.joined)[nearest_N], -1)


@dataclass(frozen=True)
class Hues:
    """Twelfths of the circle of hues.

    Attributes:
        names: Code of the training pictures' mean colour in each, as in "#dc143c".
    """

    names: tuple[str, ...]

    @classmethod
    def fit(cls, color_N3: NDArray[np.float64]) -> Hues:
        """Name the hues after the training pictures."""
        value_N = _twelfths(color_N3)
        means = [color_N3[value_N == v].mean(axis=0) if (value_N == v).any() else np.ones(3) for v in range(12)]
        return cls(tuple(_code(mean_3 / mean_3.max()) for mean_3 in means))

    def codes(self, color_N3: NDArray[np.float64]) -> NDArray[np.int64]:
        """Each picture's hue; −1 for grey ones."""
        return _twelfths(color_N3)


def _chromaticity(color_N3: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Red and green as parts of the sum of all colours (blue follows), and which pictures have such parts."""
    total_N = np.where(np.isfinite(color_N3).all(axis=1), color_N3.sum(axis=1), 0.0)
    known_N = total_N > 0
    return np.where(known_N[:, None], color_N3[:, :2], 0.0) / np.where(known_N, total_N, 1.0)[:, None], known_N


def _spread(point_N2: NDArray[np.float64]) -> float:
    blue_N = 1 - point_N2.sum(axis=1)
    return float(max(np.ptp(point_N2, axis=0).max(), np.ptp(blue_N)))


def _nearest(
    centre_K2: NDArray[np.float64], point_N2: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    distance_NK = np.hypot(*np.moveaxis(point_N2[:, None] - centre_K2[None], 2, 0))
    nearest_N = distance_NK.argmin(axis=1)
    return nearest_N, distance_NK[np.arange(len(point_N2)), nearest_N]


def _twelfths(color_N3: NDArray[np.float64]) -> NDArray[np.int64]:
    red_N, green_N, blue_N = np.nan_to_num(color_N3).T  # an unreadable picture is grey
    # the colour without its grey part, in the plane of hues
    x_N, y_N = red_N - (green_N + blue_N) / 2, (green_N - blue_N) * math.sqrt(3) / 2
    colored_N = np.hypot(x_N, y_N) > _LEAST_CHROMA * np.maximum(red_N + green_N + blue_N, 1e-12)
    twelfth_N = np.rint(np.arctan2(y_N, x_N) / (math.pi / 6)).astype(np.int64) % 12
    return np.where(colored_N, twelfth_N, -1)


def _code(color_3: NDArray[np.float64]) -> str:
    """The code of a colour whose parts are fractions of 1."""
    red, green, blue = (round(255 * part) for part in color_3)
    return f"#{red:02x}{green:02x}{blue:02x}"
