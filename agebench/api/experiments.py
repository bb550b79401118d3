"""Experiments: train and test a model, test any estimator, measure robustness, rank records of runs."""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from agebench.api import views
from agebench.api.models import AgeFunction, load_estimator
from agebench.api.scoring import ScoreReport
from agebench.config.evaluate import ExternalConfig
from agebench.config.options import EvalOptions, RunOptions
from agebench.config.toml_io import Settings as SettingsTable
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimator
from agebench.inference.predictor import Predictor
from agebench.metrics.schema import MetricsFile
from agebench.registry.catalog import load_catalog
from agebench.runs.execute import Execution, execute_run, execute_test
from agebench.runs.resolve import resolve_config, resolve_external
from agebench.runs.run_dir import RunDir
from agebench.types import TrackerName
from agebench.utils.integrity import read_table

if TYPE_CHECKING:
    from agebench.analysis.robustness.schema import RobustnessFile
    from agebench.config.cards.suite import PublishedResult
    from agebench.leaderboard.image_ranking import ImageRankings
    from agebench.leaderboard.systems import System

logger = logging.getLogger(__name__)
Settings = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class EvalResult:
    """The result of testing an estimator.

    Attributes:
        path: folder of the result.
    """

    path: Path

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Content of metrics.json."""
        return RunDir(self.path).metrics()

    @cached_property
    def tests(self) -> dict[str, ScoreReport]:
        """The metrics of each test set, by its name."""
        metrics = MetricsFile.from_json(self.metrics)
        return {
            name: ScoreReport(
                name,
                metrics.model_copy(update={"tests": {name: entry}}),
                read_table(self.path, f"predictions/{name}.parquet"),
            )
            for name, entry in metrics.tests.items()
        }

    @property
    def report(self) -> Path:
        """Path of report.md."""
        return self.path / "report.md"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a test set: the overall MAE in years, its interval and the number of images."""
        tests = MetricsFile.from_json(self.metrics).tests
        rows = {name: views.overall_metrics(entry)["mae"]._asdict() for name, entry in tests.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("test")

    def to_markdown(self) -> str:
        """Return the table that the command line prints at the end."""
        from agebench.reports.run import summary

        return summary(MetricsFile.from_json(self.metrics))

    def _repr_html_(self) -> str:
        return f"<h4>MAE, years</h4>{self.to_frame().to_html()}"


@dataclass(frozen=True, eq=False)
class RunResult(EvalResult):
    """The result of a run: a trained model and its metrics.

    Attributes:
        path: folder of the run.
    """

    def load(self, *, device: str = "auto") -> Predictor:
        """Load the trained model.

        Args:
            device: `auto`, `cpu`, `cuda`, …

        Returns:
            The estimator.
        """
        estimator = load_estimator(self.path, device=device)
        assert isinstance(estimator, Predictor)
        return estimator


@dataclass(frozen=True, eq=False)
class RobustnessReport:
    """The errors of a trained model on corrupted images.

    Attributes:
        metrics: content of stress/<dataset>.json.
        report: path of the report.
    """

    metrics: "RobustnessFile"
    report: Path

    def to_frame(self) -> pd.DataFrame:
        """Return one row a pair (corruption, severity): the MAE in years with its interval."""
        rows = {
            (name, severity): views.metric_row(metric)
            for name, entry in self.metrics.corruptions.items()
            for severity, metric in zip(entry.strengths, entry.mae, strict=True)
        }
        frame = pd.DataFrame.from_dict(rows, orient="index")
        frame.index = pd.MultiIndex.from_tuples(rows, names=["corruption", "severity"])
        return frame

    def to_markdown(self) -> str:
        """Return the summary and the table by corruption that `agebench stress` prints, as Markdown."""
        from agebench.analysis.robustness.report import robustness_markdown

        return robustness_markdown(self.metrics)

    def _repr_html_(self) -> str:
        return self.to_frame().to_html()


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """The systems of a folder of records.

    Attributes:
        systems: one entry a system, with all its seeds.
        published: results from papers, which are shown apart.
        ranked: the rankings of the systems, and their rates of age gates.
    """

    systems: "Sequence[System]"
    published: "Sequence[PublishedResult]"
    ranked: "ImageRankings"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a system and test set: MAE in years with its interval, and the ends of its rank interval, if any."""
        ranks = {
            (run, ranking.tests[0]): (system.rank_low, system.rank_high)
            for ranking in self.ranked.rankings
            if len(ranking.tests) == 1
            for system in ranking.systems
            for run in system.runs
        }
        rows = [
            {
                "system": system.name,
                "train": system.train,
                "test": test,
                **views.metric_row(system.metric(test)),
                "ranked": not system.has_no_rank,
                **dict(
                    zip(("rank_low", "rank_high"), ranks.get((system.records[0].id, test), (pd.NA, pd.NA)), strict=True)
                ),
            }
            for system in self.systems
            for test in system.tests
        ]
        return pd.DataFrame(rows).astype({"rank_low": "Int64", "rank_high": "Int64"})

    def to_markdown(self) -> str:
        """Return the page that `agebench leaderboard` writes."""
        from agebench.leaderboard.markdown import leaderboard as leaderboard_page

        return leaderboard_page(self.systems, self.published, self.ranked)

    def save(self, path: str | Path) -> Path:
        """Write the page as Markdown to `path`, and return the path."""
        from agebench.utils.io import write_text

        write_text(Path(path), self.to_markdown())
        return Path(path)

    def _repr_html_(self) -> str:
        return self.to_frame().to_html()


def run(
    *,
    train: str | None = None,
    test: Sequence[str] | str | None = None,
    model: str | None = None,
    head: str | None = None,
    protocol: str | None = None,
    tasks: Sequence[str] | Mapping[str, float] = (),
    pretrained: bool | str | None = None,
    epochs: int | None = None,
    exclude: Sequence[str | Path] = (),
    seed: int | None = None,
    device: str | None = None,
    config: str | Path | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    trackers: Sequence[str] = ("tensorboard",),
    registry: Iterable[str | Path] = (),
) -> RunResult:
    """Train a model on one dataset and test it on others; the same as `agebench run`.

    A run that is finished in its folder is not done again.

    Args:
        train: name of the dataset to train and validate on.
        test: names of the datasets to test on; the training dataset's name stands for its held-out part. None: `train`.
        model: name of the model's card; None: mobilefacenet.
        head: name of another head than the card's.
        protocol: name of the training dataset's split protocol; None: its default.
        tasks: further labels to learn, such as gender, or a mapping of labels to their weights in the loss.
        pretrained: False: random weights; True: pretrained weights of the backbone; or a source of weights. None: as the
            card specifies.
        epochs: number of training epochs.
        exclude: CSV files of sample ids to exclude.
        seed: seed of the split, of the initial weights and of the order of images.
        device: `auto`, `cpu`, `cuda`, …
        config: a TOML file of settings, such as the config.toml of another run; arguments take precedence over it.
        settings: any further settings, nested as in config.toml or with dotted keys: {"train.lr": 0.001}.
        out: folder of the run; None: runs/<train>-<model>-<head>-s<seed>.
        resume: whether to continue a run that was interrupted.
        trackers: where the curves and results go: `tensorboard` (files in the run's folder), `wandb`, `mlflow`.
        registry: further folders of cards.

    Returns:
        The result: `tests`, `metrics`, `report`, `path`, `load()`.

    Raises:
        UserError: a name, a setting or a dataset is wrong or missing, or the folder holds an unfinished run and `resume` is
            False.
        AgebenchError: training failed; what was finished stays, and `resume=True` continues.

    Examples:
        >>> import agebench as ab
        >>> result = ab.run(train="synth", model="tiny", epochs=1, device="cpu", out=folder)
        >>> result.to_frame().index.tolist()
        ['synth']
    """
    options = RunOptions(
        train=train,
        test=_names(test),
        protocol=protocol,
        exclude=list(map(str, exclude)),
        model=model,
        head=head,
        tasks=_weights(tasks),
        pretrained={True: "auto", False: ""}.get(pretrained, pretrained),  # type: ignore[arg-type]
        epochs=epochs,
        seed=seed,
        device=device,
        config=None if config is None else Path(config),
        settings=_nested(settings),
    )
    cards = tuple(map(Path, registry))
    catalog = load_catalog(cards)
    resolved = resolve_config(catalog, options.layers())
    folder = Path("runs") / resolved.name() if out is None else out
    execution = Execution(resume, quiet=True, trackers=_trackers(trackers), registry=cards)
    return RunResult(execute_run(resolved, catalog, folder, execution).path)


def evaluate(
    estimator: str | Path | Predictor | AgeEstimator | AgeFunction,
    *,
    datasets: Sequence[str] | str,
    exclude: Sequence[str | Path] = (),
    seed: int | None = None,
    device: str | None = None,
    settings: Settings | None = None,
    out: str | Path | None = None,
    registry: Iterable[str | Path] = (),
) -> EvalResult:
    """Test an estimator on whole datasets; the same as `agebench test`.

    The result of a model with a card that is finished in its folder is not computed again.

    Args:
        estimator: name of an external model's card; or what `load_estimator` takes or returns: a run's folder, an exported
            file, a Python function of (N, 112, 112, 3) uint8 RGB faces; or any `agebench.estimators.base.AgeEstimator`.
        datasets: names of the datasets.
        exclude: CSV files of sample ids to exclude.
        seed: seed of the bootstrap.
        device: `auto`, `cpu`, `cuda`, …
        settings: any further settings, nested as in config.toml or with dotted keys: {"faces.coverage": 1.2}. A trained model has
            its own mode and detector of faces unless they are set here.
        out: folder of the result; None: runs/<model>-on-<datasets>, where <model> is the card's name or that of the run's
            folder. Of an estimator without a card, -2, -3, … follows where that folder holds a finished test.
        registry: further folders of cards.

    Returns:
        The result: `tests`, `metrics`, `report`, `path`.

    Raises:
        UserError: the estimator or a dataset is unknown or missing, a setting is wrong, or the folder holds another run, a test
            with other settings, or other files.
        AgebenchError: the estimator failed.

    Examples:
        >>> import agebench as ab
        >>> result = ab.evaluate(lambda faces: [40.0] * len(faces), datasets="synth-shift", device="cpu", out=folder)
        >>> result.tests["synth-shift"].overall["mae"].n
        600
    """
    options = EvalOptions(
        test=_names(datasets), exclude=list(map(str, exclude)), seed=seed, device=device, settings=_nested(settings)
    )
    catalog = load_catalog(map(Path, registry))
    if isinstance(estimator, str) and estimator in catalog.models.names():
        config = resolve_external(catalog, replace(options, model=estimator).layers())
        return EvalResult(execute_test(config, catalog, _folder(out, config)).path)
    from agebench.runs.external import estimator_card, evaluate_estimator

    opened = _open(estimator, device=device or "auto", registry=registry)
    spec = opened.input_spec
    own_faces = {key: value for key, value in (("mode", spec.mode), ("detector", spec.detector)) if value}
    own = {"model": estimator_card(opened).model_dump(mode="json"), "faces": own_faces}
    config = resolve_external(catalog, [own, *options.layers()])
    folder = _free_folder(config.name(_folder_name(estimator))) if out is None else RunDir(Path(out))
    folder.finished(config)  # refuses a folder of something else before anything is written there
    with folder.locked():
        evaluate_estimator(opened, config, catalog, folder)
        result = EvalResult(folder.path)
        _ = result.tests  # read now: the next test in this folder may be of another function with the same settings
    return result


def stress(
    estimator: str | Path | Predictor | AgeEstimator | AgeFunction,
    dataset: str,
    *,
    corruptions: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    allow_code_execution: bool = False,
    out: str | Path | None = None,
    registry: Iterable[str | Path] = (),
) -> RobustnessReport:
    """Measure how the error of an estimator grows as images get worse; the same as `agebench stress`.

    Args:
        estimator: folder of a run, an exported file, name of an external model's card, or hf://OWNER/NAME@COMMIT; or what
            `load_estimator` returns, a Python function, or any `agebench.estimators.base.AgeEstimator`: these stay open.
        dataset: name of a dataset. Of a run, a test set, or any other dataset without the images that it was trained on.
        corruptions: names of corruptions; empty: all.
        resamples: number of bootstrap resamples; 0: no intervals.
        seed: seed of the corruptions and of the bootstrap.
        device: `auto`, `cpu`, `cuda`, …
        allow_code_execution: whether files may be opened that run code when they are opened.
        out: folder of the report; None: `stress` in the run's folder, or runs/<model>/stress.
        registry: further folders of cards.

    Returns:
        The report: `metrics`, `report`, `to_frame()`, `to_markdown()`.

    Raises:
        UserError: no such estimator, dataset or corruption, or a corruption of a region that the faces are not framed by.
        AgebenchError: the estimator returned no estimate for a face.

    Examples:
        >>> import agebench as ab
        >>> report = ab.stress(run_folder, "synth", corruptions=["blur"], resamples=0, device="cpu")
        >>> report.to_frame().index.names
        FrozenList(['corruption', 'severity'])
    """
    from agebench.analysis.robustness.corruptions import select_corruptions
    from agebench.analysis.robustness.run import run_stress
    from agebench.runs.estimators import AnalysisSubject

    selected = select_corruptions(list(corruptions), [])
    catalog = load_catalog(map(Path, registry))
    subject = AnalysisSubject(
        str(estimator) if isinstance(estimator, str | Path) else _open(estimator, device=device, registry=registry),
        catalog,
        device,
        trusted=allow_code_execution,
    )
    folder = Path(out) if out is not None else subject.folder / "stress"
    metrics, report = run_stress(
        subject, dataset, selected, folder, required=corruptions, resamples=resamples, seed=seed
    )
    return RobustnessReport(metrics, report)


def leaderboard(
    results: str | Path = "reports/results", *, published: str = "published", registry: Iterable[str | Path] = ()
) -> Leaderboard:
    """Group the records of runs into systems and rank them; the same as `agebench leaderboard`.

    Rankings that are stored beside the records are used; others are computed where the datasets are present, and not stored.

    Args:
        results: folder of records.
        published: name of the suite whose results from papers are shown apart.
        registry: further folders of cards.

    Returns:
        The leaderboard: `systems`, `to_frame()`, `to_markdown()`, `save(path)`.

    Raises:
        UserError: no such folder, no record in it, or a record that is not valid.

    Examples:
        >>> import agebench as ab
        >>> ab.leaderboard(results).to_frame().columns[:4].tolist()
        ['system', 'train', 'test', 'value']
    """
    from agebench.leaderboard.image_ranking import build_rankings
    from agebench.leaderboard.systems import group_into_systems
    from agebench.leaderboard.verify import read_valid_records

    records = read_valid_records(Path(results))
    catalog = load_catalog(map(Path, registry))
    systems = group_into_systems(records.values())
    ranked = build_rankings(Path(results), systems, catalog, store=False)
    for sentence in ranked.missing:
        logger.warning("%s", sentence)
    return Leaderboard(systems, catalog.suites.get(published).published, ranked)


def _open(
    estimator: str | Path | Predictor | AgeEstimator | AgeFunction, *, device: str, registry: Iterable[str | Path]
) -> AgeEstimator:
    if isinstance(estimator, Predictor):
        return estimator.estimator
    if isinstance(estimator, str | Path) or callable(estimator):
        return load_estimator(estimator, device=device, registry=registry).estimator
    return estimator


def _folder(out: str | Path | None, config: ExternalConfig) -> RunDir:
    return RunDir(Path(out) if out is not None else Path("runs") / config.name())


def _free_folder(name: str) -> RunDir:
    """Return the first of runs/<name>, runs/<name>-2, … without a finished test: functions of one name may differ."""
    folders = (RunDir(Path("runs") / (name if n == 1 else f"{name}-{n}")) for n in itertools.count(1))
    return next(folder for folder in folders if not folder.manifest().get("finished"))


def _folder_name(estimator: object) -> str:
    """Return the name of a run's folder; "" for every other estimator."""
    if isinstance(estimator, str | Path) and Path(estimator).is_dir():
        return Path(estimator).resolve().name
    return ""


def _nested(settings: Settings | None) -> list[SettingsTable]:
    """Return one layer of settings for each key; a dotted key is nested."""
    layers = []
    for key, value in (settings or {}).items():
        for name in reversed(key.split(".")):
            value = {name: value}
        layers.append(value)
    return layers


def _names(names: Sequence[str] | str | None) -> list[str] | None:
    return [names] if isinstance(names, str) else None if names is None else list(names)


def _trackers(names: Sequence[str]) -> tuple[TrackerName, ...]:
    known = [str(name) for name in TrackerName]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"trackers = {list(names)}: '{unknown[0]}' is none of {', '.join(known)}")
    return tuple(map(TrackerName, names))


def _weights(tasks: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    return dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
