"""Compare agebench with the packages that its users would use otherwise, side by side in one run.

    OMP_NUM_THREADS=1 python benchmarks/perf/compare.py [--quick] [--only bootstrap] [--repeats 3] [--page FILE]

Agebench and its peers do each work in turn, so that all of them see the same machine, each in a process of its own; the
medians of the processor times are compared. A peer that is slow does a share of the work, and its time is scaled. Peers that
are not installed are named and skipped. The results are kept in compare.json beside this file, a work at a time, and make
the table of docs/explanation/performance.md; `--quick` takes small data and one process, and writes nothing.
"""

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from comparison.machine import machine
from comparison.timing import Elsewhere, Here, Runner, Timing, measure
from comparison.works import WORKS
from pydantic import BaseModel

from agebench.utils.io import write_text
from agebench.utils.marked_text import write_marked

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = Path(__file__).with_name("compare.json")


class Row(BaseModel):
    """One runner.

    Attributes:
        name: of the runner.
        seconds: median of the processor seconds; None if it was skipped.
        remark: what it did, or why it was skipped.
    """

    name: str
    seconds: float | None
    remark: str


class Result(BaseModel):
    """One work.

    Attributes:
        name: the work, as `--only` takes it.
        title: the work, in words.
        note: differences between the runners.
        machine: processor, threads and Python.
        versions: of the packages, by name.
        repeats: times that each did the work, besides the first.
        load: processes that wanted a core in the minute before.
        rows: agebench first.
    """

    name: str
    title: str
    note: str
    machine: str
    versions: dict[str, str]
    repeats: int
    load: float
    rows: list[Row]


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print the ratios, write the page; return work -> peer -> ratio of its time to agebench's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=tuple(WORKS), default=list(WORKS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    ratios: dict[str, dict[str, float]] = {}
    for name in arguments.only:
        result = run(name, arguments.quick, 1 if arguments.quick else arguments.repeats)
        print("\n".join(as_lines(result)), flush=True)
        own = result.rows[0].seconds or float("nan")
        ratios[name] = {row.name: row.seconds / own for row in result.rows[1:] if row.seconds is not None}
        if not arguments.quick:
            keep(result, arguments.results, arguments.page)
    return ratios


def run(name: str, quick: bool, repeats: int) -> Result:
    """Time all runners of a work."""
    load = os.getloadavg()[0]
    work = WORKS[name](quick)
    with ExitStack() as stack:
        runners: list[Runner] = [
            Here(peer) if quick else stack.enter_context(closing(Elsewhere(peer.name, WORKS[name], quick, number)))
            for number, peer in enumerate(work.peers)
        ]
        timings = measure(runners, repeats)
    packages = {package for peer in work.peers for package in peer.packages}
    versions = {
        package: version for package in sorted({"numpy", "torch", *packages}) if (version := version_of(package))
    }
    rows = [as_row(timing) for timing in timings]
    return Result(
        name=name,
        title=work.title,
        note=work.note,
        machine=machine(),
        versions=versions,
        repeats=repeats,
        load=round(load, 1),
        rows=rows,
    )


def keep(result: Result, path: Path, page: Path) -> None:
    """Write a work's result into the file and the page; those of other works stay."""
    results = read_results(path) | {result.name: result}
    results = {work: results[work] for work in WORKS if work in results}
    content = {work: of.model_dump() for work, of in results.items()}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_marked(page, "measured", as_page([*results.values()]))


def as_row(timing: Timing) -> Row:
    """A timing as it is kept."""
    if timing.error:
        return Row(name=timing.name, seconds=None, remark=timing.error)
    return Row(name=timing.name, seconds=timing.median, remark=timing.remark)


def read_results(path: Path) -> dict[str, Result]:
    """The kept results by work; works that are no longer there are left out."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: Result.model_validate(result) for name, result in content.items() if name in WORKS}


def as_lines(result: Result) -> list[str]:
    """A work as rows of the table."""
    own = result.rows[0].seconds or float("nan")
    lines = []
    for number, row in enumerate(result.rows):
        title = f"`{result.name}`: {result.title}" if number == 0 else ""
        time = "" if row.seconds is None else as_time(row.seconds)
        ratio = "" if row.seconds is None or number == 0 else f"{row.seconds / own:,.3g}"
        lines.append(f"| {title} | {row.name} | {time} | {ratio} | {row.remark} |")
    return lines


def as_page(results: Sequence[Result]) -> str:
    """The table, what differs, and what each work was measured on."""
    lines = ["| work | by | processor time | ratio | |", "|---|---|---:|---:|---|"]
    lines += [line for result in results for line in as_lines(result)]
    notes: dict[str, list[str]] = {}
    places: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        notes.setdefault(result.note, []).append(result.name)
        places.setdefault((result.machine, result.repeats), []).append(result)
    lines += ["", *(f"- {', '.join(names)}: {note}" for note, names in notes.items() if note), ""]
    for (place, repeats), there in places.items():
        loads = sorted(result.load for result in there)
        versions = sorted({f"{name} {version}" for result in there for name, version in result.versions.items()})
        lines.append(
            f"Measured ({', '.join(result.name for result in there)}): {place}, medians of {repeats} after one that does not "
            f"count; load before: {loads[0]} to {loads[-1]}. {', '.join(versions)}."
        )
    return "\n".join(lines)


def as_time(seconds: float) -> str:
    """Return a duration in words."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{1000 * seconds:,.3g} ms"


def version_of(name: str) -> str:
    """Return the version of a distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(sys.argv[1:])
