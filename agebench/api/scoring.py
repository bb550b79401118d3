"""Metrics of predictions in memory: `score` for one system, `compare` for several systems on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from agebench.api import views
from agebench.api.views import MetricValue
from agebench.errors import UserError
from agebench.metrics.age_gates import LEGAL_AGES, parse_gate
from agebench.metrics.comparing import DEFAULT_GATES, compare_on_test_sets
from agebench.metrics.groups import MIN_GROUP
from agebench.metrics.paired_figures import FigureKind, FigureOptions, parse_margins
from agebench.metrics.prediction_format import is_group_candidate
from agebench.metrics.prediction_io import JoinedPredictions, validate_file
from agebench.metrics.requirements import Verdict, parse_requirement, worst_verdict
from agebench.metrics.schema import ComparisonFile, ComparisonResult, MetricsFile, TestResult
from agebench.metrics.scoring import ScoreOptions, score_predictions
from agebench.reports.evaluation import write_comparison, write_score
from agebench.reports.sections.evaluation import compare_text, score_text
from agebench.reports.sections.summary import score_summary

IntervalMethod = Literal["bca", "percentile"]
Groups = pd.DataFrame | Mapping[str, ArrayLike] | ArrayLike | Sequence[str] | None


@dataclass(frozen=True, eq=False)
class ScoreReport:
    """The metrics of one system on one test set.

    Attributes:
        name: name of the test set.
        metrics: content of metrics.json.
        predictions: the scored table, one row an image.
    """

    name: str
    metrics: MetricsFile
    predictions: pd.DataFrame

    @cached_property
    def overall(self) -> dict[str, MetricValue]:
        """Metrics of all images by name: `report.overall["mae"].value`, `.ci_low`, `.ci_high`, `.n`."""
        return views.overall_metrics(self._entry)

    @cached_property
    def by_group(self) -> pd.DataFrame:
        """One row a subgroup, indexed by (grouping, group): n, eligible, and each metric with its interval."""
        return views.group_frame(self._entry)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """One row a grouping: worst and best subgroup, difference and ratio of their MAE with intervals."""
        return views.gap_frame(self._entry)

    @cached_property
    def gates(self) -> pd.DataFrame:
        """One row a pair (legal_age, challenge_age): false positive and false negative rates with intervals."""
        return views.gate_frame(self._entry)

    @cached_property
    def requirements(self) -> pd.DataFrame:
        """One row a requirement: its verdict, limit, and the measured value with its interval."""
        return views.requirement_frame(self._entry)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict over all requirements; `shown` without any."""
        return worst_verdict(self.metrics)

    @property
    def _entry(self) -> TestResult:
        return self.metrics.tests[self.name]

    def to_frame(self) -> pd.DataFrame:
        """Return the overall metrics, one row a metric: value, ci_low, ci_high, n."""
        return views.overall_frame(self._entry)

    def to_markdown(self, *, full: bool = False) -> str:
        """Return the report as Markdown.

        Args:
            full: whether it has every table, as `agebench score --full` prints it.
        """
        return score_text(self.metrics, full=full)

    def summary(self, rest: str) -> str:
        """Return the first part of the report as Markdown; `agebench score` prints it.

        Args:
            rest: the sentence that names the place of everything else.
        """
        return score_summary(self.metrics, rest=rest)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, report.md and figures/ into `folder`, and return the report's path."""
        write_score(Path(folder), self.metrics, {self.name: self.predictions})
        return Path(folder) / "report.md"

    def _repr_html_(self) -> str:
        return _html(("Overall", self.to_frame()), ("Subgroup performance", self.by_group))


