"""The corruptions against slow versions that follow the published description one pixel at a time."""

from __future__ import annotations

import colorsys
import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from evenhand.tasks.images.corruptions import CORRUPTIONS, corrupt
from evenhand.tasks.images.corruptions.light import plasma
from evenhand.tasks.images.corruptions.resampling import bilinear, elastic, mirrored, reflected
from evenhand.tasks.images.corruptions.spatter import edges, equalized
from evenhand.tasks.images.corruptions.weather import drawn_ice, enlarged, motion_blurred

SIDE = 32


def images(count: int = 2, seed: int = 0) -> np.ndarray:
    """Blurred noise, so that neighbouring pixels are alike, with black, white and gray pixels among them."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(count, SIDE, SIDE, 3)), (0, 2, 2, 0))
    result = (128 + 70 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)
    result[:, 0, :3] = np.array([0, 255, 90])[None, :, None]
    return result


def of_each_pixel(image: np.ndarray, change) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Each pixel's (h, s, v) changed and brought back, cut to bytes."""
    result = np.empty_like(image)
    for index in np.ndindex(image.shape[:3]):
        h, s, v = change(*colorsys.rgb_to_hsv(*(image[index] / 255)))
        result[index] = [int(255 * min(max(c, 0), 1) + 1e-9) for c in colorsys.hsv_to_rgb(h, min(s, 1), min(v, 1))]
    return result


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """At most one level apart, where rounding decides what is cut off."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


# ---- light ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "plus"), [(1, 0.05), (3, 0.15), (5, 0.3)])
def test_brightness_adds_to_the_value(level: int, plus: float) -> None:
    found = corrupt(images(), "brightness", level, np.random.default_rng(0))
    assert_near(found, of_each_pixel(images(), lambda h, s, v: (h, s, v + plus)))


@pytest.mark.parametrize(("level", "times", "plus"), [(1, 0.3, 0.0), (2, 0.1, 0.0), (4, 2.0, 0.1), (5, 2.5, 0.2)])
def test_saturate_changes_the_saturation(level: int, times: float, plus: float) -> None:
    found = corrupt(images(), "saturate", level, np.random.default_rng(0))
    assert_near(found, of_each_pixel(images(), lambda h, s, v: (h, s * times + plus, v)))


@pytest.mark.parametrize(("level", "times"), [(1, 0.75), (5, 0.15)])
def test_contrast_draws_to_the_mean_colour(level: int, times: float) -> None:
    expected = np.empty_like(images())
    for i, image in enumerate(images()):
        for channel in range(3):
            mean = image[:, :, channel].mean()
            expected[i, :, :, channel] = [
                [int(min(max((value - mean) * times + mean, 0), 255)) for value in row] for row in image[:, :, channel]
            ]
    assert_near(corrupt(images(), "contrast", level, np.random.default_rng(0)), expected)


def slow_plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Diamond-square, one point after the other; draws a whole step's noise at once, in the order of the steps."""
    grid = np.zeros((side, side))
    step, wibble = side, 100.0
    while step > 1:
        half, n = step // 2, side // step
        kinds = (
            (half, half, ((-half, -half), (-half, half), (half, -half), (half, half))),
            (0, half, ((-half, 0), (half, 0), (0, -half), (0, half))),
            (half, 0, ((-half, 0), (half, 0), (0, -half), (0, half))),
        )
        for top, left, neighbours in kinds:
            noise = rng.uniform(-wibble, wibble, (1, n, n))[0]
            for a in range(n):
                for b in range(n):
                    y, x = top + a * step, left + b * step
                    mean = sum(grid[(y + dy) % side, (x + dx) % side] for dy, dx in neighbours) / 4
                    grid[y, x] = mean + wibble * noise[a, b]
        step, wibble = half, wibble / decay
    grid -= grid.min()
    return grid / grid.max()


@pytest.mark.parametrize("decay", [1.75, 3.0])
def test_plasma_is_diamond_square(decay: float) -> None:
    found = plasma(1, 16, decay, np.random.default_rng(4))
    np.testing.assert_allclose(found[0], slow_plasma(16, decay, np.random.default_rng(4)), atol=1e-12)


def test_fog_adds_the_cloud_and_keeps_the_brightest_value() -> None:
    image = images(1)
    cloud = slow_plasma(SIDE, 1.75, np.random.default_rng(2))
    brightest = image.max() / 255
    expected = np.empty_like(image)
    for y, x, channel in np.ndindex(SIDE, SIDE, 3):
        value = (image[0, y, x, channel] / 255 + 1.5 * cloud[y, x]) * brightest / (brightest + 1.5)
        expected[0, y, x, channel] = int(255 * min(max(value, 0), 1))
    assert_near(corrupt(image, "fog", 5, np.random.default_rng(2)), expected)


