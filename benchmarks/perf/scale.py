"""Time and memory against size, of every command that reads many rows, images, records, cards or runs.

    OMP_NUM_THREADS=1 python benchmarks/perf/scale.py [--only score] [--sizes 10000 100000] [--timeout 180]

Each command runs in a process of its own, on generated data. The table gives the processor time, less that of the same command
on almost nothing (starting and importing), and the peak memory of its largest process. The last column is the exponent of the
time between the two largest sizes: 1 is linear. A command that takes longer than the timeout ends its row. The results are
kept in scale.json beside this file, a command and size at a time, and make the table of docs/explanation/performance.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import leaderboard
import numpy as np
import pandas as pd
from comparison.machine import machine
from PIL import Image
from pydantic import BaseModel

from agebench.utils.io import write_text
from agebench.utils.marked_text import write_marked

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = Path(__file__).with_name("scale.json")
SMALLEST = 50  # rows, images, records, cards or runs of a command on almost nothing
CARD = """name = "{name}"
title = "Generated"
reader = "csv"
licence = "CC0-1.0"
faces = "none"
groups = ["gender"]
[options]
images = "images"
"""
SUITE = """name = "wide"
title = "Wide"
train = ["synth"]
test = ["synth"]
models = ["tiny"]
seeds = [{seeds}]
settings = {{ train = {{ epochs = 1 }} }}
"""
# Runs a program in a process of its own, and prints its processor seconds and its peak memory in MB. This process in between is
# small, because a process begins with the peak of the one that starts it, and it waits until the program's workers have ended.
MEASURED = """
import resource, subprocess, sys
try:
    code = subprocess.run([sys.executable, "-c", *sys.argv[2:]], stdout=subprocess.DEVNULL, timeout=float(sys.argv[1])).returncode
except subprocess.TimeoutExpired:
    sys.exit({timed_out})
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""
TIMED_OUT = 124
LEAST = 0.05  # seconds; the start of a process varies by as much
PREPARATION = 3600.0  # seconds that a command before the measured one may take
COMMAND = "import sys; from agebench.cli import main; sys.exit(main(sys.argv[1:]))"
SPLIT = """
import sys
from pathlib import Path
from agebench.data.dataset import open_dataset
from agebench.data.splits.splits import make_split
from agebench.registry.catalog import load_catalog
samples = open_dataset(load_catalog([Path(sys.argv[1])]).datasets.get("many")).samples
sys.exit(0 if len(make_split(samples, test=0.2, val=0.15, seed=0).train) else 1)
"""


@dataclass(frozen=True)
class Step:
    """A command at several sizes.

    Attributes:
        title: the command, in words.
        unit: what is counted.
        sizes: numbers of them.
        prepare: writes the data into a folder; returns the commands in order, the last of which is measured.
        work: the program that the last command's words are given to.
    """

    title: str
    unit: str
    sizes: tuple[int, ...]
    prepare: Callable[[Path, int], list[list[str]]]
    work: str = COMMAND


def predictions(path: Path, count: int, seed: int = 0) -> str:
    """Write predictions with labels, gender and race; return the path."""
    rng = np.random.default_rng(seed)
    age = np.random.default_rng(99).integers(1, 90, count)
    columns = {
        "sample_id": [f"img_{row:08d}" for row in range(count)],
        "age": age,
        "age_pred": np.round(age + rng.normal(0, 6, count), 3),
        "gender": np.array(["female", "male"])[np.arange(count) % 2],
        "race": np.array(["a", "b", "c", "d", "e"])[np.arange(count) % 5],
    }
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def score(folder: Path, count: int) -> list[list[str]]:
    file = predictions(folder / "p.csv", count)
    return [["score", file, "--group", "gender", "--group", "race"]]


def compare(folder: Path, count: int) -> list[list[str]]:
    files = [predictions(folder / f"{name}.csv", count, seed) for seed, name in enumerate("ab")]
    return [["compare", f"a={files[0]}", f"b={files[1]}"]]


