"""Expand a suite to its runs, and determine the state of each from its folder."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from agebench.config.cards.suite import SuiteCard
from agebench.config.grid import GridPoint, parse_grid
from agebench.config.run import RunConfig, config_hash
from agebench.config.toml_io import Settings
from agebench.errors import AgebenchError, UserError
from agebench.registry.catalog import Catalog
from agebench.runs.provenance import InputTracker
from agebench.runs.remote_dir import RemoteDir, RemoteMirror
from agebench.runs.resolve import resolve_config
from agebench.runs.run_dir import RunDir
from agebench.suites.worker import RunRequest
from agebench.types import RunState, TrackerName
from agebench.utils.io import write_text

LOGS = ".logs"
# A larger suite is refused: planning and listing it takes minutes.
MAX_RUNS = 10_000


@dataclass(frozen=True)
class Job:
    """One run of a suite.

    Attributes:
        config: the run's settings.
        folder: its folder, named after the config and its hash, so that suites share equal runs.
        variant: the suite's name of the variant, and the values of --grid.
        runs_url: the URL of all runs, where `folder` is a local copy; "": runs are local.
        inputs: the inputs on this machine, compared with those of a finished run; None: no comparison.
    """

    config: RunConfig
    folder: Path
    variant: str = ""
    runs_url: str = ""
    inputs: InputTracker | None = field(default=None, compare=False, repr=False)

    @property
    def log(self) -> Path:
        """The file with the run's output."""
        return self.folder.parent / LOGS / f"{self.folder.name}.txt"

    @property
    def failure(self) -> Path:
        """The file with the reason of a failure; exists while the last attempt failed."""
        return self.folder.parent / LOGS / f"{self.folder.name}.failed"

    @property
    def attempts(self) -> Path:
        """The file with the time of all attempts together, seconds."""
        return self.folder.parent / LOGS / f"{self.folder.name}.seconds"

    def state(self) -> RunState:
        """Return the run's state; `stale`: finished, but with data or weights that have changed since.

        Raises:
            UserError: the folder contains another run.
        """
        run_dir = self._run_dir()
        if run_dir.finished(self.config):
            return RunState.STALE if self._changed_inputs() else RunState.DONE
        if self.failure.exists():
            return RunState.FAILED
        return RunState.INCOMPLETE if run_dir.started() else RunState.PENDING

    def request(
        self, threads: int, registry: Iterable[Path], trackers: Iterable[str] = (TrackerName.TENSORBOARD,)
    ) -> RunRequest:
        """Return what a host needs to execute the run.

        Args:
            threads: CPU threads of the run.
            registry: extra folders of cards.
            trackers: where the run's curves go.
        """
        name, folders = self.folder.name, tuple(str(folder) for folder in registry)
        names = tuple(str(tracker) for tracker in trackers)
        if self.runs_url:
            out, log = f"{self.runs_url}/{name}", ""
        else:
            out, log = str(self.folder.absolute()), str(self.log.absolute())
        return RunRequest(name, self.config.to_toml(), out, folders, threads, log, names)

    def attempted_seconds(self) -> float:
        """Return the time of all attempts together, failed ones included."""
        try:
            return float(self.attempts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    def record_attempt(self, log_tail: str, failure: str = "", seconds: float = 0.0) -> None:
        """Write the log and the outcome of an attempt, locally and at the URL of the runs.

        Args:
            log_tail: the end of the run's output.
            failure: why the attempt failed; "": it did not.
            seconds: how long the attempt took.
        """
        write_text(self.attempts, f"{self.attempted_seconds() + seconds:.1f}\n")
        if failure:
            write_text(self.failure, failure)
        else:
            self.failure.unlink(missing_ok=True)
        if self.runs_url:
            runs, remote = self.folder.parent, RemoteDir(self.runs_url)
            write_text(self.log, log_tail)
            remote.fetch(runs, [f"{self.folder.name}/{file}" for file in RemoteMirror.FILES])
            logs = [self.log, self.attempts, *([self.failure] if failure else [])]
            remote.send(runs, [log.relative_to(runs).as_posix() for log in logs])
            if not failure:
                remote.remove(self.failure.relative_to(runs).as_posix())

    def reason(self) -> str:
        """Return why the run is stale, or why its last attempt failed; "" where it is and did neither."""
        if self._run_dir().manifest().get("finished"):
            return self._changed_inputs()
        return self.failure.read_text(encoding="utf-8") if self.failure.exists() else ""

    def _run_dir(self) -> RunDir:
        return RunDir(self.folder, f"{self.runs_url}/{self.folder.name}" if self.runs_url else "")

    def _changed_inputs(self) -> str:
        try:
            if self.inputs is not None:
                self.inputs.refuse_changed(self._run_dir(), self.config)
        except UserError as error:
            return str(error)
        return ""


def count_runs(card: SuiteCard) -> int:
    """Return the number of runs of a suite, without planning them.

    Args:
        card: the suite.
    """
    optional = (card.protocols, card.heads, card.variants)
    return math.prod(map(len, (card.train, card.seeds, card.models))) * math.prod(len(part) or 1 for part in optional)


def plan_jobs(
    card: SuiteCard,
    catalog: Catalog,
    runs: Path,
    settings: Iterable[Settings] = (),
    *,
    grid: Sequence[GridPoint] = (),
    runs_url: str = "",
) -> list[Job]:
    """Return the suite's runs in order of execution: training set by training set, seed by seed.

    Args:
        card: the suite.
        catalog: the cards of its datasets and models.
        runs: the folder of all runs.
        settings: settings that take precedence over the suite's, as those of --set.
        grid: combinations of further settings; each run is executed with every combination.
        runs_url: the URL of which `runs` is a local copy; "": runs are local.

    Raises:
        UserError: a dataset, model or setting does not exist, or there are more than `MAX_RUNS` runs.
    """
    points = list(grid) or parse_grid([])
    n_runs = count_runs(card) * len(points)
    if n_runs > MAX_RUNS:
        longest = max(
            ("train", "protocols", "seeds", "models", "heads", "variants"), key=lambda key: len(getattr(card, key))
        )
        raise UserError(
            f"suite '{card.name}' asks for {n_runs:,} runs, and a suite has {MAX_RUNS:,} at most: shorten `{longest}` "
            f"({len(getattr(card, longest)):,} entries) on its card, or divide it into several suites"
        )
    jobs: dict[str, Job] = {}
    inputs, overrides = InputTracker(catalog), list(settings)
    matrix = product(card.train, card.protocols or (None,), card.seeds, card.models, card.heads or (None,))
    for train, protocol, seed, model, head in matrix:
        data = {"train": train, "test": list(card.test)} | ({} if protocol is None else {"protocol": protocol})
        run_settings: Settings = {"seed": seed, "data": data}
        run_settings["model"] = {"name": model} if head is None else {"name": model, "head": head}
        for variant, point in product(card.variants or (None,), points):
            variant_settings = variant.settings if variant else {}
            layers = [card.settings, run_settings, variant_settings, *overrides, point.settings]
            config = resolve_config(catalog, layers)
            name = f"{config.name()}-{config_hash(config)}"
            label = " ".join(filter(None, [variant.name if variant else "", point.label]))
            jobs[name] = Job(config, runs / name, label, runs_url, inputs)
    return list(jobs.values())


def expected_seconds(jobs: Iterable[Job], runs: Path) -> float | None:
    """Estimate the time of `jobs` one after another from the finished runs; None where a job has no similar run.

    Similar runs share the backbone, input size, training set and protocol. Time is proportional to the number of epochs.

    Args:
        jobs: the pending runs.
        runs: the folder of all runs.
    """
    seconds_per_epoch: dict[tuple[object, ...], list[float]] = {}
    for path in sorted(runs.glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            config = RunDir(path.parent).config()
            seconds = manifest["timings"]["total_s"] / max(1, manifest["epochs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, AgebenchError):
            continue  # unfinished, damaged, or from an older version: of no use for the estimate
        seconds_per_epoch.setdefault(_similarity_key(config), []).append(seconds)
    total_s = 0.0
    for job in jobs:
        similar_runs = seconds_per_epoch.get(_similarity_key(job.config))
        if similar_runs is None:
            return None
        total_s += statistics.median(similar_runs) * job.config.train.epochs
    return total_s


def spent_seconds(jobs: Iterable[Job]) -> float:
    """Return the total time of runs: of those that are done, and of the attempts at those that are not.

    Args:
        jobs: runs in any state.
    """
    return sum(map(_spent_seconds, jobs))


def _spent_seconds(job: Job) -> float:
    # Either may be the longer: a run may have been made by another command, and failed attempts are in no manifest.
    manifest = RunDir(job.folder).manifest() if job.state() is RunState.DONE else {}
    return max(float(manifest.get("timings", {}).get("total_s", 0.0)), job.attempted_seconds())


def _similarity_key(config: RunConfig) -> tuple[object, ...]:
    recipe, model = config.train, config.model
    return config.data.train, config.data.protocol, model.backbone, model.size, recipe.freeze, recipe.frozen_layers
