"""What a suite asks for, and what of it stands on the disk already."""

import hashlib
import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from agebench.config.cards.base import SuiteCard
from agebench.errors import AgebenchError, UserError
from agebench.registry.catalog import Catalog
from agebench.runs.config import RunConfig, resolve_config
from agebench.runs.provenance import InputTracker
from agebench.runs.remote_dir import RemoteDir, RemoteMirror
from agebench.runs.run_dir import RunDir
from agebench.suites.worker import RunRequest
from agebench.utils.io import write_text

State = Literal["done", "changed", "failed", "begun", "new"]
LOGS = ".logs"
# A suite of more runs is refused: planning and listing them takes minutes, and no one does or reads so many.
MOST_RUNS = 10_000


@dataclass(frozen=True)
class Job:
    """One run of a suite.

    Attributes:
        config: everything that determines it.
        folder: where it stands, named after the config and a hash of it: another suite that asks for the same run finds it.
        variant: what the suite calls this way to do it.
        kept: the URL of all runs, where `folder` is but a copy of what is kept there.
        present: what stands on this machine, to compare with what the run was made of; None: nothing is compared.
    """

    config: RunConfig
    folder: Path
    variant: str = ""
    kept: str = ""
    present: InputTracker | None = field(default=None, compare=False, repr=False)

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.parent / LOGS / f"{self.folder.name}.txt"

    @property
    def failure(self) -> Path:
        """There while the last attempt failed; holds the reason."""
        return self.folder.parent / LOGS / f"{self.folder.name}.failed"

    def state(self) -> State:
        """What is known of it now; `changed`: it is finished, but of data or weights that are others by now.

        Raises:
            UserError: another run stands in its folder.
        """
        folder = self._folder()
        if folder.finished(self.config):
            return "changed" if self._changed() else "done"
        if self.failure.exists():
            return "failed"
        return "begun" if folder.started() else "new"

    def attempt(self, threads: int, registry: Iterable[Path]) -> RunRequest:
        """What a host must know to do it."""
        name, folders = self.folder.name, tuple(str(folder) for folder in registry)
        out, log = (f"{self.kept}/{name}", "") if self.kept else (str(self.folder.absolute()), str(self.log.absolute()))
        return RunRequest(name, self.config.to_toml(), out, folders, threads, log)

    def settle(self, said: str, reason: str = "") -> None:
        """Note how an attempt ended that printed `said`; `reason`: why it failed, if it did."""
        if reason:
            write_text(self.failure, reason)
        else:
            self.failure.unlink(missing_ok=True)
        if self.kept:
            runs, remote = self.folder.parent, RemoteDir(self.kept)
            write_text(self.log, said)
            remote.fetch(runs, [f"{self.folder.name}/{file}" for file in RemoteMirror.FILES])
            logs = [self.log, *([self.failure] if reason else [])]
            remote.send(runs, [log.relative_to(runs).as_posix() for log in logs])
            if not reason:
                remote.remove(self.failure.relative_to(runs).as_posix())

    def reason(self) -> str:
        """Why it counts as changed, or why the last attempt failed; "" where neither is so."""
        if self._folder().manifest().get("finished"):
            return self._changed()
        return self.failure.read_text(encoding="utf-8") if self.failure.exists() else ""

    def _folder(self) -> RunDir:
        return RunDir(self.folder, f"{self.kept}/{self.folder.name}" if self.kept else "")

    def _changed(self) -> str:
        try:
            if self.present is not None:
                self.present.refuse_changed(self._folder(), self.config)
        except UserError as error:
            return str(error)
        return ""


def config_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits that differ where anything differs that decides a run's result."""
    return hashlib.sha256(config.to_toml().encode()).hexdigest()[:8]


def count_by_state(card: SuiteCard) -> int:
    """Count the runs that the suite asks for, before any is planned."""
    optional = (card.protocols, card.heads, card.variants)
    return math.prod(map(len, (card.train, card.seeds, card.models))) * math.prod(len(part) or 1 for part in optional)


def plan_jobs(
    card: SuiteCard, catalogue: Catalog, runs: Path, settings: Iterable[dict[str, Any]] = (), *, kept: str = ""
) -> list[Job]:
    """The suite's runs, in the order in which they are done: training set by training set, seed by seed.

    Args:
        card: the suite.
        catalogue: its datasets and models.
        runs: the folder of all runs.
        settings: laid over the suite's own, as `--set` does.
        kept: the URL of which `runs` is a copy, if it is.

    Raises:
        UserError: the suite names what does not exist, sets what cannot be set, or asks for more than `MOST_RUNS` runs.
    """
    asked_runs = count_by_state(card)
    if asked_runs > MOST_RUNS:
        longest = max(
            ("train", "protocols", "seeds", "models", "heads", "variants"), key=lambda key: len(getattr(card, key))
        )
        raise UserError(
            f"suite '{card.name}' asks for {asked_runs:,} runs, and a suite has {MOST_RUNS:,} at most: shorten `{longest}` "
            f"({len(getattr(card, longest)):,} entries) on its card, or divide it into several suites"
        )
    jobs: dict[str, Job] = {}
    present = InputTracker(catalogue)
    over = list(settings)
    matrix = product(card.train, card.protocols or (None,), card.seeds, card.models, card.heads or (None,))
    for train, protocol, seed, model, head in matrix:
        data = {"train": train, "test": list(card.test)} | ({} if protocol is None else {"protocol": protocol})
        asked: dict[str, Any] = {"seed": seed, "data": data}
        asked["model"] = {"name": model} if head is None else {"name": model, "head": head}
        for variant in card.variants or (None,):
            config = resolve_config(catalogue, [card.settings, asked, variant.settings if variant else {}, *over])
            name = f"{config.name()}-{config_hash(config)}"
            jobs[name] = Job(config, runs / name, variant.name if variant else "", kept, present)
    return list(jobs.values())


def expected_seconds(jobs: Iterable[Job], runs: Path) -> float | None:
    """How long `jobs` will take one after another, by the runs in the folder; None where one is like none of them.

    A run is like another of the same backbone, input size, training set and protocol; its time goes with the number of epochs.
    """
    known: dict[tuple[object, ...], list[float]] = {}
    for path in sorted(runs.glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            config = RunDir(path.parent).config()
            seconds = manifest["timings"]["total_s"] / max(1, manifest["epochs"])
        except (OSError, ValueError, KeyError, TypeError, AgebenchError):
            continue  # Unfinished, damaged or from an older agebench: it tells nothing about time.
        known.setdefault(_kind(config), []).append(seconds)
    total = 0.0
    for job in jobs:
        alike = known.get(_kind(job.config))
        if alike is None:
            return None
        total += statistics.median(alike) * job.config.train.epochs
    return total


def spent_seconds(jobs: Iterable[Job]) -> float:
    """How long the runs that are done took together."""
    manifests = (RunDir(job.folder).manifest() for job in jobs if job.state() == "done")
    return float(sum(manifest.get("timings", {}).get("total_s", 0.0) for manifest in manifests))


def _kind(config: RunConfig) -> tuple[object, ...]:
    return config.data.train, config.data.protocol, config.model.backbone, config.model.size, config.train.freeze
