"""Features of a frozen backbone, computed once and cached.

All heads, seeds and runs with the same key share them.
"""

import hashlib
import json
import logging

import numpy as np
import torch
from torch import Tensor, nn

from agebench.config.cards.model import Architecture
from agebench.data.faces.cache import FaceCache
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import normalize
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.device import autocast
from agebench.utils.blocks import Blocks
from agebench.utils.io import write_error
from agebench.utils.locks import held
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

logger = logging.getLogger(__name__)

BATCH_SIZE = 128


class FeatureFlip:
    """Augmentation by flipping for features: those of the face or of its mirror image.

    Args:
        flip: the probability of the mirror image.
    """

    def __init__(self, flip: float) -> None:
        self.flip = flip

    def __call__(self, features: Tensor, generator: torch.Generator, batch_slice: tuple[int, int] = (0, 1)) -> Tensor:
        """Return one view (B, D) of each face.

        Args:
            features: (B, views, D).
            generator: a CPU generator, the source of all draws.
            batch_slice: (k, n): `features` is the k-th of n equal shards of a batch.
        """
        if features.shape[1] == 1:
            return features[:, 0]
        index, n_shards = batch_slice
        draws = torch.rand(len(features) * n_shards, generator=generator)[index * len(features) :][: len(features)]
        mirrored = (draws < self.flip).to(features.device)
        return torch.where(mirrored[:, None], features[:, 1], features[:, 0])


def model_views(batch: Tensor, card: Architecture, *, mirrored: bool = False) -> list[Tensor]:
    """Return the model's inputs for a batch, without augmentation.

    The faces come first, then their mirror images.

    Args:
        batch: (B, S, S, C) uint8 faces, or (B, views, D) features of a frozen backbone.
        card: the normalization of the faces.
        mirrored: whether to add the mirror images; features then need two views.

    Returns:
        One or two tensors, (B, C, S, S) float32 or (B, D).
    """
    if batch.dtype != torch.uint8:
        return list(batch.unbind(1)[: 2 if mirrored else 1])
    images = normalize(batch, card.mean, card.std)
    return [images, images.flip(3)] if mirrored else [images]


def frozen_features(
    model: AgeModel, faces: FaceCache, card: Architecture, *, mirrored: bool, device: torch.device, precision: str
) -> FaceCache:
    """Return a cache with float32 features (N, views, D) instead of pixels.

    The backbone is frozen, including its batch-normalization statistics. The key of the cache covers the backbone's weights, the
    faces, the normalization, the type of the device and the precision. An interrupted computation continues; of several processes
    with the same key one computes, and the others wait. Features that do not match their digest are recomputed.

    Args:
        model: the model; its backbone is moved to `device`.
        faces: the prepared faces.
        card: the normalization of the input.
        mirrored: whether the mirror image is a second view.
        device: where to compute.
        precision: "auto", "float32" or "bf16".

    Raises:
        AgebenchError: the cache cannot be written (a full disk); finished features are kept.
    """
    backbone = model.backbone.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    key_parts = [faces.key, card.backbone, card.mean, card.std, mirrored, device.type, precision, torch.__version__]
    folder = cache_home() / "features" / f"{faces.key}-{_digest(backbone, key_parts)}"
    views = 2 if mirrored else 1
    was_training = backbone.training
    backbone.eval()
    with torch.inference_mode(), autocast(device, precision):
        width = int(
            backbone(normalize(torch.from_numpy(np.array(faces.pixels[:1])).to(device), card.mean, card.std)).shape[1]
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", "computing features"):
            blocks = Blocks(folder / "features.f32", len(faces.pixels), views * width * 4, BATCH_SIZE)
            _complete(blocks, backbone, faces, card, views, device, precision)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        backbone.train(was_training)
    features = np.memmap(folder / "features.f32", np.float32, "r", shape=(len(faces.pixels), views, width))
    return FaceCache(features, faces.row_by_id, faces.rejected, folder.name)


def _complete(
    blocks: Blocks,
    backbone: nn.Module,
    faces: FaceCache,
    card: Architecture,
    views: int,
    device: torch.device,
    precision: str,
) -> None:
    """Compute the missing and the damaged blocks."""
    checked = blocks.check(label="checking features")
    rows = np.array(blocks.rows_in(checked.pending), dtype=np.int64)
    if checked.n_damaged:
        logger.warning(
            "%s: %d of %d blocks of features are damaged; the features of %s faces are recomputed",
            *(blocks.file, checked.n_damaged, len(blocks), f"{len(rows):,}"),
        )
    if not len(rows):
        return
    pixels = FaceDataset(faces.pixels, np.arange(len(faces.pixels)), np.zeros(len(faces.pixels), np.float32))
    with torch.inference_mode(), progress(total=len(rows), label="computing features", unit="img") as bar:
        # Batches equal blocks, because only the last block may be short.
        for block, (batch, _) in zip(checked.pending, iter_batches(pixels, rows, BATCH_SIZE, device), strict=True):
            images = normalize(batch, card.mean, card.std)
            with autocast(device, precision):
                outputs = [backbone(view) for view in (images, images.flip(3))[:views]]
            content = torch.stack([output.float() for output in outputs], dim=1).cpu().numpy()
            blocks.write(block, content.tobytes())
            bar.update(len(batch))


def _digest(backbone: nn.Module, key_parts: list[object]) -> str:
    digest = hashlib.sha256(json.dumps(key_parts).encode())
    for name, value in backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
