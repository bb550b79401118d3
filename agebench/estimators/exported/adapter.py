"""An exported file as an age estimator, with the guarantees on the card inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agebench.config.toml_io import ModelT, Settings, validate_model
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, BaseEstimator, EstimatorInfo, InputSpec, pad_planes
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card_schema import validate_card
from agebench.metrics.age_gates import DEFAULT_CHALLENGE_MARGIN
from agebench.metrics.guarantees import CalibrationError
from agebench.metrics.schema import CalibratedInterval, EstimateError, EstimateErrors, GateGuarantee


class CardGuarantees:
    """Guarantees as a card states them, for the levels, thresholds and challenge ages on the card only.

    Args:
        source: the file that holds the card, for messages.
        card: the card, validated.
    """

    def __init__(self, source: Path, card: Mapping[str, Any]) -> None:
        self._source, self._card = source, card

    def interval(self, level: float) -> CalibratedInterval:
        """Return the conformal interval of this level; see `agebench.estimators.base.Guarantees`.

        Args:
            level: share of true ages that the interval is to contain.

        Raises:
            CalibrationError: the card has no interval of this level.
            UserError: the card contradicts itself.
        """
        entry = self._entry("coverage", level, self._table("intervals", CalibrationError), CalibrationError)
        interval = self._validated(CalibratedInterval, entry)
        self._check("level", level, interval.level)
        if interval.scaled and not self._card["output"]["std"]:
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
        gates = self._entry("threshold", threshold, self._table("gates", UserError), UserError)
        challenge = threshold + DEFAULT_CHALLENGE_MARGIN if challenge is None else challenge
        gate = self._validated(GateGuarantee, self._entry("challenge", challenge, gates, UserError))
        self._check("threshold", threshold, gate.threshold)
        self._check("challenge", challenge, gate.challenge)
        return gate

    def errors(self) -> EstimateErrors:
        """Return errors by estimated age; see `agebench.estimators.base.Guarantees`.

        Raises:
            UserError: the card has none.
        """
        return {
            test: {band: self._validated(EstimateError, entry) for band, entry in bands.items()}
            for test, bands in self._table("errors", UserError).items()
        }

    def _validated(self, kind: type[ModelT], entry: Settings) -> ModelT:
        return validate_model(kind, entry, source=f"{self._source}: its card")

    def _entry(self, option: str, value: float, table: Settings, error: type[UserError]) -> Any:
        key = f"{value:g}"
        if key not in table or float(key) != value:
            raise error(
                f"--{option} {value}: the card of {self._source} knows only {', '.join(table)}; a run's folder knows any"
            )
        return table[key]

    def _check(self, option: str, requested: float, stated: float) -> None:
        """Refuse an entry of an untrusted card whose numbers contradict the keys under which it is stored."""
        if stated != requested:
            raise UserError(
                f"{self._source}: its card is wrong: under {option} {requested:g} it states {option} {stated:g}"
            )

    def _table(self, kind: str, error: type[UserError]) -> Settings:
        table = self._card.get("promises", {}).get(kind)
        if not table:
            raise error(f"{self._source}: its card has no {kind}; export it again from the run")
        return dict(table)


def card_info(card: Mapping[str, Any]) -> EstimatorInfo:
    """Return the identity on a card that `agebench export` or `agebench push` wrote.

    Args:
        card: the card, validated.
    """
    model, training = card["model"], card.get("training", {})
    dataset = training.get("dataset", "")
    return EstimatorInfo(
        model.get("name", "") or "exported",
        model.get("title", ""),
        version=str(card.get("agebench", "")),
        licence=str(card.get("licence", "unknown")),
        training_data=training.get("title", "") or dataset or "unknown",
        trained_on=(dataset,) if dataset else (),
        card=card,
    )


class ExportedEstimator(CardGuarantees, BaseEstimator):
    """An exported file; the card inside states its input, its training data and its guarantees.

    Args:
        file: the opened file.

    Raises:
        UserError: the card is not valid.
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__(file.path, file.card)
        self._file = file
        card = validate_card(file.path, file.card)
        spec = file.card["input"]
        self.input_spec = InputSpec(
            int(spec["size"]),
            card.input.coverage,
            planes=int(spec["planes"]),
            offset=card.input.offset,
            visible=card.input.visible,
        )
        self.info = card_info(file.card)

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            images: (N, S, S, 3) uint8 RGB, aligned; N may be 0.
        """
        return self._file.estimate(pad_planes(images, self.input_spec.planes))
