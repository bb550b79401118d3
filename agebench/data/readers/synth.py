"""Synthetic faces: a dataset without files and with known ground truth, for demonstrations and tests."""

import hashlib
import io
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from agebench.data.readers import Reader
from agebench.data.samples import Samples, validate_samples
from agebench.data.synthetic.renderer import HAIR, IRIS, SKIN, DomainShift, Person, draw_face
from agebench.errors import UserError

# Version of the images. Raise it when the same options give other images than before.
VERSION = 1
IMAGES_PER_PERSON = 2
BIAS_GROUPS = {"gender": ("female", "male"), "race": tuple(SKIN)}


@lru_cache(maxsize=2048)
def _cache_slot(version_token: str, path: str) -> list[bytes]:
    """Return a slot that caches one rendered image: each is read twice, for its digest and for its face."""
    return []


class SynthReader(Reader):
    """Reader for synthetic faces, which are rendered when they are read.

    There are two images per person, at different ages.

    Image i depends on the seed and i only. The column `race` is the skin tone: light, medium, dark.

    Args:
        root: unused.
        groups: columns for subgroup metrics.
        count: number of images.
        seed: seed of all images and labels.
        size: side of the images, pixels.
        blur: domain shift: standard deviation of a blur, pixels of a 200 px image.
        lighting: domain shift, 0 to 1: darkness and one-sidedness of the light.
        palette: domain shift, 0 to 1: desaturation of the colors.
        bias_group: group with an injected bias, as `race=dark` or `gender=female`; empty for none.
        bias_strength: 0 to 1, share of randomness in the visible age of that group; at 1 its images do not show the age.

    Raises:
        UserError: an option is out of range.
    """

    needs_files = False

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        count: int = 1500,
        seed: int = 1,
        size: int = 112,
        blur: float = 0.0,
        lighting: float = 0.0,
        palette: float = 0.0,
        bias_group: str = "",
        bias_strength: float = 0.0,
    ) -> None:
        super().__init__(None, groups)
        for option, value, low, high in (
            ("count", count, 1, 10_000_000),
            ("size", size, 16, 1024),
            ("blur", blur, 0, 20),
            ("lighting", lighting, 0, 1),
            ("palette", palette, 0, 1),
            ("bias_strength", bias_strength, 0, 1),
        ):
            if not low <= value <= high:
                raise UserError(f"synth: {option} = {value!r}: must lie between {low} and {high}")
        column, _, group = bias_group.partition("=")
        if bias_group and group not in BIAS_GROUPS.get(column, ()):
            known = ", ".join(f"{name}={member}" for name, members in BIAS_GROUPS.items() for member in members)
            raise UserError(f"synth: bias_group = {bias_group!r}: must be empty or one of {known}")
        self.count, self.seed, self.size = count, seed, size
        self.conditions = DomainShift(blur, lighting, palette)
        self.bias_column, self.bias_value, self.bias_strength = column, group, bias_strength

    def read(self) -> Samples:
        """Return all samples; no image is rendered yet."""
        return validate_samples(self._table, groups=self.groups, source="synth")

    def image_bytes(self, path: str) -> bytes:
        """Render an image as PNG.

        Args:
            path: path of the image, from the samples' column `path`.

        Raises:
            OSError: the image does not exist.
        """
        name = path.removesuffix(".png").removeprefix("synth-")
        if not name.isdigit() or int(name) >= self.count:
            raise FileNotFoundError(2, "no such image", path)
        slot = _cache_slot(self.version_token(path), path)
        if not slot:
            slot.append(self._render(int(name)))
        return slot[0]

    def _render(self, index: int) -> bytes:
        person = self._person(index // IMAGES_PER_PERSON)
        rng = np.random.default_rng([self.seed, 2, index])
        age = float(self._table["age"].iloc[index])
        random_age = rng.uniform(1, 90)
        if self.bias_column and getattr(person, {"race": "tone"}.get(self.bias_column, "gender")) == self.bias_value:
            age = (1 - self.bias_strength) * age + self.bias_strength * random_age
        file = io.BytesIO()
        draw_face(person, age, self.conditions, rng, self.size).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def version_token(self, path: str) -> str:
        """Return a text that changes with any option except the number of images."""
        options = (
            VERSION,
            self.seed,
            self.size,
            self.conditions,
            self.bias_column,
            self.bias_value,
            self.bias_strength,
        )
        return hashlib.sha256(repr(options).encode()).hexdigest()[:16]

    @cached_property
    def _table(self) -> pd.DataFrame:
        indices = range(self.count)
        person_indices = [index // IMAGES_PER_PERSON for index in indices]
        people = [self._person(index) for index in range(person_indices[-1] + 1)]
        return pd.DataFrame(
            {
                "sample_id": [f"synth-{index:06d}" for index in indices],
                "path": [f"synth-{index:06d}.png" for index in indices],
                "age": [self._age(index) for index in indices],
                "gender": [people[index].gender for index in person_indices],
                "race": [people[index].tone for index in person_indices],
                "subject": [f"{self.seed}-{index:06d}" for index in person_indices],
            }
        )

    def _age(self, index: int) -> float:
        """Draw an age in whole years, 1 to 90; young adults are the most frequent, as in collected datasets."""
        rng = np.random.default_rng([self.seed, 1, index])
        is_young_adult = rng.random() < 0.5
        return float(np.clip(round(rng.normal(30, 10) if is_young_adult else rng.uniform(1, 90)), 1, 90))

    def _person(self, index: int) -> Person:
        rng = np.random.default_rng([self.seed, 0, index])
        tone = str(rng.choice(list(SKIN), p=[0.5, 0.28, 0.22]))
        return Person(
            gender=str(rng.choice(["female", "male"])),
            tone=tone,
            hair=int(rng.integers(0, len(HAIR) if tone == "light" else 2)),
            iris=int(rng.integers(0, len(IRIS))) if tone == "light" else 0,
            width=float(rng.normal(1, 0.04)),
            graying_rate=float(rng.normal(0, 4)),
            wrinkles_early=float(rng.normal(0, 3)),
            bald=bool(rng.random() < 0.15),
        )
