"""From a picture as it is stored to one kind of picture: upright, RGB of 8 bits, on white where it is transparent.

Every picture is opened here, so that the same file looks the same to models, audits and people. Only the formats in
`FORMATS` are opened, whatever a file is called.

Legend: H height, W width, C channels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from evenhand.data.folders import is_file, is_hidden
from evenhand.files import PICTURES
from evenhand.validation import UserError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""All formats that are opened, as Pillow calls them: PostScript, for one, would run another program."""

_PARTS = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "MPO": "jpg", "WEBP": "webp"}  # that Pillow may lack
_PHOTOMETRIC = 262  # TIFF's tag
_KNOWN_WHITE = {"I": (255, 65535), "F": (1, 255)}  # where neither file nor mode says what white is

Scale = tuple[str, int]
"""A mode whose files don't say what white is, and the value that it was taken to have."""


class PictureError(UserError):
    """A picture that can't be read.

    Attributes:
        reason: Why, without the picture's name.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


_TOLD = (PictureError, FileNotFoundError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that the Pillow at hand can read."""
    Image.init()
    return [f for f in FORMATS if f in Image.OPEN and (f not in _PARTS or features.check(_PARTS[f]))]


@cache
def _endings() -> tuple[str, ...]:
    known = Image.registered_extensions()
    return tuple(ending for ending in PICTURES if known.get(ending) in _formats())


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture that can be read here, and isn't hidden."""
    return name.lower().endswith(_endings()) and not is_hidden(name)


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """The same rows whose pictures stay as they are stored, for `decoded`; `datasets` would open any format."""
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image) and feature.decode:
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def decoded(stored: Any) -> Image.Image:
    """A picture upright, in RGB of 8 bits, on white where it is transparent; the first frame of several.

    Args:
        stored: A file's path; a dict of `bytes` and `path`, as `datasets` stores pictures; a picture of Pillow; or an
            array of shape (H, W) or (H, W, C).

    Raises:
        PictureError: If it can't be read, or what white is can't be told.
    """
    return decoded_with_scale(stored)[0]


def decoded_with_scale(stored: Any) -> tuple[Image.Image, Scale | None]:
    """As `decoded`, and what white was taken to be where nothing but the picture's largest value tells."""
    with opened(stored) as picture:
        return _in_rgb(picture)


@contextmanager
def opened(stored: Any) -> Iterator[Image.Image]:
    """A picture of which only the head is read so far; errors inside are a `PictureError` that names the file."""
    entry: Any = {"path": stored} if isinstance(stored, str | os.PathLike) else stored
    path: Any = entry.get("path") if isinstance(entry, dict) else getattr(entry, "filename", None)
    try:
        if isinstance(entry, Image.Image):
            yield entry
        elif isinstance(entry, np.ndarray):
            yield _of_array(entry)
        elif not isinstance(entry, dict) or not (entry.get("bytes") or path):
            raise PictureError("", "there is none")
        else:
            with Image.open(io.BytesIO(entry["bytes"]) if entry.get("bytes") else path, formats=_formats()) as picture:
                yield picture
    except Exception as error:  # a damaged file can fail anywhere within a decoder
        reason = _reason(error, path if isinstance(entry, dict) and not entry.get("bytes") else None)
        name = f"The picture '{path}'" if path else "A picture"
        why = reason if isinstance(error, _TOLD) else f"it is truncated or damaged ({reason})"
        raise PictureError(f"{name} can't be read: {why}.", reason) from error


def _reason(error: Exception, path: Any) -> str:
    if isinstance(error, PictureError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if path and is_file(Path(path)) and not Path(path).stat().st_size:
        return "it has 0 bytes"
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, too many for a picture"
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__


def _in_rgb(picture: Image.Image) -> tuple[Image.Image, Scale | None]:
    if type(picture) is Image.Image and picture.mode == "RGB" and not picture.info:  # decoded before
        return picture.copy(), None
    key = _transparent_value(picture)
    picture.load()
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)  # TIFF is upright once it is loaded
    rgb, scale = _on_white(picture, key)
    rgb.info = {}
    if orientation != 1:
        rgb.getexif()[ExifTags.Base.Orientation] = orientation
        rgb = ImageOps.exif_transpose(rgb)
        rgb.info = {}
    return rgb, scale


