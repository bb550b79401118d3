"""Digests of a run's inputs other than its config; checked before a run is resumed or reported as finished."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.config.run import RunConfig
from agebench.data.dataset import Dataset
from agebench.data.samples import GEOMETRY_COLUMNS, Samples, dataset_fingerprint
from agebench.errors import AgebenchError, UserError
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import join_words
from agebench.runs.datasets import AnyConfig as AnyConfig
from agebench.runs.datasets import RunData, apply_exclusions, open_dataset, split_train_dataset
from agebench.runs.manifest import Inputs as Inputs
from agebench.runs.resolve import model_alignment_spec
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.types import WeightsKind, WeightsSource
from agebench.utils.io import file_digest

# Settings of the alignment that earlier versions did not have: they count only where they are set.
_LATER_SETTINGS = frozenset({"letterbox", "mask_bodies", "offset", "visible", "fit", "margin"})
# Kind of input -> its name in messages; the dataset or file replaces the braces.
_INPUT_NAMES = {
    "exclude": "the --exclude list {}",
    "images": "the images or labels of {}",
    "split": "the split scheme that divides {}",
    "parts": "the parts that the images of {} are in",
    "faces": "how the faces of {} are prepared",
    "model": "the model's {}",
    "weights": "the weights {}",
    "initial": "the pre-trained {}",
}


def input_digests(config: AnyConfig, data: RunData, splits: FoldSplits | None = None) -> Inputs:
    """Return digests of everything that determines the run's data, for the manifest.

    Args:
        config: the settings of the run or test.
        data: its datasets.
        splits: the division of each fold, before faces were prepared; None: nothing is trained.
    """
    samples = data.samples
    specs = {name: model_alignment_spec(config.faces, card, config.model) for name, card in data.cards.items()}
    return {
        "exclude": {file: exclusion.sha256 for file, exclusion in data.exclusions.items()},
        "images": {name: dataset_fingerprint(part) for name, part in samples.items()},
        "split": {} if splits is None else _split_scheme(splits),
        "parts": {} if splits is None else _assignment_digests(splits),
        "faces": {name: _alignment_digest(asdict(spec), samples[name]) for name, spec in specs.items()},
        "weights": _weights_digest(config) if isinstance(config, RunConfig) else {},
    }


def changed_inputs(manifest: Mapping[str, object], inputs: Inputs) -> list[str]:
    """Return the names of inputs that differ from the manifest; unknown ones count as equal.

    Consequences of another change are not listed: other images are in other splits.

    Args:
        manifest: the run's manifest; its content is not trusted.
        inputs: the digests of the inputs now.
    """
    recorded = _recorded_inputs(manifest)
    changed = {
        kind: [
            pattern.format(name)
            for name, digest in inputs.get(kind, {}).items()
            if recorded[kind].get(name, digest) != digest
        ]
        for kind, pattern in _INPUT_NAMES.items()
    }
    data = next(
        (changed[kind] for kind in ("exclude", "images", "split") if changed[kind]),
        [*changed["parts"], *changed["faces"]],
    )
    return data + next((changed[kind] for kind in ("model", "weights", "initial") if changed[kind]), [])


def require_unchanged(folder: RunDir, inputs: Inputs) -> None:
    """Refuse to resume a run whose inputs changed; earlier training images could otherwise end up in its test set.

    Args:
        folder: the run's folder.
        inputs: the digests of the inputs now.

    Raises:
        UserError: an input differs from the folder's manifest.
    """
    changed = changed_inputs(folder.manifest(), inputs)
    if changed:
        raise UserError(
            f"{folder.location}: the run was started before {join_words(changed)} changed; restore the earlier state, choose "
            "another folder with --out, or delete this one"
        )


class InputTracker:
    """The inputs that runs would have now. Each dataset is read once, on first use.

    Args:
        catalog: the cards of the datasets.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._cards = catalog.datasets
        self._datasets: dict[tuple[str, int, int], Dataset] = {}
        self._results: dict[object, Inputs | AgebenchError] = {}

    def refuse_changed(self, folder: RunDir, config: AnyConfig) -> str:
        """Refuse a run whose inputs changed; return why nothing could be compared, "" where it was.

        Args:
            folder: the run's folder.
            config: the run's settings.

        Raises:
            UserError: an input differs from the folder's manifest.
        """
        if not any(_recorded_inputs(folder.manifest()).values()):
            return "its manifest does not contain their digests"
        # Runs that differ in the recipe alone share their inputs.
        weights = config.model.source if isinstance(config, ExternalConfig) else config.pretrained
        model = config.model
        framing = model.input if isinstance(model, ExternalCard) else None
        prepared = (framing, model.size, model.bodies, model.letterbox, model.mask_bodies)
        key = (config.data, config.faces, prepared, config.seed, weights)
        if key not in self._results:
            try:
                self._results[key] = self._inputs(config)
            except AgebenchError as error:  # for example: the data are on another machine
                self._results[key] = error
        inputs = self._results[key]
        if isinstance(inputs, AgebenchError):
            return str(inputs).splitlines()[0]
        require_unchanged(folder, inputs)
        return ""

    def _inputs(self, config: AnyConfig) -> Inputs:
        datasets = {name: self._open(name, config) for name in config.datasets()}
        data = RunData(datasets, *apply_exclusions(datasets, config.data.exclude))
        if isinstance(config, RunConfig):
            splits = split_train_dataset(config, data)
            return input_digests(config, data, splits)
        return input_digests(config, data) | {"model": {"file": model_digest(config)}}

    def _open(self, name: str, config: AnyConfig) -> Dataset:
        limit = config.data.limit
        key = (name, limit, config.seed if limit else 0)
        if key not in self._datasets:
            self._datasets[key] = open_dataset(self._cards.get(name), limit=limit, seed=config.seed)
        return self._datasets[key]


