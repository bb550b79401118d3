"""What can be wrong with a photograph of a face, in five strengths each; a whole batch at once, on the device."""

import math
from collections.abc import Callable, Sequence
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
    """What a corruption may look at beside the pixels.

    Attributes:
        coverage: how much of a face the images show.
        draws: (B,) one uniform number an image, the same at every strength: which way a change goes.
        generator: of further draws, on the CPU and the same at every strength; results do not depend on the device.
    """

    coverage: float
    draws: Tensor
    generator: torch.Generator


# Takes (B, 3, S, S) float32 of 0 to 255, a strength and the scene; gives the same shape, not yet cut to 0 to 255.
CorruptionFn = Callable[[Tensor, float, CorruptionContext], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A graded change of images.

    Attributes:
        name: as the command line has it.
        title: as figures have it, with the unit of the strengths.
        strengths: rising.
        change: what it does.
    """

    name: str
    title: str
    severities: tuple[float, ...]
    change: CorruptionFn


def _blur(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    size = images.shape[-1]
    return operators.apply_separable(images, operators.gaussian_matrix(size, size * strength / 100))


def _motion_blur(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    size = images.shape[-1]
    matrix = operators.motion_blur_matrix(size, size * strength / 100).to(images)
    upright = (scene.draws < 0.5).to(images.device).view(-1, 1, 1, 1)
    return torch.where(upright, matrix @ images, images @ matrix.T)


def _noise(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    drawn = torch.randn(images.shape, generator=scene.generator)
    return images + 2.55 * strength * drawn.to(images.device)


def _jpeg(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    return operators.jpeg_approximation(images, round(strength))


def _light(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    return images * strength


def _contrast(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * strength


def _grey(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    luma = torch.einsum("c,bchw->bhw", YIQ[0].to(images), images)[:, None]
    return torch.lerp(images, luma, strength / 100)


def _resolution(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    return operators.apply_separable(images, operators.downscale_matrix(images.shape[-1], strength / 100))


def _rotation(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    angle = torch.where(scene.draws < 0.5, -1.0, 1.0) * math.radians(strength)
    return _moved(images, angle.cos(), angle.sin())


def _shift(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    way = 2 * math.pi * scene.draws
    reach = 2 * strength / 100
    one = torch.ones_like(way)
    return _moved(images, one, 0 * one, reach * way.cos(), reach * way.sin())


def _zoom(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
    one = torch.ones_like(scene.draws)
    return _moved(images, one / strength, 0 * one)


def _moved(
    images: Tensor, cosine: Tensor, sine: Tensor, right: Tensor | float = 0.0, down: Tensor | float = 0.0
) -> Tensor:
    shift = torch.zeros_like(cosine)
    rows = [torch.stack([cosine, -sine, shift + right], dim=1), torch.stack([sine, cosine, shift + down], dim=1)]
    return affine_resample(images, torch.stack(rows, dim=1).to(images.device))


def make_occlusion(region: str | Box) -> CorruptionFn:
    """A middle grey over a region of the face, over the corners, or over a box given as shares of the side."""

    def change(images: Tensor, strength: float, scene: CorruptionContext) -> Tensor:
        areas = region_boxes(region, scene.coverage) if isinstance(region, str) else (region,)
        # A covered share of the area: sides by its root.
        hidden = region_mask(areas, images.shape[-1], math.sqrt(strength / 100), images.device)
        return torch.lerp(images, torch.full_like(images, MID_GRAY), hidden.to(images))

    return change


_SHARES = (20.0, 40.0, 60.0, 80.0, 100.0)
CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("blur", "Blur: σ (% of the side)", (0.75, 1.25, 2, 3, 5), _blur),
    Corruption("motion-blur", "Motion blur: length (% of the side)", (3, 6, 10, 15, 20), _motion_blur),
    Corruption("noise", "Noise: σ (% of the range)", (2, 4, 8, 12, 20), _noise),
    Corruption("jpeg", "JPEG: quality", (60, 40, 25, 15, 8), _jpeg),
    Corruption("darker", "Darker: × brightness", (0.8, 0.6, 0.4, 0.25, 0.12), _light),
    Corruption("brighter", "Brighter: × brightness", (1.2, 1.5, 1.9, 2.4, 3), _light),
    Corruption("contrast", "Contrast: × contrast", (0.8, 0.6, 0.4, 0.25, 0.12), _contrast),
    Corruption("grey", "Grey: colour removed (%)", _SHARES, _grey),
    Corruption("resolution", "Resolution: side left (%)", (60, 40, 30, 20, 12), _resolution),
    Corruption("rotation", "Rotation: ± degrees", (5, 10, 15, 25, 45), _rotation),
    Corruption("shift", "Shift: any way (% of the side)", (2, 4, 8, 12, 16), _shift),
    Corruption("zoom", "Zoom: × closer crop", (1.1, 1.2, 1.35, 1.5, 1.8), _zoom),
    Corruption("eyes", "Eyes covered (% of the area)", _SHARES, make_occlusion("eyes")),
    Corruption("mouth", "Mouth covered (% of the area)", _SHARES, make_occlusion("mouth")),
    Corruption("forehead", "Forehead covered (% of the area)", _SHARES, make_occlusion("forehead")),
    Corruption("corners", "Corners covered (% of the area)", _SHARES, make_occlusion("corners")),
)
# No strengths: what a mirror, or a shift by 2 % of the side, does to the answer. Each is asked in all its ways.
SHIFT_FRACTION = 0.02


def hflip_variants(images: Tensor) -> list[Tensor]:
    """The mirror image."""
    return [images.flip(3)]


def shift_variants(images: Tensor) -> list[Tensor]:
    """Shifted by `STEP` of the side to the left, the right, up and down."""
    one = torch.ones(len(images))
    ways = (
        (2 * SHIFT_FRACTION, 0.0),
        (-2 * SHIFT_FRACTION, 0.0),
        (0.0, 2 * SHIFT_FRACTION),
        (0.0, -2 * SHIFT_FRACTION),
    )
    return [_moved(images, one, 0 * one, right, down) for right, down in ways]


CONSISTENCY_TRANSFORMS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "mirror": hflip_variants,
    "small-shift": shift_variants,
}


def select_corruptions(names: Sequence[str], extra: Sequence[Box] = ()) -> tuple[Corruption, ...]:
    """The corruptions of these names (none: all), and one that covers each further box.

    Raises:
        UserError: no such corruption.
    """
    known = {corruption.name: corruption for corruption in CORRUPTIONS}
    for name in names:
        if name not in known:
            raise UserError(f"--corruption {name}: no such corruption{did_you_mean(name, known)}")
    found = tuple(known[name] for name in dict.fromkeys(names)) or CORRUPTIONS
    return found + tuple(
        Corruption(f"box-{place}", f"{_written(box)} covered (% of the area)", _SHARES, make_occlusion(box))
        for place, box in enumerate(extra, start=1)
    )


def to_float_images(faces: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 of 0 to 255."""
    return faces.permute(0, 3, 1, 2).contiguous().float()


def to_uint8(images: Tensor) -> Tensor:
    """(B, 3, S, S) float32 -> (B, S, S, 3) uint8: a photograph has 8 bits, whatever happened to it."""
    return images.round().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _written(box: Box) -> str:
    return "–".join(f"({100 * x:g}, {100 * y:g})" for x, y in (box[:2], box[2:])) + " %"
