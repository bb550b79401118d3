"""Decoding of untrusted images."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from agebench.errors import ImageRejectedError
from agebench.types import RejectReason

MAX_PIXELS = 64_000_000
# The longest side of a JPEG. Pillow keeps a pointer for each row: 60 million rows of one pixel would take 1.2 GB.
MAX_SIDE = 65_535
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Images of 10-bit and 12-bit cameras are stored with 16 bits; an image that uses no more bits than these is scaled by them.
# 14 bits cannot be distinguished from a dark photograph of 16.
_NARROW_BITS = (8, 10, 12)
_TIFF_BITS = 258  # the tag BitsPerSample
ORIENTATION = 274  # the EXIF tag
# Orientation -> what turns the image upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(encoded: bytes) -> Image.Image:
    """Decode an image to RGB, upright by its EXIF orientation.

    Gray, palette, CMYK, 16-bit and alpha images are converted.

    Args:
        encoded: content of the image file.

    Raises:
        ImageRejectedError: the content is not an image, is damaged, has floating-point pixels, or has more than `MAX_PIXELS`
            pixels or a side of more than `MAX_SIDE` (rejected before they are decoded).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and metadata; relevant problems raise below
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            return upright(image, is_deep=_is_deep(image, encoded))
    except ImageRejectedError:
        raise
    except UnidentifiedImageError:
        raise ImageRejectedError("not an image in a format that is read here", RejectReason.NOT_AN_IMAGE) from None
    except Image.DecompressionBombError:
        limit = f"more than the {MAX_PIXELS // 1_000_000} million pixels allowed"
        raise ImageRejectedError(limit, RejectReason.IMAGE_TOO_LARGE) from None
    except Exception as error:  # decoders raise many types on damaged data: struct.error, zlib.error, MemoryError…
        raise ImageRejectedError(f"a damaged image: {error}", RejectReason.DAMAGED_IMAGE) from error


def upright(image: Image.Image, *, is_deep: bool = False) -> Image.Image:
    """Convert an image to RGB, upright by its EXIF orientation.

    Args:
        image: an opened image; its pixels need not be loaded.
        is_deep: whether the file has 16 bits per channel, of which Pillow keeps the upper 8 in color images.

    Raises:
        ImageRejectedError: the image has more than `MAX_PIXELS` pixels, a side of more than `MAX_SIDE`, or pixels without a
            defined brightness.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageRejectedError(
            f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS // 1_000_000} million allowed",
            RejectReason.IMAGE_TOO_LARGE,
        )
    if max(image.size) > MAX_SIDE:
        raise ImageRejectedError(
            f"{image.width} x {image.height} pixels: a side has at most {MAX_SIDE:,}", RejectReason.IMAGE_TOO_LARGE
        )
    if image.mode == "F":
        raise ImageRejectedError(
            "its pixels are floating-point numbers, whose white is not defined: save it with 8 bits a channel",
            RejectReason.PIXEL_FORMAT,
        )
    image.load()
    if is_deep and image.mode in ("RGB", "RGBA", "LA"):
        _reject_narrow(image)
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return _rgb(_eight_bits(image) if image.mode.startswith("I") else image)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where the EXIF block is absent or cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises SyntaxError, struct.error and others; the pixels are sound all the same.
        return 1
    return orientation if isinstance(orientation, int) else 1


def _is_deep(image: Image.Image, encoded: bytes) -> bool:
    """Return whether the file has 16 bits per channel."""
    if image.format == "PNG":
        return encoded[24:25] == b"\x10"  # the bit depth in IHDR, the first chunk
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, ()) if image.format == "TIFF" else ()
    return bool(bits) and max(bits) == 16


def _reject_narrow(image: Image.Image) -> None:
    """Reject a color image of 16 bits per channel that uses only 12: its upper 8 bits would be nearly black."""
    extremes = image.convert("RGB").getextrema()
    brightest = max(high for _, high in extremes)  # type: ignore[misc]
    if 0 < brightest < 1 << 4:
        raise ImageRejectedError(
            "a color image of 16 bits a channel that uses 12 or fewer, and would be dark: save it with 8 bits a channel",
            RejectReason.PIXEL_FORMAT,
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert a gray image of 16 bits, or of 32 bits with values of at most 16, to 8 bits.

    Raises:
        ImageRejectedError: a value is negative or needs more than 16 bits.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << 16:
        raise ImageRejectedError(
            f"its pixels go from {low} to {high}, whose white is not defined: save it with 8 bits a channel",
            RejectReason.PIXEL_FORMAT,
        )
    bits = next((bits for bits in _NARROW_BITS if high < 1 << bits), 16)
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")
