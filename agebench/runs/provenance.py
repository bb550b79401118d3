"""What goes into a run beside its settings, by digests: compared before a run is gone on with, or found done."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.samples import GEOMETRY_COLUMNS, Samples, dataset_fingerprint
from agebench.errors import AgebenchError, UserError
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import join_words
from agebench.runs.config import RunConfig
from agebench.runs.datasets import LoadedDataset, apply_exclusions, open_dataset, split_train_dataset
from agebench.runs.external_config import ExternalConfig
from agebench.runs.published_config import PublishedConfig
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.utils.io import file_digest

AnyConfig = RunConfig | ExternalConfig | PublishedConfig
# Kind -> what (a dataset, a file) -> digest.
Inputs = dict[str, dict[str, str]]
# How each kind is called where it changed; what it is of stands in the braces.
_WORDS = {
    "exclude": "the --exclude list {}",
    "images": "the images or labels of {}",
    "split": "the split scheme that divides {}",
    "parts": "the parts that the images of {} are in",
    "faces": "how the faces of {} are prepared",
    "model": "the model's {}",
    "weights": "the weights {}",
    "initial": "the pre-trained {}",
}


def input_digests(
    config: AnyConfig,
    datasets: Mapping[str, LoadedDataset],
    samples: Mapping[str, Samples],
    excluded: Mapping[str, Any],
    divisions: FoldSplits | None = None,
) -> Inputs:
    """For the manifest: digests of everything that decides the run's data.

    Args:
        config: the run's.
        datasets: its datasets as they were opened.
        samples: of each, what `exclude` left.
        excluded: what else `exclude` gave.
        divisions: of a run that trains.
    """
    specs = {name: config.faces.spec_for(dataset.card, config.model) for name, dataset in datasets.items()}
    return {
        "exclude": {file: str(what["sha256"]) for file, what in excluded.get("excluded", {}).items()},
        "images": {name: dataset_fingerprint(part) for name, part in samples.items()},
        "split": {} if divisions is None else _split(divisions),
        "parts": {} if divisions is None else _parts(divisions),
        "faces": {name: _framing(asdict(spec), samples[name]) for name, spec in specs.items()},
        "weights": _weights(config) if isinstance(config, RunConfig) else {},
    }


def changed_inputs(manifest: Mapping[str, Any], now: Inputs) -> list[str]:
    """What is not as the manifest has it, in words; what is unknown on either side counts as the same.

    Of what follows from another change nothing is said: other images are in other parts.
    """
    before = _recorded(manifest)
    found = {
        kind: [
            words.format(name) for name, digest in now.get(kind, {}).items() if before[kind].get(name, digest) != digest
        ]
        for kind, words in _WORDS.items()
    }
    data = next(
        (found[kind] for kind in ("exclude", "images", "split") if found[kind]), [*found["parts"], *found["faces"]]
    )
    return data + next((found[kind] for kind in ("model", "weights", "initial") if found[kind]), [])


def require_unchanged(folder: RunDir, now: Inputs) -> None:
    """Keep a run from being mixed of two: what it was trained on before could stand in its test now.

    Raises:
        UserError: something is not as the folder's manifest has it.
    """
    found = changed_inputs(folder.manifest(), now)
    if found:
        raise UserError(
            f"{folder.place}: this run was begun before {join_words(found)} changed, and cannot go on or stand for what is there "
            "now; put that back, choose another folder with --out, or delete this one"
        )


class InputTracker:
    """What would go into runs now. Each dataset is read once, when it is first asked for."""

    def __init__(self, catalogue: Catalog) -> None:
        self._cards = catalogue.datasets
        self._opened: dict[str, LoadedDataset] = {}
        self._found: dict[object, Inputs | AgebenchError] = {}

    def refuse_changed(self, folder: RunDir, config: AnyConfig) -> str:
        """As the function of this name; returns why nothing could be compared, "" where it was.

        Raises:
            UserError: see there.
        """
        if not any(_recorded(folder.manifest()).values()):
            return "its manifest says nothing of them"
        # Runs that differ in the recipe alone share them.
        weights = config.model.source if isinstance(config, ExternalConfig) else config.pretrained
        key = (config.data, config.faces, config.model.size, config.model.bodies, config.seed, weights)
        if key not in self._found:
            try:
                self._found[key] = self._inputs(config)
            except AgebenchError as error:  # the data are on another machine, say
                self._found[key] = error
        now = self._found[key]
        if isinstance(now, AgebenchError):
            return str(now).splitlines()[0]
        require_unchanged(folder, now)
        return ""

    def _inputs(self, config: AnyConfig) -> Inputs:
        datasets = {name: self._open(name) for name in config.datasets()}
        samples, excluded = apply_exclusions(datasets, config.data.exclude)
        if isinstance(config, RunConfig):
            divisions = split_train_dataset(config, datasets[config.data.train], samples)
            return input_digests(config, datasets, samples, excluded, divisions)
        return input_digests(config, datasets, samples, excluded) | {"model": {"file": model_digest(config)}}

    def _open(self, name: str) -> LoadedDataset:
        if name not in self._opened:
            self._opened[name] = open_dataset(self._cards.get(name))
        return self._opened[name]


def model_digest(config: ExternalConfig | PublishedConfig) -> str:
    """Of a model that is not trained here: the first 16 digits of its file's SHA-256; empty where there is no one file.

    Raises:
        UserError: the model is not there.
    """
    if isinstance(config, PublishedConfig):
        return _sha256(Path(config.pretrained).expanduser())[:16]
    from agebench.estimators.external.base import fingerprint as of_external

    return of_external(config.model)


def _recorded(manifest: Mapping[str, Any]) -> Inputs:
    """The inputs that a manifest holds; of one from before it named them, those that it tells in other places."""
    model, told = _table(manifest.get("model")), _table(manifest.get("inputs"))
    lists, sets = _table(manifest.get("excluded")), _table(manifest.get("samples"))
    initial = _table(model.get("initial")) if model.get("weights") != "random" else {}
    elsewhere: dict[str, Mapping[str, Any]] = {
        "exclude": {file: _table(what).get("sha256") for file, what in lists.items()},
        "images": {name: _table(what).get("fingerprint") for name, what in sets.items()},
        "split": _first_scheme(manifest),
        "model": {"file": model.get("file_sha256")},
        "initial": {"backbone": initial.get("backbone_sha256")},
    }
    both = {kind: {**elsewhere.get(kind, {}), **_table(told.get(kind))} for kind in _WORDS}
    return {kind: {str(name): str(one) for name, one in of.items() if one} for kind, of in both.items()}


def _table(value: object) -> Mapping[str, Any]:
    """A table of a manifest, which may have come from anywhere; of something else, an empty one."""
    return value if isinstance(value, dict) else {}


def _split(divisions: FoldSplits) -> dict[str, str]:
    scheme = divisions.split_scheme
    return {} if scheme is None else {divisions.train_dataset: str(scheme)}


def _first_scheme(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The split scheme of a run that trained before schemes were numbered."""
    home = _table(manifest.get("train")).get("name")
    return {} if home is None or "split_scheme" in _table(manifest.get("protocol")) else {str(home): "1"}


