"""Generated faces: a dataset without files, whose truth is known. For demonstrations and for testing the tests."""

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

# Raise it when the same numbers give another picture than before.
VERSION = 1
IMAGES_PER_PERSON = 2
BIAS_GROUPS = {"gender": ("female", "male"), "race": tuple(SKIN)}


@lru_cache(maxsize=2048)
def _place(stamp: str, path: str) -> list[bytes]:
    """Where a drawn picture stays for a while: every one is read twice, for its digest and for its face."""
    return []


class SynthReader(Reader):
    """`count` generated faces of `count / 2` people, two pictures each at different ages.

    Picture i depends on the seed and i alone. The skin tone stands in the column `race`: light, medium, dark.

    Args:
        root: not used.
        groups: columns that fairness tables use.
        count: how many pictures.
        seed: decides everything.
        size: side of the pictures, pixels.
        blur: shift: standard deviation in pixels of a 200 px frame.
        lighting: shift: 0 to 1, how dark and one-sided the light is.
        palette: shift: 0 to 1, how faded the colours are.
        bias_group: whom to plant a bias against, as `race=dark` or `gender=female`; empty: nobody.
        bias_strength: 0 to 1: how much of such a person's drawn age is chance. At 1 the picture says nothing of the age.

    Raises:
        UserError: an option is out of its range.
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
        """All samples; nothing is drawn yet."""
        return validate_samples(self._table, groups=self.groups, source="synth")

    def image_bytes(self, path: str) -> bytes:
        """The picture as PNG, drawn when it is first asked for.

        Raises:
            OSError: no such picture.
        """
        name = path.removesuffix(".png").removeprefix("synth-")
        if not name.isdigit() or int(name) >= self.count:
            raise FileNotFoundError(2, "no such picture", path)
        place = _place(self.version_token(path), path)
        if not place:
            place.append(self._draw(int(name)))
        return place[0]

    def _draw(self, number: int) -> bytes:
        person = self._person(number // IMAGES_PER_PERSON)
        generator = np.random.default_rng([self.seed, 2, number])
        age = float(self._table["age"].iloc[number])
        chance = generator.uniform(1, 90)
        if self.bias_column and getattr(person, {"race": "tone"}.get(self.bias_column, "gender")) == self.bias_value:
            age = (1 - self.bias_strength) * age + self.bias_strength * chance
        file = io.BytesIO()
        draw_face(person, age, self.conditions, generator, self.size).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def version_token(self, path: str) -> str:
        """Changes with any option but the number of pictures."""
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
        numbers = np.arange(self.count)
        people = numbers // IMAGES_PER_PERSON
        persons = [self._person(person) for person in range(int(people[-1]) + 1)]
        return pd.DataFrame(
            {
                "sample_id": [f"synth-{number:06d}" for number in numbers],
                "path": [f"synth-{number:06d}.png" for number in numbers],
                "age": [self._age(number) for number in range(self.count)],
                "gender": [persons[person].gender for person in people],
                "race": [persons[person].tone for person in people],
                "subject": [f"{self.seed}-{person:06d}" for person in people],
            }
        )

    def _age(self, number: int) -> float:
        """Whole years, 1 to 90; young adults are the most frequent, as in every collected dataset."""
        generator = np.random.default_rng([self.seed, 1, number])
        young_adult = generator.random() < 0.5
        return float(np.clip(round(generator.normal(30, 10) if young_adult else generator.uniform(1, 90)), 1, 90))

    def _person(self, number: int) -> Person:
        generator = np.random.default_rng([self.seed, 0, number])
        tone = str(generator.choice(list(SKIN), p=[0.5, 0.28, 0.22]))
        return Person(
            gender=str(generator.choice(["female", "male"])),
            tone=tone,
            hair=int(generator.integers(0, len(HAIR) if tone == "light" else 2)),
            iris=int(generator.integers(0, len(IRIS))) if tone == "light" else 0,
            width=float(generator.normal(1, 0.04)),
            graying_rate=float(generator.normal(0, 4)),
            wrinkles_early=float(generator.normal(0, 3)),
            bald=bool(generator.random() < 0.15),
        )
