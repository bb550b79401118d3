"""Module paths and names of version 0.1 that plugins and scripts import. They work with a DeprecationWarning in this version.

A finder at the front of `sys.meta_path` serves the old module paths, and adds old names to modules that kept their path.
Nothing is imported before an old path or name is used.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

TYPE_CHECKING = False  # typing is not imported, which takes as long as all the rest of `import agebench`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any, TypeVar

    ClassT = TypeVar("ClassT", bound=type)

# Old module -> new module. The submodules of an old package are found by the longest entry that is a prefix of their path.
MODULES = {
    "agebench.testing": "agebench.plugins.testing",
    "agebench.testing.breach": "agebench.plugins.testing.violation",
    "agebench.testing.find": "agebench.plugins.testing.discovery",
    "agebench.pytest_plugin": "agebench.plugins.pytest_plugin",
    "agebench.scaffold": "agebench.plugins.scaffold",
    "agebench.registry.cards": "agebench.config.cards.base",
    "agebench.registry.external": "agebench.config.cards.external",
    "agebench.registry.protocol": "agebench.config.cards.protocol",
    "agebench.registry.catalogue": "agebench.registry.catalog",
    "agebench.registry.plugins": "agebench.registry.registry",
    "agebench.data.detectors": "agebench.data.faces.detectors.base",
    "agebench.data.detect": "agebench.data.faces.detectors.dlib",
    "agebench.data.images": "agebench.data.image_io",
    "agebench.data.readers.ages": "agebench.data.readers.age_parsing",
    "agebench.data.readers.common": "agebench.data.readers.base",
    "agebench.data.readers.csv": "agebench.data.readers.table",
    "agebench.data.readers.facebase": "agebench.data.readers.paplham",
    "agebench.data.readers.labels": "agebench.data.readers.labelled",
    "agebench.data.readers.points": "agebench.data.readers.landmarks",
    "agebench.data.readers.tables": "agebench.data.readers.table_io",
    "agebench.data.readers.text": "agebench.data.readers.patterns",
    "agebench.models.heads.distribution": "agebench.models.heads._distribution",
    "agebench.models.heads.normalised": "agebench.models.heads.minmax_regression",
    "agebench.models.heads.scaled": "agebench.models.heads._standardized",
    "agebench.models.external": "agebench.estimators.external",
    "agebench.models.external.contract": "agebench.estimators.external.io_spec",
    "agebench.models.external.estimate": "agebench.estimators.external.base",
    "agebench.evaluation": "agebench.metrics",
    "agebench.evaluation.predictions": "agebench.metrics.prediction_format",
    "agebench.evaluation.reading": "agebench.metrics.prediction_io",
    "agebench.engine": "agebench.training",
    "agebench.engine.trained": "agebench.estimators.trained",
    "agebench.engine.predict": "agebench.training.prediction",
    "agebench.engine.train": "agebench.training.trainer",
    "agebench.deploy": "agebench.inference",
    "agebench.files": "agebench.utils.io",
    "agebench.paths": "agebench.utils.paths",
    "agebench.progress": "agebench.utils.progress",
}

# Module (an old path of MODULES, or one that is unchanged) -> old name -> new name, in the module that replaces it, or
# in another one as "module:name".
NAMES: dict[str, dict[str, str]] = {
    "agebench.testing.breach": {"ContractBroken": "ContractViolation", "breach": "violation"},
    "agebench.registry.cards": {
        "Published": "agebench.config.cards.suite:PublishedResult",
        "AGE_BAND_COLUMN": "agebench.config.cards.dataset:AGE_BAND_COLUMN",
        "Architecture": "agebench.config.cards.model:Architecture",
        "Augment": "agebench.config.cards.model:Augment",
        "DatasetCard": "agebench.config.cards.dataset:DatasetCard",
        "ModelCard": "agebench.config.cards.model:ModelCard",
        "Recipe": "agebench.config.cards.model:Recipe",
        "SuiteCard": "agebench.config.cards.suite:SuiteCard",
        "Training": "agebench.config.cards.model:Training",
        "Variant": "agebench.config.cards.suite:Variant",
        "merge": "agebench.config.toml_io:deep_merge",
        "read_table": "agebench.config.toml_io:read_toml",
        "validated": "agebench.config.toml_io:validate_model",
    },
    "agebench.registry.catalogue": {"Catalogue": "Catalog", "catalogue": "load_catalog"},
    "agebench.registry.plugins": {"suggest": "agebench.utils.text:did_you_mean"},
    "agebench.registry.protocol": {"Rotation": "FoldAssignment"},
    "agebench.data.detectors": {
        "DEFAULT": "DEFAULT_DETECTOR",
        "Face": "Detection",
        "face_problem": "validate_detection",
        "find_faces": "detect_faces",
    },
    "agebench.data.detect": {"largest_points": "largest_face_landmarks"},
    "agebench.data.readers.common": {
        "finish": "to_samples",
        "translate": "agebench.data.readers.vocabulary:normalize_labels",
    },
    "agebench.data.readers.csv": {"CSVReader": "TableReader"},
    "agebench.data.readers.labels": {"PutAside": "RejectedRows"},
    "agebench.data.readers.tables": {
        "KNOWN": "STANDARD_COLUMNS",
        "find_tables": "find_label_tables",
        "our_columns": "rename_columns",
        "read_table": "read_label_table",
    },
    "agebench.data.readers.text": {"as_text": "to_text", "fill_in": "format_template"},
    "agebench.data.samples": {
        "GEOMETRY": "GEOMETRY_COLUMNS",
        "fingerprint": "dataset_fingerprint",
        "make_samples": "validate_samples",
        "quarantine": "rejected_rows",
    },
    "agebench.errors": {
        "DatasetMissing": "DatasetNotFoundError",
        "Diverged": "TrainingDivergedError",
        "ImageRefused": "ImageRejectedError",
    },
    "agebench.models.heads.normalised": {"NormalisedHead": "MinMaxRegressionHead"},
    "agebench.models.heads.scaled": {"ScaledHead": "StandardizedHead"},
    "agebench.evaluation.predictions": {"may_group": "is_group_candidate"},
    "agebench.evaluation.reading": {"Joined": "JoinedPredictions", "checked": "validate_file"},
    "agebench.evaluation.scoring": {"Options": "ScoreOptions", "score": "score_predictions"},
    "agebench.engine.trained": {"Trained": "TrainedEstimator"},
    "agebench.deploy.predictor": {"Face": "FacePrediction", "LEVEL": "DEFAULT_COVERAGE", "Seen": "ImageResult"},
}

_UNCHANGED = frozenset(NAMES) & {"agebench.data.samples", "agebench.errors"}


def install() -> None:
    """Serve the old paths and names from now on; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def renamed_methods(**new_names: str) -> Callable[[ClassT], ClassT]:
    """Decorate a base class whose methods were renamed: old calls and old overrides work with a warning.

    Args:
        new_names: old name of a method = its new name.

    Returns:
        The decorator.
    """

    def decorate(base: ClassT) -> ClassT:
        inherited = base.__init_subclass__

        def init_subclass(cls: type, **options: Any) -> None:
            inherited(**options)
            for old, new in new_names.items():
                if old in vars(cls) and new not in vars(cls):
                    _warn(f"{cls.__module__}.{cls.__qualname__}.{old}", new, stacklevel=4)
                    setattr(cls, new, vars(cls)[old])

        base.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment, arg-type]
        for old, new in new_names.items():
            setattr(base, old, _forwarding_method(base.__qualname__, old, new))
        return base

    return decorate


