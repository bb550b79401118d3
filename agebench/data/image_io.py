"""Opening images that come from strangers."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from agebench.errors import ImageRejectedError, RejectReason

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Cameras with 10 or 12 bits are stored in 16: an image that uses no more is scaled by these bits. 14 bits cannot be told
# from a dark photograph of 16.
_NARROW_BITS = (8, 10, 12)
_TIFF_BITS = 258  # the tag BitsPerSample
_ORIENTATION = 274  # the EXIF tag


def open_image(encoded: bytes) -> Image.Image:
    """The RGB image, upright by its EXIF orientation; grey, palette, CMYK, 16-bit and alpha images are converted.

    Raises:
        ImageRejectedError: not an image, damaged, of floating-point pixels, or more than `MAX_PIXELS` pixels (refused before they
            are decoded).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and metadata; what matters is refused below.
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            return upright(image, is_deep=_is_deep(image, encoded))
    except ImageRejectedError:
        raise
    except UnidentifiedImageError:
        raise ImageRejectedError("not an image in a format that is read here", RejectReason.NOT_AN_IMAGE) from None
    except Image.DecompressionBombError:
        limit = f"more than the {MAX_PIXELS // 1_000_000} million pixels allowed"
        raise ImageRejectedError(limit, RejectReason.IMAGE_TOO_LARGE) from None
    except Exception as error:  # Decoders raise whatever their damage leads to: struct.error, zlib.error, MemoryError…
        raise ImageRejectedError(f"a damaged image: {error}", RejectReason.DAMAGED_IMAGE) from error


def upright(image: Image.Image, *, is_deep: bool = False) -> Image.Image:
    """The RGB image, upright by its EXIF orientation.

    Args:
        image: opened, its pixels not necessarily read.
        is_deep: whether its file has 16 bits a channel, of which Pillow keeps the upper 8 in color images.

    Raises:
        ImageRejectedError: more than `MAX_PIXELS` pixels, or pixels without a defined brightness.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageRejectedError(
            f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS // 1_000_000} million allowed",
            RejectReason.IMAGE_TOO_LARGE,
        )
    if image.mode == "F":
        raise ImageRejectedError(
            "its pixels are floating-point numbers, whose white is not defined: save it with 8 bits a channel",
            RejectReason.PIXEL_FORMAT,
        )
    image.load()
    if is_deep and image.mode in ("RGB", "RGBA", "LA"):
        _refuse_narrow(image)
    if (
        image.getexif().get(_ORIENTATION, 1) != 1
    ):  # exif_transpose copies all pixels, even where there is nothing to turn
        image = ImageOps.exif_transpose(image)
    return _rgb(_eight_bits(image) if image.mode.startswith("I") else image)


def _is_deep(image: Image.Image, encoded: bytes) -> bool:
    """Whether the file has 16 bits a channel."""
    if image.format == "PNG":
        return encoded[24:25] == b"\x10"  # the bit depth in IHDR, the first chunk
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, ()) if image.format == "TIFF" else ()
    return bool(bits) and max(bits) == 16


def _refuse_narrow(image: Image.Image) -> None:
    extremes = image.convert("RGB").getextrema()
    brightest = max(high for _, high in extremes)  # type: ignore[misc]
    if 0 < brightest < 1 << 4:
        raise ImageRejectedError(
            "a color image of 16 bits a channel that uses 12 or fewer, and would be dark: save it with 8 bits a channel",
            RejectReason.PIXEL_FORMAT,
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits, or of 32 that hold no more, in 8 bits.

    Raises:
        ImageRejectedError: negative values, or more than 16 bits.
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
        ground = Image.new("RGBA", image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