# ---- weather --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [-90.0, -45.0, -120.0, 0.0])
def test_motion_blur_is_a_line_of_half_a_gaussian(degrees: float) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (12, 12))
    radius, sigma = 4, 3.0
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(2 * radius + 1)]
    expected = np.zeros_like(image)
    for y, x in np.ndindex(image.shape):
        for k, weight in enumerate(weights):
            right = math.ceil(k * math.cos(math.radians(degrees)) - 0.5)
            down = math.ceil(k * math.sin(math.radians(degrees)) - 0.5)
            source = image[min(max(y + down, 0), 11), min(max(x + right, 0), 11)]
            expected[y, x] += weight / sum(weights) * source
    np.testing.assert_allclose(motion_blurred(image[None], radius, sigma, np.array([degrees]))[0], expected, rtol=1e-9)


@pytest.mark.parametrize(("factor", "start", "kept", "trim"), [(1.0, 0, 32, 0), (1.25, 3, 26, 0), (2.25, 8, 15, 1)])
def test_enlarging_keeps_the_middle(factor: float, start: int, kept: int, trim: int) -> None:
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    larger = zoom(image[start : start + kept, start : start + kept], factor, order=1)
    expected = larger[trim : trim + SIDE, trim : trim + SIDE]
    assert expected.shape == (SIDE, SIDE)
    np.testing.assert_allclose(enlarged(image[None], factor)[0], expected)


def test_snow_is_flakes_over_a_bleached_image() -> None:
    image = images(1)
    rng = np.random.default_rng(7)
    flakes = zoom(rng.normal(0.3, 0.3, (1, SIDE, SIDE))[0, 3:29, 3:29], 1.25, order=1)
    flakes = np.array([[0.0 if f < 0.65 else float(int(min(f, 1) * 255)) for f in row] for row in flakes])
    layer = np.rint(motion_blurred(flakes[None], 14, 12, rng.uniform(-135, -45, 1))[0]) / 255
    expected = np.empty_like(image)
    for y, x in np.ndindex(SIDE, SIDE):
        red, green, blue = image[0, y, x] / 255
        white = (0.299 * red + 0.587 * green + 0.114 * blue) * 1.5 + 0.5
        for channel, value in enumerate((red, green, blue)):
            snowed = 0.8 * value + 0.2 * max(value, white) + layer[y, x] + layer[31 - y, 31 - x]
            expected[0, y, x, channel] = int(255 * min(snowed, 1) + 1e-9)
    assert_near(corrupt(image, "snow", 5, np.random.default_rng(7)), expected)


def test_frost_adds_a_piece_of_ice() -> None:
    rng = np.random.default_rng(1)
    textures = [rng.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(2)]
    found = corrupt(images(4), "frost", 5, np.random.default_rng(3), textures).astype(int)
    for image, frosted in zip(images(4).astype(int), found, strict=True):
        pieces = (
            np.floor((0.75 * image + 0.45 * texture[top : top + SIDE, left : left + SIDE]).clip(0, 255) + 1e-6)
            for texture in textures
            for top in range(9)
            for left in range(19)
        )
        assert any(np.abs(piece - frosted).max() <= 1 for piece in pieces)


def test_drawn_ice_is_the_same_at_every_call() -> None:
    first, second = drawn_ice(), drawn_ice()
    assert len(first) == 5
    for one, other in zip(first, second, strict=True):
        assert one.shape == (160, 160, 3)
        assert (one == other).all()
        assert 40 < one.mean() < 215
    assert not (first[0] == first[1]).all()


# ---- spatter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "smooth"), [(4, 0.7), (5, 0.5)])
def test_mud_covers_where_the_liquid_is(level: int, smooth: float) -> None:
    image = images(1)
    threshold = 0.69 if level == 4 else 0.68
    liquid = gaussian_filter(
        np.random.default_rng(5).normal(0.65, 0.1, (1, SIDE, SIDE))[0], smooth, mode="nearest", truncate=4
    )
    mud = gaussian_filter((liquid > threshold).astype(float), 0.6, mode="nearest", truncate=4)
    expected = np.empty_like(image)
    for y, x, channel in np.ndindex(SIDE, SIDE, 3):
        share = mud[y, x] if mud[y, x] >= 0.8 else 0.0
        expected[0, y, x, channel] = int(image[0, y, x, channel] * (1 - share) + share * (63, 42, 20)[channel] + 1e-9)
    assert 0.02 < (mud >= 0.8).mean() < 0.9
    assert_near(corrupt(image, "spatter", level, np.random.default_rng(5)), expected)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_water_only_brightens_and_towards_turquoise(level: int) -> None:
    gray = np.full((2, SIDE, SIDE, 3), 60, dtype=np.uint8)
    added = corrupt(gray, "spatter", level, np.random.default_rng(0)).astype(int) - 60
    assert added.min() >= 0
    wet = added[..., 1] > 20
    assert 0.005 < wet.mean() < 0.7
    assert (added[..., 1] == added[..., 2]).all()
    np.testing.assert_allclose(added[wet][:, 0] / added[wet][:, 1], 175 / 238, atol=0.05)


