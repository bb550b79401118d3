"""Images from strangers: every kind is opened upright and in RGB, or refused with a reason."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from agebench.data.image_io import ORIENTATION, open_image
from agebench.errors import ImageRejectedError, RejectReason

LEFT_RED = np.zeros((10, 20, 3), dtype=np.uint8)
LEFT_RED[:, :10, 0] = 200


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_grey_becomes_three_equal_channels() -> None:
    image = open_image(encoded(Image.new("L", (4, 4), 77)))
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == (77, 77, 77)


def test_cmyk_becomes_rgb() -> None:
    image = open_image(encoded(Image.fromarray(LEFT_RED).convert("CMYK"), "JPEG", quality=95))
    assert image.mode == "RGB"
    assert image.getpixel((3, 5))[0] > 150 > 60 > image.getpixel((16, 5))[0]


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    image = open_image(encoded(Image.fromarray(np.full((4, 4), 51 * 256, dtype=np.uint16))))
    assert image.getpixel((1, 1)) == (51, 51, 51)


def test_what_is_transparent_is_laid_on_grey() -> None:
    image = open_image(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0))))
    assert image.getpixel((1, 1)) == (127, 127, 127)


def test_a_palette_is_resolved() -> None:
    image = open_image(encoded(Image.fromarray(LEFT_RED).convert("P"), "GIF"))
    assert image.getpixel((2, 2))[0] > 150


def test_exif_orientation_is_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = open_image(encoded(Image.fromarray(LEFT_RED), "JPEG", exif=exif, quality=95))
    assert image.size == (10, 20)
    assert image.getpixel((5, 3))[0] > 150
    assert image.getpixel((5, 16))[0] < 60


def png(width: int, height: int, content: bytes, extra: bytes = b"") -> bytes:
    """An 8-bit gray PNG; `extra` are further chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(content, 1))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1), (1, 60_000_000)])
def test_a_side_that_is_too_long_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    encoded = png(*size, b"\0" * 1000)
    tracemalloc.start()
    with pytest.raises(ImageRejectedError, match="a side has at most 65,535") as caught:
        open_image(encoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is RejectReason.IMAGE_TOO_LARGE
    assert peak < 5_000_000


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_compressed_metadata_is_not_expanded_without_limit(name: bytes) -> None:
    bomb = chunk(name, b"x\0\0" + zlib.compress(b"\0" * 50_000_000))
    tracemalloc.start()
    with pytest.raises(ImageRejectedError, match="Decompressed data too large"):
        open_image(png(8, 8, b"\0" * 72, bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (red, 0, 0)) for red in (200, 0, 0)]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    assert open_image(buffer.getvalue()).getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_unknown_orientation_turns_nothing(orientation: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.new("RGB", (8, 4)).save(buffer, "JPEG", exif=exif)
    assert open_image(buffer.getvalue()).size == (8, 4)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ImageRejectedError, match="more than the 64 million"):
        open_image(bomb)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"<html>404</html>", "not an image"),
        (encoded(Image.fromarray(LEFT_RED))[:60], "damaged"),
    ],
)
def test_what_is_no_image_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ImageRejectedError, match=message):
        open_image(content)


@given(st.data())
def test_a_damaged_image_is_refused_or_opened_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
    content = bytearray(encoded(Image.fromarray(LEFT_RED), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        mode = open_image(bytes(content)).mode
    except ImageRejectedError:
        mode = "RGB"  # refused, with a reason
    assert mode == "RGB"


# Pixels whose white is not that of 8 bits


def test_floating_point_pixels_are_refused() -> None:
    for values in (np.linspace(0, 1, 16), np.linspace(0, 255, 16), np.full(16, np.nan)):
        content = encoded(Image.fromarray(values.reshape(4, 4).astype(np.float32)), "TIFF")
        with pytest.raises(ImageRejectedError, match="floating-point numbers") as raised:
            open_image(content)
        assert raised.value.reason is RejectReason.PIXEL_FORMAT


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_fewer_bits_in_sixteen_keep_their_brightness(bits: int) -> None:
    ramp = np.linspace(0, (1 << bits) - 1, 64).round().astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        assert open_image(encoded(Image.fromarray(ramp), kind)).getextrema() == ((0, 255),) * 3


def test_thirty_two_bits_are_read_as_sixteen_or_refused() -> None:
    ramp = np.linspace(0, 65535, 16).astype(np.int32).reshape(4, 4)
    assert open_image(encoded(Image.fromarray(ramp), "TIFF")).getextrema() == ((0, 255),) * 3
    for values in (ramp * 2, -ramp):
        with pytest.raises(ImageRejectedError, match="whose white is not defined"):
            open_image(encoded(Image.fromarray(values), "TIFF"))


def test_sixteen_bit_color_that_would_be_dark_is_refused() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def color(brightest: int) -> bytes:
        rows = b"".join(b"\0" + np.full(12, brightest, ">u2").tobytes() for _ in range(4))
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    assert open_image(color(51 * 256)).getpixel((1, 1)) == (51, 51, 51)
    assert open_image(color(0)).getpixel((1, 1)) == (0, 0, 0)
    with pytest.raises(ImageRejectedError, match="16 bits a channel that uses 12 or fewer"):
        open_image(color(4095))


def test_sixteen_bit_images_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.zeros((10, 20), np.uint16)
    ramp[:, :10] = 60_000
    image = open_image(encoded(Image.fromarray(ramp), "PNG", exif=exif))
    assert image.size == (10, 20)
    assert image.getpixel((5, 3))[0] > 200 > image.getpixel((5, 16))[0]


def test_a_large_sixteen_bit_image_takes_little_memory() -> None:
    side = 2000
    content = encoded(Image.fromarray(np.full((side, side), 30_000, np.uint16)))
    tracemalloc.start()
    open_image(content)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * side * side  # numpy's part, bytes; 32-bit copies took several times as much beside Pillow's own


@pytest.mark.parametrize("block", [b"Exif\0\0\0\0", b"Exif\0\0MM\0", b"Exif\0\0no header of a TIFF file"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_with_an_unreadable_exif_block_is_upright(kind: str, block: bytes) -> None:
    image = Image.fromarray(LEFT_RED)
    content = encoded(image, kind, exif=block, **({"dpi": (72, 72), "quality": 95} if kind == "JPEG" else {}))
    assert open_image(content).size == image.size


def test_another_damaged_tag_does_not_hide_the_orientation() -> None:
    entries = [
        struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0),
        struct.pack("<HHI4s", 282, 2, 3, b"72\0\0"),
    ]  # a text for a fraction
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    wide = Image.new("RGB", (8, 4))
    assert open_image(encoded(wide, "JPEG", exif=block)).size == (4, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(open_image(content)), np.asarray(expected))
