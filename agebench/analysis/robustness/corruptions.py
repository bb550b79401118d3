"""Image corruptions at five strengths each, applied to whole batches on the device."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agebench.analysis.robustness import operators
from agebench.data.faces.regions import Box, region_boxes, region_mask
from agebench.errors import UserError
from agebench.training.augmentation import YIQ, affine_resample
from agebench.utils.text import did_you_mean

MID_GRAY = 127.5


@dataclass(frozen=True)
class CorruptionContext:
    """The inputs of a corruption besides the images and the strength.

    Attributes:
        coverage: the coverage of the aligned faces, which determines where facial regions are.
        draws: (B,) uniform random numbers, one per image and equal for all strengths, that select a direction.
        generator: the generator of further random numbers, equal for all strengths; it is on the CPU, so that results do
            not depend on the device.
        offset: the vertical offset of the aligned faces, as `AlignmentSpec.offset`.
    """

    coverage: float
    draws: Tensor
    generator: torch.Generator
    offset: float = 0.0


# Images (B, 3, S, S) float32 in 0 to 255, strength, context -> images of the same shape, not clipped to 0 to 255.
CorruptionFn = Callable[[Tensor, float, CorruptionContext], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A change of images at several strengths.

    Attributes:
        name: the name on the command line and in JSON files.
        title: the title in figures, with the unit of the strengths.
        severities: the strengths, from the weakest to the strongest.
        change: the function that applies the corruption.
    """

    name: str
    title: str
    severities: tuple[float, ...]
    change: CorruptionFn


