"""Files that a run writes: samples and predictions; and its manifest's counts of samples and faces."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import Architecture
from agebench.config.cards.protocol import DEFAULT
from agebench.config.run import FacesConfig
from agebench.data.faces.body_crops import shown_halves
from agebench.data.faces.cache import FaceCache
from agebench.data.reject_reasons import count_codes, count_titles
from agebench.data.samples import GEOMETRY_COLUMNS, QUARANTINE, Samples, dataset_fingerprint
from agebench.data.splits.split_files import write_split_files
from agebench.data.splits.splits import count_exact_duplicates
from agebench.metrics.prediction_format import PRED, PROB
from agebench.models.estimates import AgeEstimates
from agebench.runs.manifest import FacesRecord, SampleCounts
from agebench.runs.resolve import model_alignment_spec
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits
from agebench.types import Split
from agebench.utils.io import atomic_write

# The predictions on the validation split, in the folder of the run and of each fold; they calibrate intervals. Not among
# the tests' predictions, because a dataset may have any name.
VALIDATION = "validation.parquet"


def save_samples(folder: RunDir, splits: FoldSplits, audited: Mapping[str, Samples]) -> None:
    """Write samples/<dataset>-<split>.parquet, and `samples/quarantined.parquet` with the rejected images.

    Several folds share samples/<dataset>-folds.parquet, in which a column a fold names each image's split. The lists of a
    protocol are written to lists/.

    Args:
        folder: the run's folder.
        splits: the division of each fold, after faces were prepared.
        audited: dataset -> audited samples, before they were split.
    """
    has_folds = len(splits) > 1
    for name, (dataset, samples) in splits[0].parts().items():
        if not (has_folds and dataset == splits.train_dataset):
            folder.write_table(f"samples/{name}.parquet", _without_geometry(samples.table))
    if has_folds:
        table = _without_geometry(splits.folds.samples.table)
        folder.write_table(f"samples/{splits.train_dataset}-folds.parquet", table.join(splits.folds.to_frame()))
    if splits.folds.protocol != DEFAULT:
        write_split_files(folder.path / "lists", splits.folds)
    _save_rejected(folder, [*audited.items(), *splits.rejected().items()])


def save_tests(folder: RunDir, tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> None:
    """Write samples/<dataset>-test.parquet and `samples/quarantined.parquet` of a test without training.

    Args:
        folder: the test's folder.
        tests: test set -> samples with prepared faces.
        audited: dataset -> audited samples.
    """
    for name, test in tests.items():
        folder.write_table(f"samples/{name}-test.parquet", _without_geometry(test.table))
    _save_rejected(folder, [(name, samples[name]) for samples in (audited, tests) for name in tests])


def _save_rejected(folder: RunDir, samples: Sequence[tuple[str, Samples]]) -> None:
    table = _concat_rejected([part.rejected.assign(dataset=name) for name, part in samples])
    folder.write_table("samples/quarantined.parquet", table[["dataset", *QUARANTINE]])


def _without_geometry(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=list(GEOMETRY_COLUMNS), errors="ignore")


def predictions_table(
    samples: Samples, estimates: AgeEstimates, classes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> pd.DataFrame:
    """Return one row an image: sample_id, age, age_pred, age_std where the head has it, group columns and subject.

    Args:
        samples: the samples that were predicted.
        estimates: the model's estimates, in the order of `samples`.
        classes: auxiliary target -> its classes. Each target adds NAME_pred, the likeliest class, and NAME_prob, its
            probability.
    """
    table = samples.table
    label_columns = [column for column in ("age_low", "age_high", "subject", *samples.groups) if column in table]
    columns: dict[str, object] = {"sample_id": table["sample_id"], "age": table["age"]}
    columns["age_pred"] = estimates.age.astype(np.float64)
    if estimates.std is not None:
        columns["age_std"] = estimates.std.astype(np.float64)
    for name, probabilities in estimates.tasks.items():
        columns[name + PRED] = np.array(classes[name], dtype=object)[probabilities.argmax(axis=1)]
        columns[name + PROB] = probabilities.max(axis=1).astype(np.float64)
    label_columns += [name for name in estimates.tasks if name in table]
    return pd.DataFrame(columns).join(table[list(dict.fromkeys(label_columns))])


def save_predictions(folder: RunDir, name: str, table: pd.DataFrame, probs: np.ndarray | None) -> None:
    """Write predictions/<name>.parquet.

    Args:
        folder: the folder of the run, or of the fold.
        name: the test set.
        table: predictions with labels.
        probs: (N, A) probabilities of ages, written as column `p`, lists of float16; None: no such column.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    if probs is not None:
        flat = pa.array(probs.astype(np.float16).ravel())
        content = content.append_column("p", pa.FixedSizeListArray.from_arrays(flat, probs.shape[1]))
    with atomic_write(folder.path / "predictions" / f"{name}.parquet") as temporary:
        pq.write_table(content, temporary)


