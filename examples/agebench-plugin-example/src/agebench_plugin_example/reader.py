"""Draws discs: each `subject` has three of them, at three ages."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agebench.plugins import Reader, Samples, validate_samples

SIDE = 64
SHADES = {"dark": 40, "light": 120}


def radius(age: float) -> float:
    """Radius of a disc, as a share of the image's side."""
    return 0.1 + 0.003 * age


class DiscReader(Reader):
    """Images without files: `path` has all that is needed to draw one.

    Args:
        root: nothing; there are no files.
        groups: as the card has them.
        count: how many discs.
    """

    needs_files = False

    def __init__(self, root: Path | None, groups: tuple[str, ...] = (), *, count: int = 300) -> None:
        super().__init__(root, groups)
        self.count = count

    def read(self) -> Samples:
        """`count` samples, the same ones every time."""
        rng = np.random.default_rng(5)
        ages = np.round(rng.uniform(1, 90, self.count), 1)
        shades = rng.choice(list(SHADES), self.count)
        names = [f"{number:04}" for number in range(self.count)]
        table = pd.DataFrame(
            {
                "sample_id": names,
                "path": [f"{name}_{age}_{shade}" for name, age, shade in zip(names, ages, shades, strict=True)],
                "age": ages,
                "shade": shades,
                "subject": [f"{number // 3:03}" for number in range(self.count)],
            }
        )
        return validate_samples(table, groups=self.groups, source="example-discs")

    def image_bytes(self, path: str) -> bytes:
        """A PNG: a bright disc on a ground, with a little noise."""
        name, age, shade = path.split("_")
        middle = (np.arange(SIDE) + 0.5) / SIDE - 0.5
        inside = middle[:, None] ** 2 + middle[None, :] ** 2 < radius(float(age)) ** 2
        noise = np.random.default_rng(int(name)).integers(-5, 6, (SIDE, SIDE, 3))
        pixels = np.where(inside[..., None], 220, SHADES[shade]) + noise
        encoded = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(encoded, "PNG")
        return encoded.getvalue()

    def version_token(self, path: str) -> str:
        """The path determines the image, so the image changes only with it."""
        return path
