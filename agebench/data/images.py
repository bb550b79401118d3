"""Opening images that come from strangers."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from agebench.errors import ImageRefused

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def open_image(encoded: bytes) -> Image.Image:
    """The RGB image, upright by its EXIF orientation; grey, palette, CMYK, 16-bit and alpha images are converted.

    Raises:
        ImageRefused: not an image, damaged, or more than `MAX_PIXELS` pixels (refused before they are decoded).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and metadata; what matters is refused below.
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            return upright(image)
    except ImageRefused:
        raise
    except UnidentifiedImageError:
        raise ImageRefused("not an image in a format that is read here") from None
    except Image.DecompressionBombError:
        raise ImageRefused(f"more than the {MAX_PIXELS // 1_000_000} million pixels allowed") from None
    except Exception as error:  # Decoders raise whatever their damage leads to: struct.error, zlib.error, MemoryError…
        raise ImageRefused(f"a damaged image: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """The RGB image, upright by its EXIF orientation.

    Raises:
        ImageRefused: more than `MAX_PIXELS` pixels.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageRefused(
            f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS // 1_000_000} million allowed"
        )
    image.load()
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