def dataset(folder: Path, count: int) -> list[str]:
    """Write a card and `count` small images, no two alike; return the command that imports them."""
    (folder / "cards" / "datasets").mkdir(parents=True)
    (folder / "cards" / "datasets" / "many.toml").write_text(CARD.format(name="many"))
    images = folder / "source" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for row in range(count):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(images / f"{row}.jpg", quality=70)
    table = pd.DataFrame({"path": [f"{row}.jpg" for row in range(count)], "age": rng.integers(1, 90, count)})
    table = table.assign(gender=np.array(["female", "male"])[np.arange(count) % 2], subject=np.arange(count) // 3)
    table.to_csv(folder / "source" / "labels.csv", index=False)
    return ["data", "import", "many", str(folder / "source"), "--registry", str(folder / "cards")]


def data_import(folder: Path, count: int) -> list[list[str]]:
    return [dataset(folder, count)]


def data_link(folder: Path, count: int) -> list[list[str]]:
    return [[*dataset(folder, count), "--link"]]


def data_verify(folder: Path, count: int) -> list[list[str]]:
    return [dataset(folder, count), ["data", "verify", "many", "--registry", str(folder / "cards")]]


def data_audit(folder: Path, count: int) -> list[list[str]]:
    out = ["--out", str(folder / "audit"), "--registry", str(folder / "cards")]
    return [dataset(folder, count), ["data", "audit", "many", *out]]


def data_align(folder: Path, count: int) -> list[list[str]]:
    out = ["--out", str(folder / "aligned"), "--registry", str(folder / "cards")]
    return [dataset(folder, count), ["data", "align", "many", "--size", "64", *out]]


def split(folder: Path, count: int) -> list[list[str]]:
    return [dataset(folder, count), [str(folder / "cards")]]


def records(folder: Path, count: int) -> list[list[str]]:
    leaderboard.write_records(folder / "results", count)
    out = ["--out", str(folder / "page.md"), "--site", str(folder / "site")]
    return [["leaderboard", "--results", str(folder / "results"), *out]]


def cards(folder: Path, count: int) -> list[list[str]]:
    (folder / "models").mkdir(parents=True)
    for number in range(count):
        (folder / "models" / f"m{number}.toml").write_text(
            f'name = "m{number}"\ntitle = "Model {number}"\nextends = "tiny"\nhead = "coral"\n'
        )
    return [["list", "models", "--registry", str(folder)]]


def suite(folder: Path, count: int) -> list[list[str]]:
    (folder / "suites").mkdir(parents=True)
    (folder / "suites" / "wide.toml").write_text(SUITE.format(seeds=", ".join(map(str, range(count)))))
    return [["suite", "plan", "wide", "--registry", str(folder), "--runs", str(folder / "runs")]]


ROWS, IMAGES = (10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000)
STEPS = {
    "score": Step("`score`, two groupings", "rows", ROWS, score),
    "compare": Step("`compare`, two systems", "rows", ROWS, compare),
    "import": Step("`data import`", "images", IMAGES, data_import),
    "link": Step("`data import --link`", "images", IMAGES, data_link),
    "verify": Step("`data verify`", "images", IMAGES, data_verify),
    "audit": Step("`data audit`", "images", IMAGES, data_audit),
    "align": Step("`data align`, no detection", "images", IMAGES, data_align),
    "split": Step("open a dataset and split it by person", "images", IMAGES, split, SPLIT),
    "leaderboard": Step("`leaderboard`, page and site", "records", (100, 1_000, 10_000), records),
    "cards": Step("`list models`", "cards", (200, 2_000), cards),
    "suite": Step("`suite plan`", "runs", (1_000, 10_000), suite),
}


def measure(step: Step, count: int, timeout: float) -> tuple[float, float] | None:
    """Processor seconds and peak memory, MB, of the last command; None where it takes longer than the timeout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        homes = {"AGEBENCH_DATA": str(folder / "data"), "AGEBENCH_CACHE": str(folder / "cache")}
        commands = step.prepare(folder, count)
        for words in commands:
            program = step.work if words is commands[-1] else COMMAND
            limit = timeout if words is commands[-1] else PREPARATION
            command = [sys.executable, "-c", MEASURED.format(timed_out=TIMED_OUT), str(limit), program, *words]
            done = subprocess.run(command, env=os.environ | homes, capture_output=True, text=True)
            if done.returncode == TIMED_OUT and words is commands[-1]:
                return None
            if done.returncode:
                raise SystemExit(f"{' '.join(words)}:\n{done.stderr}")
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


class Cost(BaseModel):
    """The cost of a command at one size.

    Attributes:
        seconds: of processor time, less those on almost nothing; None where it took longer than the timeout.
        start: those on almost nothing.
        peak: memory of its largest process, MB.
        timeout: of the measurement, seconds.
        machine: processor, threads and Python.
        load: processes that wanted a core in the minute before.
    """

    seconds: float | None
    start: float
    peak: float
    timeout: float
    machine: str
    load: float


Costs = dict[int, Cost]  # number of rows, images, records, cards or runs -> cost


def measure_step(step: Step, sizes: tuple[int, ...], timeout: float) -> Costs:
    """Measure a command, from the smallest size up to the first that takes longer than the timeout."""
    load = round(os.getloadavg()[0], 1)
    least = measure(step, SMALLEST, timeout)
    start = least[0] if least else 0.0
    found: Costs = {}
    for size in sizes:
        result = measure(step, size, timeout)
        seconds, peak = (None, 0.0) if result is None else (max(result[0] - start, 1e-3), result[1])
        found[size] = Cost(seconds=seconds, start=start, peak=peak, timeout=timeout, machine=machine(), load=load)
        print(f"{step.title} {as_cell(size, found[size])}", file=sys.stderr, flush=True)
        if result is None:
            break
    return found


def as_cell(size: int, cost: Cost) -> str:
    """A size and its cost in words."""
    if cost.seconds is None:
        return f"{size:,}: over {cost.timeout:.0f} s"
    return f"{size:,}: {cost.seconds:.1f} s, {cost.peak:,.0f} MB"


def as_row(step: Step, costs: Costs) -> str:
    """A command as a row of the table."""
    cells = [as_cell(size, cost) for size, cost in sorted(costs.items())]
    times = [(size, cost.seconds, cost.machine) for size, cost in sorted(costs.items()) if cost.seconds is not None]
    exponent = "–"
    if len(times) > 1:
        (small, fast, one), (large, slow, other) = times[-2:]
        if one == other and fast >= LEAST:  # times of two machines have no common scale
            exponent = f"{math.log(slow / fast) / math.log(large / small):.2f}"
    starts = sorted(cost.start for cost in costs.values())
    return f"| {step.title} | {step.unit} | {'; '.join(cells)} | {starts[0]:.1f} s | {exponent} |"


def as_table(results: dict[str, Costs]) -> str:
    """The table, and what was measured on which machine."""
    lines = ["| command | of | size: processor time, peak memory | to start | exponent |", "|---|---|---|---:|---:|"]
    lines += [as_row(STEPS[name], costs) for name, costs in results.items()]
    places: dict[str, list[float]] = {}
    for costs in results.values():
        for cost in costs.values():
            places.setdefault(cost.machine, []).append(cost.load)
    machines = [f"{place}, load before: {min(loads)} to {max(loads)}" for place, loads in places.items()]
    return "\n".join([*lines, "", f"Measured on: {'; '.join(machines)}."])


def read_results(path: Path) -> dict[str, Costs]:
    """The kept costs by command; commands that are no longer there are left out."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        name: {int(size): Cost.model_validate(cost) for size, cost in content[name].items()}
        for name in STEPS
        if name in content
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, keep the results and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", choices=[*STEPS], nargs="+", default=list(STEPS), help="commands")
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of each command's own")
    parser.add_argument("--timeout", type=float, default=180, help="seconds of one command")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page whose table is replaced")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that keeps the results")
    arguments = parser.parse_args(argv)
    for name in arguments.only:
        found = measure_step(STEPS[name], tuple(arguments.sizes or STEPS[name].sizes), arguments.timeout)
        print(as_row(STEPS[name], found), flush=True)
        kept = read_results(arguments.results)
        results = kept | {name: kept.get(name, {}) | found}
        results = {step: results[step] for step in STEPS if step in results}
        content = {
            step: {size: cost.model_dump() for size, cost in sorted(costs.items())} for step, costs in results.items()
        }
        write_text(arguments.results, json.dumps(content, indent=2) + "\n")
        write_marked(arguments.page, "scale", as_table(results))


if __name__ == "__main__":
    main()
