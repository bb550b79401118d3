"""Reproduction of a run from its record, and the comparison of both."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agebench.config.cards.external import ExternalCard
from agebench.config.evaluate import ExternalConfig
from agebench.config.run import RunConfig
from agebench.config.toml_io import read_settings, validate_model
from agebench.data.samples import dataset_fingerprint
from agebench.errors import UserError
from agebench.leaderboard.published_estimates import describe_dataset
from agebench.leaderboard.records import predictions_digest
from agebench.leaderboard.schema import Record
from agebench.leaderboard.training_noise import training_noise
from agebench.leaderboard.verify import check_record
from agebench.metrics.schema import MetricsFile, MetricValue
from agebench.registry.catalog import Catalog
from agebench.runs.datasets import open_run_data, split_train_dataset
from agebench.runs.run_dir import RunDir
from agebench.types import WeightsSource
from agebench.utils.integrity import read_table

IDENTICAL, INSIDE, OUTSIDE = "identical", "inside the interval", "outside the interval"
WITHIN_NOISE, BEYOND_NOISE = "within training noise", "beyond training noise"
FAILURES = (OUTSIDE, BEYOND_NOISE)  # verdicts that a command fails with, the worst ones
# What of an external model's card says where it lies, not what it is.
_PLACE = "source"


def config_of(
    record: Mapping[str, Any], catalogue: Catalog, *, device: str | None = None, source: str = "the record"
) -> RunConfig | ExternalConfig:
    """The settings that a record holds; nothing but the record is asked, save for the datasets and external models.

    Args:
        record: as it was read.
        catalogue: the cards here.
        device: another than the record's.
        source: where it was read, for messages.

    Raises:
        UserError: the record does not hold, or names a dataset that is not known here, or a model that runs code which is
            not that of the card here.
    """
    problem = next(iter(check_record(record)), None)
    if problem is not None:
        raise UserError(f"{source} cannot be trusted: {problem}")
    settings = dict(record["config"]) | ({"device": device} if device else {})
    if record["metrics"]["train"] is not None:
        config: RunConfig | ExternalConfig = validate_model(RunConfig, settings, source="the record's config")
    else:
        config = _external(settings, catalogue)
    for name in config.datasets():
        catalogue.datasets.get(name)
    return config


def _external(settings: dict[str, Any], catalogue: Catalog) -> ExternalConfig:
    """Build the config with the local card of the model: an untrusted record must not run its own code."""
    theirs = settings.get("model") or {}
    card = catalogue.models.get(str(theirs.get("name")))
    if not isinstance(card, ExternalCard):
        raise UserError(f"the record is of an external model, but '{card.name}' is here one that is trained")
    ours = card.model_dump(mode="json")
    differs = [key for key in ours if key != _PLACE and ours[key] != theirs.get(key, ours[key])]
    if differs:
        raise UserError(f"model '{card.name}': the card here says another {differs[0]} than the record")
    return validate_model(ExternalConfig, settings | {"model": ours}, source="the record's config")


def input_differences(
    record: Mapping[str, Any], config: RunConfig | ExternalConfig, catalogue: Catalog
) -> Iterator[str]:
    """What here is not as it was there and decides the figures: data, cards, initial weights. A sentence each.

    Raises:
        UserError: a dataset is missing here, or weights are.
    """
    from agebench.runs.run import initial_model  # loads torch

    data = open_run_data(config, catalogue)
    datasets, samples = data.datasets, data.samples
    for name, dataset in datasets.items():
        card = dataset.card
        theirs = record.get("datasets", {}).get(name, {})
        ours = describe_dataset(card)
        for key in ("reader", "options", "faces", "landmark_points"):
            if key in theirs and theirs[key] != ours[key]:
                yield f"the card of {name} says {key} = {ours[key]!r}, the record {theirs[key]!r}"
        there = record.get("samples", {}).get(name, {}).get("fingerprint")
        here = dataset_fingerprint(samples[name])
        if there != here:
            yield f"{name}: its images or labels here are others (fingerprint {here}, in the record {there})"
    if isinstance(config, RunConfig):
        from agebench.models.weights import digests

        divisions = split_train_dataset(config, datasets[config.data.train], samples)
        scheme, recorded_scheme = divisions.split_scheme, split_scheme(record)
        if scheme is not None and scheme != recorded_scheme:
            yield (
                f"the split scheme has changed: this agebench divides {config.data.train} by scheme {scheme}, the record was made "
                f"with scheme {recorded_scheme or 'none'}, so other images train and test"
            )
        model, weights = initial_model(config)
        if not weights.is_same(WeightsSource.of_model(record["model"])):
            yield f"the initial weights come from {weights}, in the record from {record['model'].get('weights')}"
        there = record["model"].get("initial")
        here_digests = digests(model, model.backbone)
        if there and there != here_digests:
            part = "backbone" if there.get("backbone_sha256") != here_digests["backbone_sha256"] else "head"
            yield f"the initial weights of the {part} are others than the record's"
    else:
        from agebench.estimators.external.base import fingerprint as file_digest

        there, digest = record["model"].get("file_sha256"), file_digest(config.model)
        if there != digest:
            yield f"the model's file here is another (SHA-256 {digest}…, in the record {there}…)"


def split_scheme(record: Mapping[str, Any]) -> int | None:
    """Return the version of the random split of a record; 1 in a record from before versions were written down."""
    protocol = record.get("protocol") or record["metrics"].get("protocol") or {}
    version: int | None = protocol.get("split_scheme", 1)
    return version


def environment_differences(record: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """What differs and may move a figure a little: versions, the machine, the prepared faces."""
    found = []
    ours, theirs = manifest.get("versions") or {}, record.get("versions") or {}
    found += [f"{name} {ours.get(name)} (there {theirs[name]})" for name in theirs if ours.get(name) != theirs[name]]
    for key in ("agebench", "git"):
        if manifest.get(key) != record.get(key):
            found.append(f"{key} {manifest.get(key)} (there {record.get(key)})")
    hardware, other = manifest.get("hardware") or {}, record.get("hardware") or {}
    found += [f"{key} {hardware.get(key)} (there {other[key]})" for key in other if hardware.get(key) != other[key]]
    faces, before = (of.get("faces", {}).get("sha256") or {} for of in (manifest, record))
    found += [f"other pixels in the prepared faces of {name}" for name in before if faces.get(name) != before[name]]
    detectors, earlier = (of.get("faces", {}).get("detectors") or {} for of in (manifest, record))
    for name in earlier:
        here, there = (of.get(name, {}).get("name") for of in (detectors, earlier))
        if here != there:
            found.append(f"faces of {name} are detected by {here} (there by {there})")
    return found


def reproduction_verdicts(
    record: Mapping[str, Any], run: Path, records: Iterable[Mapping[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """Judge a run that repeated a record.

    Equal predictions are identical. Another MAE of a trained model is judged by the training noise where the records tell it;
    else, and for models that were not trained, by the interval of the record, which is that of the images.

    Args:
        record: the record.
        run: the folder of the run that repeated it.
        records: records of this and of other systems, which tell the training noise.

    Returns:
        Test set -> {verdict, mae, there: the record's metric, noise: the limit in years and its source, where it was used}.
    """
    recorded = MetricsFile.from_json(record["metrics"])
    metrics = MetricsFile.from_json(RunDir(run).metrics())
    known = [Record.from_json(dict(entry)) for entry in records]
    verdicts = {}
    for name, test in recorded.tests.items():
        there, here = test.metric("mae"), metrics.tests[name].metric("mae")
        entry: dict[str, Any] = {"mae": here.to_json(), "there": there.to_json()}
        digest = predictions_digest(read_table(run, f"predictions/{name}.parquet"))
        noise = training_noise(Record.from_json(dict(record)), known, name) if known else None
        if digest == record["predictions"].get(name, {}).get("sha256"):
            entry["verdict"] = IDENTICAL
        elif noise is not None and here.value is not None and there.value is not None:
            is_within = abs(here.value - there.value) <= noise.limit
            entry["verdict"] = WITHIN_NOISE if is_within else BEYOND_NOISE
            entry["noise"] = {
                "source": str(noise.source),
                "std": noise.std,
                "limit": noise.limit,
                "freedom": noise.freedom,
                "systems": noise.n_systems,
            }
        else:
            entry["verdict"] = INSIDE if _is_inside(here.value, there) else OUTSIDE
        verdicts[name] = entry
    return verdicts


def _is_inside(value: float | None, interval: MetricValue) -> bool:
    low, high = interval.ci_low, interval.ci_high
    return value is not None and low is not None and high is not None and low <= value <= high


def worst_verdict(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The worst verdict of all test sets."""
    said = {test["verdict"] for test in found.values()}
    return next((verdict for verdict in (*FAILURES, INSIDE, WITHIN_NOISE) if verdict in said), IDENTICAL)


def initial_weight_digests(run: Path) -> dict[str, str] | None:
    """Digests of the weights that a finished run started from, made again for one whose manifest has none.

    None where the same weights cannot be had any more, or the run trained nothing.
    """
    manifest, file = RunDir(run).manifest(), run / "config.toml"
    model = manifest.get("model") or {}
    if "initial" in model or "weights" not in model or not file.exists():
        return None
    try:
        config = validate_model(RunConfig, read_settings(file), source=str(file))
        from agebench.models.weights import digests
        from agebench.runs.run import initial_model

        made, weights = initial_model(config)
    except UserError:
        return None
    return digests(made, made.backbone) if weights.is_same(WeightsSource.of_model(model)) else None
