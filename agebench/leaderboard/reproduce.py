"""Reproduction of a run from its record, and the comparison of both."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import Field, JsonValue

from agebench.config.cards.external import ExternalCard
from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.config.run import RunConfig
from agebench.config.toml_io import Settings, read_settings, validate_model
from agebench.data.samples import dataset_fingerprint
from agebench.errors import AgebenchError, UserError
from agebench.leaderboard.published_estimates import describe_dataset
from agebench.leaderboard.records import REPRODUCTION_PREFIX, predictions_digest, read_record, read_records
from agebench.leaderboard.schema import Circumstances, Record, RecordDataset, RecordSamples
from agebench.leaderboard.training_noise import training_noise
from agebench.leaderboard.verify import check_record
from agebench.metrics.schema import MetricValue, ResultModel
from agebench.registry.catalog import Catalog
from agebench.runs.datasets import open_run_data, split_train_dataset
from agebench.runs.execute import Execution, execute_run, execute_test
from agebench.runs.run_dir import RunDir
from agebench.types import WeightsSource
from agebench.utils.integrity import read_table

logger = logging.getLogger(__name__)
# The entry of an external model's card that depends on the machine and does not describe the model.
_LOCATION = "source"


class Verdict(StrEnum):
    """The verdict on a metric of a repeated run, from the best to the worst."""

    IDENTICAL = "identical"
    WITHIN_NOISE = "within training noise"
    INSIDE = "inside the interval"
    BEYOND_NOISE = "beyond training noise"
    OUTSIDE = "outside the interval"

    @property
    def is_failure(self) -> bool:
        """True if the metric differs by more than chance."""
        return self in (Verdict.BEYOND_NOISE, Verdict.OUTSIDE)


class NoiseLimit(ResultModel):
    """The training noise that a verdict is based on."""

    source: str = Field(description="records that it was estimated from")
    std: float = Field(description="standard deviation over seeds, years")
    limit: float = Field(description="largest difference of two trainings, years")
    freedom: int = Field(description="degrees of freedom of the estimate")
    systems: int = Field(description="number of systems that contributed")


class RepeatedTest(ResultModel):
    """A repeated run's metric on one test set beside the record's."""

    mae: MetricValue = Field(description="MAE of the repeated run, years")
    there: MetricValue = Field(description="MAE in the record, years")
    verdict: Verdict
    noise: NoiseLimit | None = Field(default=None, description="None where it is unknown or not needed")


class Reproduction(ResultModel):
    """A run that was repeated from its record, and what became of its metrics."""

    verdict: Verdict = Field(description="the worst over all test sets")
    tests: dict[str, RepeatedTest]
    differences: list[str] = Field(description="inputs that differ from those of the record")
    circumstances: list[str] = Field(description="versions, hardware and pixels that differ")
    run: str = Field(description="folder of the repeated run")


def reproduce(
    file: Path,
    catalog: Catalog,
    *,
    out: Path | None = None,
    device: str | None = None,
    force: bool = False,
    quiet: bool,
) -> Reproduction:
    """Repeat a run from its record, and compare both; differing inputs are logged as warnings.

    Args:
        file: the record.
        catalog: the registered cards.
        out: the run's folder; None: runs/again-<id>.
        device: another device than the record's.
        force: whether to run although data, cards or weights differ from those of the record.
        quiet: whether training shows no progress.

    Raises:
        UserError: the record is not valid, or names a dataset or a model that is not registered.
        AgebenchError: the inputs differ, and `force` is false.
    """
    content = read_record(file)
    config = config_of(content, catalog, device=device, source=str(file))
    record = Record.from_json(content)
    folder = RunDir(out or Path("runs") / f"{REPRODUCTION_PREFIX}{record.id}")
    folder.finished(config)  # refuses a folder of another run before the datasets are read
    differences = list(input_differences(record, config, catalog))
    for difference in differences:
        logger.warning("differs: %s", difference)
    if differences and not force:
        raise AgebenchError(
            f"{file}: the inputs differ from those of the record, so other metrics are expected; --force runs it all the same"
        )
    if isinstance(config, RunConfig):
        execute_run(config, catalog, folder.path, Execution(resume=True, quiet=quiet))
    else:
        execute_test(config, catalog, folder)
    others = [
        Record.from_json(entry)
        for entry in read_records(file.parent).values()
        if next(iter(check_record(entry)), None) is None
    ]
    tests = reproduction_verdicts(record, folder.path, others)
    return Reproduction(
        verdict=worst_verdict(tests),
        tests=tests,
        differences=differences,
        circumstances=environment_differences(record, Circumstances.model_validate(folder.manifest())),
        run=str(folder.path),
    )


def config_of(
    content: Mapping[str, JsonValue], catalog: Catalog, *, device: str | None = None, source: str = "the record"
) -> RunConfig | ExternalConfig | PublishedConfig:
    """Return the settings in a record; only datasets and external models are looked up elsewhere.

    Args:
        content: the record, as it was read.
        catalog: the registered cards.
        device: another device than the record's.
        source: where the record was read, for messages.

    Raises:
        UserError: the record is not valid, or names a dataset that is not registered, or a model that runs code which is not
            that of the registered card.
    """
    problem = next(iter(check_record(content)), None)
    if problem is not None:
        raise UserError(f"{source} cannot be trusted: {problem}")
    record = Record.from_json(content)
    settings = record.settings | ({"device": device} if device else {})
    if record.metrics.train is not None:
        config: RunConfig | ExternalConfig | PublishedConfig = validate_model(
            RunConfig, settings, source="the record's config"
        )
    elif "pretrained" in settings:
        config = validate_model(PublishedConfig, settings, source="the record's config")
    else:
        config = _external(settings, catalog)
    for name in config.datasets():
        catalog.datasets.get(name)
    return config


def _external(settings: Settings, catalog: Catalog) -> ExternalConfig:
    """Build the config with the local card of the model: an untrusted record must not run its own code."""
    theirs = settings.get("model") or {}
    card = catalog.models.get(str(theirs.get("name")))
    if not isinstance(card, ExternalCard):
        raise UserError(
            f"the record is of an external model, but the model '{card.name}' of this registry has to be trained; give the "
            "folder with the record's card by --registry"
        )
    ours = card.model_dump(mode="json")
    differs = [key for key in ours if key != _LOCATION and ours[key] != theirs.get(key, ours[key])]
    if differs:
        raise UserError(f"model '{card.name}': the card here has another {differs[0]} than the record")
    return validate_model(ExternalConfig, settings | {"model": ours}, source="the record's config")


def input_differences(
    record: Record, config: RunConfig | ExternalConfig | PublishedConfig, catalog: Catalog
) -> Iterator[str]:
    """Yield a sentence for each input that differs from the record's and decides metrics: data, cards, initial weights.

    Args:
        record: the record.
        config: its settings.
        catalog: the registered cards.

    Raises:
        UserError: a dataset or weights are missing.
    """
    data = open_run_data(config, catalog)
    for name, dataset in data.datasets.items():
        theirs, ours = record.datasets.get(name, RecordDataset()), describe_dataset(dataset.card)
        for key in ("reader", "options", "faces", "landmark_points"):
            stated = getattr(theirs, key)
            if key in theirs.model_fields_set and stated != ours[key]:
                yield f"the card of {name} has {key} = {ours[key]!r}, the record {stated!r}"
        there = record.samples.get(name, RecordSamples()).fingerprint
        here = dataset_fingerprint(data.samples[name])
        if there != here:
            yield f"{name}: its images or labels here are others (fingerprint {here}, in the record {there})"
    if isinstance(config, RunConfig):
        divisions = split_train_dataset(config, data)
        scheme = divisions.split_scheme
        if scheme is not None and scheme != record.split_scheme:
            yield (
                f"the split scheme has changed: this agebench divides {config.data.train} by scheme {scheme}, the record was made "
                f"with scheme {record.split_scheme or 'none'}, so other images train and test"
            )
        yield from _weight_differences(record, config)
    else:
        from agebench.runs.provenance import model_digest  # loads torch

        digest = model_digest(config)
        if record.model.file_sha256 != digest:
            yield f"the model's file here is another (SHA-256 {digest}…, in the record {record.model.file_sha256}…)"


def _weight_differences(record: Record, config: RunConfig) -> Iterator[str]:
    from agebench.models.weights import digests
    from agebench.runs.run import initial_model  # loads torch

    model, weights = initial_model(config)
    if not weights.is_same(record.model.weights_origin):
        yield f"the initial weights come from {weights}, in the record from {record.model.weights}"
    there, here = record.model.initial, digests(model, model.backbone)
    if there and there != here:
        part = "backbone" if there.get("backbone_sha256") != here["backbone_sha256"] else "head"
        yield f"the initial weights of the {part} are others than the record's"


def environment_differences(record: Circumstances, manifest: Circumstances) -> list[str]:
    """List differences that may move a metric a little: versions, the machine, the prepared faces.

    Args:
        record: those of the record.
        manifest: those of the run that repeated it.
    """
    ours, theirs = manifest.versions or {}, record.versions or {}
    found = [f"{name} {ours.get(name)} (there {theirs[name]})" for name in theirs if ours.get(name) != theirs[name]]
    for key, here, there in (
        ("agebench", manifest.agebench, record.agebench),
        ("git", manifest.git, record.git),
    ):
        if here != there:
            found.append(f"{key} {here} (there {there})")
    hardware, other = manifest.hardware or {}, record.hardware or {}
    found += [f"{key} {hardware.get(key)} (there {other[key]})" for key in other if hardware.get(key) != other[key]]
    faces, before = manifest.faces.sha256 or {}, record.faces.sha256 or {}
    found += [f"other pixels in the prepared faces of {name}" for name in before if faces.get(name) != before[name]]
    detectors, earlier = manifest.faces.detectors or {}, record.faces.detectors or {}
    for name in earlier:
        used, recorded = (detector.get(name, {}).get("name") for detector in (detectors, earlier))
        if used != recorded:
            found.append(f"faces of {name} are detected by {used} (there by {recorded})")
    return found


def reproduction_verdicts(record: Record, run: Path, records: Iterable[Record] = ()) -> dict[str, RepeatedTest]:
    """Judge a run that repeated a record.

    Equal predictions are identical. Another MAE of a trained model is judged by the training noise where the records determine
    it; else, and for models that were not trained, by the interval of the record, which is that of the images.

    Args:
        record: the record.
        run: the folder of the run that repeated it.
        records: records of this and of other systems, which determine the training noise.

    Returns:
        Test set -> verdict.
    """
    metrics = RunDir(run).metrics_file()
    known = list(records)
    return {
        name: _judge_test(record, metrics.tests[name].metric("mae"), name, run, known) for name in record.metrics.tests
    }


def _judge_test(record: Record, here: MetricValue, name: str, run: Path, known: Sequence[Record]) -> RepeatedTest:
    there = record.metrics.tests[name].metric("mae")
    recorded = record.predictions.get(name)
    if recorded and recorded.sha256 == predictions_digest(read_table(run, f"predictions/{name}.parquet")):
        return RepeatedTest(mae=here, there=there, verdict=Verdict.IDENTICAL)
    noise = training_noise(record, known, name) if known else None
    if noise is None or here.value is None or there.value is None:
        verdict = Verdict.INSIDE if _is_inside(here.value, there) else Verdict.OUTSIDE
        return RepeatedTest(mae=here, there=there, verdict=verdict)
    is_within = abs(here.value - there.value) <= noise.limit
    limit = NoiseLimit(
        source=str(noise.source),
        std=noise.std,
        limit=noise.limit,
        freedom=noise.freedom,
        systems=noise.n_systems,
    )
    verdict = Verdict.WITHIN_NOISE if is_within else Verdict.BEYOND_NOISE
    return RepeatedTest(mae=here, there=there, verdict=verdict, noise=limit)


def _is_inside(value: float | None, interval: MetricValue) -> bool:
    low, high = interval.ci_low, interval.ci_high
    return value is not None and low is not None and high is not None and low <= value <= high


def worst_verdict(tests: Mapping[str, RepeatedTest]) -> Verdict:
    """Return the worst verdict of all test sets.

    Args:
        tests: test set -> verdict.
    """
    verdicts = {test.verdict for test in tests.values()}
    worst_first = (Verdict.OUTSIDE, Verdict.BEYOND_NOISE, Verdict.INSIDE, Verdict.WITHIN_NOISE)
    return next((verdict for verdict in worst_first if verdict in verdicts), Verdict.IDENTICAL)


def initial_weight_digests(run: Path) -> dict[str, str] | None:
    """Compute the digests of the initial weights of a finished run whose manifest has none.

    Args:
        run: the run's folder.

    Returns:
        The digests; None where the same weights are not available any more, or the run trained nothing.
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
