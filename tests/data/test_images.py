"""Images from strangers: every kind is opened upright and in RGB, or refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agebench.data.images import open_image
from agebench.errors import ImageRefused

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


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ImageRefused, match="more than the 64 million"):
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
    with pytest.raises(ImageRefused, match=message):
        open_image(content)


@given(st.data())
def test_a_damaged_image_is_refused_or_opened_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
    content = bytearray(encoded(Image.fromarray(LEFT_RED), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        mode = open_image(bytes(content)).mode
    except ImageRefused:
        mode = "RGB"  # refused, with a reason
    assert mode == "RGB"
