"""The result schema: files of schema 1 are read, files of schema 2 come back as they were written."""

import json

import pytest

from agebench.errors import UserError
from agebench.metrics.schema import MetricsFile, MetricValue

SCHEMA_1 = {
    "schema": 1,
    "train": None,
    "tests": {
        "faces": {
            "n": 40,
            "overall": {"mae": {"value": 4.0, "low": 3.0, "high": 5.0}},
            "groups": {"light": {"low": {"n": 20, "ranked": False, "mae_standardised": {"value": 1.0, "low": 0.5}}}},
            "gaps": {"light": {"difference": {"value": 1.0}, "standardised": {"worst": "low"}, "shrinks": True}},
            "unknown": {"light": 3},
            "contamination": "unknown",
            "age_gates": {"18": {"n_under": 1, "n_over": 2, "needed": {"0.01": {"value": None, "n": 1}}}},
            "tasks": {"gender": {"n": 0, "unknown": 40}},
        }
    },
}


def test_schema_1_is_read() -> None:
    test = MetricsFile.from_json(SCHEMA_1).tests["faces"]
    assert test.overall["mae"] == MetricValue(value=4.0, ci_low=3.0, ci_high=5.0)
    group = test.groups["light"]["low"]  # a group's name is no key of the schema
    assert group.eligible is False
    assert group.age_standardized_mae == MetricValue(value=1.0, ci_low=0.5)
    gap = test.gaps["light"]
    assert gap.age_standardized is not None
    assert (gap.age_standardized.worst, gap.explained_by_age) == ("low", True)
    assert (test.n_unknown, test.training_overlap) == ({"light": 3}, "unknown")
    assert test.age_gates["18"].required["0.01"].n == 1
    assert test.tasks["gender"].n_unknown == 40


def test_schema_2_comes_back_as_written() -> None:
    metrics = MetricsFile.from_json(SCHEMA_1)
    content = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert content["schema"] == 2
    assert content["tests"]["faces"]["overall"]["mae"] == {"value": 4.0, "ci_low": 3.0, "ci_high": 5.0}
    assert MetricsFile.from_json(content) == metrics
    assert MetricsFile.from_json(content).to_json() == content


def test_another_shape_is_refused_by_its_key() -> None:
    with pytest.raises(UserError, match=r"a\.json: tests\.faces\.n"):
        MetricsFile.from_json({"train": None, "tests": {"faces": {"n": "many"}}}, "a.json")