def _forwarding_method(owner: str, old: str, new: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _warn(f"{owner}.{old}", new, stacklevel=3)
        return getattr(self, new)(*args, **kwargs)

    return method


def _warn(old: str, new: str, *, stacklevel: int) -> None:
    message = f"{old} is deprecated and will be removed in the next version; use {new}."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def _new_module(name: str) -> str | None:
    """Return the module that replaces an old one, which may lie in an old package; None for any other."""
    old, rest = name, ""
    while old.count("."):
        if old in MODULES:
            return MODULES[old] + rest
        old, _, last = old.rpartition(".")
        rest = f".{last}{rest}"
    return None


def _new_name(module: str, name: str, replacement: str) -> str:
    """Return "module:name" of what is called `name` in the old `module` that `replacement` replaces."""
    new = NAMES.get(module, {}).get(name, name)
    return new if ":" in new else f"{replacement}:{new}"


def _lookup(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class _Finder:
    """Meta path finder of old modules, and of modules that have old names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of an old module or of one with old names; None for all others."""
        if not name.startswith("agebench."):
            return None
        replacement = _new_module(name)
        if replacement is not None:
            return ModuleSpec(name, _OldModuleLoader(replacement), is_package=True)  # type: ignore[arg-type]
        if name not in _UNCHANGED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _LoaderWithOldNames(spec.loader.name, spec.loader.path)
        return spec


class _OldModuleLoader:
    """Loads an old module: every attribute is looked up in the module that replaces it."""

    def __init__(self, replacement: str) -> None:
        self._replacement = replacement

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system create an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module; warn unless only a submodule of an old package is imported."""
        old, replacement = module.__name__, self._replacement
        try:
            importlib.import_module(replacement)
        except ModuleNotFoundError as error:
            if error.name != replacement:
                raise
            raise ModuleNotFoundError(f"No module named '{old}'", name=old) from None
        _warn(old, replacement, stacklevel=2)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module '{old}' has no attribute '{name}'")
            return _lookup(_new_name(old, name, replacement))

        module.__dict__["__getattr__"] = attribute


class _LoaderWithOldNames(SourceFileLoader):
    """Loads a module as usual, and adds its old names."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then add the look-up of old names."""
        super().exec_module(module)
        old_names: Mapping[str, str] = NAMES[module.__name__]

        def attribute(name: str) -> Any:
            if name not in old_names:
                raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
            _warn(f"{module.__name__}.{name}", old_names[name], stacklevel=3)
            return _lookup(_new_name(module.__name__, name, module.__name__))

        module.__dict__["__getattr__"] = attribute
