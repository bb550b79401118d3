"""Cost and recall of finding similar hashes among generated signatures, by the index and by comparing all pairs.

    OMP_NUM_THREADS=1 python benchmarks/perf/near_duplicates.py [--counts 20000 80000 500000] [--exhaustive 80000]

A signature is a random unit vector of the width of an image's hash; a hundredth of them have a copy, at cosines between 0.75 and
0.95. `agebench data audit` makes twelve such passes, with crops and mirror images, so that a copy has several chances.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from agebench.data.audit.hash_index import HashIndex
from agebench.data.audit.near_duplicates import MIN_COSINE, _similar_hashes

WIDTH = 75
COSINES = (0.75, 0.95)


def signatures(count: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (count, WIDTH), the last hundredth of them copies of the first."""
    copied = count // 100
    hashes = rng.normal(size=(count, WIDTH)).astype(np.float32)
    hashes /= np.linalg.norm(hashes, axis=1, keepdims=True)
    noise = hashes[-copied:] - np.sum(hashes[-copied:] * hashes[:copied], axis=1, keepdims=True) * hashes[:copied]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(*COSINES, size=(copied, 1)).astype(np.float32)
    hashes[-copied:] = cosine * hashes[:copied] + np.sqrt(1 - cosine**2) * noise
    return hashes


def measure(count: int, *, exhaustive: bool) -> dict[str, float]:
    """Processor seconds, peak memory and the share of copies that are found."""
    hashes = signatures(count, np.random.default_rng(0))
    start = time.process_time()
    if exhaustive:
        pairs = {(row, column) for row, column, _ in _similar_hashes(hashes, hashes, count, symmetric=True)}
    else:
        matches = HashIndex(hashes).matches(hashes, MIN_COSINE)
        pairs = {pair for rows, columns, _ in matches for pair in zip(rows.tolist(), columns.tolist(), strict=True)}
    seconds = time.process_time() - start
    copied = count // 100
    found = np.mean([(row, count - copied + row) in pairs for row in range(copied)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "recall": float(found), "peak_mb": peak}


def main() -> None:
    """Measure each size in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 80_000, 500_000])
    parser.add_argument(
        "--exhaustive", type=int, default=80_000, help="largest number for which all pairs are compared"
    )
    parser.add_argument("--one", choices=["index", "all-pairs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.counts[0], exhaustive=arguments.one == "all-pairs")))
        return
    print("| signatures | compared by | processor time | copies found | peak memory |\n|---:|---|---:|---:|---:|")
    for count in arguments.counts:
        for way in ("index", *(["all-pairs"] if count <= arguments.exhaustive else [])):
            words = [sys.executable, __file__, "--counts", str(count), "--one", way]
            row = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            print(
                f"| {count:,} | {way} | {row['seconds']:.1f} s | {100 * row['recall']:.1f} % | {row['peak_mb']:,.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
