"""Combine the predictions of a run's folds, and compute their metrics."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.config.run import RunConfig
from agebench.errors import AgebenchError
from agebench.metrics.cross_validation import age_gates_of_folds, evaluate_folds, evaluate_task_folds
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import MetricsFile, ProtocolSummary
from agebench.metrics.shift import explain_shift
from agebench.runs.earlier_training import count_trained_before, trained_before
from agebench.runs.gates import configured_gates
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.utils.integrity import read_arrow
from agebench.utils.io import atomic_write

logger = logging.getLogger(__name__)


def evaluate_run(config: RunConfig, folder: RunDir, divisions: FoldSplits) -> MetricsFile:
    """Compute the metrics of every test set over all folds, and write them to metrics.json.

    Args:
        config: the run's settings.
        folder: the run's folder.
        divisions: the division of each fold.
    """
    trained = [division.train.table["age"] for division in divisions]
    protocol, found = ProtocolSummary.model_validate(divisions.protocol()), {}
    gate_options = configured_gates(config.evaluate)
    home = divisions.train_dataset
    earlier = trained_before(config.pretrained)
    held_out = concat_fold_predictions(folder, divisions, home) if home in divisions.tests else None
    for name in divisions.tests:
        table = held_out if name == home and held_out is not None else concat_fold_predictions(folder, divisions, name)
        figures = evaluate_folds(
            table,
            groups=divisions[0].tests[name].groups,
            train_ages=(max(float(ages.min()) for ages in trained), min(float(ages.max()) for ages in trained)),
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        tasks = evaluate_task_folds(
            table,
            list(config.model.targets),
            groups=divisions[0].tests[name].groups,
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        # The baseline predicts the training set's median age for every face; each fold has its own.
        medians = [float(ages.median()) for ages in trained]
        own = (
            medians[0] if FOLD not in table else table[FOLD].map(dict(zip(divisions.folds.names, medians, strict=True)))
        )
        changes: dict[str, object] = {
            "baseline_mae": float((table["age"] - own).abs().mean()),
            "age_gates": age_gates_of_folds(
                table,
                groups=divisions[0].tests[name].groups,
                resamples=config.evaluate.resamples,
                seed=config.seed,
                **gate_options,
            ),
        }
        if tasks:
            changes["tasks"] = tasks
        if name != home and held_out is not None:
            shift = explain_shift(held_out, table, name=home, resamples=config.evaluate.resamples, seed=config.seed)
            if shift is not None:
                changes["shift"] = shift
        seen = 0 if earlier is None else max(count_trained_before(split.tests[name], earlier) for split in divisions)
        if seen:
            logger.warning(
                "%s: %d of the %d test images were trained on by the run whose weights this one started from (--pretrained %s); "
                "its error is no error on new faces",
                *(name, seen, len(divisions[0].tests[name]), config.pretrained),
            )
            changes["training_overlap"] = "known"
        if name == home and isinstance(protocol.leaks, dict) and any(protocol.leaks.values()):
            changes["leaks"] = protocol.leaks
        found[name] = figures.model_copy(update=changes)
    metrics = MetricsFile(train=home, protocol=protocol, tests=found)
    folder.write_json("metrics.json", metrics.to_json())
    return metrics


def concat_fold_predictions(folder: RunDir, splits: FoldSplits, test: str) -> pd.DataFrame:
    """Return all folds' predictions of a test set, without `p`; of several folds also written to predictions/<test>.parquet.

    Args:
        folder: the run's folder.
        splits: the division of each fold.
        test: the test set.

    Raises:
        AgebenchError: a finished fold predicted other images than its test split has now.
    """
    if len(splits) == 1:
        return _table(read_arrow(folder.path, f"predictions/{test}.parquet"))
    tables = []
    for fold, (name, split) in enumerate(zip(splits.folds.names, splits, strict=True)):
        fold_dir = folder.fold(fold, len(splits))
        content = read_arrow(fold_dir.path, f"predictions/{test}.parquet")
        expected_ids = split.tests[test].table["sample_id"]
        if not np.array_equal(content["sample_id"].to_numpy(), expected_ids.to_numpy()):
            raise AgebenchError(
                f"{fold_dir.path}: the fold predicted other images of {test} than there are now; delete the folder and use --resume"
            )
        tables.append(content.append_column(FOLD, pa.array([name] * len(content))))
    combined = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    with atomic_write(folder.path / "predictions" / f"{test}.parquet") as temporary:
        pq.write_table(combined, temporary)
    return _table(combined)


def _table(content: pa.Table) -> pd.DataFrame:
    if "p" in content.column_names:
        content = content.drop_columns(["p"])
    table: pd.DataFrame = content.to_pandas()
    return table