def samples_metadata(splits: FoldSplits, audited: Mapping[str, Samples]) -> dict[str, SampleCounts]:
    """Return dataset -> how many images went where, for the manifest of a run that trains.

    Of several folds, train and val are means over the folds, and test counts every image that any fold tests.

    Args:
        splits: the division of each fold, after faces were prepared.
        audited: dataset -> audited samples, before they were split.
    """
    counts, split_rejections, folds = {}, splits.rejected(), splits.folds
    for name, samples in audited.items():
        later = [split_rejections[name]] if name in split_rejections else []
        entry = _base_counts(samples, later)
        is_train_dataset = name == splits.train_dataset
        if is_train_dataset:
            entry.train = round(float((folds.assignment == Split.TRAIN).sum(axis=1).mean()))
            entry.val = round(float((folds.assignment == Split.VAL).sum(axis=1).mean()))
            entry.duplicates = count_exact_duplicates(folds.samples.table)
            entry.straddling = folds.n_cross_split_removed
        if name in splits.tests:
            is_tested = (folds.assignment == Split.TEST).any(axis=0)
            entry.test = int(is_tested.sum()) if is_train_dataset else len(splits.external_tests[name])
            entry.in_training_set = splits.overlap[name]
        counts[name] = entry
    return counts


def tests_metadata(tests: Mapping[str, Samples], audited: Mapping[str, Samples]) -> dict[str, SampleCounts]:
    """Return dataset -> how many images went where, for the manifest of a test without training.

    Args:
        tests: test set -> samples with prepared faces.
        audited: dataset -> audited samples.
    """
    counts = {}
    for name, test in tests.items():
        counts[name] = _base_counts(audited[name], [test])
        counts[name].test = len(test)
    return counts


def _base_counts(audited: Samples, later: Sequence[Samples]) -> SampleCounts:
    """Count the images that were read, and those that were rejected then or later."""
    rejected = _concat_rejected([audited.rejected, *(samples.rejected for samples in later)])
    return SampleCounts(
        read=len(audited) + len(audited.rejected),
        quarantined=count_titles(rejected),
        rejected=count_codes(rejected),
        fingerprint=dataset_fingerprint(audited),
    )


def faces_metadata(
    cards: Mapping[str, DatasetCard],
    model: Architecture | ExternalCard,
    config: FacesConfig,
    faces: Mapping[str, FaceCache],
) -> FacesRecord:
    """Return how every dataset's faces were prepared, for the manifest.

    Args:
        cards: dataset -> card.
        model: the model's card, for the input size.
        config: the run's settings of face preparation.
        faces: dataset -> prepared faces.
    """
    specs = {name: model_alignment_spec(config, card, model) for name, card in cards.items()}
    modes = {name: faces[name].mode or spec.mode for name, spec in specs.items()}
    detectors = {
        name: specs[name].summary()["detector"] or {} for name, mode in modes.items() if mode in ("detect", "box")
    }
    record = FacesRecord(
        size=model.size,
        coverage=config.coverage,
        datasets=modes,
        sha256={name: cache.digest() for name, cache in faces.items()},
    )
    if config.offset:
        record.offset = config.offset
    if config.visible:
        record.visible = config.visible
    if model.bodies:
        record.bodies = {name: count_bodies(cache) for name, cache in faces.items()}
    if detectors:
        record.detectors = detectors
    return record


def count_bodies(faces: FaceCache) -> dict[str, int]:
    """Count the prepared rows, those that show a body, and those of them that show no face.

    Args:
        faces: the prepared faces and bodies of one dataset.
    """
    has_face, has_body = shown_halves(faces.pixels)
    return {
        "rows": int((has_face | has_body).sum()),
        "body": int(has_body.sum()),
        "body_alone": int((has_body & ~has_face).sum()),
    }


def _concat_rejected(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables of rejected images. Later tables repeat the rows of earlier ones; repeats within a table stay."""
    keys = [column for column in ("dataset", *QUARANTINE) if column in tables[0]]
    numbered = [table.assign(occurrence=table.groupby(keys).cumcount()) for table in tables]
    return pd.concat(numbered, ignore_index=True).drop_duplicates([*keys, "occurrence"])
