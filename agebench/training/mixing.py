"""Mixup and CutMix of a batch of training images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agebench.training import distributed
from agebench.training.dataloader import derive_seed


@dataclass(frozen=True)
class Mix:
    """Mixture of each image of a batch of B with a partner image of the same batch.

    Attributes:
        partner: (B,) int64, the index of the image that is mixed into each image.
        weight: the share of the image itself, 0 to 1; the partner has the rest.
        box: (top, bottom, left, right) pixels that CutMix replaces by the partner's; None for mixup.
    """

    partner: Tensor
    weight: float
    box: tuple[int, int, int, int] | None

    def apply(self, images: Tensor) -> Tensor:
        """Return the mixed images of this process's shard.

        Args:
            images: (B / processes, C, S, S) float, this process's shard of the batch. A run over several processes gathers
                the whole batch, because a partner may belong to another process.
        """
        start = distributed.get_rank() * len(images)
        own_partner = self.partner[start : start + len(images)].to(images.device)
        partners = distributed.gather_batch(images.contiguous())[own_partner]
        if self.box is None:
            return torch.lerp(partners, images, self.weight).contiguous(memory_format=torch.channels_last)
        top, bottom, left, right = self.box
        mixed = images.clone(memory_format=torch.channels_last)
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed


def draw_mix(count: int, size: int, *, mixup: float, cutmix: float, seed: int) -> Mix | None:
    """Draw the mix of one batch, a pure function of the arguments.

    Mixup: Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization. ICLR 2018. CutMix: Yun, Han, Oh, Chun,
    Choe, Yoo: CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features. ICCV 2019, section 3.1.
    One weight is drawn per batch, as in the authors' code; where both are on, each batch uses one of them with equal
    probability.

    Args:
        count: the number of images in the batch of all processes.
        size: the side of the images, pixels.
        mixup: alpha of the Beta distribution of mixup; 0 switches it off.
        cutmix: alpha of the Beta distribution of CutMix; 0 switches it off.
        seed: seed of all draws.
    """
    if not mixup and not cutmix:
        return None
    rng = np.random.default_rng(derive_seed(seed, "mix"))
    use_cutmix = bool(cutmix) and (not mixup or rng.random() < 0.5)
    weight = float(rng.beta(cutmix, cutmix) if use_cutmix else rng.beta(mixup, mixup))
    partner = torch.from_numpy(rng.permutation(count))
    if not use_cutmix:
        return Mix(partner, weight, None)
    half = size * math.sqrt(1 - weight) / 2
    center_y, center_x = rng.uniform(0, size, 2)
    top, bottom, left, right = (
        int(np.clip(round(edge), 0, size))
        for edge in (center_y - half, center_y + half, center_x - half, center_x + half)
    )
    return Mix(partner, 1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right))