def model_digest(config: ExternalConfig | PublishedConfig) -> str:
    """Return the first 16 digits of the SHA-256 of a tested model's file; "" where the model is no single file.

    Args:
        config: the test's settings.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if isinstance(config, PublishedConfig):
        return _sha256(Path(config.pretrained).expanduser())[:16]
    from agebench.estimators.external.base import fingerprint as external_digest

    return external_digest(config.model)


def _recorded_inputs(manifest: Mapping[str, object]) -> Inputs:
    """Return the inputs of a manifest; of one without `inputs`, those that its other keys contain."""
    model, recorded = _table(manifest.get("model")), _table(manifest.get("inputs"))
    exclusions, samples = _table(manifest.get("excluded")), _table(manifest.get("samples"))
    is_random = WeightsSource.of_model(model).kind is WeightsKind.RANDOM
    initial = {} if is_random else _table(model.get("initial"))
    legacy: dict[str, Mapping[str, object]] = {
        "exclude": {file: _table(exclusion).get("sha256") for file, exclusion in exclusions.items()},
        "images": {name: _table(counts).get("fingerprint") for name, counts in samples.items()},
        "split": _first_scheme(manifest),
        "model": {"file": model.get("file_sha256")},
        "initial": {"backbone": initial.get("backbone_sha256")},
    }
    merged = {kind: {**legacy.get(kind, {}), **_table(recorded.get(kind))} for kind in _INPUT_NAMES}
    return {
        kind: {str(name): str(digest) for name, digest in digests.items() if digest} for kind, digests in merged.items()
    }


def _table(value: object) -> Mapping[str, object]:
    """Return a table of an untrusted manifest; an empty one where the value is no table."""
    return value if isinstance(value, dict) else {}


def _split_scheme(splits: FoldSplits) -> dict[str, str]:
    scheme = splits.split_scheme
    return {} if scheme is None else {splits.train_dataset: str(scheme)}


def _first_scheme(manifest: Mapping[str, object]) -> dict[str, str]:
    """Return the split scheme of a run that trained before schemes were numbered."""
    train_dataset = _table(manifest.get("train")).get("name")
    if train_dataset is None or "split_scheme" in _table(manifest.get("protocol")):
        return {}
    return {str(train_dataset): "1"}


def _assignment_digests(splits: FoldSplits) -> dict[str, str]:
    """Return digests of the fold assignment, computed before face preparation; independent of row order."""
    folds = splits.folds
    ids = folds.samples.table["sample_id"].to_numpy(str)
    order = np.argsort(ids)
    assignment = folds.assignment[:, order].astype(np.int8).tobytes()
    digests = {splits.train_dataset: hashlib.sha256("\n".join(ids[order]).encode() + assignment)}
    for name, samples in splits.external_tests.items():
        digests[name] = hashlib.sha256("\n".join(sorted(samples.table["sample_id"])).encode())
    return {name: digest.hexdigest()[:16] for name, digest in digests.items()}


def _alignment_digest(spec: Mapping[str, object], samples: Samples) -> str:
    """Return a digest of the alignment and its points and boxes; without the detector's version, which hosts differ in."""
    # Later additions count only where they are used, so that digests of earlier runs stay the same.
    unused = {"face_bbox"} if not (spec["letterbox"] or spec.get("fit")) else set()
    unused |= {"body_masked"} if not spec["mask_bodies"] else set()
    columns = [column for column in GEOMETRY_COLUMNS if column in samples.table and column not in unused]
    geometry = samples.table[["sample_id", *columns]].sort_values("sample_id")
    settings = {key: value for key, value in spec.items() if value or key not in _LATER_SETTINGS}
    settings["coverage"] = settings.pop("crop_scale")  # its name in the digests of earlier manifests
    content = json.dumps(settings, sort_keys=True) + geometry.to_json(orient="values")
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _weights_digest(config: RunConfig) -> dict[str, str]:
    """Return the digest of the file given by --pretrained.

    Packages and timm checkpoints are identified by version; `initial` is the digest of the loaded weights.
    """
    path = Path(config.pretrained).expanduser()
    return {path.name: _sha256(path)} if config.pretrained and path.is_file() else {}


def _sha256(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
