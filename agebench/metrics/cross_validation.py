"""Metrics over the predictions of several folds: computed over all images, never as the mean of small folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from agebench.metrics.age_gates import age_gates
from agebench.metrics.auxiliary_targets import evaluate_tasks
from agebench.metrics.evaluate import evaluate, evaluate_seeds
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import FoldSummary, GateResult, TaskMetrics, TestResult


def evaluate_folds(table: pd.DataFrame, **how: Any) -> TestResult:
    """Evaluate a table in which `tested_in` may name the fold whose model answered; see `evaluate`.

    Where each image was tested once, all images are one test set. Where every fold was asked about the same images, the
    folds are like seeds: figures are means over them, intervals hierarchical (`evaluate_seeds`). Where folds share some of
    their images, each answer counts, and all answers about one subject (or else image) are resampled together.

    Args:
        table: predictions; without `tested_in` this is `evaluate`.
        how: groups, train_ages, resamples, seed, interval: see `evaluate`.

    Returns:
        As `evaluate`, and of several folds `folds`: each one's name, n and MAE, and the mean and standard deviation of these.
    """
    if FOLD not in table:
        return evaluate(table, **how)
    apart = [part.drop(columns=FOLD).reset_index(drop=True) for _, part in table.groupby(FOLD, sort=False)]
    whole = table.drop(columns=FOLD).reset_index(drop=True)
    images = whole["sample_id"].nunique()
    if images == len(whole):
        entry = evaluate(whole, **how)
    elif all(len(part) == images for part in apart):
        entry = evaluate_seeds(apart, **how)
    else:
        entry = _answers(whole, **how)
    maes = [float((part["age_pred"] - part["age"]).abs().mean()) for part in apart]
    folds = FoldSummary(
        names=[str(name) for name in table[FOLD].unique()],
        n=[len(part) for part in apart],
        mae=maes,
        mean=float(np.mean(maes)),
        sd=float(np.std(maes, ddof=1)),
    )
    return entry.model_copy(update={"folds": folds})


def evaluate_task_folds(table: pd.DataFrame, tasks: Sequence[str], **how: Any) -> dict[str, TaskMetrics]:
    """Evaluate tasks of a table in which `tested_in` may name the fold whose model answered; see `evaluate_tasks`.

    Each answer counts, and so does `n`; all answers about one subject (or else image) are resampled together. The spread
    between the folds' models is in the interval of no task.
    """
    if FOLD not in table:
        return evaluate_tasks(table, tasks, **how)
    return evaluate_tasks(pool_folds(table), tasks, **how)


def age_gates_of_folds(table: pd.DataFrame, **options: Any) -> dict[str, GateResult]:
    """Compute `age_gates` for a table in which `tested_in` may name the fold of each answer.

    Each answer counts; all answers about one subject, or else one image, are one person's in the intervals.

    Args:
        table: predictions.
        options: groups, resamples, seed and further arguments of `age_gates`.
    """
    return age_gates(pool_folds(table), **options)


def pool_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of all folds as one table, in which several answers about one image are one person's.

    Args:
        table: predictions; without `tested_in` they are returned as they are.
    """
    if FOLD not in table:
        return table
    whole = table.drop(columns=FOLD).reset_index(drop=True)
    return whole.assign(subject=_people(whole)) if whole["sample_id"].duplicated().any() else whole


def _people(table: pd.DataFrame) -> "pd.Series[Any]":
    """Return the units of resampling: a subject's answers, or else an image's."""
    own = "image " + table["sample_id"].astype("str")
    return table["subject"].astype("object").where(table["subject"].notna(), own) if "subject" in table else own


def _answers(table: pd.DataFrame, **how: Any) -> TestResult:
    known = "subject" in table and table["subject"].notna().any()
    entry = evaluate(table.assign(subject=_people(table)), **how)
    images = table["sample_id"].nunique()
    note = f"{images} images, tested {len(table) / images:.2g} times each on average"
    assert entry.method is not None
    return entry.model_copy(
        update={
            "subjects": int(table["subject"].nunique()) if known else None,
            "method": entry.method.model_copy(update={"resampled": "subjects" if known else "images"}),
            "notes": [*entry.notes, note],
        }
    )
