"""Random changes of training images, a whole batch at once, on the device that trains."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.config.cards.base import Augment

# RGB -> luma and the two chroma axes of YIQ (FCC NTSC, 1953). Saturation scales the chroma plane, hue turns it.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

CPU_CHUNK = 8


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """(B, S, S, C) uint8 -> (B, C, S, S) float32 in channels_last layout: (x / 255 - mean) / std; C is 3 or 6."""
    # NHWC as it lies in memory is channels_last already: no pixel moves.
    scale, shift = (values.repeat(images.shape[-1] // 3) for values in _affine_of(images, mean, std))
    return torch.addcmul(shift, images, scale).permute(0, 3, 1, 2)


class Augmenter:
    """uint8 faces -> normalised training images.

    Each image is flipped, turned, zoomed and moved by one bilinear resampling (edges repeat), then its brightness,
    saturation and hue change by one 3 x 3 matrix. Hue is a rotation of the chroma plane of YIQ, not of HSV's circle: it
    keeps luma, and it is linear. Values are cut to [0, 1] once, at the end.

    Args:
        spec: the magnitudes; one that is 0 costs nothing.
        mean: of the normalisation, by channel, for pixels in [0, 1].
        std: likewise.
    """

    def __init__(self, spec: Augment, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.spec, self.mean, self.std = spec, mean, std

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
        """(B, S, S, C) uint8 -> (B, C, S, S) float32, channels_last. All draws come from `generator`, a CPU one.

        Of six channels three are the face and three the body; both change alike, and one of them may be blackened. `share`
        (k, n): the images are the k-th of n equal parts of a batch, and change as they would in the whole one.
        """
        own = slice(share[0] * len(images), (share[0] + 1) * len(images))
        geometry, colour, drop = (
            None if drawn is None else drawn[own]
            for drawn in (
                draw(len(images) * share[1], generator) for draw in (self._geometry, self._colour, self._drop)
            )
        )
        if drop is not None and images.shape[-1] > 3:
            images = self._dropped(images, drop.to(images.device))
        if geometry is None and colour is None:
            return normalize(images, self.mean, self.std)
        count, size, _, channels = images.shape
        result = torch.empty(count, channels, size, size, device=images.device, memory_format=torch.channels_last)
        # On a CPU a few images at a time: what stands between the steps then stays in its cache (twice as fast at 128 px).
        step = CPU_CHUNK if images.device.type == "cpu" else count
        for start in range(0, count, step):
            part = slice(start, start + step)
            pixels = images[part].permute(0, 3, 1, 2).contiguous().float()
            if geometry is not None:
                pixels = affine_resample(pixels, geometry[part].to(images.device))
            turned = None if colour is None else colour[part].to(images.device)
            for first in range(0, channels, 3):
                result[part, first : first + 3] = self._coloured(pixels[:, first : first + 3], turned)
        return result

    def _drop(self, count: int, generator: torch.Generator) -> Tensor | None:
        """(B,) what decides which faces and bodies are blackened; None: none."""
        return torch.rand(count, generator=generator) if self.spec.drop_face or self.spec.drop_body else None

    def _dropped(self, images: Tensor, draw: Tensor) -> Tensor:
        """Blacken faces or bodies, never both of an image."""
        face, body = ((half != 0).flatten(1).any(dim=1) for half in (images[..., :3], images[..., 3:]))
        no_face = (draw < self.spec.drop_face) & body
        no_body = (draw >= 1 - self.spec.drop_body) & face & ~no_face
        gone = torch.stack([no_face, no_body], dim=1).repeat_interleave(3, dim=1)
        return images.masked_fill(gone[:, None, None, :], 0)

    def _coloured(self, pixels: Tensor, colour: Tensor | None) -> Tensor:
        """Colour and normalisation in one product; what would leave [0, 1] is cut at the normalised bounds."""
        scale, shift = (values.view(3, 1) for values in _affine_of(pixels, self.mean, self.std))
        if colour is None:
            return pixels.mul_(scale[..., None]).add_(shift[..., None])
        flat = torch.baddbmm(shift, colour * scale, pixels.flatten(2))
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            flat[:, channel].clamp_(-mean / std, (1 - mean) / std)
        return flat.view_as(pixels)

    def _geometry(self, count: int, generator: torch.Generator) -> Tensor | None:
        """(B, 2, 3) output -> input in grid_sample's coordinates, where the image's side is 2; None: nothing to do."""
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

    def _colour(self, count: int, generator: torch.Generator) -> Tensor | None:
        """(B, 3, 3) RGB -> RGB; None: nothing to do."""
        spec = self.spec
        if not (spec.brightness or spec.saturation or spec.hue or spec.grey):
            return None
        brightness = 1 + _either_way(count, spec.brightness, generator)
        saturation = 1 + _either_way(count, spec.saturation, generator)
        saturation = torch.where(torch.rand(count, generator=generator) < spec.grey, 0.0, saturation)
        turn = _either_way(count, 2 * math.pi * spec.hue, generator)
        chroma = torch.zeros(count, 3, 3)
        chroma[:, 0, 0] = 1
        chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * turn.cos()
        chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * turn.sin(), saturation * turn.sin()
        mixed: Tensor = brightness.view(-1, 1, 1) * (torch.linalg.inv(YIQ) @ chroma @ YIQ)
        return mixed


def affine_resample(images: Tensor, matrix: Tensor) -> Tensor:
    """`images` (B, C, S, S) at the places that `matrix` (B, 2, 3) says, output -> input, where the image's side is 2.

    Bilinear, edges repeated. The grid is affine_grid's, made in a quarter of its time.
    """
    size = images.shape[-1]
    along = torch.linspace(-1 + 1 / size, 1 - 1 / size, size, device=images.device)
    grid = torch.empty(len(images), size, size, 2, device=images.device)
    for axis in (0, 1):
        across, down, shift = matrix[:, axis].unsqueeze(-1).unbind(1)
        torch.add((across * along + shift)[:, None, :], (down * along)[:, :, None], out=grid[..., axis])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _either_way(count: int, magnitude: float, generator: torch.Generator) -> Tensor:
    """(count,) uniform between -magnitude and +magnitude."""
    return (torch.rand(count, generator=generator) * 2 - 1) * magnitude


def _affine_of(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """(3,) scale and shift with scale * x + shift = (x / 255 - mean) / std."""
    means, stds = (torch.tensor(values, dtype=torch.float32, device=images.device) for values in (mean, std))
    return 1 / (255 * stds), -means / stds
