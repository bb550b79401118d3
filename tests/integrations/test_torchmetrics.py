"""Metrics of torchmetrics agree with `ab.score`, whatever the batches."""

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch

import agebench as ab
from agebench.errors import UserError


@pytest.fixture(scope="module")
def integration() -> Any:
    """The module that needs torchmetrics, whose import takes seconds: only the process that runs these tests imports it."""
    pytest.importorskip("torchmetrics")
    return importlib.import_module("agebench.integrations.torchmetrics")


RNG = np.random.default_rng(3)
AGES = RNG.uniform(8, 60, 400).round(1)
ESTIMATES = (AGES + RNG.normal(1.0, 5.0, 400)).round(1)  # errors of exactly 5.0 years among them, up to rounding


@pytest.mark.parametrize("batch", [7, 400])
def test_age_metrics_agree_with_score(integration: Any, batch: int) -> None:
    metrics = integration.age_metrics(["18@25", "16@18"], prefix="val/")
    for start in range(0, len(AGES), batch):
        part = slice(start, start + batch)
        metrics.update(torch.tensor(ESTIMATES[part])[:, None], torch.tensor(AGES[part]))
    values = {name: value.item() for name, value in metrics.compute().items()}
    report = ab.score(AGES, ESTIMATES, legal_ages=[16, 18], challenge_ages=[18, 25], resamples=0)
    expected = {
        "val/mae": report.overall["mae"].value,
        "val/cs5": report.overall["cs5"].value,
        "val/fpr_18_at_25": report.gates.loc[(18, 25.0), "fpr"],
        "val/fnr_18_at_25": report.gates.loc[(18, 25.0), "fnr"],
        "val/fpr_16_at_18": report.gates.loc[(16, 18.0), "fpr"],
        "val/fnr_16_at_18": report.gates.loc[(16, 18.0), "fnr"],
    }
    assert values == pytest.approx(expected, abs=1e-12)


def test_gate_error_rate_counts_the_minors_of_a_range(integration: Any) -> None:
    metric = integration.GateErrorRate("18@25", minor_ages=(16, 17))
    metric.update(torch.tensor(ESTIMATES), torch.tensor(AGES))
    report = ab.score(AGES, ESTIMATES, legal_ages=[18], challenge_ages=[25], gate_ages=(16, 17), resamples=0)
    assert metric.compute().item() == pytest.approx(report.gates.loc[(18, 25.0), "fpr"], abs=1e-12)


def test_gate_error_rate_is_nan_without_minors(integration: Any) -> None:
    metric = integration.GateErrorRate("18@25")
    metric.update(torch.tensor([30.0]), torch.tensor([40.0]))
    assert math.isnan(metric.compute().item())


def test_metrics_reset_and_merge_like_others_of_torchmetrics(integration: Any) -> None:
    first, second = integration.age_metrics(), integration.age_metrics()
    first.update(torch.tensor([20.0]), torch.tensor([22.0]))
    second.update(torch.tensor([30.0]), torch.tensor([34.0]))
    first["mae"].merge_state(second["mae"])
    assert first["mae"].compute().item() == 3.0
    first.reset()
    first.update(torch.tensor([20.0]), torch.tensor([21.0]))
    assert first["mae"].compute().item() == 1.0


def test_states_stay_on_the_cpu_if_a_device_has_no_float64(integration: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_WITHOUT_FLOAT64", ("meta",))  # a device that every machine has
    metrics = integration.age_metrics().to("meta")
    metrics.update(torch.tensor([20.0, 30.0]), torch.tensor([21.0, 33.0]))
    assert metrics["mae"].total.device.type == "cpu"
    assert metrics.compute()["mae"].item() == 2.0
    assert metrics.to("meta").compute()["mae"].item() == 2.0


def test_metrics_refuse_estimates_that_are_no_numbers(integration: Any) -> None:
    metrics = integration.age_metrics()
    metrics.update(torch.tensor([float("nan"), 20.0]), torch.tensor([20.0, 20.0]))
    with pytest.raises(UserError, match="1 estimates or ages are not finite"):
        metrics.compute()


def test_metrics_refuse_batches_of_two_lengths(integration: Any) -> None:
    with pytest.raises(UserError, match="3 estimates for 2 ages"):
        integration.age_metrics().update(torch.zeros(3), torch.zeros(2))
