"""Measure an estimator's error under image corruptions, and write the report."""

from collections.abc import Collection, Sequence
from pathlib import Path

from agebench.analysis.robustness.corruptions import Corruption, drop_missing_regions
from agebench.analysis.robustness.evaluate import predict_corrupted, robustness_metrics
from agebench.analysis.robustness.report import write_robustness_report
from agebench.analysis.robustness.schema import RobustnessFile
from agebench.data.faces.regions import missing_regions, region_notes
from agebench.reports.plots.run import dataset_colors
from agebench.runs.estimators import AnalysisSubject
from agebench.utils.io import check_folder


def run_stress(
    subject: AnalysisSubject,
    test: str,
    corruptions: Sequence[Corruption],
    folder: Path,
    *,
    required: Collection[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[RobustnessFile, Path]:
    """Predict corrupted faces, compare the errors, and write the report. An estimator that the subject has opened is closed.

    Args:
        subject: the estimator.
        test: name of the dataset.
        corruptions: the corruptions to apply, each at all its strengths. Those that cover a region of the face are left out,
            with a note, where it has no known place in the images.
        folder: folder of the report.
        required: names of corruptions that are refused rather than left out.
        resamples: number of bootstrap resamples; 0: no intervals.
        seed: seed of the corruptions and of the bootstrap.

    Returns:
        The content of `<test>.json`, and the path of the report.

    Raises:
        UserError: there is no such dataset, the folder cannot be written, or a required corruption is not possible.
        AgebenchError: the estimator returned no estimate for a face.
    """
    check_folder(folder)
    with subject.opened() as estimator:
        samples, data = subject.load(test)
        framing = estimator.input_spec
        missing = missing_regions(data.mode, framing.crop_scale, framing.offset)
        possible = drop_missing_regions(corruptions, missing, required)
        predictions = predict_corrupted(estimator, data, possible, seed=seed, label=test)
    metrics = robustness_metrics(predictions, samples, possible, resamples=resamples, seed=seed, test=test)
    notes = region_notes(missing, [corruption.name for corruption in corruptions])
    metrics = metrics.model_copy(update=subject.describe(test).set_fields() | ({"notes": notes} if notes else {}))
    color = dataset_colors(*subject.datasets(test))[test]
    report = write_robustness_report(
        folder, metrics, predictions, samples, data, possible, framing=framing, color=color
    )
    return metrics, report