def test_edges_are_found_where_the_step_is() -> None:
    step = np.zeros((12, 12), dtype=np.uint8)
    step[:, 6:] = 200
    found = edges(step)
    assert found[:, 5:7].any(axis=1).all()
    assert not found[:, :4].any()
    assert not found[:, 8:].any()
    assert not edges(np.full((8, 8), 77, dtype=np.uint8)).any()
    weak = np.zeros((12, 12), dtype=np.uint8)
    weak[:, 6:] = 20  # 4·20 lies between the thresholds, and touches no strong edge
    assert not edges(weak).any()


def test_equalizing_spreads_the_levels() -> None:
    gray = np.array([[10, 10], [20, 30]], dtype=np.uint8)
    assert equalized(gray).tolist() == [[0, 0], [128, 255]]  # (3 − 2)/(4 − 2) and (4 − 2)/(4 − 2) of 255
    flat = np.full((2, 2), 9, dtype=np.uint8)
    assert equalized(flat).tolist() == flat.tolist()


# ---- resampling -----------------------------------------------------------------------------------------------------


def test_bilinear_reads_between_pixels() -> None:
    image = np.random.default_rng(0).uniform(size=(1, 5, 6, 2))
    y, x = np.array([[[1.25]]]), np.array([[[3.5]]])
    expected = 0.75 * (image[0, 1, 3] + image[0, 1, 4]) / 2 + 0.25 * (image[0, 2, 3] + image[0, 2, 4]) / 2
    np.testing.assert_allclose(bilinear(image, y, x, mirrored)[0, 0, 0], expected)


def test_borders() -> None:
    positions = np.arange(-4, 8)
    assert mirrored(positions, 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert reflected(positions, 4).tolist() == [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]


def test_elastic_without_displacement_is_the_affine_map_of_its_points() -> None:
    """Level 1 displaces no pixel: an image of coordinates shows where each pixel was taken from."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    image = np.stack([x, y, np.zeros_like(x)], axis=-1)[None]
    moved = elastic(image, 1, np.random.default_rng(3))[0] * SIDE
    shift = np.random.default_rng(3).uniform(-0.08 * SIDE, 0.08 * SIDE, (1, 3, 2))[0]
    points = np.array([[26, 26], [26, 6], [6, 6]], dtype=float)
    matrix = np.linalg.lstsq(np.c_[points + shift, np.ones(3)], points, rcond=None)[0]
    for row, column in ((16, 16), (12, 20), (20, 11)):
        expected = np.array([column, row, 1]) @ matrix
        np.testing.assert_allclose(moved[row, column, :2], expected, atol=1e-6)


def test_elastic_moves_pixels_by_a_smooth_field() -> None:
    image = images(3)
    for level in (2, 3, 4, 5):
        changed = corrupt(image, "elastic", level, np.random.default_rng(0))
        assert 2 < np.abs(changed.astype(int) - image).mean() < 60
        assert not (changed[0] == corrupt(image, "elastic", level, np.random.default_rng(1))[0]).all()


@pytest.mark.parametrize(("level", "quality"), [(1, 80), (5, 40)])
def test_jpeg_is_pillows(level: int, quality: int) -> None:
    found = corrupt(images(), "jpeg", level, np.random.default_rng(0))
    for image, changed in zip(images(), found, strict=True):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        assert (np.asarray(Image.open(file)) == changed).all()


def test_pixelate_averages_areas() -> None:
    """At level 5 32 pixels become 20; a small pixel is the mean of those whose centres lie in its 1.6 pixels."""
    image = images(1)
    inside = np.array([[1.6 * i < k + 0.5 <= 1.6 * (i + 1) for k in range(32)] for i in range(20)], dtype=float)
    share = inside / inside.sum(axis=1, keepdims=True)
    small = np.einsum("ik,jl,klc->ijc", share, share, image[0].astype(float))
    nearest = [int((k + 0.5) * 20 / 32) for k in range(32)]
    found = corrupt(image, "pixelate", 5, np.random.default_rng(0))[0].astype(float)
    np.testing.assert_allclose(found, small[np.ix_(nearest, nearest)], atol=1.01)


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_equal_generators_give_equal_images(name: str) -> None:
    image = images()
    before = image.copy()
    for level in (1, 5):
        first, second = (corrupt(image, name, level, np.random.default_rng(9)) for _ in range(2))
        assert first.dtype == np.uint8
        assert first.shape == image.shape
        assert (first == second).all()
        assert (first != image).any()
    assert (image == before).all()


def test_images_don_t_depend_on_how_many_there_are_for_fixed_corruptions() -> None:
    for name in ("brightness", "contrast", "jpeg", "pixelate", "saturate"):
        alone = corrupt(images(3)[1:2], name, 5, np.random.default_rng(0))
        assert (alone[0] == corrupt(images(3), name, 5, np.random.default_rng(0))[1]).all()


def test_no_images_give_none() -> None:
    for name in CORRUPTIONS:
        assert corrupt(np.empty((0, SIDE, SIDE, 3), np.uint8), name, 5, np.random.default_rng(0)).shape[0] == 0
