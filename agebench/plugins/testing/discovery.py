"""Find the contract checks of plugins by name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.plugins.testing.dataset import check_dataset
from agebench.plugins.testing.detector import check_detector
from agebench.plugins.testing.head import check_head
from agebench.plugins.testing.model import check_model
from agebench.registry import builtin
from agebench.registry.catalog import load_catalog
from agebench.registry.registry import Registry
from agebench.utils.text import did_you_mean


@dataclass(frozen=True)
class Check:
    """One contract check.

    Attributes:
        kind: dataset, model, head or detector.
        name: name of the plugin.
        run: function that returns a description of the checks, or raises ContractViolation.
    """

    kind: str
    name: str
    run: Callable[[], str]


def find_checks(names: Sequence[str] = (), registry: Iterable[Path] = ()) -> list[Check]:
    """Find the checks of plugins.

    The check of a plugin that cannot be loaded raises the reason.

    Args:
        names: names of plugins, of every kind; empty: all plugins.
        registry: further folders of cards.

    Returns:
        The checks.

    Raises:
        UserError: no plugin has one of the names.
    """
    catalog = load_catalog(registry)
    checks = [
        *_checks_of("dataset", catalog.datasets, lambda name: check_dataset(catalog.datasets.get(name))),
        *_checks_of("model", catalog.models, lambda name: check_model(catalog.models.get(name))),
        *_checks_of("head", builtin.heads, check_head),
        *_checks_of("detector", builtin.detectors, check_detector),
    ]
    known = {check.name for check in checks}
    for name in names:
        if name not in known:
            raise UserError(f"no dataset, model, head or detector called '{name}'{did_you_mean(name, sorted(known))}")
    return [check for check in checks if not names or check.name in names]


def _checks_of(kind: str, registry: Registry[Any], check: Callable[[str], str]) -> list[Check]:
    return [Check(kind, name, partial(check, name)) for name in sorted({*registry.names(), *registry.broken()})]
