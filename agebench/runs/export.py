"""Export the model of a finished run to files that are checked, evaluated and timed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.config.run import RunConfig
from agebench.errors import UserError
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import AccuracyComparison
from agebench.estimators.exported.loading import open_exported
from agebench.estimators.external.model_files import require_onnxruntime
from agebench.estimators.trained import TrainedEstimator
from agebench.export.accuracy_check import AccuracyCheckFailed, check_accuracy
from agebench.export.benchmark import measure_speed
from agebench.export.card import build_card
from agebench.export.formats.onnx import require_onnx
from agebench.export.schema import ExportResult, FileDescription, Hardware, UnwrittenFile
from agebench.export.writer import SUFFIXES, TYPES, UNSUPPORTED, ExportVariant, WrittenExport, write_export
from agebench.registry.catalog import Catalog
from agebench.runs.accuracy import check_subset
from agebench.runs.datasets import open_dataset
from agebench.runs.guarantees import deployment_guarantees, run_facts
from agebench.runs.loading import load_run, load_test_set
from agebench.runs.run import prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import FaceDataset, make_face_dataset, subsample_by_age
from agebench.training.device import hardware_info
from agebench.utils.integrity import read_table
from agebench.utils.io import file_digest, write_json
from agebench.utils.progress import progress

# Number of faces to compare a file with its model, and of training faces that calibrate int8.
EXAMPLES, CALIBRATION = 64, 256


@dataclass(frozen=True)
class ExportPlan:
    """The files to write, and how lower precisions are evaluated.

    Attributes:
        variants: the files.
        impossible: requested combinations that are not supported: (file, reason).
        images: the largest number of images of each test set that lower precisions are evaluated on; None: all.
        resamples: bootstrap resamples of the intervals.
        seed: seed of the bootstrap.
    """

    variants: tuple[ExportVariant, ...]
    impossible: tuple[tuple[str, str], ...] = ()
    images: int | None = None
    resamples: int = 1000
    seed: int = 0


def plan_exports(
    formats: Sequence[str],
    precisions: Sequence[str],
    *,
    images: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ExportPlan:
    """Combine every format with every precision, as far as supported.

    Args:
        formats: the formats.
        precisions: the precisions.
        images: the largest number of images of each test set that lower precisions are evaluated on; None: all.
        resamples: bootstrap resamples of the intervals.
        seed: seed of the bootstrap.

    Raises:
        UserError: a format or precision is unknown, no combination is supported, or a required package is missing.
    """
    for option, words, known in (("--format", formats, SUFFIXES), ("--precision", precisions, TYPES)):
        for word in words:
            if word not in known:
                raise UserError(f"{option} {word}: there are {', '.join(known)}")
        if not words:
            raise UserError(f"{option}: names nothing; there are {', '.join(known)}")
    every = list(dict.fromkeys(ExportVariant(*both) for both in itertools.product(formats, precisions)))
    reasons = {variant: UNSUPPORTED.get((variant.kind, variant.precision)) for variant in every}
    possible = tuple(variant for variant, reason in reasons.items() if not reason)
    impossible = tuple((variant.file, reason) for variant, reason in reasons.items() if reason)
    if not possible:
        raise UserError("; ".join(f"{file}: {why}" for file, why in impossible))
    if "onnx" in {variant.kind for variant in possible}:
        require_onnx()
        require_onnxruntime("what --format onnx writes")
    return ExportPlan(possible, impossible, images, resamples, seed)


def export_run(folder: RunDir, catalog: Catalog, plan: ExportPlan, out: Path) -> ExportResult:
    """Write the files to `out`, and beside each a JSON file that describes it.

    Args:
        folder: the run's folder.
        catalog: the cards of the datasets.
        plan: the files to write.
        out: the folder of the files.

    Returns:
        Descriptions of the files, and those that were not written.

    Raises:
        UserError: the run is not finished, has several models, or a dataset is missing.
        AgebenchError: a file's predictions differ from the model's.
    """
    config, trained = load_finished_run(folder)
    lower = any(variant.precision != "fp32" for variant in plan.variants)
    names = config.data.test if lower else config.data.test[:1]
    opened = {name: load_test_set(config, folder, catalog, name) for name in names}
    tests = {}
    if lower:
        tests = {name: check_subset(folder, name, *faces, images=plan.images) for name, faces in opened.items()}
    examples = _pixels(opened[names[0]][1], EXAMPLES)
    facts, home = run_facts(folder), catalog.datasets.get(config.data.train)
    card = build_card(trained.model, trained.card, home, facts, folder.metrics_file(), config.faces)
    guarantees = deployment_guarantees(folder, config.data.train, config.data.test)
    card = card.model_copy(update={"promises": guarantees})
    calibration = None
    if any(variant.precision == "int8" for variant in plan.variants):
        calibration = _pixels(_calibrating(config, folder, catalog))
    machine = hardware_info(trained.device)
    files: list[FileDescription] = []
    refused: list[UnwrittenFile] = []

    def judge(file: ExportedFile) -> dict[str, AccuracyComparison]:
        return check_accuracy(file, tests, resamples=plan.resamples, seed=plan.seed)

    for variant in progress(plan.variants, label="export", unit="file"):
        path = out / variant.file
        _beside(path).unlink(missing_ok=True)  # of an earlier file: an interruption would leave it beside the new one
        is_exact = variant.precision == "fp32"
        try:
            written = write_export(
                trained.model,
                trained.card,
                card,
                path,
                examples=examples,
                variant=variant,
                calibration=None if is_exact else calibration,
                judge=None if is_exact else judge,
            )
        except AccuracyCheckFailed as reason:
            _remove(path)
            refused.append(UnwrittenFile(file=variant.file, reason=str(reason)))
            continue
        files.append(_describe(path, variant, written, examples, machine))
        write_json(_beside(path), files[-1].to_json())
    impossible = [UnwrittenFile(file=file, reason=why) for file, why in plan.impossible]
    return ExportResult(files=files, refused=refused, impossible=impossible, hardware=machine)


def load_finished_run(folder: RunDir) -> tuple[RunConfig, TrainedEstimator]:
    """Load the settings and the model of a finished run of one fold, on the CPU.

    Args:
        folder: the run's folder.

    Raises:
        UserError: the run is not finished, or has several folds.
    """
    if (folder.path / "folds").exists():
        raise UserError(
            f"{folder.path}: this run trained a model a fold, and none of them is the run's; export a run of one fold"
        )
    config, trained = load_run(folder, "cpu")
    if not folder.manifest().get("finished"):
        raise UserError(
            f"{folder.path}: this run is not finished, so the errors of its model are unknown; "
            f"continue with `agebench run --config {folder.path / 'config.toml'} --out {folder.path} --resume`"
        )
    return config, trained


def _calibrating(config: RunConfig, folder: RunDir, catalog: Catalog) -> FaceDataset:
    """Return training faces of all ages, which calibrate int8."""
    name = config.data.train
    dataset = open_dataset(catalog.datasets.get(name))
    ids = read_table(folder.path, f"samples/{name}-train.parquet", ["sample_id"])["sample_id"]
    other = ~dataset.samples.table["sample_id"].isin(ids)
    chosen = dataset.samples.reject(other, "not trained on")
    faces = prepare_faces(config, dataset, chosen if config.data.exclude or config.data.limit else None)
    trained = faces.drop_rejected(chosen)
    return subsample_by_age(make_face_dataset(faces, trained), CALIBRATION)


def _pixels(data: FaceDataset, count: int | None = None) -> np.ndarray:
    return np.asarray(data.pixels[data.rows[:count]])


def _describe(
    path: Path, variant: ExportVariant, written: WrittenExport, examples: np.ndarray, machine: Hardware
) -> FileDescription:
    description = FileDescription(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_digest(path),
        format=variant.kind,
        precision=variant.precision,
        checked=written.checked,
        speed=measure_speed(open_exported(path, trusted=True), examples),
        hardware=machine,
    )
    return description.model_copy(update={"accuracy": written.accuracy}) if written.accuracy else description


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _remove(path: Path) -> None:
    """Delete a refused file and its description, also those of an earlier call."""
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)
