"""The time that a thousand records take: python benchmarks/perf/leaderboard.py [RECORDS].

Each record has the figures of a run that was tested on two sets by gender, race and their crossing, at three seeds a system.
"""

import copy
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from agebench.leaderboard.records import content_hash
from agebench.metrics.evaluate import evaluate
from agebench.utils.io import write_json


def write_records(folder: Path, count: int) -> None:
    """Write `count` records into `folder`."""
    rng = np.random.default_rng(0)
    age = rng.integers(0, 90, 2000).astype(float)
    groups = {"gender": ["female", "male"], "race": ["Asian", "Black", "Indian", "Others", "White"]}
    table = pd.DataFrame(
        {"sample_id": np.arange(2000).astype(str), "age": age, "age_pred": age + rng.normal(0, 6, 2000)}
    )
    table = table.assign(**{name: rng.choice(values, 2000) for name, values in groups.items()})
    tests = {name: evaluate(table, groups=list(groups), resamples=200).to_json() for name in ("utk", "fgnet")}
    for number in range(count):
        record = {
            "schema": 1,
            "id": f"utk-model-{number}",
            "config": {"seed": number % 3, "data": {"train": "utk"}, "lr": number // 3},
            "model": {"name": "model", "title": f"Model {number // 3}", "head": "coral", "size": 64},
            "timings": {"predict_s": 10.0 + number},
            "metrics": {"schema": 1, "train": "utk", "tests": copy.deepcopy(tests)},
            "predictions": {},
        }
        write_json(folder / f"{record['id']}.json", record | {"sha256": content_hash(record)})


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder) / "results", count)
        command = [sys.executable, "-m", "agebench", "leaderboard", "--results", f"{folder}/results"]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--out", f"{folder}/page.md", "--site", f"{folder}/site"], check=True, capture_output=True
        )
        wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (Path(folder) / "site" / "index.html").stat().st_size / 1e6
        print(f"{count} records: {wall:.1f} s ({used.ru_utime:.1f} s of one core), page {size:.1f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
