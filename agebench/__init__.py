"""agebench: benchmark facial age estimators across datasets, with subgroup metrics and confidence intervals.

The public names below are loaded on first use, so that `import agebench` needs neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from agebench import _deprecated
from agebench._version import __version__

TYPE_CHECKING = False  # typing is not imported, which takes as long as all the rest
if TYPE_CHECKING:
    from typing import Any

    from agebench.api.data import Dataset, audit, explore, list_datasets, load_dataset
    from agebench.api.experiments import EvalResult, RunResult, evaluate, leaderboard, run, stress
    from agebench.api.models import create_model, list_heads, list_models, load, load_estimator
    from agebench.api.prediction_files import compare_files, score_files
    from agebench.api.scoring import ComparisonReport, ScoreReport, compare, score

__all__ = [
    "ComparisonReport",
    "Dataset",
    "EvalResult",
    "RunResult",
    "ScoreReport",
    "__version__",
    "audit",
    "compare",
    "compare_files",
    "create_model",
    "evaluate",
    "explore",
    "leaderboard",
    "list_datasets",
    "list_heads",
    "list_models",
    "load",
    "load_dataset",
    "load_estimator",
    "run",
    "score",
    "score_files",
    "stress",
]

_MODULES = {
    "data": ("Dataset", "audit", "explore", "list_datasets", "load_dataset"),
    "experiments": ("EvalResult", "RunResult", "evaluate", "leaderboard", "run", "stress"),
    "models": ("create_model", "list_heads", "list_models", "load", "load_estimator"),
    "prediction_files": ("compare_files", "score_files"),
    "scoring": ("ComparisonReport", "ScoreReport", "compare", "score"),
}
_LAZY = {name: f"agebench.api.{module}" for module, names in _MODULES.items() for name in names}

_deprecated.install()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'agebench' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallableModule(ModuleType):
    """A subpackage whose name is also a public function: calling it calls the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """The package; a subpackage that the import system binds under a public function's name stays callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LAZY and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
