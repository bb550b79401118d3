"""Comparison of any estimator with a run's model, on the images that the run was tested on."""

from dataclasses import dataclass

import numpy as np

from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimator
from agebench.estimators.exported.card import AccuracyComparison
from agebench.export.accuracy_check import CheckSubset, compare_accuracy
from agebench.reports.formatting import format_ci, format_count, format_number, markdown_table, sanitize
from agebench.runs.estimators import AnalysisSubject
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import FaceDataset
from agebench.utils.integrity import read_table
from agebench.utils.progress import progress


@dataclass(frozen=True)
class EstimatorCheck:
    """The comparison of an estimator with a run's model.

    Attributes:
        run: the run's folder.
        estimator: name of the estimator.
        tests: test set of the run -> comparison.
        failed: test set -> images without an estimate, which are left out; those without any are not named.
        overlaps: test set -> whether the estimator may have been trained on it; empty for a run of agebench, whose training
            images are left out.
    """

    run: str
    estimator: str
    tests: dict[str, AccuracyComparison]
    failed: dict[str, int]
    overlaps: dict[str, str]

    @property
    def passed(self) -> bool:
        """True if on every test set the change in MAE is smaller than the uncertainty of the run's MAE."""
        return all(comparison.is_within for comparison in self.tests.values())

    def to_json(self) -> dict[str, object]:
        """Return the comparison as plain values."""
        tests = {
            name: comparison.to_json() | {"passed": comparison.is_within} for name, comparison in self.tests.items()
        }
        return {
            "run": self.run,
            "estimator": self.estimator,
            "passed": self.passed,
            "tests": tests,
            "failed": self.failed,
            "training_overlap": self.overlaps,
        }

    def to_text(self) -> str:
        """Return the comparison for the terminal."""
        headers = [
            "test set",
            "n",
            "MAE of the run",
            "MAE of the estimator",
            "change",
            "allowed",
            "largest difference",
            "",
        ]
        rows = [
            [
                sanitize(name),
                format_count(comparison.n),
                format_ci(comparison.model.to_json()),
                format_ci(comparison.file.to_json()),
                format_ci(comparison.change.to_json(), digits=3, sign=True),
                f"{comparison.allowed[0]:+.3f} to {comparison.allowed[1]:+.3f}",
                format_number(comparison.max_difference, digits=3),
                "within" if comparison.is_within else "OUTSIDE",
            ]
            for name, comparison in self.tests.items()
        ]
        table = markdown_table(headers, rows, align=["left", *["right"] * 6, "left"])
        notes = [
            "Years, on the same images, with 95 % intervals; the interval of the change is paired. The allowed changes are the "
            "interval of the run's MAE: a change within them is smaller than the uncertainty of that MAE."
        ]
        if self.failed:
            counts = [f"{sanitize(name)}: {format_count(n)}" for name, n in self.failed.items()]
            notes.append(f"Images without an estimate, which are left out: {', '.join(counts)}.")
        known = [f"{sanitize(name)}: {overlap}" for name, overlap in self.overlaps.items()]
        if known:
            notes.append(f"Trained on images of the dataset? {'; '.join(known)}.")
        return "\n\n".join([table, *notes])


def verify_estimator(
    folder: RunDir,
    subject: AnalysisSubject,
    *,
    images: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> EstimatorCheck:
    """Compare an estimator with a run's model on each test set of the run. The estimator is closed.

    The faces are prepared as the estimator expects them, and for a model of agebench that states no mode or detector of its
    own by those of the run. Test images in which it has no face, for which it returns no estimate, or that it was trained on
    as far as agebench knows, are left out.

    Args:
        folder: the folder of the finished run.
        subject: the estimator.
        images: the largest number of evenly spaced images of each test set; None: all.
        resamples: bootstrap resamples of the paired intervals.
        seed: seed of the bootstrap.

    Raises:
        UserError: the run is not finished or has no intervals, a dataset is missing, or no image remains.
    """
    if not folder.manifest().get("finished"):
        raise UserError(f"{folder.path}: no finished run, so there are no predictions to compare with")
    tests: dict[str, AccuracyComparison] = {}
    failed: dict[str, int] = {}
    overlaps: dict[str, str] = {}
    config = folder.config()
    with subject.estimator as estimator:
        settings = config.faces if estimator.info.card is not None else None
        for name in progress(config.data.test, label="verify", unit="test set"):
            asked = check_subset(folder, name, *subject.load(name, settings), images=images, complete=False)
            subset, ages = _estimated(estimator, asked, name)
            if len(subset.faces) < len(asked.faces):
                failed[name] = len(asked.faces) - len(subset.faces)
            comparison = compare_accuracy(subset, ages, resamples=resamples, seed=seed)
            largest = float(np.abs(ages - subset.predictions["age_pred"].to_numpy()).max())
            tests[name] = comparison.model_copy(update={"max_difference": largest})
            if overlap := subject.describe(name).contamination:
                overlaps[name] = str(overlap)
        return EstimatorCheck(str(folder.location), estimator.info.name, tests, failed, overlaps)


def _estimated(estimator: AgeEstimator, subset: CheckSubset, name: str) -> tuple[CheckSubset, np.ndarray]:
    """Return the faces for which the estimator returns an age, and the ages."""
    ages = estimator.estimate(subset.faces).age
    is_estimated = np.isfinite(ages)
    if is_estimated.sum() < 2:
        raise UserError(
            f"'{estimator.info.name}' returned no estimate for {int((~is_estimated).sum()):,} of the {len(ages):,} images of "
            f"{name}; a comparison needs two or more"
        )
    return subset.select(is_estimated), ages[is_estimated]


def check_subset(
    folder: RunDir, name: str, samples: Samples, data: FaceDataset, *, images: int | None = None, complete: bool = True
) -> CheckSubset:
    """Return prepared faces of a test set with the run's predictions for them.

    Args:
        folder: the run's folder.
        name: the test set.
        samples: samples of the dataset.
        data: their faces, in the same order.
        images: the largest number of evenly spaced images; None: all.
        complete: whether `samples` must be exactly the images that the run predicted; else the common ones are taken.

    Raises:
        UserError: the predictions are missing or have no intervals, or the images are others.
    """
    file = folder.path / "predictions" / f"{name}.parquet"
    if not file.exists():
        raise UserError(f"{file}: missing; a comparison needs these predictions")
    table = read_table(folder.path, f"predictions/{name}.parquet")
    predictions = table.drop(columns="p", errors="ignore").set_index("sample_id")
    ids = samples.table["sample_id"]
    is_common = ids.isin(predictions.index).to_numpy()
    if complete and (len(predictions) != len(ids) or not is_common.all()):
        raise UserError(
            f"{file}: predictions of {len(predictions):,} images, but the dataset '{name}' now has {len(ids):,} of the run's: "
            "it has changed since the run"
        )
    rows = np.flatnonzero(is_common)
    if len(rows) < 2:
        raise UserError(
            f"{file}: the dataset '{name}' has {len(rows)} of the images that the run was tested on; 2 are needed"
        )
    mae = folder.metrics_file().tests[name].metric("mae")
    if not mae.has_interval:
        raise UserError(
            f"{folder.path}: its MAE on {name} has no interval, and accuracy is compared by it: the images are of one person, or "
            "the metrics were computed without resamples"
        )
    count = min(images or len(rows), len(rows))
    chosen = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    faces = np.asarray(data.pixels[data.rows[chosen]])
    return CheckSubset(faces, predictions.loc[ids.iloc[chosen]].reset_index(), mae)
