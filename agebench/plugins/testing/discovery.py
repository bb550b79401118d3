"""Every check that there is to run, by the names of the plugins."""

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
    """One contract check that waits to be run.

    Attributes:
        kind: dataset, model, head or detector.
        name: the plugin's.
        run: raises ContractViolation, or says what was checked.
    """

    kind: str
    name: str
    run: Callable[[], str]


def find_checks(names: Sequence[str] = (), registry: Iterable[Path] = ()) -> list[Check]:
    """The checks of all plugins called one of `names`, of every kind; without names, of every plugin there is.

    A plugin that cannot be loaded has a check too: it raises the reason.

    Raises:
        UserError: nothing is called one of the names.
    """
    found = load_catalog(registry)
    every = [
        *_of("dataset", found.datasets, lambda name: check_dataset(found.datasets.get(name))),
        *_of("model", found.models, lambda name: check_model(found.models.get(name))),
        *_of("head", builtin.heads, check_head),
        *_of("detector", builtin.detectors, check_detector),
    ]
    known = {check.name for check in every}
    for name in names:
        if name not in known:
            raise UserError(f"no dataset, model, head or detector called '{name}'{did_you_mean(name, sorted(known))}")
    return [check for check in every if not names or check.name in names]


def _of(kind: str, registry: Registry[Any], check: Callable[[str], str]) -> list[Check]:
    return [Check(kind, name, partial(check, name)) for name in sorted({*registry.names(), *registry.broken()})]