@dataclass(frozen=True, eq=False)
class ComparisonReport:
    """Several systems compared on the same images.

    Attributes:
        name: name of the test set that `systems`, `pairs` and `figures` describe.
        result: content of comparison.json.
    """

    name: str
    result: ComparisonFile

    @property
    def tests(self) -> "dict[str, ComparisonReport]":
        """The comparison on each test set, by its name."""
        return {name: ComparisonReport(name, self.result) for name in self.result.tests}

    @cached_property
    def systems(self) -> pd.DataFrame:
        """One row a system: number of seeds, MAE with its interval."""
        return views.system_frame(self._entry)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row a pair of systems: paired difference of MAE (a minus b), its interval, p values."""
        return views.pair_frame(self._entry)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """One row a pair of systems and a figure: difference with its interval, p values, and the test against a margin."""
        return views.figure_frame(self._entry)

    @property
    def _entry(self) -> ComparisonResult:
        return self.result.tests[self.name]

    def to_frame(self) -> pd.DataFrame:
        """Return `pairs`."""
        return self.pairs

    def to_markdown(self) -> str:
        """Return the report that `agebench compare` prints."""
        return compare_text(self.result)

    def save(self, folder: str | Path) -> Path:
        """Write comparison.json, comparison.md and figures/ into `folder`, and return the report's path."""
        write_comparison(Path(folder), self.result)
        return Path(folder) / "comparison.md"

    def _repr_html_(self) -> str:
        return _html(("Systems", self.systems), ("Paired differences", self.pairs))


def score(
    y_true: ArrayLike | pd.DataFrame,
    y_pred: ArrayLike | None = None,
    *,
    groups: Groups = None,
    subjects: ArrayLike | None = None,
    sample_ids: ArrayLike | None = None,
    std: ArrayLike | None = None,
    probs: Sequence[ArrayLike] | None = None,
    first_age: int = 0,
    train_ages: tuple[float, float] | None = None,
    legal_ages: Sequence[int] = LEGAL_AGES,
    challenge_ages: Sequence[float] = (),
    gates: Sequence[str] = (),
    gate_ages: tuple[int, int] | None = None,
    require: Sequence[str] = (),
    preset: Literal["", "nist"] = "",
    calibration: pd.DataFrame | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalMethod = "bca",
    min_group: int = MIN_GROUP,
    name: str = "test",
) -> ScoreReport:
    """Compute all metrics of age estimates, with confidence intervals and subgroup tables.

    Args:
        y_true: (N,) true ages in years; or one table of predictions with the columns `age`, `age_pred`, and optionally
            `sample_id`, `subject`, `age_low`, `age_high`, `age_std`, `p` and group columns.
        y_pred: (N,) estimated ages in years; None where `y_true` is a table of predictions.
        groups: labels to group by: a data frame, a mapping of columns, or one column of N labels. For a table of predictions:
            the names of its columns, or crossings such as `gender*race`; None: every column with 2 to 20 values.
        subjects: (N,) identities; they are resampled instead of images. None: every image is independent.
        sample_ids: (N,) unique names of the images; None: the row numbers.
        std: (N,) standard deviations that the model states, in years.
        probs: (N, A) probabilities of the ages `first_age`, `first_age + 1`, …
        first_age: the age of the first entry of `probs`, in years.
        train_ages: lowest and highest age in the training set, for the MAE within this range.
        legal_ages: ages of the age gates, in years.
        challenge_ages: estimates from which a person passes; empty: each legal age, and 7 years more.
        gates: further age gates such as `18@25`: legal age and challenge age.
        gate_ages: first and last completed year of the minors that count at the gates; None: all below the legal age.
        require: limits such as `mae<=4.5`, `fpr(18@25)<=0.01` or `mae(every race)<=6`; see `requirements` and `verdict` of the
            report.
        preset: `nist` adds the metrics of NIST's FATE AEV.
        calibration: a table of predictions on the validation part, for conformal intervals.
        resamples: number of bootstrap resamples, 100 or more; 0: no intervals.
        seed: seed of the bootstrap and of the permutation tests.
        interval: bootstrap method of the intervals.
        min_group: smallest number of images of a subgroup that is compared with others.
        name: name of the test set in the report.

    Returns:
        The report: `overall`, `by_group`, `gaps`, `gates`, `to_frame()`, `to_markdown()`, `save(folder)`.

    Raises:
        UserError: the arrays differ in length, a value is not a finite number, or an option is out of range.

    Examples:
        >>> import agebench as ab
        >>> report = ab.score([20, 30, 40, 50], [22, 29, 43, 50], groups={"gender": list("ffmm")}, resamples=0)
        >>> report.overall["mae"].value
        1.5
        >>> report.by_group.loc[("gender", "m"), "mae"]
        np.float64(1.5)
    """
    options = ScoreOptions(
        groups=_group_names(y_true, groups),
        train_ages=train_ages,
        resamples=resamples,
        seed=seed,
        interval=interval,
        minimum=min_group,
        legal_ages=tuple(legal_ages),
        challenges=tuple(challenge_ages),
        gates=tuple(parse_gate(text) for text in gates),
        minor_ages=gate_ages,
        requirements=tuple(parse_requirement(text) for text in require),
        preset=preset,
        first_age=first_age,
    )
    check_options(options)
    if isinstance(y_true, pd.DataFrame):
        beside = {"y_pred": y_pred, "subjects": subjects, "sample_ids": sample_ids, "std": std, "probs": probs}
        for argument, column in beside.items():
            if column is not None:
                raise UserError(
                    f"{argument} is given beside a table of predictions, which has a column for it. Pass two arrays, or the "
                    "table alone."
                )
        table = _with_ids(y_true)
    else:
        if y_pred is None:
            raise UserError("y_pred is missing. Pass true and estimated ages, or one table with `age` and `age_pred`.")
        columns = {"age": y_true, "age_pred": y_pred, "sample_id": sample_ids, "subject": subjects, "age_std": std}
        table = _table(columns | _group_columns(groups), probs)
    table = validate_file(table, Path(name))
    if len(table) < 2:
        raise UserError(f"{name}: only one row. Metrics of a test set need at least two.")
    calibrated = None if calibration is None else validate_file(_with_ids(calibration), Path("calibration"))
    return ScoreReport(name, score_predictions(name, [JoinedPredictions(table)], options, calibrated), table)