def _parts(divisions: FoldSplits) -> dict[str, str]:
    """Of who does what in which fold, before any face is prepared; the order of rows does not matter."""
    home = divisions.folds
    ids = home.samples.table["sample_id"].to_numpy(str)
    order = np.argsort(ids)
    own = hashlib.sha256("\n".join(ids[order]).encode() + home.assignment[:, order].astype(np.int8).tobytes())
    others = {
        name: hashlib.sha256("\n".join(sorted(samples.table["sample_id"])).encode())
        for name, samples in divisions.external_tests.items()
    }
    return {name: digest.hexdigest()[:16] for name, digest in {divisions.train_dataset: own, **others}.items()}


def _framing(spec: Mapping[str, Any], samples: Samples) -> str:
    """Of what a card says about faces, and of the points and boxes; not of the detector's version, which hosts may differ in."""
    # What came later counts where it is used only, so that earlier runs stay what they are.
    unused = {"face_bbox"} if not spec["letterbox"] else set()
    unused |= {"body_masked"} if not spec["mask_bodies"] else set()
    columns = [column for column in GEOMETRY_COLUMNS if column in samples.table and column not in unused]
    given = samples.table[["sample_id", *columns]]
    settings = {key: value for key, value in spec.items() if value or key not in ("letterbox", "mask_bodies")}
    settings["coverage"] = settings.pop("crop_scale")  # the name in digests that stand in earlier manifests
    said = json.dumps(settings, sort_keys=True) + given.sort_values("sample_id").to_json(orient="values")
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _weights(config: RunConfig) -> dict[str, str]:
    """Of a file that --pretrained names. Packages and timm's hub say their versions, and `initial` is of what they gave."""
    path = Path(config.pretrained).expanduser()
    return {path.name: _sha256(path)} if config.pretrained and path.is_file() else {}


def _sha256(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
