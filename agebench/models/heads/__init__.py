"""Heads: features in, logits out, and what the logits say about age. One file a head."""

from typing import Any

from agebench.errors import UserError
from agebench.models.heads.base import AgeEstimate, Head, average_estimates
from agebench.registry.builtin import heads

__all__ = ["AgeEstimate", "Head", "average_estimates", "create", "heads", "names"]


def names() -> list[str]:
    """All heads that can be created."""
    return heads.names()


def create(name: str, *, in_features: int, ages: tuple[int, int] = (0, 100), **options: Any) -> Head:
    """The head `name` for features of width `in_features` and ages from `ages[0]` to `ages[1]`, both included.

    Raises:
        UserError: no such head, an option it does not have, or a value that it cannot take, such as one that asks for more memory
            than there is.
    """
    kind: type[Head] = heads.get(name)
    try:
        return kind(in_features, ages, **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"head '{name}': {reason}") from error
