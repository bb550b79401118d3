"""Predictions on a run's validation split, which calibrate intervals for new faces."""

from contextlib import suppress
from pathlib import Path

import pandas as pd

from agebench.config.run import RunConfig
from agebench.data.digests import add_digests
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.samples import Samples
from agebench.data.storage.locate import open_dataset_reader
from agebench.errors import AgebenchError, Damaged, UserError
from agebench.estimators.trained import TrainedEstimator
from agebench.registry.catalog import Catalog
from agebench.runs.artifacts import VALIDATION, predictions_table
from agebench.runs.resolve import model_alignment_spec
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import FaceDataset, make_face_dataset
from agebench.training.prediction import predict
from agebench.utils.integrity import read_table


def validation_predictions(
    config: RunConfig, folder: RunDir, trained: TrainedEstimator, catalog: Catalog
) -> pd.DataFrame:
    """Return the predictions on the validation split; compute and store them where the run has none.

    Args:
        config: the run's settings.
        folder: the run's folder.
        trained: the run's model.
        catalog: the cards of the datasets.

    Raises:
        UserError: the run has none, and its dataset is missing or has changed.
    """
    file = folder.path / VALIDATION
    if not file.exists():
        table = _predict(config, folder, trained, catalog)
        with suppress(AgebenchError):  # a read-only folder stays unchanged
            folder.write_table(VALIDATION, table)
            folder.renew_digest(VALIDATION)
        return table
    try:
        return read_table(folder.path, VALIDATION)
    except Damaged as error:
        raise Damaged(f"{error}, or delete it: it is then made again from the dataset") from error


def _predict(config: RunConfig, folder: RunDir, trained: TrainedEstimator, catalog: Catalog) -> pd.DataFrame:
    home = config.data.train
    samples, data = _validation_set(config, folder.path, catalog, home)
    estimates = predict(
        trained.model, data, trained.card, trained.device, precision=trained.precision, label="validation part"
    )
    return predictions_table(samples, estimates)


def _validation_set(config: RunConfig, path: Path, catalog: Catalog, home: str) -> tuple[Samples, FaceDataset]:
    listed = path / "samples" / f"{home}-val.parquet"
    if not listed.exists():
        raise UserError(f"{listed}: missing, so the images of its validation split are unknown")
    ids = read_table(path, f"samples/{listed.name}", ["sample_id", "pixels_digest"])
    card = catalog.datasets.get(home)
    reader = open_dataset_reader(card)
    samples = reader.read()
    is_listed = samples.table["sample_id"].isin(ids["sample_id"])
    # In this process alone: a script that predicts an age should not start others.
    part = add_digests(reader, samples.reject(~is_listed, "not in the run's validation part"), name=home, workers=1)
    recorded_digests = dict(zip(ids["sample_id"], ids["pixels_digest"], strict=True))
    n_equal = int((part.table["sample_id"].map(recorded_digests) == part.table["pixels_digest"]).sum())
    if n_equal < len(ids):
        raise UserError(
            f"{home}: {len(ids) - n_equal} of the run's {len(ids)} validation images are missing or have changed"
        )
    faces = load_or_build_face_cache(
        reader, part, model_alignment_spec(config.faces, card, config.model), name=home, workers=1
    )
    kept = faces.drop_rejected(part)
    return kept, make_face_dataset(faces, kept)
