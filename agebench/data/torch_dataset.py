"""A torch dataset of prepared faces."""

import numpy as np
import torch

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples


class TorchFaceDataset(torch.utils.data.Dataset[tuple[torch.Tensor, float]]):
    """Faces and ages; each item is a uint8 tensor (3, size, size), RGB, and the age in years.

    Args:
        cache: the prepared faces.
        samples: the samples that the dataset contains, in order; each must have a face in `cache`.
    """

    def __init__(self, cache: FaceCache, samples: Samples) -> None:
        self.samples = samples
        self._pixels = cache.pixels
        self._rows = cache.rows(samples)
        self._ages = samples.table["age"].to_numpy()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        pixels = np.array(self._pixels[self._rows[index]])  # a copy, because the cache is read-only
        return torch.from_numpy(pixels).permute(2, 0, 1), float(self._ages[index])
