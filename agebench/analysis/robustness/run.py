"""Measure an estimator's error under image corruptions, and write the report."""

from collections.abc import Sequence
from pathlib import Path

from agebench.analysis.robustness.corruptions import Corruption
from agebench.analysis.robustness.evaluate import predict_corrupted, robustness_metrics
from agebench.analysis.robustness.report import write_robustness_report
from agebench.analysis.robustness.schema import RobustnessFile
from agebench.reports.plots.run import dataset_colors
from agebench.runs.estimators import AnalysisSubject
from agebench.utils.io import check_folder


def run_stress(
    subject: AnalysisSubject,
    test: str,
    corruptions: Sequence[Corruption],
    folder: Path,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[RobustnessFile, Path]:
    """Predict corrupted faces, compare the errors, and write the report. An estimator that the subject has opened is closed.

    Args:
        subject: the estimator.
        test: name of the dataset.
        corruptions: the corruptions to apply, each at all its strengths.
        folder: folder of the report.
        resamples: number of bootstrap resamples; 0: no intervals.
        seed: seed of the corruptions and of the bootstrap.

    Returns:
        The content of `<test>.json`, and the path of the report.

    Raises:
        UserError: there is no such dataset, or the folder cannot be written.
        AgebenchError: the estimator returned no estimate for a face.
    """
    check_folder(folder, "the report in")
    with subject.opened() as estimator:
        samples, data = subject.load(test)
        predictions = predict_corrupted(estimator, data, corruptions, seed=seed, label=test)
        framing = estimator.input_spec
    metrics = robustness_metrics(predictions, samples, corruptions, resamples=resamples, seed=seed, test=test)
    metrics = metrics.model_copy(update=subject.describe(test).set_fields())
    color = dataset_colors(*subject.datasets(test))[test]
    report = write_robustness_report(
        folder, metrics, predictions, samples, data, corruptions, framing=framing, color=color
    )
    return metrics, report
