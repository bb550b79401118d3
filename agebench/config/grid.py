"""Grids of settings: `--grid train.lr=1e-3,1e-4 --grid seed=0,1` are four runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from agebench.config.toml_io import Settings, deep_merge, parse_setting
from agebench.errors import UserError

MAX_POINTS = 1000
_PAIRS = {"[": "]", "{": "}", '"': '"', "'": "'"}


@dataclass(frozen=True)
class GridPoint:
    """One combination of values.

    Attributes:
        values: (key, value) of each --grid option, as the user wrote them.
        settings: the same as a table of settings.
    """

    values: tuple[tuple[str, str], ...]
    settings: Settings

    @property
    def label(self) -> str:
        """The combination in one line, for example `train.lr=1e-3 seed=0`."""
        return " ".join(f"{key}={value}" for key, value in self.values)

    def sets(self, key: str) -> bool:
        """Return whether the grid varies `key`.

        Args:
            key: a dotted key, such as `model.name`.
        """
        return any(name == key for name, _ in self.values)


def parse_grid(options: Sequence[str]) -> list[GridPoint]:
    """Return every combination of the values of --grid options; without options, one empty combination.

    Args:
        options: KEY=VALUE,VALUE,... each; commas within brackets and quotes separate nothing.

    Raises:
        UserError: an option has no `=` or no value, a key is given twice, or there are more than `MAX_POINTS` combinations.
    """
    axes: dict[str, list[str]] = {}
    for option in options:
        key, sign, text = (part.strip() for part in option.partition("="))
        values = list(dict.fromkeys(value for value in split_values(text) if value))
        if not sign or not key or not values:
            raise UserError(f"--grid {option}: write it as key=value,value, e.g. --grid train.lr=1e-3,1e-4")
        if key in axes:
            raise UserError(f"--grid {key}: given twice; list all values in one option, separated by commas")
        axes[key] = values
    n_points = math.prod(map(len, axes.values()))
    if n_points > MAX_POINTS:
        raise UserError(f"--grid: {n_points:,} combinations; at most {MAX_POINTS:,} are allowed. Vary fewer values")
    points = []
    for combination in product(*axes.values()):
        settings: Settings = {}
        for key, value in zip(axes, combination, strict=True):
            settings = deep_merge(settings, parse_setting(f"{key}={value}", option="--grid"))
        points.append(GridPoint(tuple(zip(axes, combination, strict=True)), settings))
    return points


def split_values(text: str) -> list[str]:
    """Split text at the commas outside of brackets and quotes.

    Args:
        text: for example `1e-3,1e-4` or `["utk"],["utk","fgnet"]`.
    """
    values, closers = [""], ""
    for letter in text:
        if closers and letter == closers[-1]:
            closers = closers[:-1]
        elif letter in _PAIRS and closers[-1:] not in ("'", '"'):
            closers += _PAIRS[letter]
        elif letter == "," and not closers:
            values.append("")
            continue
        values[-1] += letter
    return [value.strip() for value in values]
