"""Age heads: features -> logits -> age estimates."""

from typing import Any

from agebench.errors import UserError
from agebench.models.heads.base import AgeEstimate, Head, average_estimates
from agebench.registry.builtin import heads

__all__ = ["AgeEstimate", "Head", "average_estimates", "create", "heads", "names"]


def names() -> list[str]:
    """Return the names of all registered heads."""
    return heads.names()


def create(name: str, *, in_features: int, ages: tuple[int, int] = (0, 100), **options: Any) -> Head:
    """Create a head by name.

    Args:
        name: the registered name of the head.
        in_features: width of the backbone's features.
        ages: first and last age in whole years, both included.
        options: the head's own options.

    Raises:
        UserError: the head is not registered, does not have an option, or does not accept its value, such as one that needs
            more memory than is available.
    """
    head_class: type[Head] = heads.get(name)
    try:
        return head_class(in_features, ages, **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"head '{name}': {reason}") from error
