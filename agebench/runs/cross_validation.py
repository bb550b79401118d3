"""The folds of one run: what each leaves behind, and all of it together."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.errors import AgebenchError
from agebench.metrics.cross_validation import evaluate_folds, evaluate_task_folds
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import MetricsFile, ProtocolSummary
from agebench.runs.config import RunConfig
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.utils.integrity import read_arrow
from agebench.utils.io import atomic_write


def evaluate_run(config: RunConfig, folder: RunDir, divisions: FoldSplits) -> MetricsFile:
    """The folds' predictions to figures, both kept: predictions/<test>.parquet and metrics.json."""
    trained = [division.train.table["age"] for division in divisions]
    protocol, found = divisions.protocol(), {}
    for name in divisions.tests:
        table = concat_fold_predictions(folder, divisions, name)
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
        # The floor that a model must beat: the training set's median age, whatever the face; each fold has its own.
        medians = [float(ages.median()) for ages in trained]
        own = (
            medians[0] if FOLD not in table else table[FOLD].map(dict(zip(divisions.folds.names, medians, strict=True)))
        )
        changes: dict[str, Any] = {"baseline_mae": float((table["age"] - own).abs().mean())}
        if tasks:
            changes["tasks"] = tasks
        if name == divisions.train_dataset and any(protocol["leaks"].values()):
            changes["leaks"] = protocol["leaks"]
        found[name] = figures.model_copy(update=changes)
    metrics = MetricsFile(train=divisions.train_dataset, protocol=ProtocolSummary.model_validate(protocol), tests=found)
    folder.write_json("metrics.json", metrics.to_json())
    return metrics


def concat_fold_predictions(folder: RunDir, divisions: FoldSplits, test: str) -> pd.DataFrame:
    """All folds' answers about a test set, without `p`; of several folds also kept as predictions/<test>.parquet.

    Raises:
        AgebenchError: a fold that was done before answered about other images than it is asked about now.
    """
    if len(divisions) == 1:
        return _table(read_arrow(folder.path, f"predictions/{test}.parquet"))
    tables = []
    for number, (name, division) in enumerate(zip(divisions.folds.names, divisions, strict=True)):
        own = folder.fold(number, len(divisions))
        content = read_arrow(own.path, f"predictions/{test}.parquet")
        asked = division.tests[test].table["sample_id"]
        if not np.array_equal(content["sample_id"].to_numpy(), asked.to_numpy()):
            raise AgebenchError(
                f"{own.path}: was done with other images of {test} than are there now; delete this folder and go on with --resume"
            )
        tables.append(content.append_column(FOLD, pa.array([name] * len(content))))
    whole = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    with atomic_write(_file(folder, test)) as temporary:
        pq.write_table(whole, temporary)
    return _table(whole)


def _table(content: pa.Table) -> pd.DataFrame:
    if "p" in content.column_names:
        content = content.drop_columns(["p"])
    table: pd.DataFrame = content.to_pandas()
    return table


def _file(folder: RunDir, test: str) -> Path:
    return folder.path / "predictions" / f"{test}.parquet"