def _blur(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    size = images.shape[-1]
    return operators.apply_separable(images, operators.gaussian_matrix(size, size * strength / 100))


def _motion_blur(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    size = images.shape[-1]
    matrix = operators.motion_blur_matrix(size, size * strength / 100).to(images)
    upright = (context.draws < 0.5).to(images.device).view(-1, 1, 1, 1)
    return torch.where(upright, matrix @ images, images @ matrix.T)


def _noise(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    drawn = torch.randn(images.shape, generator=context.generator)
    return images + 2.55 * strength * drawn.to(images.device)


def _jpeg(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    return operators.jpeg_approximation(images, round(strength))


def _brightness(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    return images * strength


def _contrast(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * strength


def _desaturate(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    luma = torch.einsum("c,bchw->bhw", YIQ[0].to(images), images)[:, None]
    return torch.lerp(images, luma, strength / 100)


def _resolution(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    return operators.apply_separable(images, operators.downscale_matrix(images.shape[-1], strength / 100))


def _rotation(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    angle = torch.where(context.draws < 0.5, -1.0, 1.0) * math.radians(strength)
    return _resample(images, angle.cos(), angle.sin())


def _shift(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    direction = 2 * math.pi * context.draws
    distance = 2 * strength / 100  # in the grid coordinates -1 to 1
    ones = torch.ones_like(direction)
    return _resample(images, ones, 0 * ones, distance * direction.cos(), distance * direction.sin())


def _zoom(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    ones = torch.ones_like(context.draws)
    return _resample(images, ones / strength, 0 * ones)


def _resample(
    images: Tensor, cosine: Tensor, sine: Tensor, right: Tensor | float = 0.0, down: Tensor | float = 0.0
) -> Tensor:
    shift = torch.zeros_like(cosine)
    rows = [torch.stack([cosine, -sine, shift + right], dim=1), torch.stack([sine, cosine, shift + down], dim=1)]
    return affine_resample(images, torch.stack(rows, dim=1).to(images.device))


def _make_occlusion(region: str | Box) -> CorruptionFn:
    """Create a corruption that covers part of the image with mid-gray.

    Args:
        region: the name of a facial region, `corners`, or a box (left, top, right, bottom) in fractions of the side.

    Returns:
        The corruption; its strength is the covered percentage of the area.
    """

    def change(images: Tensor, strength: float, context: CorruptionContext) -> Tensor:
        areas = region_boxes(region, context.coverage, context.offset) if isinstance(region, str) else (region,)
        # The strength is a share of the area, so that sides scale with its square root.
        covered = region_mask(areas, images.shape[-1], math.sqrt(strength / 100), images.device)
        return torch.lerp(images, torch.full_like(images, MID_GRAY), covered.to(images))

    return change


_SHARES = (20.0, 40.0, 60.0, 80.0, 100.0)
CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("blur", "Blur: σ (% of the side)", (0.75, 1.25, 2, 3, 5), _blur),
    Corruption("motion-blur", "Motion blur: length (% of the side)", (3, 6, 10, 15, 20), _motion_blur),
    Corruption("noise", "Noise: σ (% of the range)", (2, 4, 8, 12, 20), _noise),
    Corruption("jpeg", "JPEG: quality", (60, 40, 25, 15, 8), _jpeg),
    Corruption("darker", "Darker: × brightness", (0.8, 0.6, 0.4, 0.25, 0.12), _brightness),
    Corruption("brighter", "Brighter: × brightness", (1.2, 1.5, 1.9, 2.4, 3), _brightness),
    Corruption("contrast", "Contrast: × contrast", (0.8, 0.6, 0.4, 0.25, 0.12), _contrast),
    Corruption("grey", "Gray: color removed (%)", _SHARES, _desaturate),
    Corruption("resolution", "Resolution: remaining side (%)", (60, 40, 30, 20, 12), _resolution),
    Corruption("rotation", "Rotation: ± degrees", (5, 10, 15, 25, 45), _rotation),
    Corruption("shift", "Shift: random direction (% of the side)", (2, 4, 8, 12, 16), _shift),
    Corruption("zoom", "Zoom: × closer crop", (1.1, 1.2, 1.35, 1.5, 1.8), _zoom),
    Corruption("eyes", "Eyes covered (% of the area)", _SHARES, _make_occlusion("eyes")),
    Corruption("mouth", "Mouth covered (% of the area)", _SHARES, _make_occlusion("mouth")),
    Corruption("forehead", "Forehead covered (% of the area)", _SHARES, _make_occlusion("forehead")),
    Corruption("corners", "Corners covered (% of the area)", _SHARES, _make_occlusion("corners")),
)
SHIFT_FRACTION = 0.02  # of the side, for the consistency transform


def hflip_variants(images: Tensor) -> list[Tensor]:
    """Return the horizontally flipped images as the only variant."""
    return [images.flip(3)]


def _shift_variants(images: Tensor) -> list[Tensor]:
    """Return the images shifted by `SHIFT_FRACTION` of the side to the left, to the right, up and down."""
    ones = torch.ones(len(images))
    shifts = (
        (2 * SHIFT_FRACTION, 0.0),
        (-2 * SHIFT_FRACTION, 0.0),
        (0.0, 2 * SHIFT_FRACTION),
        (0.0, -2 * SHIFT_FRACTION),
    )
    return [_resample(images, ones, 0 * ones, right, down) for right, down in shifts]


# Changes without strengths that should not change the prediction; each has one or more variants.
CONSISTENCY_TRANSFORMS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "mirror": hflip_variants,
    "small-shift": _shift_variants,
}


def select_corruptions(names: Sequence[str], extra: Sequence[Box] = ()) -> tuple[Corruption, ...]:
    """Return corruptions by name, and one occlusion per box.

    Args:
        names: the names of the corruptions; empty for all.
        extra: boxes (left, top, right, bottom) in fractions of the side to cover in addition.

    Returns:
        The corruptions in the order of `names`, followed by the occlusions `box-1`, `box-2`, …

    Raises:
        UserError: a corruption does not exist.
    """
    known = {corruption.name: corruption for corruption in CORRUPTIONS}
    for name in names:
        if name not in known:
            raise UserError(f"--corruption {name}: no such corruption{did_you_mean(name, known)}")
    selected = tuple(known[name] for name in dict.fromkeys(names)) or CORRUPTIONS
    return selected + tuple(
        Corruption(f"box-{number}", f"{_format_box(box)} covered (% of the area)", _SHARES, _make_occlusion(box))
        for number, box in enumerate(extra, start=1)
    )


def drop_missing_regions(
    corruptions: Sequence[Corruption], missing: Mapping[str, str], required: Collection[str] = ()
) -> tuple[Corruption, ...]:
    """Return the corruptions without those that cover a missing region of the face.

    Args:
        corruptions: the corruptions.
        missing: region -> why it has no known place, see `agebench.data.faces.regions.missing_regions`.
        required: names of corruptions that were asked for.

    Raises:
        UserError: a required corruption covers a missing region.
    """
    for corruption in corruptions:
        if corruption.name in missing and corruption.name in required:
            raise UserError(
                f"--corruption {corruption.name}: {missing[corruption.name]}; --occlude left,top,right,bottom covers any box"
            )
    return tuple(corruption for corruption in corruptions if corruption.name not in missing)


def to_float_images(faces: Tensor) -> Tensor:
    """Convert faces (B, S, S, 3) uint8 to images (B, 3, S, S) float32 in 0 to 255."""
    return faces.permute(0, 3, 1, 2).contiguous().float()


def to_uint8(images: Tensor) -> Tensor:
    """Round and clip images (B, 3, S, S) float32 to faces (B, S, S, 3) uint8, because a photograph has 8 bits."""
    return images.round().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _format_box(box: Box) -> str:
    return "–".join(f"({100 * x:g}, {100 * y:g})" for x, y in (box[:2], box[2:])) + " %"
