"""Scorers of scikit-learn with the values of `ab.score`, for `cross_val_score` and `GridSearchCV`."""

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike
from sklearn.metrics import make_scorer

from agebench.api.scoring import score
from agebench.errors import UserError
from agebench.metrics.metric_specs import SPECS, Better
from agebench.metrics.requirements import Requirement, ScopeKind, parse_requirement


def age_scorer(figure: str = "mae", *, minor_ages: tuple[int, int] | None = None) -> Callable[..., float]:
    """Return a scorer for estimators that predict ages; a higher score is better, so errors are negative.

    Args:
        figure: a metric of all images such as `mae`, `bias` or `cs5`, or the error rate of an age gate such as
            `fpr(18@25)`. The score of a bias is its size.
        minor_ages: first and last completed year of the minors that count at a gate; None: all below the legal age.

    Returns:
        What scikit-learn's `scoring` argument takes.

    Raises:
        UserError: there is no such figure.

    Examples:
        >>> from sklearn.dummy import DummyRegressor
        >>> age_scorer("mae")(DummyRegressor().fit([[0], [1]], [20.0, 40.0]), [[0], [1]], [25.0, 35.0])
        -5.0
    """
    wanted = _parse_figure(figure)
    better = Better.LOWER if wanted.gate else SPECS[wanted.metric].better
    options = {"figure": wanted, "minor_ages": minor_ages, "size_only": better is Better.ZERO}
    scorer: Callable[..., float] = make_scorer(_measure, greater_is_better=better is Better.HIGHER, **options)
    return scorer


def _measure(
    y_true: ArrayLike, y_pred: ArrayLike, *, figure: Requirement, minor_ages: tuple[int, int] | None, size_only: bool
) -> float:
    """Return a figure of estimates, or its size; at the top of the module, so that scorers can be pickled."""
    value = measure_figure(figure, y_true, y_pred, minor_ages)
    return abs(value) if size_only else value


def measure_figure(
    figure: Requirement, y_true: ArrayLike, y_pred: ArrayLike, minor_ages: tuple[int, int] | None = None
) -> float:
    """Return a figure of estimates; NaN where a gate has no image on one side.

    Args:
        figure: the figure.
        y_true: (N,) true ages, years.
        y_pred: (N,) estimated ages, years.
        minor_ages: first and last completed year of the minors that count at a gate.
    """
    options: dict[str, Any] = {"resamples": 0, "gate_ages": minor_ages}
    if figure.gate is None:
        return score(y_true, y_pred, **options).overall[figure.metric].value
    key = (figure.gate.legal, figure.gate.challenge)
    gates = score(y_true, y_pred, legal_ages=[key[0]], challenge_ages=[key[1]], **options).gates
    return float(gates[figure.metric].to_dict()[key]) if key in gates.index else float("nan")


def _parse_figure(text: str) -> Requirement:
    message = f"figure '{text}': a scorer takes a figure of all images, such as mae, bias, cs5 or fpr(18@25)"
    try:
        figure = parse_requirement(f"{text}<=0")
    except UserError as error:
        raise UserError(message) from error
    has_direction = figure.metric in SPECS and SPECS[figure.metric].better not in (Better.NEITHER, Better.ONE)
    if figure.scope.kind is not ScopeKind.ALL or not (figure.gate or has_direction):
        raise UserError(message)
    return figure
