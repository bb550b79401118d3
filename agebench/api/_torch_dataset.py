"""A map-style torch dataset over a dataset's images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset


class ImageAgeDataset(Dataset[tuple[Any, float]]):
    """Images and ages by row.

    Args:
        image: function that returns the RGB image of a row.
        ages: (N,) ages in years.
        transform: function of an image; None: the image itself.
    """

    def __init__(
        self, image: Callable[[int], Image.Image], ages: np.ndarray, transform: Callable[[Image.Image], Any] | None
    ) -> None:
        self._image, self._ages, self._transform = image, ages, transform

    def __len__(self) -> int:
        return len(self._ages)

    def __getitem__(self, index: int) -> tuple[Any, float]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        image = self._image(index)
        return (image if self._transform is None else self._transform(image)), float(self._ages[index])
