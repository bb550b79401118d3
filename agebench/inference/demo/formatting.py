"""What the demonstration page says: an answer with what it is worth, and the model's figures."""

import math
from collections.abc import Sequence
from typing import Any

from agebench.errors import UserError
from agebench.inference.formatting import format_interval
from agebench.inference.predictor import FacePrediction, Predictor
from agebench.metrics.groups import AGE_BANDS, band_names
from agebench.metrics.guarantees import CalibrationError
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

_KEPT = (
    "Nothing is recorded. An uploaded picture lies in a temporary folder for about a minute; the last picture, the last "
    "camera frame and what is shown of them stay in memory until this page is closed, or nothing was asked for about ten "
    "minutes. All are gone when the program ends."
)
IN_DOMAIN = (
    "**Privacy.** Pictures go from this browser to the program that shows this page, and no further: nothing leaves the machine "
    f"that it runs on, no service is asked, no usage is reported. {_KEPT}"
)
OUT_OF_DOMAIN = (
    "**Privacy.** This page is served over a network: pictures travel from this browser to the machine that runs it, without "
    f"encryption. There they go no further: no service is asked, no usage is reported. {_KEPT}"
)
_SHOWN = 12


class ResultFormatter:
    """All that can be said about a model's answers, looked up once.

    Attributes:
        level: the share of true ages that the intervals are to hold; None where none can be promised.
    """

    def __init__(self, predictor: Predictor, level: float) -> None:
        self.level: float | None = level
        self._card, self._interval, self._problem = predictor.card, "", ""
        try:
            self._interval = format_interval(predictor.interval(level)).removeprefix("interval: ")
        except CalibrationError as error:
            self.level, self._problem = None, str(error)
        try:
            self._errors = predictor.errors()
        except UserError as error:
            self._errors = {}
            self._problem = self._problem or str(error)

    def answer(self, faces: Sequence[FacePrediction]) -> str:
        """Of one picture: each face's age and interval, and how far off such answers were."""
        if faces[0].error:
            return f"### No age\n\n{escape_markdown(faces[0].error)}."
        several = len(faces) > 1
        said = [self._age(face, f"Face {place + 1}: " * several) for place, face in enumerate(faces[:_SHOWN])]
        if len(faces) > _SHOWN:
            said.append(f"and {len(faces) - _SHOWN} smaller faces, marked in the picture.")
        bands = list(dict.fromkeys(age_band(face.age) for face in faces[:_SHOWN]))
        return "\n\n".join([*said, *(part for band in bands for part in self._worth(band))])

    def live(self, faces: Sequence[FacePrediction], rate: str) -> str:
        """Of one frame of a camera: shorter, because it changes all the time."""
        if faces[0].error:
            return f"### …\n\n{escape_markdown(faces[0].error)}\n\n{rate}"
        first = self._worth(age_band(faces[0].age))[:1]
        return "\n\n".join([*(self._age(face, "") for face in faces[:3]), *first, rate])

    def figures(self) -> str:
        """The model's own figures, and for whom it is worse."""
        tests = self._card.get("figures", {}).get("tests", {})
        if not tests:
            return "Nothing is known here of this model's errors. `agebench test` measures them."
        home = self._card.get("training", {}).get("dataset", "")
        parts = [
            "In brackets 95 % bootstrap intervals. Groups are those of the true labels.",
            overall_table(tests, home),
        ]
        if self._interval:
            parts.append(f"**The interval.** {escape_markdown(self._interval)}.")
        parts += group_tables(tests, home)
        return "\n\n".join(
            [*parts, f"**What it is for.** {escape_markdown(self._card.get('intended_use', 'unknown'))}"]
        )

    def title(self) -> str:
        """Which model this is."""
        model, training = self._card.get("model", self._card), self._card.get("training", {})
        name = escape_markdown(model.get("title") or model.get("name") or "A model")
        return f"{name}, trained on {escape_markdown(training['title'])}" if training.get("title") else name

    def _age(self, face: FacePrediction, before: str) -> str:
        between = ""
        if self.level is not None and math.isfinite(face.low):
            between = f", between {face.low:.0f} and {face.high:.0f} ({100 * self.level:g} % interval)"
        return f"### {before}{face.age:.0f} years{between}"

    def _worth(self, band: str) -> list[str]:
        """A sentence, cautions, and a table."""
        if not self._errors:
            return [f"What this answer is worth is not known: {escape_markdown(self._problem)}"]
        own = {name: bands[band] for name, bands in self._errors.items() if band in bands}
        far = [
            f"{format_number(found['p95_ae']['value'], digits=1)} years on {escape_markdown(name)}"
            for name, found in own.items()
            if found["n"] >= MIN_GROUP
        ]
        said = (
            [f"For faces like this (that the model takes for {band}) the 95 % error is {join_words(far)}."]
            if far
            else []
        )
        for name in self._errors:
            n = own[name]["n"] if name in own else 0
            if n < MIN_GROUP:
                said.append(
                    f"Caution: {escape_markdown(name)} has only {n} faces that the model takes for {band}: nobody knows well."
                )
        return [" ".join(said), self._table(band, own)]

    def _table(self, band: str, own: dict[str, Any]) -> str:
        rows = [[f"{escape_markdown(name)}, taken for {band}", *_row(found)] for name, found in own.items()]
        tests, home = self._card.get("figures", {}).get("tests", {}), self._card.get("training", {}).get("dataset")
        for name, test in tests.items():
            shown = f"{name} (held-out part)" if name == home else name
            rows.append([f"{escape_markdown(shown)}, all", *_row({"n": test["n"], **test["overall"]})])
        return markdown_table(["measured on", "n", "mean error (years)", "95 % of errors below (years)"], rows)


def age_band(age: float) -> str:
    """'25-34' of 34.4, '35-44' of 34.6, which is shown as 35."""
    return band_names()[max(0, sum(round(age) >= low for low in AGE_BANDS) - 1)]


def _row(found: dict[str, Any]) -> list[str]:
    """An interval only where enough faces stand behind it."""
    enough = found["n"] >= MIN_GROUP
    shown = [found.get(key) or {} for key in ("mae", "p95_ae")]
    return [
        format_count(found["n"]),
        *(format_ci(one if enough else {"value": one.get("value")}, digits=1) for one in shown),
    ]
