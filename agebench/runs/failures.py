"""Failure to process, as a run records it."""

from collections.abc import Mapping
from typing import Any

from agebench.data.cache import Faces
from agebench.data.samples import Samples
from agebench.evaluation.failures import failures_to_process
from agebench.runs.folder import RunFolder


def record_failures(
    folder: RunFolder, metrics: dict[str, Any], samples: Mapping[str, Samples], faces: Mapping[str, Faces]
) -> dict[str, Any]:
    """`metrics`, and metrics.json, with `failure_to_process` for each test set: of all images of that dataset.

    Of all, and not of the held-out ones alone: preparing a face is no matter of training, and more images show more.
    """
    tests = {}
    for name, test in metrics["tests"].items():
        table = samples[name].table
        gone = table["sample_id"].isin(faces[name].refused)
        tests[name] = test | {"failure_to_process": failures_to_process(table, gone, samples[name].groups)}
    metrics = metrics | {"tests": tests}
    folder.write_json("metrics.json", metrics)
    return metrics
