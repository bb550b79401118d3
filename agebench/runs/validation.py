"""What a run's model says about its validation part: what intervals for new faces are calibrated on."""

from contextlib import suppress
from pathlib import Path

import pandas as pd

from agebench.config.run import RunConfig
from agebench.data.digests import add_digests
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.samples import Samples
from agebench.data.storage.importer import open_dataset_reader
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
    config: RunConfig, folder: RunDir, trained: TrainedEstimator, catalogue: Catalog
) -> pd.DataFrame:
    """Predictions on the validation part: as the run kept them, else made now from its dataset, and kept.

    Raises:
        UserError: the run kept none, and its dataset is not here or is no longer the one that it was.
    """
    file = folder.path / VALIDATION
    if not file.exists():
        table = _ask(config, folder, trained, catalogue)
        with suppress(AgebenchError):  # a folder that is read-only stays as it is
            folder.write_table(VALIDATION, table)
            folder.renew_digest(VALIDATION)
        return table
    try:
        return read_table(folder.path, VALIDATION)
    except Damaged as error:
        raise Damaged(f"{error}, or delete it: it is then made again from the dataset") from error


def _ask(config: RunConfig, folder: RunDir, trained: TrainedEstimator, catalogue: Catalog) -> pd.DataFrame:
    home = config.data.train
    samples, data = _validation_part(config, folder.path, catalogue, home)
    estimates = predict(
        trained.model, data, trained.card, trained.device, precision=trained.precision, label="validation part"
    )
    return predictions_table(samples, estimates)


def _validation_part(config: RunConfig, path: Path, catalogue: Catalog, home: str) -> tuple[Samples, FaceDataset]:
    listed = path / "samples" / f"{home}-val.parquet"
    if not listed.exists():
        raise UserError(f"{listed}: gone, so which images were its validation part is not known")
    ids = read_table(path, f"samples/{listed.name}", ["sample_id", "pixels_digest"])
    card = catalogue.datasets.get(home)
    reader = open_dataset_reader(card)
    everything = reader.read()
    listed_too = everything.table["sample_id"].isin(ids["sample_id"])
    # In this process alone: whoever asks for an age from a script does not expect it to start others.
    part = add_digests(reader, everything.reject(~listed_too, "not in the run's validation part"), name=home, workers=1)
    theirs = dict(zip(ids["sample_id"], ids["pixels_digest"], strict=True))
    same = int((part.table["sample_id"].map(theirs) == part.table["pixels_digest"]).sum())
    if same < len(ids):
        raise UserError(
            f"{home}: {len(ids) - same} of the run's {len(ids)} validation images are not here, or others now"
        )
    faces = load_or_build_face_cache(
        reader, part, model_alignment_spec(config.faces, card, config.model), name=home, workers=1
    )
    kept = faces.drop_rejected(part)
    return kept, make_face_dataset(faces, kept)
