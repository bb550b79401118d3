"""Requirements such as `fpr(18@25)<=0.01`: a typed parser, and verdicts from one-sided confidence bounds.

A requirement is shown where the whole 95 % interval of its figure meets it, refuted where the whole interval violates it, and
not shown otherwise. Fewer than 30 images or people show nothing, except by rates of age gates, whose intervals are exact. Each
end of the interval is a one-sided 97.5 % bound, so a verdict never contradicts the printed interval, and each of the two claims is
false in at most 2.5 % of cases (that a gap is refuted, in 5 %: its pair of groups is selected).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import numpy as np
from scipy import special

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate, parse_gate
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL
from agebench.metrics.groups import MIN_GROUP
from agebench.metrics.metric_specs import SPECS, Unit
from agebench.metrics.point import CS_LEVELS
from agebench.metrics.schema import (
    FailureRate,
    GateRates,
    MetricsFile,
    MetricValue,
    RequirementResult,
    TestResult,
)
from agebench.utils.text import did_you_mean

_FORM = re.compile(r"(?P<figure>.*\S)\s*(?P<operator><=|>=)\s*(?P<limit>[^<>=]*)", re.DOTALL)
_FIGURE = re.compile(r"(?P<name>\w+)\s*(?:\((?P<inside>.*)\))?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
# Bootstrap intervals of fewer images are too narrow: at 8 images their upper ends miss the MAE in 8 % of cases, not 2.5 %, and at
# 3 images in 20 %. Fewer than MIN_GROUP images therefore show nothing, and fewer than _MIN_REFUTING refute nothing.
_MIN_REFUTING = 8
_EQUAL_AGES = "equal ages"
_GROUP_METRICS = ("mae", "bias", "rmse", "cs5", "age_standardized_mae")
_RATES = ("fpr", "fnr")
_OTHERS = ("gap", "failure")
_CUMULATIVE = frozenset(f"cs{years}" for years in CS_LEVELS)
_EXAMPLE = "write it as FIGURE<=NUMBER, e.g. mae<=4.5, fpr(18@25)<=0.01, gap(gender)<=0.5 or mae(every race)<=6"


class Verdict(StrEnum):
    """Verdict of the data on a requirement."""

    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    REFUTED = "refuted"

    @property
    def exit_code(self) -> int:
        """Exit code of a command whose worst verdict this is."""
        return {Verdict.SHOWN: 0, Verdict.NOT_SHOWN: 3, Verdict.REFUTED: 4}[self]


class Operator(StrEnum):
    """Direction of a requirement."""

    AT_MOST = "<="
    AT_LEAST = ">="


class ScopeKind(StrEnum):
    """Images that a required figure is taken on."""

    ALL = "all"
    EVERY = "every"
    GROUP = "group"
    AGE = "age"


@dataclass(frozen=True)
class Scope:
    """Images that a required figure is taken on.

    Attributes:
        kind: all images, every group of a grouping, one group, or one year of age.
        grouping: name of the grouping; empty without one.
        group: name of the group; empty without one.
        year: completed years of age; -1 without one.
    """

    kind: ScopeKind = ScopeKind.ALL
    grouping: str = ""
    group: str = ""
    year: int = -1

    def __str__(self) -> str:
        """Return the scope as a user writes it; empty for all images."""
        if self.kind is ScopeKind.EVERY:
            return f"every {self.grouping}"
        if self.kind is ScopeKind.GROUP:
            return f"{self.grouping}={self.group}"
        return f"age {self.year}" if self.kind is ScopeKind.AGE else ""


@dataclass(frozen=True)
class Requirement:
    """A limit on a figure.

    Attributes:
        metric: a metric of the whole test set or of groups, `fpr`, `fnr`, `gap` or `failure`.
        operator: direction.
        limit: in the figure's unit; shares between 0 and 1.
        gate: the age gate of `fpr` and `fnr`.
        scope: images that the figure is taken on; of a gap, its grouping.
        equal_ages: whether a gap is taken at equal ages.
    """

    metric: str
    operator: Operator
    limit: float
    gate: Gate | None = None
    scope: Scope = field(default_factory=Scope)
    equal_ages: bool = False

    @property
    def figure(self) -> str:
        """The figure as a user writes it, such as `fpr(18@25, age 17)`."""
        scope = self.scope.grouping if self.metric == "gap" else str(self.scope)
        inside = [self.gate.label if self.gate else "", scope, _EQUAL_AGES if self.equal_ages else ""]
        text = ", ".join(filter(None, inside))
        return f"{self.metric}({text})" if text else self.metric

    @property
    def is_share(self) -> bool:
        """Return whether the figure is a share of images."""
        if self.metric in (*_RATES, "failure"):
            return True
        return self.metric != "gap" and SPECS[self.metric].unit is Unit.SHARE

    def __str__(self) -> str:
        """Return the requirement in a form that parses to an equal one."""
        return f"{self.figure}{self.operator}{self.limit!r}"


def parse_requirement(text: str) -> Requirement:
    """Parse a requirement.

    Args:
        text: such as `mae<=4.5`, `cs5>=80%`, `fpr(18@25, age 17)<=0.05`, `mae(gender=female)<=5` or `gap(race, equal ages)<=1`.

    Raises:
        UserError: the text has no such form, or names no figure.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise UserError(f"requirement '{text}': {_EXAMPLE}")
    figure = _FIGURE.fullmatch(form["figure"].strip())
    if figure is None:
        raise UserError(f"requirement '{text}': {_EXAMPLE}")
    name, inside = figure["name"], (figure["inside"] or "").strip()
    operator = Operator(form["operator"])
    is_share = name in (*_RATES, "failure") or (name in SPECS and SPECS[name].unit is Unit.SHARE)
    limit = _parse_limit(form["limit"].strip(), text, is_share=is_share)
    if name == "gap":
        return _parse_gap(operator, limit, inside, text)
    gate = None
    if name in _RATES:
        first, _, inside = (part.strip() for part in inside.partition(","))
        gate = parse_gate(first)
    elif name not in SPECS and name != "failure":
        raise UserError(f"requirement '{text}': no figure '{name}'{did_you_mean(name, [*SPECS, *_RATES, *_OTHERS])}")
    scope = _parse_scope(inside, text)
    can_have_groups = name in _RATES or name in _GROUP_METRICS
    if (scope.kind is not ScopeKind.ALL and not can_have_groups) or (
        scope.kind is ScopeKind.AGE and name not in _RATES
    ):
        raise UserError(
            f"requirement '{text}': '{name}' is not computed for '{inside}'. By group: {', '.join(_GROUP_METRICS)}, fpr and fnr; "
            "by year of age: fpr and fnr"
        )
    return Requirement(name, operator, limit, gate, scope)


