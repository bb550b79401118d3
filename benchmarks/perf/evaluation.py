"""The speed of resampling: a million predictions, and against fairlearn's own bootstrap in the same run.

    python benchmarks/perf/evaluation.py [--rows 1000000] [--resamples 1000] [--fairlearn-resamples 10]

Prints the time and memory of `evaluate` on the million (every figure, interval and test), then, on 20,000 rows and 12 groups,
seconds a resample of fairlearn's MetricFrame (MAE overall and by group), of the same figures here, and of all of `evaluate`; then
seconds of everything that `agebench score --group` computes on 100,000 rows in 5,000 groups (bound: 15 s on an idle machine).
"""

import argparse
import json
import resource
import time

import numpy as np
import pandas as pd

from agebench.metrics.bootstrap import ClusterBootstrap
from agebench.metrics.evaluate import evaluate
from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.scoring import ScoreOptions, score_predictions

GROUPS = 12


def predictions(rows: int, seed: int = 0) -> pd.DataFrame:
    """Errors that grow with age, 12 groups."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 100, rows).astype(float)
    predicted = age + rng.normal(0, 2 + age / 20)
    return pd.DataFrame({"age": age, "age_pred": predicted, "group": rng.integers(0, GROUPS, rows).astype(str)})


def fairlearn_seconds(table: pd.DataFrame, resamples: int) -> float:
    """Seconds a resample of MetricFrame's bootstrap; what it takes without resampling is subtracted."""
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import mean_absolute_error

    def frame(**bootstrap: object) -> float:
        start = time.perf_counter()
        MetricFrame(
            metrics=mean_absolute_error,
            y_true=table["age"],
            y_pred=table["age_pred"],
            sensitive_features=table["group"],
            **bootstrap,
        )
        return time.perf_counter() - start

    alone = frame()
    return (frame(n_boot=resamples, ci_quantiles=[0.025, 0.975], random_state=0) - alone) / resamples


def same_figures_seconds(table: pd.DataFrame, resamples: int) -> float:
    """Seconds a resample of MAE overall and by group here."""
    error = np.abs(table["age_pred"].to_numpy() - table["age"].to_numpy())
    features = np.column_stack([np.ones(len(table)), error])
    groups = [np.zeros(len(table), dtype=np.int64), table["group"].astype(int).to_numpy()]
    start = time.perf_counter()
    ClusterBootstrap(features, groups, np.arange(len(table))).replicates(
        lambda sums: np.concatenate([of[:, 1] / of[:, 0] for of in sums]), resamples=resamples, seed=0
    )
    return (time.perf_counter() - start) / resamples


def many_groups_seconds(resamples: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU time, of scoring 100,000 rows in 5,000 groups."""
    rng = np.random.default_rng(0)
    table = predictions(100_000).assign(sample_id=np.arange(100_000).astype(str), shop=rng.integers(0, 5000, 100_000))
    start, busy = time.perf_counter(), time.process_time()
    score_predictions("many", [JoinedPredictions(table)], ScoreOptions(groups=("shop",), resamples=resamples))
    return time.perf_counter() - start, time.process_time() - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--fairlearn-resamples", type=int, default=10)
    arguments = parser.parse_args()
    large = predictions(arguments.rows)
    start, busy = time.perf_counter(), time.process_time()
    evaluate(large, groups=["group"], resamples=arguments.resamples)
    whole, processor = time.perf_counter() - start, time.process_time() - busy
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    small = predictions(20_000)
    theirs = fairlearn_seconds(small, arguments.fairlearn_resamples)
    ours = same_figures_seconds(small, arguments.resamples)
    start = time.perf_counter()
    evaluate(small, groups=["group"], resamples=arguments.resamples)
    everything = (time.perf_counter() - start) / arguments.resamples
    many, many_processor = many_groups_seconds(arguments.resamples)
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "resamples": arguments.resamples,
                "evaluate_s": round(whole, 2),
                "evaluate_processor_s": round(processor, 2),
                "peak_memory_gb": round(memory, 2),
                "fairlearn_s_a_resample": round(theirs, 5),
                "same_figures_s_a_resample": round(ours, 6),
                "ratio": round(theirs / ours),
                "all_of_evaluate_s_a_resample": round(everything, 6),
                "ratio_all_of_evaluate": round(theirs / everything),
                "score_5000_groups_s": round(many, 2),
                "score_5000_groups_processor_s": round(many_processor, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
