"""Texts of the demo page: predictions with their expected errors, and the model's metrics."""

import math
from collections.abc import Sequence

from agebench.errors import UserError
from agebench.inference.formatting import format_interval
from agebench.inference.predictor import FacePrediction, Predictor
from agebench.metrics.groups import AGE_BANDS, band_names
from agebench.metrics.guarantees import CalibrationError
from agebench.metrics.schema import EstimateError, EstimateErrors, MetricValue
from agebench.reports.formatting import (
    MIN_GROUP,
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    join_words,
    markdown_table,
)
from agebench.reports.sections.card_tables import group_tables, overall_table
from agebench.reports.sections.splits import describe_protocol

_KEPT = (
    "Nothing is recorded. An uploaded image is kept in a temporary folder for about a minute. The last image, the last "
    "camera frame and their results stay in memory until this page is closed or has been idle for about ten minutes. "
    "All are deleted when the program ends."
)
IN_DOMAIN = (
    "**Privacy.** Images are sent from this browser to the program that serves this page and no further: nothing leaves the "
    f"machine that it runs on, no service is called, no usage is reported. {_KEPT}"
)
OUT_OF_DOMAIN = (
    "**Privacy.** This page is served over a network: images are sent from this browser to the machine that runs it, without "
    f"encryption. They are not passed on: no service is called, no usage is reported. {_KEPT}"
)
_MAX_LISTED = 12  # faces of an image


class ResultFormatter:
    """Formats the predictions of one model.

    Args:
        predictor: the model.
        level: share of true ages that intervals are to contain.

    Attributes:
        level: the level of the intervals; None if there are none.
    """

    def __init__(self, predictor: Predictor, level: float) -> None:
        self.level: float | None = level
        self._card, self._info = predictor.card, predictor.estimator.info
        self._tests = self._card.figures.tests if self._card else {}
        self._interval, self._problem = "", ""
        try:
            self._interval = format_interval(predictor.interval(level)).removeprefix("interval: ")
        except CalibrationError as error:
            self.level, self._problem = None, str(error)
        try:
            self._errors: EstimateErrors = predictor.errors()
        except UserError as error:
            self._errors = {}
            self._problem = self._problem or str(error)

    def answer(self, faces: Sequence[FacePrediction]) -> str:
        """Format one image: each face's age and interval, and the errors of such predictions on the test sets.

        Args:
            faces: the predictions for the image.
        """
        if all(face.error for face in faces):
            return f"### No age\n\n{escape_markdown(faces[0].error)}."
        several = len(faces) > 1
        lines = [self._age(face, f"Face {idx + 1}: " * several) for idx, face in enumerate(faces[:_MAX_LISTED])]
        if len(faces) > _MAX_LISTED:
            lines.append(f"and {len(faces) - _MAX_LISTED} smaller faces, marked in the image.")
        bands = list(dict.fromkeys(age_band(face.age) for face in faces[:_MAX_LISTED] if not face.error))
        return "\n\n".join([*lines, *(section for band in bands for section in self._expected_error(band))])

    def live(self, faces: Sequence[FacePrediction], rate: str) -> str:
        """Format one camera frame, briefly, because it changes continuously.

        Args:
            faces: the predictions for the frame.
            rate: the frame rate, in words.
        """
        answered = [face for face in faces if not face.error]
        if not answered:
            return f"### …\n\n{escape_markdown(faces[0].error)}\n\n{rate}"
        first = self._expected_error(age_band(answered[0].age))[:1]
        return "\n\n".join([*(self._age(face, "") for face in faces[:3]), *first, rate])

    def figures(self) -> str:
        """Format the model's metrics, overall and by group."""
        if self._card is None or not self._tests:
            return "The errors of this model are unknown. `agebench test` measures them."
        figures = self._card.figures
        parts = [
            "In brackets 95 % bootstrap intervals. Groups are those of the true labels.",
            overall_table(figures),
            describe_protocol(figures),
        ]
        if self._interval:
            parts.append(f"**The interval.** {escape_markdown(self._interval)}.")
        parts += group_tables(figures)
        return "\n\n".join(
            [*filter(None, parts), f"**Intended use.** {escape_markdown(self._card.intended_use or 'unknown')}"]
        )

    def title(self) -> str:
        """Return the title of the model."""
        name = escape_markdown(self._info.title or self._info.name)
        title = self._card.training.title if self._card else ""
        return f"{name}, trained on {escape_markdown(title)}" if title else name

    def _age(self, face: FacePrediction, before: str) -> str:
        if face.error:
            return f"### {before}no age\n\n{escape_markdown(face.error)}."
        between = ""
        if self.level is not None and math.isfinite(face.low):
            between = f", between {face.low:.0f} and {face.high:.0f} ({100 * self.level:g} % interval)"
        return f"### {before}{face.age:.0f} years{between}"

    def _expected_error(self, band: str) -> list[str]:
        """Return a sentence, cautions, and a table for an age band."""
        if not self._errors:
            return [f"The error of this estimate is not known: {escape_markdown(self._problem)}"]
        errors = {name: bands[band] for name, bands in self._errors.items() if band in bands}
        p95 = [
            f"{format_number(error.p95_ae.value, digits=1)} years on {escape_markdown(name)}"
            for name, error in errors.items()
            if error.n >= MIN_GROUP
        ]
        sentences = [f"For faces like this (estimated age {band}) the 95 % error is {join_words(p95)}."] if p95 else []
        for name in self._errors:
            n = errors[name].n if name in errors else 0
            if n < MIN_GROUP:
                sentences.append(
                    f"Caution: {escape_markdown(name)} has only {n} faces with an estimated age of {band}: the error is uncertain."
                )
        return [" ".join(sentences), self._table(band, errors)]

    def _table(self, band: str, errors: dict[str, EstimateError]) -> str:
        rows = [[f"{escape_markdown(name)}, estimated {band}", *_row(error)] for name, error in errors.items()]
        home = self._card.training.dataset if self._card else ""
        for name, test in self._tests.items():
            title = f"{name} (held-out part)" if name == home else name
            overall = EstimateError(n=test.n, mae=test.metric("mae"), p95_ae=test.metric("p95_ae"))
            rows.append([f"{escape_markdown(title)}, all", *_row(overall)])
        return markdown_table(["measured on", "n", "mean error (years)", "95 % of errors below (years)"], rows)


def age_band(age: float) -> str:
    """Return the age band of a rounded age: '25-34' of 34.4, '35-44' of 34.6, which is shown as 35.

    Args:
        age: estimated age, years.
    """
    return band_names()[max(0, sum(round(age) >= low for low in AGE_BANDS) - 1)]


def _row(error: EstimateError) -> list[str]:
    """Return n and the errors of a row; only with enough faces with intervals."""
    metrics = [error.mae, error.p95_ae]
    if error.n < MIN_GROUP:
        metrics = [MetricValue(value=metric.value) for metric in metrics]
    return [format_count(error.n), *(format_ci(metric, digits=1) for metric in metrics)]
