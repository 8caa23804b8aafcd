from __future__ import annotations

import colorsys
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import evenhand as eh
from evenhand.data import augmentation
from evenhand.data.augmentation import Augmenting, augmented, crop_boxes, jittered, jitters, resized_crops, rotated
from evenhand.runs.fit import fit
from evenhand.tasks import Task
from evenhand.validation import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (9, 12), (1, 1), (1, 5)])
def test_crops_are_cut_and_resized_as_interpolation_does(height: int, width: int) -> None:
    x = images(40, 3, height, width)
    boxes = crop_boxes(40, height, width, generator(1))
    ours = resized_crops(x, boxes)
    for i, (top, left, h, w) in enumerate(boxes.int().tolist()):
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        cut = x[i : i + 1, :, top : top + h, left : left + w]
        expected = interpolate(cut, (height, width), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(ours[i], expected, atol=1e-5, rtol=1e-5)


def test_crops_have_the_released_areas_and_ratios() -> None:
    boxes = crop_boxes(4000, 28, 28, generator())
    area, ratio = boxes[:, 2] * boxes[:, 3] / 28**2, boxes[:, 3] / boxes[:, 2]
    # rounding sides to whole pixels moves both by up to half a pixel a side
    assert float(area.min()) > 0.9 * (1 - 1 / 25) ** 2
    assert float(area.max()) == 1.0
    assert float(ratio.min()) < 0.9 < 1.1 < float(ratio.max())
    assert len(boxes.unique(dim=0)) > 20
    # as torchvision's loop: the first of ten attempts whose crop fits
    draws, rng = [], np.random.default_rng(0)
    for _ in range(4000):
        size = (28, 28)
        for _ in range(10):
            target, aspect = 784 * rng.uniform(0.9, 1.1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if 0 < w <= 28 and 0 < h <= 28:
                size = (h, w)
                break
        draws.append(size)
    theirs = np.array(draws)
    for column in (0, 1):
        assert float(boxes[:, 2 + column].mean()) == pytest.approx(theirs[:, column].mean(), abs=0.1)
    whole = (boxes[:, 2] == 28) & (boxes[:, 3] == 28)
    assert float(whole.float().mean()) == pytest.approx((theirs == 28).all(1).mean(), abs=0.03)


def saturated(rgb: list[float], factor: float) -> list[float]:
    gray = 0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    return [min(max(factor * c + (1 - factor) * gray, 0.0), 1.0) for c in rgb]


def hue_shifted(rgb: list[float], shift: float) -> list[float]:
    h, s, v = colorsys.rgb_to_hsv(*rgb)
    return list(colorsys.hsv_to_rgb((h + shift) % 1.0, s, v))


@pytest.mark.parametrize("strong", [False, True])
def test_colours_are_changed_pixel_by_pixel(strong: bool) -> None:
    x = images(12, 3, 4, 4)
    x[0, :, 0] = 0.3  # grey
    x[1] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    saturation, hue, first = jitters(12, generator())
    if strong:
        saturation, hue = saturation * 1.7, hue * 9
    ours = jittered(x, saturation, hue, first)
    assert first.any()
    assert not first.all()
    for i in range(12):
        for row in range(4):
            for column in range(4):
                rgb = x[i, :, row, column].tolist()
                if first[i]:
                    rgb = hue_shifted(saturated(rgb, float(saturation[i])), float(hue[i]))
                else:
                    rgb = saturated(hue_shifted(rgb, float(hue[i])), float(saturation[i]))
                torch.testing.assert_close(ours[i, :, row, column], torch.tensor(rgb), atol=1e-5, rtol=1e-4)


def test_draws_lie_in_the_released_ranges() -> None:
    saturation, hue, _ = jitters(2000, generator())
    assert 0.95 <= float(saturation.min()) < 0.951 < 1.049 < float(saturation.max()) <= 1.05
    assert -0.05 <= float(hue.min()) < -0.049 < 0.049 < float(hue.max()) <= 0.05


@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 8), (5, 9)])
def test_rotation_takes_the_nearest_source_pixel(height: int, width: int) -> None:
    x, degrees = images(6, 2, height, width), torch.tensor([-10.0, -3.3, 0.0, 4.7, 9.9, 33.0])
    ours = rotated(x, degrees)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    for i, angle in enumerate(math.radians(d) for d in degrees.tolist()):
        for row in range(height):
            for column in range(width):
                # in coordinates whose y points up, the pixel came from where it is turned back
                right, up = column - cx, cy - row
                source_right = right * math.cos(angle) + up * math.sin(angle)
                source_up = -right * math.sin(angle) + up * math.cos(angle)
                r, c = round(cy - source_up), round(source_right + cx)
                inside = 0 <= r < height and 0 <= c < width
                expected = x[i, :, r, c] if inside else torch.zeros(2)
                torch.testing.assert_close(ours[i, :, row, column], expected)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    x = images(1, 1, 5, 5)
    torch.testing.assert_close(rotated(x, torch.tensor([90.0])), torch.rot90(x, 1, (2, 3)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_and_floats_are_augmented_alike_and_stay_what_they_are(channels: int) -> None:
    pixels = (images(16, channels, 8, 8) * 255).to(torch.uint8)
    as_bytes, as_floats = augmented(pixels, generator(3)), augmented(pixels / 255, generator(3))
    assert as_bytes.dtype == torch.uint8
    assert as_floats.dtype == torch.float32
    assert as_bytes.shape == pixels.shape
    torch.testing.assert_close(as_bytes / 255, as_floats, atol=0.51 / 255, rtol=0)
    assert float(as_floats.min()) >= 0
    assert float(as_floats.max()) <= 1
    changed = sum(not torch.equal(one, other) for one, other in zip(as_bytes, pixels, strict=True))
    # a whole crop that is hardly turned is the image itself, unless its colours change
    assert changed == 16 if channels == 3 else changed >= 6


def test_equal_seeds_augment_alike_and_the_global_generator_is_left_alone() -> None:
    rows = {"pixel_values": (images(8, 3, 8, 8) * 255).to(torch.uint8).numpy(), "labels": np.arange(8)}
    before = rows["pixel_values"].copy()
    first, second, other = (Augmenting(lambda r: r, seed) for seed in (1, 1, 2))
    state = torch.get_rng_state()
    a, again = first(rows), first(rows)
    np.testing.assert_array_equal(a["pixel_values"], second(rows)["pixel_values"])
    assert (a["pixel_values"] != again["pixel_values"]).any()  # anew at each visit
    assert (a["pixel_values"] != other(rows)["pixel_values"]).any()
    np.testing.assert_array_equal(a["labels"], np.arange(8))
    np.testing.assert_array_equal(rows["pixel_values"], before)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_training_and_scoring_as_asked_see_augmented_images(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(len(pixels))
        return augmented(pixels, generator)

    monkeypatch.setattr(augmentation, "augmented", counted)
    counts = {}
    for name, method in {
        "none": eh.PGD(),
        "training": eh.PGD(augment=True),
        "scoring": eh.PGD(score_on="augmented"),
        "both": eh.PGD(augment=True, score_on="augmented"),
    }.items():
        seen.clear()
        fit(method, tiny_task, "digits-cnn", output_dir=tmp_path / name, epochs=2, batch_size=16, lr=1e-3)
        counts[name] = sum(seen)
    assert counts == {"none": 0, "training": 2 * 2 * 96, "scoring": 96, "both": 4 * 96 + 96}


@pytest.mark.parametrize("method", [eh.PGD(augment=True), eh.PGD(score_on="augmented")])
def test_text_is_refused_in_one_sentence(method: eh.PGD, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        method.check_inputs("text")
    assert str(caught.value) == (
        "PGD's augmentation is made for images of one size, but the task's inputs are text: use augment=False and "
        "score_on='clean'."
    )
    assert eh.PGD().check_inputs("text") is None
    assert method.check_inputs("image") is None
