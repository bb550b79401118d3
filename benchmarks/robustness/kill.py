"""Kill commands with SIGKILL, repeat them, compare the outcome: python benchmarks/robustness/kill.py [--kills 50].

Each trial starts a command in a process group of its own, kills the group at a random moment or at a stage (a file that appears),
repeats the same command (a run's with --resume) and compares tensors, predictions, metrics and figures with those of an
undisturbed call. Times are not compared. Exit code 1 if any trial differs.

Commands run in forked processes that have already imported agebench, so that a trial takes seconds; the runs of a suite are
processes of their own, as always.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file

import agebench.runs.run  # noqa: F401 - imported before the forks
from agebench.cli import main

DATASET = """
name = "{name}"
title = "Generated faces"
reader = "{reader}"
licence = "CC0-1.0"
faces = "none"
estimates_public = true
groups = ["gender"]
[options]
{options}
"""
SUITE = """
name = "pair"
title = "Two runs"
train = ["few"]
test = ["few"]
seeds = [0, 1]
models = ["tiny"]
settings = { train = { epochs = 2 }, model = { size = 32 }, evaluate = { resamples = 100 } }
"""
# Keys whose values are durations or follow from them, or from the folder that a run is in.
UNCOMPARED = {"timings", "seconds", "images_per_s", "name", "files", "sha256", "sealed"}
RUN_STAGES = (
    "best.safetensors",
    "last.safetensors",
    "few.parquet",
    "metrics.json",
    ".png",
    "model.ts",
    "manifest.json",
)


@dataclass(frozen=True)
class Scenario:
    """One kind of trial.

    Attributes:
        name: as printed.
        commands: folder of the trial -> the command lines that are started at once.
        repeat: folder -> the command lines that are given afterwards, one after another.
        outcome: folder -> what is compared.
        stage: part of the name of a file whose appearance triggers the kill; empty: a random moment.
        is_forked: whether all work happens in the forked process, so that a warm start is enough.
    """

    name: str
    commands: Callable[[Path], list[list[str]]]
    repeat: Callable[[Path], list[list[str]]]
    outcome: Callable[[Path], dict[str, Any]]
    stage: str = ""


def start(command: Sequence[str], trial: Path) -> int:
    """Fork a process group of its own that runs a command of agebench; returns its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    os.environ["AGEBENCH_CACHE"], os.environ["AGEBENCH_DATA"] = str(trial / "cache"), str(trial / "data")
    log = os.open(trial / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        code = main(command)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 99
    sys.stderr.flush()
    os._exit(code)


def finish(processes: Sequence[int]) -> list[int]:
    """Wait for the processes; returns their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def kill(processes: Sequence[int], reached: Callable[[], bool]) -> bool:
    """SIGKILL the groups as soon as `reached` holds; returns whether any of them still ran."""
    alive = set(processes)
    while alive and not reached():
        for process in list(alive):
            if os.waitpid(process, os.WNOHANG)[0]:
                alive.discard(process)
        time.sleep(0.002)
    for process in alive:
        os.killpg(process, signal.SIGKILL)
    finish(list(alive))
    return bool(alive)


def appeared(trial: Path, stage: str, known: set[Path]) -> bool:
    """Return whether a file of this stage, or the temporary one that becomes it, exists."""
    try:
        return any(stage in path.name and path not in known for path in trial.rglob("*"))
    except FileNotFoundError:  # a folder was renamed meanwhile
        return False


def numbers(value: Any) -> Any:
    """JSON content without durations."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items() if key not in UNCOMPARED}
    return [numbers(entry) for entry in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """Return the part of a file that is compared."""
    if path.suffix == ".json":
        return numbers(json.loads(path.read_text()))
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_json(double_precision=15)
    if path.suffix == ".safetensors":
        return {name: _digest(value.numpy().tobytes()) for name, value in load_file(path).items()}
    if path.suffix == ".ts":
        model = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        return {name: _digest(value.numpy().tobytes()) for name, value in model.state_dict().items()}
    if path.suffix == ".png":
        return _digest(np.asarray(Image.open(path)).tobytes())
    return _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run_outcome(folder: Path) -> dict[str, Any]:
    """Everything in a run's folder but what shows durations (the report, the speed beside learning curves, TensorBoard)."""
    skipped = {"report.md", "learning-curves.png", ".lock"}
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and "tensorboard" not in path.parts
    }


def tree_outcome(folder: Path) -> dict[str, Any]:
    """Every file of a folder but locks."""
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def scenarios(home: Path) -> list[Scenario]:
    """All kinds of trials; inputs are made in `home`."""
    cards = home / "cards"
    (cards / "datasets").mkdir(parents=True)
    (cards / "suites").mkdir()
    few = DATASET.format(name="few", reader="synth", options="count = 160\nseed = 3\nsize = 64")
    (cards / "datasets" / "few.toml").write_text(few)
    mine = DATASET.format(name="mine", reader="csv", options='table = "labels.csv"')
    (cards / "datasets" / "mine.toml").write_text(mine)
    (cards / "suites" / "pair.toml").write_text(SUITE)
    archive = write_archive(home / "mine.zip")
    registry = ["--registry", str(cards)]

    def run(trial: Path) -> list[str]:
        settings = ["--set", "model.size=32", "--set", "evaluate.resamples=100"]
        train = ["run", "--train", "few", "--model", "tiny", "--epochs", "4", *settings]
        return [*train, *registry, "--out", str(trial / "run"), "--resume"]

    def add(trial: Path) -> list[str]:
        return ["data", "import", "mine", str(archive), *registry]

    def record(trial: Path) -> list[str]:
        return ["results", "add", str(home / "whole" / "run" / "run"), "--results", str(trial / "results"), *registry]

    def suite(trial: Path) -> list[str]:
        return ["suite", "run", "pair", "--runs", str(trial / "runs"), "--cpus", "1", *registry]

    def single(command: Callable[[Path], list[str]]) -> Callable[[Path], list[list[str]]]:
        return lambda trial: [command(trial)]

    def of_run(trial: Path) -> dict[str, Any]:
        return run_outcome(trial / "run")

    run_kind = [Scenario("run", single(run), single(run), of_run)]
    staged = [Scenario(f"run, {stage}", single(run), single(run), of_run, stage) for stage in RUN_STAGES]
    others = [
        Scenario("data import", single(add), single(add), lambda trial: tree_outcome(trial / "data")),
        Scenario("results add", single(record), single(record), lambda trial: tree_outcome(trial / "results")),
        Scenario(
            "two suites at once",
            lambda trial: [suite(trial), suite(trial)],
            single(suite),
            lambda trial: {
                folder.name: run_outcome(folder) for folder in (trial / "runs").iterdir() if folder.name != ".logs"
            },
        ),
    ]
    return run_kind + staged + others


def write_archive(path: Path, count: int = 200) -> Path:
    """A zip archive of small images and a table of their ages."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.csv", _labels(count))
        for row in range(count):
            picture = path.with_suffix(".png")
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(picture)
            archive.write(picture, f"{row}.png")
    return path


def _labels(count: int) -> str:
    rows = (f"{row}.png,{row % 80},{('female', 'male')[row % 2]}" for row in range(count))
    return "path,age,gender\n" + "\n".join(rows)


def plan(kinds: Sequence[Scenario], kills: int) -> list[Scenario]:
    """Half of the kills at random moments of a run, the rest in turn at its stages and in the other commands."""
    n_random = kills // 2
    return [kinds[0]] * n_random + [kinds[1 + row % (len(kinds) - 1)] for row in range(kills - n_random)]


def differences(expected: Any, actual: Any, name: str = "") -> list[str]:
    """Return the files in which two outcomes differ."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = sorted({*expected, *actual})
        return [line for key in keys for line in differences(expected.get(key), actual.get(key), f"{name}/{key}")]
    return [] if expected == actual else [name]


def attempt(kind: Scenario, trial: Path, rng: random.Random, duration: float) -> tuple[float, bool]:
    """Start and kill; returns after how many seconds, and whether a command still ran by then."""
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    delay = rng.uniform(0, 0.05) if kind.stage else rng.uniform(0.02, 0.98) * duration
    begin = time.monotonic()
    processes = [start(command, trial) for command in kind.commands(trial)]
    if kind.stage:
        at: list[float] = []

        def reached() -> bool:
            if not at and appeared(trial, kind.stage, set()):
                at.append(time.monotonic())
            return bool(at) and time.monotonic() - at[0] >= delay
    else:

        def reached() -> bool:
            return time.monotonic() - begin >= delay

    is_killed = kill(processes, reached)
    return time.monotonic() - begin, is_killed


def whole(kind: Scenario, trial: Path) -> tuple[dict[str, Any], float]:
    """The outcome of undisturbed commands, and how long they took."""
    trial.mkdir(parents=True)
    begin = time.monotonic()
    codes = finish([start(command, trial) for command in kind.commands(trial)[:1]])
    if any(codes):
        raise SystemExit(f"{kind.name}: the undisturbed command failed: {(trial / 'log.txt').read_text()[-2000:]}")
    return kind.outcome(trial), time.monotonic() - begin


def trials(home: Path, kills: int, seed: int, only: str) -> int:
    """All trials; returns how many ended as an undisturbed call does."""
    rng, n_equal = random.Random(seed), 0
    kinds = scenarios(home)
    chosen = plan(kinds, kills) if not only else [kind for kind in kinds if kind.name.startswith(only)] * kills
    # First: `results add` makes the record of this run.
    expected = {"run": whole(kinds[0], home / "whole" / "run")}
    for number, kind in enumerate(chosen[:kills], start=1):
        family = kind.name.partition(",")[0]
        if family not in expected:
            expected[family] = whole(kind, home / "whole" / family.replace(" ", "-"))
            print(f"{family}: undisturbed in {expected[family][1]:.1f} s, {len(expected[family][0])} files", flush=True)
        outcome, duration = expected[family]
        trial = home / "trials" / f"{number:03d}"
        seconds, is_killed = attempt(kind, trial, rng, duration)
        while not is_killed:  # the machine was less busy than before: a moment within the shorter time
            seconds, is_killed = attempt(kind, trial, rng, seconds)
        succeeded = not any(finish([start(command, trial)])[0] for command in kind.repeat(trial))
        differing = differences(outcome, kind.outcome(trial)) if succeeded else ["the repeated command failed"]
        n_equal += not differing
        verdict = "equal" if not differing else f"DIFFERS: {', '.join(differing[:4])}; see {trial}"
        print(f"{number:3d}/{kills} {kind.name:24s} killed after {seconds:5.2f} s: {verdict}", flush=True)
        if not differing:
            shutil.rmtree(trial)
    return n_equal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill commands at random moments and compare what they end with.")
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", default="", metavar="NAME", help="trials whose name begins so")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="work here and keep what differs (default: a temporary folder)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch.jit.load
    base = options.keep or Path(tempfile.mkdtemp(prefix="agebench-kill-"))
    equal = trials(base.absolute(), options.kills, options.seed, options.only)
    print(f"{equal}/{options.kills} equal to the undisturbed outcome")
    if equal == options.kills and options.keep is None:
        shutil.rmtree(base)
    sys.exit(equal != options.kills)