def _transparent_value(picture: Image.Image) -> Any:
    """The one gray or colour that stands for transparent, as the pixels have it; None unless there is one."""
    key = picture.info.get("transparency")
    if key is None or isinstance(key, bytes) or picture.mode not in ("1", "L", "I;16", "RGB"):
        return None
    tiles: Any = getattr(picture, "tile", None)  # of a file that isn't loaded yet
    stored: Any = tiles[0][3] if tiles else ""
    if stored == "RGB;16B":  # of which Pillow keeps the upper half
        return tuple(part >> 8 for part in key)
    return key * {"L;2": 85, "L;4": 17}.get(stored, 1) if isinstance(key, int) else key


def _on_white(picture: Image.Image, key: Any) -> tuple[Image.Image, Scale | None]:
    scale = None
    if picture.mode.startswith("I") or picture.mode == "F":
        gray_HW, scale = _gray(picture)
        rgb = Image.fromarray(gray_HW).convert("RGB")
    elif key is None and picture.has_transparency_data:
        layer = picture.convert({"La": "LA"}.get(picture.mode, "RGBA")).convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    elif picture.mode == "LAB":
        rgb = _from_lab(picture)
    else:
        rgb = picture.convert("RGB")
    if key is not None:
        value = np.asarray(picture)
        clear = (value == np.asarray(key, value.dtype)).reshape(*value.shape[:2], -1).all(axis=2)
        rgb.paste((255, 255, 255), mask=Image.fromarray(clear))
    return rgb, scale


def _from_lab(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms  # which some builds of Pillow lack

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast(Image.Image, ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB"))


def _gray(picture: Image.Image) -> tuple[NDArray[np.uint8], Scale | None]:
    """A picture of more than 8 bits scaled by its depth."""
    value_HW, tags = np.asarray(picture), cast(Any, getattr(picture, "tag_v2", {}))
    scale = None
    if picture.mode.startswith("I;16"):
        white = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    elif picture.mode == "I" and picture.format in ("PNG", "PPM"):
        white = 65535
    else:
        white = _white_of(value_HW, picture.mode)
        scale = (picture.mode, white) if value_HW.any() else None  # a black one fits any scale
    gray_HW = _eight_bits(value_HW, white)
    inverted = tags.get(_PHOTOMETRIC) == 0  # which Pillow heeds for 8 bits alone
    return (255 - gray_HW if inverted else gray_HW), scale


def _white_of(value: NDArray[Any], mode: str) -> int:
    """What white is, by the values alone."""
    low, high = value.min(), value.max()
    known = [white for white in _KNOWN_WHITE[mode] if low >= 0 and high <= white]
    if not known:
        raise PictureError(
            "",
            f"it holds values from {low:g} to {high:g} (mode {mode}), of which nothing says what is white; save it "
            f"with 8 or 16 bits, or scaled to 0…{_KNOWN_WHITE[mode][0]}",
        )
    return known[0]


def _eight_bits(value: NDArray[Any], white: int) -> NDArray[np.uint8]:
    return value if value.dtype == np.uint8 and white == 255 else np.rint(value * (255 / white)).astype(np.uint8)


def _of_array(value: NDArray[Any]) -> Image.Image:
    if value.dtype == np.bool_:
        white = 1
    elif value.dtype.itemsize <= 2 and value.dtype.kind == "u":
        white = 255 if value.dtype.itemsize == 1 else 65535
    else:
        white = _white_of(value, "F" if value.dtype.kind == "f" else "I")
    pixels = _eight_bits(value, white)
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
