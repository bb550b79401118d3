"""What a run writes down: its samples, its predictions, its manifest."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.config.cards.base import Architecture, DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.protocol import DEFAULT
from agebench.data.faces.body_crops import shown_halves
from agebench.data.faces.cache import FaceCache
from agebench.data.reject_reasons import count_codes, count_titles
from agebench.data.samples import GEOMETRY_COLUMNS, QUARANTINE, Samples, dataset_fingerprint
from agebench.data.splits.split_files import write_split_files
from agebench.data.splits.splits import Part, count_exact_duplicates
from agebench.metrics.prediction_format import PRED, PROB
from agebench.models.estimates import AgeEstimates
from agebench.runs.config import FacesConfig
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.utils.io import atomic_write

# In a run's folder, and in each fold's: what the model says about the images that validated it, for calibration. Not among
# the tests' predictions, because a dataset may have any name.
VALIDATION = "validation.parquet"


def save_samples(folder: RunDir, divisions: FoldSplits, audited: Mapping[str, Samples]) -> None:
    """samples/<dataset>-<part>.parquet, and samples/quarantined.parquet: what was dropped, and why.

    Of several folds <dataset>-folds.parquet: a column a fold says the part of each image. A protocol's lists go to lists/.
    """
    several = len(divisions) > 1
    for name, (owner, part) in divisions[0].parts().items():
        if not (several and owner == divisions.train_dataset):
            folder.write_table(f"samples/{name}.parquet", _without_shapes(part.table))
    if several:
        own = _without_shapes(divisions.folds.samples.table)
        folder.write_table(f"samples/{divisions.train_dataset}-folds.parquet", own.join(divisions.folds.to_frame()))
    if divisions.folds.protocol != DEFAULT:
        write_split_files(folder.path / "lists", divisions.folds)
    dropped = [samples.rejected.assign(dataset=name) for name, samples in audited.items()]
    dropped += [samples.rejected.assign(dataset=name) for name, samples in divisions.quarantined().items()]
    table = _merged(dropped)
    folder.write_table("samples/quarantined.parquet", table[["dataset", *QUARANTINE]])


def _without_shapes(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=list(GEOMETRY_COLUMNS), errors="ignore")


def predictions_table(
    samples: Samples, estimates: AgeEstimates, classes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> pd.DataFrame:
    """One row an image: sample_id, age, age_pred, what else the head gives (age_std, p), then the group columns and subject.

    A target beside age adds NAME_pred, the likeliest of its `classes`, and NAME_prob, that class's probability.
    """
    table = samples.table
    given = [column for column in ("age_low", "age_high", "subject", *samples.groups) if column in table]
    made: dict[str, Any] = {"sample_id": table["sample_id"], "age": table["age"]}
    made["age_pred"] = estimates.age.astype(np.float64)
    if estimates.std is not None:
        made["age_std"] = estimates.std.astype(np.float64)
    for name, probabilities in estimates.tasks.items():
        made[name + PRED] = np.array(classes[name], dtype=object)[probabilities.argmax(axis=1)]
        made[name + PROB] = probabilities.max(axis=1).astype(np.float64)
    given += [name for name in estimates.tasks if name in table]
    return pd.DataFrame(made).join(table[list(dict.fromkeys(given))])


def save_predictions(folder: RunDir, name: str, table: pd.DataFrame, probs: np.ndarray | None) -> None:
    """predictions/<name>.parquet; `probs` (N, A) become the column `p`, lists of float16."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    if probs is not None:
        flat = pa.array(probs.astype(np.float16).ravel())
        content = content.append_column("p", pa.FixedSizeListArray.from_arrays(flat, probs.shape[1]))
    with atomic_write(folder.path / "predictions" / f"{name}.parquet") as temporary:
        pq.write_table(content, temporary)


