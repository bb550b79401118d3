"""Failure to process, as a run records it."""

from collections.abc import Mapping

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.metrics.failure_to_process import failures_to_process
from agebench.metrics.schema import MetricsFile
from agebench.runs.run_dir import RunDir


def record_failures(
    folder: RunDir, metrics: MetricsFile, samples: Mapping[str, Samples], faces: Mapping[str, FaceCache]
) -> MetricsFile:
    """`metrics`, and metrics.json, with `failure_to_process` for each test set: of all images of that dataset.

    Of all, and not of the held-out ones alone: preparing a face is no matter of training, and more images show more.
    """
    tests = {}
    for name, test in metrics.tests.items():
        table = samples[name].table
        gone = table["sample_id"].isin(faces[name].rejected)
        failures = failures_to_process(table, gone, samples[name].groups)
        tests[name] = test.model_copy(update={"failure_to_process": failures})
    metrics = metrics.model_copy(update={"tests": tests})
    folder.write_json("metrics.json", metrics.to_json())
    return metrics
