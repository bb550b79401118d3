"""Heads: features in, logits out, and what the logits say about age. One file a head."""

from typing import Any

from agebench.errors import UserError
from agebench.models.heads.base import AgeEstimate, Head
from agebench.registry.builtin import heads

__all__ = ["AgeEstimate", "Head", "create", "heads", "names"]


def names() -> list[str]:
    """All heads that can be created."""
    return heads.names()


def create(name: str, *, in_features: int, ages: tuple[int, int] = (0, 100), **options: Any) -> Head:
    """The head `name` for features of width `in_features` and ages from `ages[0]` to `ages[1]`, both included.

    Raises:
        UserError: no such head, or an option it does not have.
    """
    kind: type[Head] = heads.get(name)
    try:
        return kind(in_features, ages, **options)
    except TypeError as error:
        raise UserError(f"head '{name}': {error}") from error