def compare(
    predictions: Mapping[str, ArrayLike],
    y_true: ArrayLike,
    *,
    subjects: ArrayLike | None = None,
    sample_ids: ArrayLike | None = None,
    groups: Groups = None,
    gates: Sequence[str] = (),
    gate_ages: tuple[int, int] | None = None,
    margins: Mapping[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalMethod = "bca",
    name: str = "test",
) -> ComparisonReport:
    """Compare systems on the same images by paired bootstrap and permutation tests.

    Args:
        predictions: name of a system -> (N,) estimated ages in years, or (S, N) for S seeds of one system.
        y_true: (N,) true ages in years.
        subjects: (N,) identities; they are resampled instead of images. None: every image is independent.
        sample_ids: (N,) unique names of the images; None: the row numbers.
        groups: labels whose largest gaps in MAE are compared: a data frame, a mapping of columns, or one column of N labels.
        gates: age gates such as `18@25`: legal age and challenge age; empty: `18@25`.
        gate_ages: first and last completed year of the minors that count at the gates; None: all below the legal age.
        margins: `mae`, `bias`, `cs5`, `fpr`, `fnr`, `gap` or `failure` -> the difference that does not matter, in years or as a
            share: tests of non-inferiority and equivalence.
        resamples: number of bootstrap resamples, 100 or more; 0: no intervals.
        seed: seed of the bootstrap and of the permutation tests.
        interval: bootstrap method of the intervals.
        name: name of the test set in the report.

    Returns:
        The report: `systems`, `pairs`, `figures`, `to_frame()`, `to_markdown()`, `save(folder)`.

    Raises:
        UserError: fewer than two systems, arrays that differ in length, or a value that is not a finite number.

    Examples:
        >>> import agebench as ab
        >>> report = ab.compare({"a": [21, 31, 41], "b": [25, 30, 43]}, [20, 30, 40], resamples=0)
        >>> report.systems["mae"].round(2).to_dict()
        {'a': 1.0, 'b': 2.67}
    """
    if len(predictions) < 2:
        raise UserError("compare: a comparison needs at least two systems, as {'a': ages_a, 'b': ages_b}.")
    labels = _group_columns(groups)
    options = FigureOptions(
        gates=tuple(parse_gate(text) for text in gates) or DEFAULT_GATES,
        minor_ages=gate_ages,
        groups=tuple(labels) or None,
        margins=_margins(margins or {}),
        resamples=resamples,
        seed=seed,
        interval=interval,
    )
    check_options(options)
    systems = {}
    for system, ages in predictions.items():
        shared = {"age": y_true, "sample_id": sample_ids, "subject": subjects} | labels
        seeds = np.atleast_2d(np.asarray(ages))
        systems[system] = [
            JoinedPredictions(validate_file(_table(shared | {"age_pred": row}), Path(system))) for row in seeds
        ]
    return ComparisonReport(name, compare_on_test_sets({name: systems}, options))


def _margins(margins: Mapping[str, float]) -> dict[FigureKind, float]:
    return parse_margins([f"{figure}={margin!r}" for figure, margin in margins.items()])


def check_options(options: ScoreOptions | FigureOptions) -> None:
    """Check the numbers among the options of `score` and `compare`.

    Args:
        options: what to compute.

    Raises:
        UserError: a number is out of range.
    """
    if options.resamples < 0 or 0 < options.resamples < 100:
        raise UserError(f"resamples = {options.resamples}: must be 100 or more, or 0 for no intervals.")
    if options.seed < 0:
        raise UserError(f"seed = {options.seed}: must be 0 or more.")
    if options.minimum < 1:
        raise UserError(f"min_group = {options.minimum}: must be 1 or more.")
    if isinstance(options, ScoreOptions) and options.train_ages is not None:
        low, high = options.train_ages
        if low > high:
            raise UserError(f"train ages ({low:g}, {high:g}): give the lower age first.")


def _group_names(y_true: ArrayLike | pd.DataFrame, groups: Groups) -> tuple[str, ...] | None:
    """Return the columns to group by; None: all that are known."""
    if not isinstance(y_true, pd.DataFrame):
        return tuple(_group_columns(groups)) or None
    return None if groups is None else tuple(str(column) for column in groups)  # type: ignore[union-attr]


def _group_columns(groups: Groups) -> dict[str, ArrayLike]:
    """Return group labels as named columns; an unnamed column is called `group`."""
    if groups is None:
        return {}
    if isinstance(groups, pd.DataFrame | Mapping):
        columns = {str(column): groups[column] for column in groups}  # type: ignore[index]  # a column of a frame is hashable
    else:
        columns = {str(getattr(groups, "name", None) or "group"): groups}
    taken = [name for name in columns if not is_group_candidate(name)]
    if taken:
        raise UserError(f"group '{taken[0]}': that name is taken. Give another one: groups={{'NAME': labels}}.")
    return columns


def _table(columns: Mapping[str, ArrayLike | None], probs: Sequence[ArrayLike] | None = None) -> pd.DataFrame:
    """Build a table of predictions from columns of equal length; those that are None are left out."""
    values: dict[str, pd.Series[Any] | list[ArrayLike]] = {
        name: _column(name, column) for name, column in columns.items() if column is not None
    }
    if probs is not None:
        values["p"] = list(probs)
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"arrays of different lengths: {', '.join(f'{name} {n}' for name, n in lengths.items())}.")
    return _with_ids(pd.DataFrame(values))


def _column(name: str, values: ArrayLike) -> "pd.Series[Any]":
    """Return a column without its index, so that rows are matched by position."""
    column = pd.Series(values).reset_index(drop=True)
    if name in ("age", "age_pred", "age_std") and np.ndim(values) != 1:
        raise UserError(f"{name}: an array of {np.ndim(values)} dimensions. Pass one number for each image.")
    return column


def _with_ids(table: pd.DataFrame) -> pd.DataFrame:
    if "sample_id" in table:
        return table
    return table.reset_index(drop=True).assign(sample_id=[str(row) for row in range(len(table))])


def _html(*sections: tuple[str, pd.DataFrame]) -> str:
    """Render tables for notebooks; pandas escapes every label."""
    return "".join(f"<h4>{title}</h4>{frame.to_html(float_format='{:.3f}'.format)}" for title, frame in sections)
