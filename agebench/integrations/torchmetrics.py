"""Metrics of torchmetrics with the values of `ab.score`: for the validation loop of PyTorch and Lightning models.

States are sums in float64, so that values do not depend on the batches and are added over processes. Apple GPUs have no
float64: with estimates there, the states stay on the CPU.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate, parse_gate
from agebench.metrics.point import ROUNDING

# Types of devices without float64.
_WITHOUT_FLOAT64 = ("mps",)


class GateRate(StrEnum):
    """An error rate of an age gate."""

    FPR = "fpr"
    FNR = "fnr"


class _MeanMetric(Metric):
    """The mean of a value over the faces that count; NaN without such a face.

    Args:
        options: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor
    n_invalid: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("total", "count", "n_invalid"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: estimated ages, years, of any shape.
            target: true ages, years, of as many elements.
        """
        preds, target = _float64(preds), _float64(target)
        if preds.shape != target.shape:
            raise UserError(f"{len(preds)} estimates for {len(target)} ages: pass one estimate for each face")
        values, counts = self._values(preds, target)
        self.n_invalid += (~(torch.isfinite(preds) & torch.isfinite(target))).sum()
        self.total += torch.where(counts, values, 0.0).sum()
        self.count += counts.sum()

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> Self:
        """Move the metric as `to` does; the states stay where they are if they cannot be float64 there."""
        if fn(torch.zeros(())).device.type in _WITHOUT_FLOAT64:
            self._computed = self._forward_cache = None  # float64 as well; computed again from the states
            exclude_state = tuple(self._defaults)
        super()._apply(fn, exclude_state=exclude_state)
        return self

    def compute(self) -> Tensor:
        """Return the mean over all batches.

        Raises:
            UserError: an estimate or a label was not a finite number.
        """
        if self.n_invalid:
            raise UserError(f"{int(self.n_invalid)} estimates or ages are not finite numbers")
        return self.total / self.count

    def _values(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value of each face, and whether it counts."""
        raise NotImplementedError


def _float64(values: Tensor) -> Tensor:
    """Return numbers in float64, on their device if it has such numbers, else on the CPU."""
    values = values.detach().flatten()
    return (values.cpu() if values.device.type in _WITHOUT_FLOAT64 else values).double()


class AgeMAE(_MeanMetric):
    """Mean absolute error, years.

    Args:
        options: those of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def _values(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return (preds - target).abs(), torch.ones_like(preds, dtype=torch.bool)


class CumulativeScore(_MeanMetric):
    """CS@k: the share of faces with an absolute error of at most k years.

    Args:
        k: the largest error that counts, years.
        options: those of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, k: float = 5, **options: Any) -> None:
        super().__init__(**options)
        self.k = k

    def _values(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return ((preds - target).abs() <= self.k + ROUNDING).double(), torch.ones_like(preds, dtype=torch.bool)


class GateErrorRate(_MeanMetric):
    """An error rate of an age gate, where a person passes with an estimate of at least the challenge age.

    Args:
        gate: legal age and challenge age, such as `18@25`.
        rate: `fpr`, the share of minors who pass, or `fnr`, the share of people of legal age who do not.
        minor_ages: first and last completed year of the minors that count; None: all below the legal age.
        options: those of `torchmetrics.Metric`.

    Raises:
        UserError: the gate has another form.
        ValueError: there is no such rate.
    """

    higher_is_better = False

    def __init__(
        self,
        gate: str | Gate = "18@25",
        rate: str = GateRate.FPR,
        *,
        minor_ages: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.gate = parse_gate(gate) if isinstance(gate, str) else gate
        self.rate = GateRate(rate)
        self.minor_ages = minor_ages

    def _values(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        passes = preds >= self.gate.challenge
        if self.rate is GateRate.FNR:
            return (~passes).double(), target >= self.gate.legal
        counts = target < self.gate.legal
        if self.minor_ages is not None:
            first, last = self.minor_ages
            counts &= (target.floor() >= first) & (target.floor() <= last)
        return passes.double(), counts


def age_metrics(
    gates: Sequence[str] = ("18@25",), *, k: float = 5, prefix: str | None = None, **options: Any
) -> MetricCollection:
    """Return MAE, CS@k and both error rates of each gate as one collection.

    Args:
        gates: age gates such as `18@25`.
        k: the largest error that counts for the cumulative score, years.
        prefix: of the names, such as `val/`.
        options: those of `torchmetrics.Metric`.

    Returns:
        The metrics `mae`, `cs5`, `fpr_18_at_25`, `fnr_18_at_25`.
    """
    metrics: dict[str, Metric] = {"mae": AgeMAE(**options), f"cs{k:g}": CumulativeScore(k, **options)}
    for gate in map(parse_gate, gates):
        for rate in GateRate:
            metrics[f"{rate}_{gate.legal}_at_{gate.challenge:g}"] = GateErrorRate(gate, rate, **options)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)  # type: ignore[arg-type]
