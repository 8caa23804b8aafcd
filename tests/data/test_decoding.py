from __future__ import annotations

import ast
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import evenhand
from evenhand.data.decoding import FORMATS, PictureError, decoded, is_picture, opened
from evenhand.data.inputs import pixels
from evenhand.data.looks import pictures
from evenhand.data.rows import Rows

INK = np.zeros((16, 24), dtype=bool)  # a black bar on a white or transparent ground
INK[4:9, 3:20] = True


def lab() -> Image.Image:
    gray = Image.fromarray(np.where(INK, 0, 255).astype(np.uint8)).convert("RGB")
    made: Any = ImageCms.profileToProfile(
        gray, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    return made


def drawing(mode: str) -> Image.Image:
    """The bar in a mode of Pillow; transparent around it where the mode knows of that."""
    gray = Image.fromarray(np.where(INK, 0, 255).astype(np.uint8))
    if mode == "LAB":
        return lab()
    if mode == "I":
        return Image.fromarray(np.where(INK, 0, 65535).astype(np.int32))
    if mode.startswith("I;16"):
        return Image.frombytes(
            mode, gray.size, np.where(INK, 0, 65535).astype(">u2" if "B" in mode else "<u2").tobytes()
        )
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        clear = Image.merge("LA", (Image.new("L", gray.size), Image.fromarray(np.where(INK, 255, 0).astype(np.uint8))))
        return clear if mode == "LA" else clear.convert("RGBA").convert(mode) if mode != "La" else clear.convert("La")
    return gray.convert("RGB").convert(mode) if mode not in ("1", "F") else gray.convert(mode)


def check_shown(picture: Image.Image) -> None:
    value = np.asarray(picture)
    assert (picture.mode, value.shape) == ("RGB", (16, 24, 3))
    assert value[~INK].mean() > 200
    assert value[INK].mean() < 60


def saved(picture: Image.Image, name: str) -> bytes | None:
    """As Pillow writes it in a format, or None if it can't."""
    file = io.BytesIO()
    try:
        picture.save(file, name, **({"sizes": [picture.size]} if name == "ICO" else {}))
    except (OSError, KeyError, ValueError):
        return None
    return file.getvalue()


MODES = (
    *("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B", "I;16L"),
    *("LA", "La", "PA", "RGBA", "RGBa"),
)


@given(st.sampled_from(MODES), st.sampled_from(FORMATS))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_black_drawing_is_dark_on_light_in_every_mode_and_format(mode: str, form: str) -> None:
    picture = drawing(mode)
    check_shown(decoded(picture))
    content = saved(picture, form)
    if content is None:
        return
    with Image.open(io.BytesIO(content)) as file:
        kept = file.has_transparency_data
    if kept or not picture.has_transparency_data:  # Pillow writes some formats without
        check_shown(decoded({"bytes": content, "path": None}))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_arrays_are_scaled_by_their_depth(dtype: str, channels: int | None) -> None:
    white = {"uint8": 255, "uint16": 65535, "int32": 65535}.get(dtype, 255 if dtype == "int64" else 1)
    value = np.where(INK, 0, white).astype(dtype)
    if channels is not None:
        value = np.repeat(value[:, :, None], channels, axis=2)
    if channels == 4:
        value[..., 3] = white
    check_shown(decoded(value))


def test_sixteen_bits_are_scaled_by_257() -> None:
    value = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for form in ("PNG", "TIFF", "PPM", "JPEG2000"):
        content = saved(Image.fromarray(value), form)
        assert content is not None
        assert np.array_equal(np.asarray(decoded({"bytes": content}))[..., 0].ravel(), np.arange(256)), form


def png(bits: int, colour: int, key: tuple[int, ...], rows: list[bytes]) -> bytes:
    """A PNG of 2 × 1 pixels with one transparent colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("bits", "colour", "key", "row"),
    [
        (1, 0, (1,), b"\x40"),  # ink 0, ground 1
        (2, 0, (2,), b"\x20"),
        (4, 0, (9,), b"\x09"),
        (8, 0, (7,), b"\x00\x07"),
        (16, 0, (513,), b"\x00\x00\x02\x01"),
        (8, 2, (9, 8, 7), b"\x00\x00\x00\x09\x08\x07"),
        (16, 2, (513, 1027, 770), b"\x00" * 6 + b"\x02\x01\x04\x03\x03\x02"),
    ],
)
def test_one_transparent_colour_is_white(bits: int, colour: int, key: tuple[int, ...], row: bytes) -> None:
    shown = np.asarray(decoded({"bytes": png(bits, colour, key, [row])}))
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1].tolist() == [255, 255, 255]


def test_a_palette_with_transparent_entries_and_an_animation() -> None:
    frame = Image.fromarray(INK.astype(np.uint8)).convert("L")
    frame.putpalette([0, 0, 0, 10, 0, 0])
    for form, options in (
        ("PNG", {"transparency": b"\0\xff"}),
        ("PNG", {"transparency": 0}),
        ("GIF", {"transparency": 0}),
        ("GIF", {"transparency": 0, "save_all": True, "append_images": [Image.new("P", frame.size, 1)]}),
    ):
        file = io.BytesIO()
        frame.save(file, form, **options)
        check_shown(decoded({"bytes": file.getvalue()}))


def test_a_white_is_zero_tiff_of_sixteen_bits_is_turned() -> None:
    file = io.BytesIO()
    Image.fromarray(np.where(INK, 65535, 0).astype(np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    check_shown(decoded({"bytes": file.getvalue()}))


def test_a_rotated_photo_is_upright_and_stays_so() -> None:
    picture = Image.fromarray(np.where(INK, 0, 255).astype(np.uint8)).rotate(90, expand=True)
    exif = picture.getexif()
    exif[0x112] = 6
    for form in ("JPEG", "PNG", "TIFF", "WEBP"):
        file = io.BytesIO()
        picture.convert("RGB").save(file, form, exif=exif)
        upright = decoded({"bytes": file.getvalue()})
        check_shown(upright)
        check_shown(decoded(upright))
        rows = datasets.Dataset.from_dict(
            {"image": [{"bytes": file.getvalue(), "path": None}]},
            features=datasets.Features({"image": datasets.Image()}),
        )
        check_shown(decoded(rows[0]["image"]))  # which `datasets` has turned
        looked_at = next(iter(pictures(rows)))[0]
        assert looked_at is not None
        assert (looked_at.width, looked_at.height, looked_at.pixels_CHW.shape) == (24, 16, (3, 16, 24))


def test_models_see_what_the_rows_hold() -> None:
    column = [{"bytes": saved(drawing(mode), "TIFF"), "path": None} for mode in ("I;16", "RGBA", "F", "LA", "1")]
    rows = datasets.Dataset.from_dict({"image": column}, features=datasets.Features({"image": datasets.Image()}))
    for read in (Rows(rows, ["image"]).__getitems__(range(5)), rows[:], {"image": column}):
        batch = pixels((16, 24), read)["pixel_values"].numpy()
        for picture in batch:
            check_shown(Image.fromarray(picture.transpose(1, 2, 0)))


@pytest.mark.parametrize("value", [[[-3.0, 5.0]], [[0.0, 812.0]], [[0.0, np.nan]], [[0.0, np.inf]]])
def test_floats_without_a_known_scale_are_refused(value: list[list[float]], tmp_path: Path) -> None:
    Image.fromarray(np.array(value, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(
        PictureError, match=r"'.*a\.tif' can't be read: it holds values .* \(mode F\), of which nothing"
    ):
        decoded(tmp_path / "a.tif")


def test_whole_numbers_beyond_16_bits_are_refused() -> None:
    with pytest.raises(PictureError, match=r"values from 0 to 1e\+06 \(mode I\)"):
        decoded(np.array([[0, 1_000_000]], dtype=np.int32))


@pytest.mark.parametrize("form", ["EPS", "PDF", "TGA", "PCX", "SGI"])
def test_no_other_format_is_opened_whatever_a_file_is_called(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "drawing.png"
    Image.new("RGB", (8, 8)).save(path, form)

    def started(*_: Any, **__: Any) -> Any:
        raise AssertionError("another program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    rows = datasets.Dataset.from_dict({"image": [str(path)]}, features=datasets.Features({"image": datasets.Image()}))
    for read in (lambda: decoded(path), lambda: Rows(rows, ["image"]).__getitems__([0])):
        with pytest.raises(PictureError, match=r"'.*drawing\.png' can't be read: .*no known format"):
            read()


def test_pillow_is_never_left_to_guess_the_format() -> None:
    calls = []
    for path in Path(evenhand.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                calls.append(path)
                assert any(keyword.arg == "formats" for keyword in node.keywords), path
    assert calls


def test_bombs_and_broken_files_are_one_sentence_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    content = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)), "PNG")
    assert content is not None
    for broken, why in ((content[:600], "truncated"), (b"", "0 bytes"), (b"GIF89a", "truncated or damaged")):
        path.write_bytes(broken)
        with pytest.raises(PictureError, match=rf"^The picture '{path}' can't be read: [^\n]*{why}[^\n]*\.$"):
            decoded(path)
    path.write_bytes(content)
    for most in (1000, 100):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(
            PictureError, match=rf"^The picture '{path}' can't be read: it has more than {most:,} pixels"
        ):
            decoded(path)
    with pytest.raises(PictureError, match=r"b\.png' can't be read: it is not there\."):
        decoded(tmp_path / "b.png")


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P5 ", b"RIFF"])
)
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_a_picture_or_one_sentence(content: bytes, start: bytes) -> None:
    try:
        sentence = f"{decoded({'bytes': start + content, 'path': 'x.png'}).mode}."
    except PictureError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_endings_that_pillow_can_read_count_in_any_case() -> None:
    for name in ("a.png", "a.JPG", "a.jfif", "a.jpe", "a.Jp2", "a.avif", "a.pnm", "a.TIFF"):
        assert is_picture(name), name
    for name in ("a.eps", "a.txt", ".a.png", "._a.jpg", "png", "a.svg", "a.pdf"):
        assert not is_picture(name), name


def test_only_the_head_is_read_until_asked(tmp_path: Path) -> None:
    content = saved(drawing("RGB"), "PNG")
    assert content is not None
    (tmp_path / "a.png").write_bytes(content[:50])
    with opened(tmp_path / "a.png") as picture:
        assert picture.size == (24, 16)
