"""Ages and genders in the JSON answers of HTTP endpoints."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.estimators.base import AgeEstimates

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class ApiAnswer(NamedTuple):
    """The answer of an endpoint for one image.

    Attributes:
        age: as it is stated; NaN if it states none.
        gender: the class that it names, in lower case; empty if it names none.
    """

    age: float
    gender: str


def parse_answer(stored: Mapping[str, Any], card: ExternalCard) -> ApiAnswer:
    """Read age and gender from a stored answer; what it does not hold is NaN or empty.

    Args:
        stored: status and content of the answer.
        card: the model's card.
    """
    assert card.http is not None
    if stored["status"] >= 300:
        return ApiAnswer(math.nan, "")
    answer = stored.get("answer")
    if card.http.kind == "openai":
        text = _at(answer, "choices.0.message.content")
        fields = _json_in(text) if isinstance(text, str) else None
        age = fields.get("age") if fields is not None else text
        return ApiAnswer(_number(age), str((fields or {}).get("gender") or "").lower())
    gender = _at(answer, card.output.gender.name) if card.output.gender is not None else None
    age = _number(_at(answer, card.http.age))
    if card.http.age_high:
        age = (age + _number(_at(answer, card.http.age_high))) / 2
    return ApiAnswer(age, str(gender or "").lower())


def _at(value: Any, path: str) -> Any:
    """Return the value at a dotted path of keys and indices; None if there is none."""
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    return value


def _json_in(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a text, also between words or fences; None if there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _number(value: Any) -> float:
    """Return a number, or the only number in a text; else NaN."""
    if isinstance(value, bool) or value is None:
        return math.nan
    if isinstance(value, int | float):
        return float(value) if -1e6 < value < 1e6 else math.nan
    numbers = _NUMBER.findall(value) if isinstance(value, str) else []
    return float(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 20 else math.nan


def to_estimates(answers: Sequence[ApiAnswer], card: ExternalCard) -> AgeEstimates:
    """Return answers as estimates; an answer without an age, or without a gender that the card reads, has failed.

    Args:
        answers: the answers for N images.
        card: the model's card.
    """
    ages = np.array([answer.age for answer in answers], dtype=np.float64)
    failed = ~np.isfinite(ages)
    tasks = {}
    if card.output.gender is not None:
        classes = [name.lower() for name in card.output.gender.classes]
        tasks["gender"] = np.array(
            [[float(answer.gender == name) for name in classes] for answer in answers], np.float32
        )
        tasks["gender"] = tasks["gender"].reshape(-1, len(classes))
        failed |= tasks["gender"].sum(axis=1) == 0
    ages = card.output.offset + card.output.scale * np.where(failed, np.nan, ages)
    return AgeEstimates(ages, failed=failed if failed.any() else None, tasks=tasks)
