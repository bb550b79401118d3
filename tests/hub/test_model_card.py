"""The card of a pushed model repeats the warnings of its run's report."""

from typing import Any

import pytest

from agebench.estimators.exported.card import ExportCard, InputFacts, ModelFacts, OutputFacts, TrainingFacts
from agebench.hub.model_card import model_card
from agebench.metrics.schema import MetricsFile
from agebench.registry.catalog import load_catalog
from agebench.reports.manifest import RunManifest

UNSEEN = "neither in training nor in model selection"


def text_of(protocol: dict[str, Any], limit: int = 0) -> str:
    entry = {"n": 60, "overall": {"mae": {"value": 5.0, "ci_low": 4.0, "ci_high": 6.0}}}
    group = {"n": 60, "mae": {"value": 5.0}, "bias": {"value": 0.0}, "cs5": {"value": 0.5}}
    tests = {"home": entry | {"groups": {"gender": {"female": group}}}, "away": entry}
    card = ExportCard(
        model=ModelFacts(name="tiny"),
        training=TrainingFacts(dataset="home"),
        figures=MetricsFile.from_json({"schema": 2, "train": "home", "protocol": protocol, "tests": tests}),
        input=InputFacts(planes=3, size=64, coverage=1.0),
        output=OutputFacts(ages=[0, 100], std=False, probs=False),
    )
    return model_card(card, RunManifest(limit=limit), "me/ages", load_catalog())


@pytest.mark.parametrize("leaks", [None, {"duplicates": 0, "subjects": 0}])
def test_an_honest_split_promises_unseen_images(leaks: dict[str, int] | None) -> None:
    text = text_of({"name": "default", "leaks": leaks})
    assert UNSEEN in text
    assert "| home (held-out part) |" in text
    assert "‡" not in text
    assert "Subset" not in text


def test_a_leaky_protocol_is_marked_and_promises_nothing() -> None:
    text = text_of({"name": "random-images", "leaks": {"duplicates": 0, "subjects": 7}})
    assert UNSEEN not in text
    assert "| home (random-images)‡ |" in text
    assert "### Subgroup performance: home (random-images)‡" in text
    assert "‡ **This protocol leaks: 7 people of the test are also trained on.**" in text
    assert "home was divided by its protocol random-images." in text


def test_a_subset_is_named() -> None:
    assert "**Subset:** `--limit` kept at most 500 images of each dataset" in text_of({"name": "default"}, limit=500)