def _parse_limit(text: str, requirement: str, *, is_share: bool) -> float:
    number = text.removesuffix("%").strip()
    if not _NUMBER.fullmatch(number) or not np.isfinite(float(number)):
        raise UserError(f"requirement '{requirement}': '{text}' is not a number; {_EXAMPLE}")
    limit = float(number) / 100 if text.endswith("%") else float(number)
    if is_share and limit > 1:
        raise UserError(
            f"requirement '{requirement}': '{text}' is above 1. Write a share or a percentage, e.g. 0.6 or 60%"
        )
    return limit


def _parse_gap(operator: Operator, limit: float, inside: str, text: str) -> Requirement:
    grouping, comma, rest = (part.strip() for part in inside.rpartition(","))
    equal_ages = bool(comma) and rest == _EQUAL_AGES
    grouping = grouping if equal_ages else inside
    if not grouping:
        raise UserError(
            f"requirement '{text}': a gap needs its groups, e.g. gap(gender)<=0.5 or gap(gender, equal ages)<=0.5"
        )
    return Requirement("gap", operator, limit, None, Scope(ScopeKind.EVERY, grouping), equal_ages)


def _parse_scope(inside: str, text: str) -> Scope:
    if not inside:
        return Scope()
    word, _, rest = (part.strip() for part in inside.partition(" "))
    if word == "every" and rest:
        return Scope(ScopeKind.EVERY, rest)
    if word == "age" and rest.isdecimal():
        return Scope(ScopeKind.AGE, year=int(rest))
    grouping, equals, group = (part.strip() for part in inside.partition("="))
    if not (grouping and equals and group):
        raise UserError(
            f"requirement '{text}': '{inside}' names no images; write every GROUPING, GROUPING=GROUP or age 17"
        )
    return Scope(ScopeKind.GROUP, grouping, group)


def required_gates(requirements: Iterable[Requirement]) -> tuple[Gate, ...]:
    """Return the age gates that requirements need."""
    return tuple(sorted({requirement.gate for requirement in requirements if requirement.gate is not None}))


