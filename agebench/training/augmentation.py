"""Random changes of training images, batched, on the training device."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.config.cards.model import Augment
from agebench.training.image_quality import QualityDraw, draw_quality

# RGB -> luma and the two chroma axes of YIQ (FCC NTSC, 1953). Saturation scales the chroma plane, hue rotates it.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

CPU_CHUNK = 8  # images

# Share of the image's area that random erasing removes, and the range of the box's height / width (Zhong et al. 2020).
ERASE_AREA, ERASE_ASPECT = (0.02, 1 / 3), (0.3, 3.3)

# RandAugment.
OPERATIONS_PER_IMAGE = 2
MAX_MAGNITUDE = 10.0
# Largest rotation (degrees), shear (tangent), translation (share of the side), and change of a factor around 1.
MAX_ROTATION, MAX_SHEAR, MAX_TRANSLATION, MAX_FACTOR_CHANGE = 30.0, 0.3, 0.45, 0.9
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
PHOTOMETRIC = ("brightness", "contrast", "color", "sharpness", "posterize", "solarize", "autocontrast")
OPERATIONS = GEOMETRIC + PHOTOMETRIC
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class OperationDraw:
    """The operations of a batch of B images.

    Attributes:
        operation: (B, 2) int64, indices into `OPERATIONS`, in the order of application.
        sign: (B, 2) float, -1 or 1, the direction of operations that have one.
    """

    operation: Tensor
    sign: Tensor

    def __getitem__(self, rows: slice) -> "OperationDraw":
        return OperationDraw(self.operation[rows], self.sign[rows])


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """Return (x / 255 - mean) / std.

    Args:
        images: (B, S, S, C) uint8; C is 3 or 6, and both halves of six channels have the same mean and std.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, for pixels in [0, 1].

    Returns:
        (B, C, S, S) float32, channels_last.
    """
    # NHWC in memory is channels_last already, so that no pixel moves.
    scale, shift = (values.repeat(images.shape[-1] // 3) for values in _affine_of(images, mean, std))
    return torch.addcmul(shift, images, scale).permute(0, 3, 1, 2)


class Augmenter:
    """uint8 faces -> augmented, normalized training images.

    Each image is flipped, rotated, zoomed and translated in one bilinear resampling (edges repeat). RandAugment, blur and JPEG
    compression follow; then one 3 x 3 matrix changes brightness, saturation and hue. Hue is a rotation of the chroma plane of
    YIQ, not of the HSV circle: it is linear and keeps luma. Values are clamped to [0, 1] once, at the end. Random erasing comes
    last and fills with the mean color (Zhong, Zheng, Kang, Li, Yang: Random Erasing Data Augmentation. AAAI 2020).

    Args:
        spec: the magnitudes; a change of magnitude 0 costs nothing.
        mean: mean of each channel for the normalization, for pixels in [0, 1].
        std: standard deviation of each channel for the normalization, for pixels in [0, 1].
    """

    def __init__(self, spec: Augment, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.spec, self.mean, self.std = spec, mean, std

    def __call__(self, images: Tensor, generator: torch.Generator, batch_slice: tuple[int, int] = (0, 1)) -> Tensor:
        """Augment and normalize a batch, or one process's shard of a batch.

        Args:
            images: (B, S, S, C) uint8. Of six channels three are the face and three the body; both change alike, and one of
                them may be blackened.
            generator: a CPU generator, the source of all draws.
            batch_slice: (k, n): `images` is the k-th of n equal shards of a batch; each image changes as in the whole batch.

        Returns:
            (B, C, S, S) float32, channels_last.
        """
        index, n_shards = batch_slice
        own, total = slice(index * len(images), (index + 1) * len(images)), len(images) * n_shards
        geometry, color, drop = (
            None if values is None else values[own]
            for values in (draw(total, generator) for draw in (self._geometry, self._color, self._drop))
        )
        operations = _draw_operations(total, generator)[own] if self.spec.rand_augment else None
        boxes = self._boxes(total, images.shape[1], generator)[own] if self.spec.erase else None
        is_degraded = self.spec.blur or self.spec.jpeg
        quality = draw_quality(total, self.spec.blur, self.spec.jpeg, generator)[own] if is_degraded else None
        if drop is not None and images.shape[-1] > 3:
            images = self._dropped(images, drop.to(images.device))
        augmented = self._augmented(images, geometry, color, operations, quality)
        return augmented if boxes is None else _erase_boxes(augmented, boxes)

    def _augmented(
        self,
        images: Tensor,
        geometry: Tensor | None,
        color: Tensor | None,
        operations: OperationDraw | None,
        quality: QualityDraw | None,
    ) -> Tensor:
        """Return the normalized images (B, C, S, S) after geometric, RandAugment, quality and color changes."""
        if geometry is None and color is None and operations is None and quality is None:
            return normalize(images, self.mean, self.std)
        count, size, _, channels = images.shape
        result = torch.empty(count, channels, size, size, device=images.device, memory_format=torch.channels_last)
        # Small chunks on a CPU: the intermediate results then stay in its cache (twice as fast at 128 px).
        chunk_size = CPU_CHUNK if images.device.type == "cpu" else count
        for start in range(0, count, chunk_size):
            chunk = slice(start, start + chunk_size)
            pixels = images[chunk].permute(0, 3, 1, 2).contiguous().float()
            if geometry is not None:
                pixels = affine_resample(pixels, geometry[chunk].to(images.device))
            if operations is not None:
                pixels = rand_augment(pixels, operations[chunk], self.spec.rand_augment)
            if quality is not None:
                pixels = quality[chunk].apply(pixels)
            matrix = None if color is None else color[chunk].to(images.device)
            for first in range(0, channels, 3):
                result[chunk, first : first + 3] = self._colored(pixels[:, first : first + 3], matrix)
        return result

    def _boxes(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Return the erased boxes (B, 4): top, bottom, left, right, in pixels; empty where nothing is erased."""
        erased = torch.rand(count, generator=generator) < self.spec.erase
        area = torch.empty(count).uniform_(*ERASE_AREA, generator=generator) * size**2
        low, high = (math.log(bound) for bound in ERASE_ASPECT)
        aspect = torch.empty(count).uniform_(low, high, generator=generator).exp()
        height, width = ((area * ratio).sqrt().round().clamp(1, size) for ratio in (aspect, 1 / aspect))
        top, left = ((torch.rand(count, generator=generator) * (size - side + 1)).floor() for side in (height, width))
        boxes = torch.stack([top, top + height, left, left + width], dim=1)
        return boxes * erased[:, None]

    def _drop(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return the draws (B,) that decide which faces and bodies are blackened; None: none."""
        return torch.rand(count, generator=generator) if self.spec.drop_face or self.spec.drop_body else None

    def _dropped(self, images: Tensor, draw: Tensor) -> Tensor:
        """Return the images with faces or bodies blackened, never both of an image."""
        has_face, has_body = ((half != 0).flatten(1).any(dim=1) for half in (images[..., :3], images[..., 3:]))
        drop_face = (draw < self.spec.drop_face) & has_body
        drop_body = (draw >= 1 - self.spec.drop_body) & has_face & ~drop_face
        blackened = torch.stack([drop_face, drop_body], dim=1).repeat_interleave(3, dim=1)
        return images.masked_fill(blackened[:, None, None, :], 0)

    def _colored(self, pixels: Tensor, color: Tensor | None) -> Tensor:
        """Return pixels after color change and normalization in one product, clamped at the normalized bounds of [0, 1]."""
        scale, shift = (values.view(3, 1) for values in _affine_of(pixels, self.mean, self.std))
        if color is None:
            return pixels.mul_(scale[..., None]).add_(shift[..., None])
        flat = torch.baddbmm(shift, color * scale, pixels.flatten(2))
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            flat[:, channel].clamp_(-mean / std, (1 - mean) / std)
        return flat.view_as(pixels)

    def _geometry(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return matrices (B, 2, 3), output to input in grid_sample's coordinates (side 2); None: no change."""
        spec = self.spec
        if not (spec.flip or spec.rotate or spec.scale or spec.shift):
            return None
        mirror = torch.where(torch.rand(count, generator=generator) < spec.flip, -1.0, 1.0)
        angle = _either_way(count, math.radians(spec.rotate), generator)
        scale = 1 + _either_way(count, spec.scale, generator)
        shift_x, shift_y = (_either_way(count, 2 * spec.shift, generator) for _ in range(2))
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        rows = [
            torch.stack([mirror * cosine, -sine, shift_x], dim=1),
            torch.stack([mirror * sine, cosine, shift_y], dim=1),
        ]
        return torch.stack(rows, dim=1)

    def _color(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return matrices (B, 3, 3), RGB to RGB; None: no change."""
        spec = self.spec
        if not (spec.brightness or spec.saturation or spec.hue or spec.grey):
            return None
        brightness = 1 + _either_way(count, spec.brightness, generator)
        saturation = 1 + _either_way(count, spec.saturation, generator)
        saturation = torch.where(torch.rand(count, generator=generator) < spec.grey, 0.0, saturation)
        angle = _either_way(count, 2 * math.pi * spec.hue, generator)
        chroma = torch.zeros(count, 3, 3)
        chroma[:, 0, 0] = 1
        chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * angle.cos()
        chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * angle.sin(), saturation * angle.sin()
        matrix: Tensor = brightness.view(-1, 1, 1) * (torch.linalg.inv(YIQ) @ chroma @ YIQ)
        return matrix


def affine_resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Return the images, resampled bilinearly with repeated edges.

    The grid is that of torch's affine_grid, computed in a quarter of its time.

    Args:
        images: (B, C, S, S) float.
        matrix: (B, 2, 3), from output to input coordinates, in which the side of an image is 2.
    """
    size = images.shape[-1]
    along = torch.linspace(-1 + 1 / size, 1 - 1 / size, size, device=images.device)
    grid = torch.empty(len(images), size, size, 2, device=images.device)
    for axis in (0, 1):
        across, down, shift = matrix[:, axis].unsqueeze(-1).unbind(1)
        torch.add((across * along + shift)[:, None, :], (down * along)[:, :, None], out=grid[..., axis])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _draw_operations(count: int, generator: torch.Generator) -> OperationDraw:
    """Draw the operations of `count` images.

    Args:
        count: the number of images.
        generator: a CPU generator, the source of all draws.
    """
    shape = (count, OPERATIONS_PER_IMAGE)
    operation = torch.randint(len(OPERATIONS), shape, generator=generator)
    return OperationDraw(operation, torch.randint(2, shape, generator=generator) * 2.0 - 1)


def rand_augment(images: Tensor, draw: OperationDraw, magnitude: float) -> Tensor:
    """Return the images after two random operations each (RandAugment).

    Cubuk, Zoph, Shlens, Le: RandAugment: Practical automated data augmentation with a reduced search space. CVPR workshops
    2020. The operations and their ranges are the paper's, without Identity and without Equalize, which has no cheap batched form.

    Args:
        images: (B, C, S, S) float, 0 to 255; C is 3 or 6, and both halves of six channels change alike.
        draw: the operations of these images.
        magnitude: strength of all operations, 0 to 10.
    """
    level = magnitude / MAX_MAGNITUDE
    for slot in range(OPERATIONS_PER_IMAGE):
        operation = draw.operation[:, slot]
        for index in sorted(set(operation.tolist())):
            rows = (operation == index).nonzero()[:, 0]
            sign = draw.sign[rows, slot].to(images.device)
            rows = rows.to(images.device)
            selected = images[rows]
            if OPERATIONS[index] in GEOMETRIC:
                changed = affine_resample(selected, _matrix(OPERATIONS[index], level * sign))
            else:
                rgb = selected.reshape(-1, 3, *selected.shape[2:])
                signs = sign.repeat_interleave(selected.shape[1] // 3)
                changed = apply_photometric(rgb, OPERATIONS[index], level, signs).reshape(selected.shape)
            images = images.index_copy(0, rows, changed)
    return images


def apply_photometric(images: Tensor, name: str, level: float, sign: Tensor) -> Tensor:
    """Return the images after one operation on their values.

    Args:
        images: (B, 3, S, S) float, 0 to 255.
        name: one of `PHOTOMETRIC`.
        level: strength, 0 to 1.
        sign: (B,) -1 or 1, whether a factor falls below 1 or rises above it.
    """
    if name == "posterize":  # 8 to 4 bits remain
        step = 2.0 ** round(4 * level)
        return (images / step).floor() * step
    if name == "solarize":
        return torch.where(images >= 256 * (1 - level), 255 - images, images)
    if name == "autocontrast":
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        return torch.where(high > low, (images - low) * 255 / (high - low).clamp(min=1e-6), images)
    gray = (images * torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if name == "brightness":
        base = torch.zeros_like(images)
    elif name == "contrast":
        base = gray.mean((2, 3), keepdim=True).expand_as(images)
    elif name == "color":
        base = gray.expand_as(images)
    else:
        base = _blurred(images)
    factor = (1 + MAX_FACTOR_CHANGE * level * sign).view(-1, 1, 1, 1)
    return torch.lerp(base, images, factor.expand_as(images)).clamp(0, 255)


def _matrix(name: str, level: Tensor) -> Tensor:
    """Return the (B, 2, 3) matrices, output to input, of one geometric operation at the signed levels (B,)."""
    matrix = torch.eye(2, 3, device=level.device).repeat(len(level), 1, 1)
    if name == "rotate":
        angle = math.radians(MAX_ROTATION) * level
        matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
        matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    elif name.startswith("shear"):
        row, column = (0, 1) if name == "shear_x" else (1, 0)
        matrix[:, row, column] = MAX_SHEAR * level
    else:
        matrix[:, 0 if name == "translate_x" else 1, 2] = 2 * MAX_TRANSLATION * level
    return matrix


def _blurred(images: Tensor) -> Tensor:
    """Return the images, smoothed by PIL's 3 x 3 kernel (1 around 5, over 13); the outermost pixels stay."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3)
    return blurred


def _erase_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """Set one box of each image to 0, in place, and return the images.

    Args:
        images: (B, C, S, S) float, normalized, so that 0 is the mean color.
        boxes: (B, 4) top, bottom, left, right, in pixels; an empty box changes nothing.
    """
    side = torch.arange(images.shape[-1], device=images.device)
    top, bottom, left, right = boxes.to(images.device)[:, :, None].unbind(1)
    rows, columns = (side >= top) & (side < bottom), (side >= left) & (side < right)
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _either_way(count: int, magnitude: float, generator: torch.Generator) -> Tensor:
    """Return (count,) values, uniform between -magnitude and +magnitude."""
    return (torch.rand(count, generator=generator) * 2 - 1) * magnitude


def _affine_of(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """Return scale and shift, (3,) each, with scale * x + shift = (x / 255 - mean) / std."""
    means, stds = (torch.tensor(values, dtype=torch.float32, device=images.device) for values in (mean, std))
    return 1 / (255 * stds), -means / stds
