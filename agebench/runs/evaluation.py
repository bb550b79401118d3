"""The second half of every run and test: metrics, failures to process, error gallery, manifest and report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.metrics.failure_to_process import failures_to_process
from agebench.metrics.schema import MetricsFile
from agebench.reports.run import write_report
from agebench.runs.error_gallery import write_error_gallery
from agebench.runs.manifest import Manifest
from agebench.runs.run_dir import RunDir


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run or a test.

    Attributes:
        path: the run's folder.
        metrics: the content of metrics.json.
        manifest: the content of manifest.json that the run determined.
    """

    path: Path
    metrics: MetricsFile
    manifest: Manifest


def evaluate_and_report(
    folder: RunDir,
    manifest: Manifest,
    metrics: MetricsFile,
    predictions: Callable[[], Mapping[str, pd.DataFrame]],
    samples: Mapping[str, Samples],
    faces: Mapping[str, FaceCache],
    *,
    export: Callable[[MetricsFile], None] = lambda metrics: None,
) -> RunResult:
    """Complete the metrics, write the error gallery and the report, and mark the run as finished.

    Args:
        folder: the run's folder.
        manifest: the run's manifest so far; gets the timings.
        metrics: the metrics of each test set.
        predictions: returns test set -> predictions with labels.
        samples: dataset -> audited samples, before faces were prepared.
        faces: dataset -> prepared faces.
        export: exports the model, before the report is written.
    """
    with folder.timed("evaluate_s"):
        manifest.measured = datetime.now(UTC).isoformat(timespec="seconds")
        metrics = _add_failures_to_process(metrics, samples, faces)
        folder.write_json("metrics.json", metrics.to_json())
        write_error_gallery(folder, predictions(), faces)
    export(metrics)
    manifest.timings = folder.timings | manifest.timings | {"total_s": round(sum(folder.timings.values()), 1)}
    manifest.finished = False
    folder.write_manifest(manifest)
    write_report(folder.path)
    manifest.finished = True
    folder.write_manifest(manifest)
    return RunResult(folder.path, metrics, manifest)


def _add_failures_to_process(
    metrics: MetricsFile, samples: Mapping[str, Samples], faces: Mapping[str, FaceCache]
) -> MetricsFile:
    """Return `metrics` with `failure_to_process` of each test set, measured on all images of that dataset.

    Face preparation is independent of training, so all images count and not only the held-out ones.

    Args:
        metrics: the metrics of each test set.
        samples: dataset -> audited samples, before faces were prepared.
        faces: dataset -> prepared faces.
    """
    tests = {}
    for name, test in metrics.tests.items():
        table = samples[name].table
        is_failure = table["sample_id"].isin(faces[name].rejected)
        failures = failures_to_process(table, is_failure, samples[name].groups)
        tests[name] = test.model_copy(update={"failure_to_process": failures})
    return metrics.model_copy(update={"tests": tests})