def check_requirements(entry: TestResult, requirements: Sequence[Requirement]) -> list[RequirementResult]:
    """Decide every requirement for one test set.

    Args:
        entry: the test set's metrics, with the gates of `required_gates`.
        requirements: limits.

    Raises:
        UserError: a requirement names a metric, grouping or group that the test set does not have.
    """
    return [_check(entry, requirement) for requirement in requirements]


def with_requirements(metrics: MetricsFile, requirements: Sequence[Requirement]) -> MetricsFile:
    """Return the metrics with every test set's `requirements`; unchanged without requirements."""
    if not requirements:
        return metrics
    tests = {
        name: entry.model_copy(update={"requirements": check_requirements(entry, requirements)})
        for name, entry in metrics.tests.items()
    }
    return metrics.model_copy(update={"tests": tests})


def worst_verdict(metrics: MetricsFile) -> Verdict:
    """Return the worst verdict over all test sets: refuted, then not shown, then shown."""
    verdicts = {result.verdict for entry in metrics.tests.values() for result in entry.requirements}
    for verdict in (Verdict.REFUTED, Verdict.NOT_SHOWN):
        if verdict.value in verdicts:
            return verdict
    return Verdict.SHOWN


def _check(entry: TestResult, requirement: Requirement) -> RequirementResult:
    values = _values(entry, requirement)
    count = len(values)
    shown = bool(values) and all(
        _decide(value, requirement) is Verdict.SHOWN and (value.n is None or value.n >= MIN_GROUP)
        for value in values.values()
    )
    # One of several groups is refuted by chance more often than one group: its bounds hold for all groups at once.
    wide = {name: _widened(value, count, requirement) for name, value in values.items()}
    refuted = [name for name, value in wide.items() if _decide(value, requirement) is Verdict.REFUTED]
    verdict = Verdict.SHOWN if shown else Verdict.REFUTED if refuted else Verdict.NOT_SHOWN
    worst = _worst(values, requirement)
    value = values.get(worst, MetricValue())
    return RequirementResult(
        requirement=str(requirement),
        figure=requirement.figure,
        operator=requirement.operator.value,
        limit=requirement.limit,
        is_share=requirement.is_share,
        verdict=verdict.value,
        value=value,
        group=worst if requirement.scope.kind is ScopeKind.EVERY and requirement.metric != "gap" else None,
    )


def _decide(value: MetricValue, requirement: Requirement) -> Verdict:
    low, high, limit = value.ci_low, value.ci_high, requirement.limit
    if value.n is not None and value.n < _MIN_REFUTING:
        return Verdict.NOT_SHOWN
    if requirement.operator is Operator.AT_LEAST:
        low, high = (None if end is None else -end for end in (high, low))
        limit = -limit
    if high is not None and high <= limit:
        return Verdict.SHOWN
    return Verdict.REFUTED if low is not None and low > limit else Verdict.NOT_SHOWN


def _worst(values: Mapping[str, MetricValue], requirement: Requirement) -> str:
    """The group with the least favorable bound; one whose bound is unknown comes first."""
    sign = 1 if requirement.operator is Operator.AT_MOST else -1

    def badness(name: str) -> float:
        end = values[name].ci_high if sign > 0 else values[name].ci_low
        return np.inf if end is None else sign * end

    return max(values, key=badness, default="")


def _widened(value: MetricValue, count: int, requirement: Requirement) -> MetricValue:
    """The interval that holds for `count` groups at once, by Bonferroni, on the scale of the normal distribution."""
    if count < 2 or value.value is None or not value.has_interval:
        return value
    tail = (1 - CONFIDENCE_LEVEL) / 2
    factor = float(special.ndtri(tail / count) / special.ndtri(tail))
    ends = [value.value + (end - value.value) * factor for end in (value.ci_low or 0.0, value.ci_high or 0.0)]
    if requirement.is_share:
        ends = [min(max(end, 0.0), 1.0) for end in ends]
    return MetricValue(value=value.value, ci_low=ends[0], ci_high=ends[1], n=value.n)