def samples_metadata(divisions: FoldSplits, audited: Mapping[str, Samples]) -> dict[str, dict[str, Any]]:
    """For the manifest: a dataset's name -> how many images went where, and why some went nowhere.

    Of several folds, train and val are the mean over them, and test is every image that any of them tests.
    """
    found: dict[str, dict[str, Any]] = {}
    later, folds = divisions.quarantined(), divisions.folds
    for name, samples in audited.items():
        dropped = [samples.rejected, *([later[name].rejected] if name in later else [])]
        found[name] = {
            "read": len(samples) + len(samples.rejected),
            **_describe_rejected(_merged(dropped)),
            "fingerprint": dataset_fingerprint(samples),
        }
        if name == divisions.train_dataset:
            found[name] |= {
                "train": round(float((folds.assignment == Part.TRAIN).sum(axis=1).mean())),
                "val": round(float((folds.assignment == Part.VAL).sum(axis=1).mean())),
                "duplicates": count_exact_duplicates(folds.samples.table),
                "straddling": folds.n_cross_split_removed,
            }
        if name in divisions.tests:
            own = name == divisions.train_dataset
            tested = (
                int((folds.assignment == Part.TEST).any(axis=0).sum()) if own else len(divisions.external_tests[name])
            )
            found[name] |= {"test": tested, "in_training_set": divisions.overlap[name]}
    return found


def faces_metadata(
    cards: Mapping[str, DatasetCard],
    model: Architecture | ExternalCard,
    config: FacesConfig,
    faces: Mapping[str, FaceCache],
) -> dict[str, Any]:
    """For the manifest: how every dataset's faces were prepared, which detectors found them, and a digest of what came out.

    With a model that sees bodies also how many of the prepared rows show one.
    """
    modes = {name: faces[name].mode or config.spec(card, model.size).mode for name, card in cards.items()}
    specs = {name: config.spec(card, model.size) for name, card in cards.items()}
    found = {name: specs[name].summary()["detector"] for name, mode in modes.items() if mode == "detect"}
    about = {
        "size": model.size,
        "coverage": config.coverage,
        "datasets": modes,
        "sha256": {name: of.digest() for name, of in faces.items()},
    }
    if model.bodies:
        about["bodies"] = {name: count_bodies(of) for name, of in faces.items()}
    return about | ({"detectors": found} if found else {})


def _describe_rejected(rejected: pd.DataFrame) -> dict[str, dict[str, int]]:
    """For the manifest: `quarantined`, titles of reasons -> images, and `rejected`, codes of reasons -> images."""
    return {"quarantined": count_titles(rejected), "rejected": count_codes(rejected)}


def _merged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of rejected images as one. Later tables repeat the rows of earlier ones; rows that one table repeats stay."""
    keys = [column for column in ("dataset", *QUARANTINE) if column in tables[0]]
    numbered = [table.assign(occurrence=table.groupby(keys).cumcount()) for table in tables]
    return pd.concat(numbered, ignore_index=True).drop_duplicates([*keys, "occurrence"])


def count_bodies(faces: FaceCache) -> dict[str, int]:
    """How many rows were prepared, how many of them show a body, and how many of these no face."""
    face, body = shown_halves(faces.pixels)
    return {"rows": int((face | body).sum()), "body": int(body.sum()), "body_alone": int((body & ~face).sum())}


def save_tests(folder: RunDir, tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> None:
    """As `save_samples`, of a run that trains nothing: samples/<dataset>-test.parquet and samples/quarantined.parquet."""
    for name, test in tests.items():
        folder.write_table(f"samples/{name}-test.parquet", _without_shapes(test.table))
    dropped = [part[name].rejected.assign(dataset=name) for part in (audited, tests) for name in tests]
    table = _merged(dropped)
    folder.write_table("samples/quarantined.parquet", table[["dataset", *QUARANTINE]])


def tests_metadata(tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> dict[str, dict[str, Any]]:
    """As `describe_samples`, of a run that trains nothing."""
    found: dict[str, dict[str, Any]] = {}
    for name, test in tests.items():
        samples = audited[name]
        found[name] = {
            "read": len(samples) + len(samples.rejected),
            **_describe_rejected(_merged([samples.rejected, test.rejected])),
            "fingerprint": dataset_fingerprint(samples),
            "test": len(test),
        }
    return found
