"""An exported file as an age estimator, with the guarantees on the card inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, BaseEstimator, EstimatorInfo, InputSpec, pad_planes
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import ExportCard
from agebench.metrics.age_gates import DEFAULT_CHALLENGE_MARGIN
from agebench.metrics.guarantees import CalibrationError
from agebench.metrics.schema import CalibratedInterval, EstimateErrors, GateGuarantee

_Entry = TypeVar("_Entry")


class CardGuarantees:
    """Guarantees as a card states them, for the levels, thresholds and challenge ages on the card only.

    Args:
        source: the file that holds the card, for messages.
        card: the card.
    """

    def __init__(self, source: Path, card: ExportCard) -> None:
        self._source, self._output, self._promises = source, card.output, card.promises

    def interval(self, level: float) -> CalibratedInterval:
        """Return the conformal interval of this level; see `agebench.estimators.base.Guarantees`.

        Args:
            level: share of true ages that the interval is to contain.

        Raises:
            CalibrationError: the card has no interval of this level.
            UserError: the card contradicts itself.
        """
        interval = self._entry("coverage", level, self._promises.intervals, "intervals", CalibrationError)
        self._check("level", level, interval.level)
        if interval.scaled and not self._output.std:
            raise UserError(
                f"{self._source}: its card is wrong: it counts the interval in standard deviations, and the model predicts none"
            )
        return interval

    def gate(self, threshold: int, challenge: float | None) -> GateGuarantee:
        """Return the error rates of an age gate; see `agebench.estimators.base.Guarantees`.

        Args:
            threshold: legal age, years.
            challenge: estimated age from which a person passes, years; None: the threshold plus the default margin.

        Raises:
            UserError: the card has no such gate, or contradicts itself.
        """
        gates = self._entry("threshold", threshold, self._promises.gates, "gates")
        challenge = threshold + DEFAULT_CHALLENGE_MARGIN if challenge is None else challenge
        gate = self._entry("challenge", challenge, gates, "gates")
        self._check("threshold", threshold, gate.threshold)
        self._check("challenge", challenge, gate.challenge)
        return gate

    def errors(self) -> EstimateErrors:
        """Return errors by estimated age; see `agebench.estimators.base.Guarantees`.

        Raises:
            UserError: the card has none.
        """
        if not self._promises.errors:
            raise self._missing("errors")
        return self._promises.errors

    def _entry(
        self,
        option: str,
        value: float,
        table: Mapping[str, _Entry] | None,
        kind: str,
        error: type[UserError] = UserError,
    ) -> _Entry:
        if not table:
            raise self._missing(kind, error)
        key = f"{value:g}"
        if key not in table or float(key) != value:
            raise error(
                f"--{option} {value}: the card of {self._source} knows only {', '.join(table)}; a run's folder knows any"
            )
        return table[key]

    def _missing(self, kind: str, error: type[UserError] = UserError) -> UserError:
        return error(f"{self._source}: its card has no {kind}; export it again from the run")

    def _check(self, option: str, requested: float, stated: float) -> None:
        """Refuse an entry of an untrusted card whose numbers contradict the keys under which it is stored."""
        if stated != requested:
            raise UserError(
                f"{self._source}: its card is wrong: under {option} {requested:g} it states {option} {stated:g}"
            )


def card_info(card: ExportCard) -> EstimatorInfo:
    """Return the identity on a card that `agebench export` or `agebench push` wrote.

    Args:
        card: the card.
    """
    training = card.training
    return EstimatorInfo(
        card.model.name or "exported",
        card.model.title,
        version=card.agebench,
        licence=card.licence,
        training_data=training.title or training.dataset or "unknown",
        trained_on=(training.dataset,) if training.dataset else (),
        card=card,
    )


class ExportedEstimator(CardGuarantees, BaseEstimator):
    """An exported file; the card inside states its input, its training data and its guarantees.

    Args:
        file: the opened file.

    Attributes:
        path: the file's path.
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__(file.path, file.card)
        self._file, self.path = file, file.path
        spec = file.card.input
        self.input_spec = InputSpec(
            spec.size,
            spec.coverage,
            planes=spec.planes,
            detector=spec.detector,
            offset=spec.offset,
            visible=spec.visible,
            mode=spec.mode,
        )
        self.info = card_info(file.card)

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            images: (N, S, S, 3) uint8 RGB, aligned; N may be 0.
        """
        return self._file.estimate(pad_planes(images, self.input_spec.planes))