def _values(entry: TestResult, requirement: Requirement) -> dict[str, MetricValue]:
    """The values that a requirement is about: one, or one for every group; none where they are not known."""
    if requirement.metric in _RATES:
        return _rates(entry, requirement)
    if requirement.metric == "gap":
        return _gap(entry, requirement)
    if requirement.metric == "failure":
        failures = entry.failure_to_process
        return {} if failures is None else {"": failures.rate}
    scope = requirement.scope
    if scope.kind is ScopeKind.ALL:
        if requirement.metric not in entry.overall:
            known = did_you_mean(requirement.metric, entry.overall)
            raise UserError(f"requirement '{requirement}': this test set has no '{requirement.metric}'{known}")
        value = _of_images(entry.overall[requirement.metric], _independent(entry))
        return {"": _with_misses(value, requirement, entry.n, entry.failure_to_process)}
    groups = _named(scope.grouping, entry.groups, requirement, "grouping")
    chosen = _chosen(groups, requirement)
    unknown = MetricValue()
    failed = {} if entry.failure_to_process is None else entry.failure_to_process.groups.get(scope.grouping, {})
    values = {}
    for name, group in chosen.items():
        people = group.n if group.subjects is None else group.subjects
        value = _of_images(getattr(group, requirement.metric) or unknown, people)
        values[name] = _with_misses(value, requirement, group.n, failed.get(name))
    return values


def _independent(entry: TestResult) -> int:
    """People behind the figures of all images, and images whose person is unknown."""
    if entry.method is not None and entry.method.clusters is not None:
        return entry.method.clusters
    return entry.subjects or entry.n


def _of_images(value: MetricValue, n: int) -> MetricValue:
    """A value whose interval is a bootstrap's, with the images (or people) behind it."""
    return value.model_copy(update={"n": n if value.n is None else value.n})


def _with_misses(value: MetricValue, requirement: Requirement, n: int, failures: FailureRate | None) -> MetricValue:
    """CS@k of all images instead of the n answered ones: an image without an estimate is a miss.

    Failures of other images, as those of a whole dataset whose held-out part was tested, change nothing.
    """
    if requirement.metric not in _CUMULATIVE or failures is None or failures.n != n + failures.failed:
        return value
    answered = n / max(failures.n, 1)
    ends = {name: getattr(value, name) for name in ("value", "ci_low", "ci_high")}
    return value.model_copy(
        update={name: None if number is None else number * answered for name, number in ends.items()}
    )


def _rates(entry: TestResult, requirement: Requirement) -> dict[str, MetricValue]:
    assert requirement.gate is not None
    gate, scope = entry.age_gates.get(str(requirement.gate.legal)), requirement.scope
    key, side = f"{requirement.gate.challenge:g}", requirement.metric
    if gate is None or key not in gate.challenge:
        return {}
    if scope.kind is ScopeKind.ALL:
        return {"": _rate(gate.challenge[key], side)}
    if scope.kind is ScopeKind.AGE:
        by_year: Mapping[str, object] = gate.by_age[key] if side == "fpr" else gate.refused_by_age.get(key, {})
        row = by_year.get(str(scope.year))
        return {} if row is None else {"": getattr(row, side)}
    groups = _chosen(_named(scope.grouping, gate.by_group[key], requirement, "grouping"), requirement)
    # A group without anyone on this side of the limit has no rate, and none that could be violated.
    return {
        name: _rate(group, side) for name, group in groups.items() if (group.n_under if side == "fpr" else group.n_over)
    }


def _rate(rates: GateRates, side: str) -> MetricValue:
    return rates.fpr if side == "fpr" else rates.fnr


def _gap(entry: TestResult, requirement: Requirement) -> dict[str, MetricValue]:
    gap = _named(requirement.scope.grouping, entry.gaps, requirement, "grouping with a gap")
    part = gap.age_standardized if requirement.equal_ages else gap
    if part is None:
        return {}
    # Another pair than the observed worst and best may differ more: the upper bound is over all pairs.
    return {"": part.difference.model_copy(update={"ci_high": part.upper})}


Entry = TypeVar("Entry")


def _named(name: str, entries: Mapping[str, Entry], requirement: Requirement, what: str) -> Entry:
    if name not in entries:
        raise UserError(f"requirement '{requirement}': no {what} '{name}'{did_you_mean(name, entries)}")
    return entries[name]


def _chosen(groups: Mapping[str, Entry], requirement: Requirement) -> dict[str, Entry]:
    if requirement.scope.kind is ScopeKind.EVERY:
        return dict(groups)
    name = requirement.scope.group
    return {name: _named(name, groups, requirement, "group")}
