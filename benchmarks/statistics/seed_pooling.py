"""Pairs of heads that differ on a test set, by what is assumed of the variance between seeds.

    python benchmarks/statistics/seed_pooling.py [--results reports/results] [--train utk --test fgnet]

Reads committed records with their estimates; the test set must be on this machine (`agebench data add`). `moderated`: the
leaderboard's rankings. `pooled`: one variance for all systems of a training set. `images`: the trained models as they are, without
a variance between seeds. `sd`: smallest and largest standard deviation between the seeds of a system, without the effect that a
seed has on all of them. `Bartlett`: p of the test that all systems have one variance.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from agebench.leaderboard.image_ranking import RankingBuilder
from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.records import read_records
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.systems import group_into_systems
from agebench.metrics.ranking import Layout, SystemErrors, rank, resample_maes
from agebench.registry.catalog import load_catalog

SEEDS = 3


def read_systems(results: Path, train: str, test: str) -> tuple[list[SystemErrors], np.ndarray]:
    """Return the systems with three seeds, and the person on each image of the test set."""
    records = [parse_record(content, path) for path, content in read_records(results).items()]
    files = {record.id: results / f"{record.id}.json" for record in records}
    builder = RankingBuilder(files, LocalDatasets(load_catalog()))
    labels = builder._labels(test)
    rows = [row for row in group_into_systems(records) if row.train == train and len(row.records_on(test)) == SEEDS]
    return [errors for row in rows if (errors := builder._errors(row, test, labels)) is not None], labels.clusters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("reports/results"))
    parser.add_argument("--train", default="utk")
    parser.add_argument("--test", default="fgnet")
    arguments = parser.parse_args()
    systems, clusters = read_systems(arguments.results, arguments.train, arguments.test)
    if len(systems) < 2:
        raise SystemExit(
            f"{arguments.results}: fewer than two systems of {arguments.train} with {SEEDS} seeds on {arguments.test}"
        )
    replicates = resample_maes(systems, clusters)
    seeds = replicates.values.reshape(len(systems), SEEDS)
    own = seeds - seeds.mean(axis=0)
    deviations = own.std(axis=1, ddof=1) * np.sqrt(len(systems) / (len(systems) - 1))
    fixed = [SystemErrors(system.name, None, system.seeds, system.images, system.errors) for system in systems]
    shown = {
        "moderated": rank(Layout.of(systems), replicates).pairs_shown,
        "pooled": rank(Layout.of(systems), replicates, pooled=True).pairs_shown,
        "images": rank(Layout.of(fixed), replicates).pairs_shown,
    }
    pairs = len(systems) * (len(systems) - 1) // 2
    print(
        f"{arguments.train} to {arguments.test}: {len(systems)} systems, {pairs} pairs, {replicates.clusters:,} people or images"
    )
    print("| moderated | pooled | images | sd (years) | Bartlett |\n|---:|---:|---:|---:|---:|")
    counts = " | ".join(str(count) for count in shown.values())
    print(f"| {counts} | {deviations.min():.2f} to {deviations.max():.2f} | {stats.bartlett(*own).pvalue:.2f} |")


if __name__ == "__main__":
    main()
