"""The gate figure: minors that pass and adults that are refused, by challenge age, as an SVG file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agebench.leaderboard.gate_rates import MOST_CHALLENGE, LegalAgeRates, Rate
from agebench.leaderboard.headline import LEGAL, Headline, HeadlineRow
from agebench.leaderboard.marks import HOME, TRAINED_ON, UNANSWERED, UNKNOWN
from agebench.reports.formatting import sanitize

_WEB = Path(__file__).parent / "web"
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3f9fd0")  # after Okabe and Ito
_DASHES = ("", "6 3")
_TOP, _HEIGHT, _WIDTH, _LEFTS = 50.0, 250.0, 370.0, (60.0, 510.0)
_LEGEND_TOP, _LINE = 370.0, 20.0
_LEGEND_COLUMNS = 2


@dataclass(frozen=True)
class _Curve:
    """One system in both panels and in the legend."""

    name: str
    color: str
    dash: str
    passing: str
    refused: str
    x: float
    y: float


def gate_figure(headline: Headline) -> str | None:
    """Draw the rates of the systems of the first table for the legal age of 18; None where none were computed.

    Args:
        headline: the first table; the figure is of the test set on which most minors pass.
    """
    test = next(iter(headline.gate_tests), None)
    curves = [] if test is None else _curves(headline.rows, test)
    if not curves:
        return None
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    template = environment.get_template("gates.svg.jinja")
    shares = [(f"{share} %", _y(share / 100)) for share in (0, 25, 50, 75, 100)]
    return template.render(
        test=test,
        curves=curves,
        lefts=_LEFTS,
        width=_WIDTH,
        bottom=_TOP + _HEIGHT,
        titles=(f"Minors of 13-17 that pass, {test}", f"Adults from {LEGAL} on that are refused, {test}"),
        shares=shares,
        challenges=[(age, [_x(age, left) for left in _LEFTS]) for age in (18, 20, 25, 30, 35, 40)],
        note=f"{TRAINED_ON} trained or chosen on this test set; {UNKNOWN} unknown training data; {HOME} held-out part of its own "
        f"training set; {UNANSWERED} many images without an estimate",
        height=_LEGEND_TOP + _LINE * ((len(curves) + 1) // _LEGEND_COLUMNS) + 20,
    )


def _curves(rows: Sequence[HeadlineRow], test: str) -> list[_Curve]:
    shown = [
        (row, gates)
        for row in rows
        for gates in (row.gates[test].gates if test in row.gates else [])
        if gates.legal == LEGAL
    ]
    lines = -(-len(shown) // _LEGEND_COLUMNS)
    curves = []
    for place, (row, gates) in enumerate(shown):
        everyone = gates.groups[0]
        size = row.system.records[0].input_size
        name = row.name.replace(f", {size} px", "")
        name += row.cells[test].mark
        curves.append(
            _Curve(
                name=sanitize(name),
                color=_COLORS[place % len(_COLORS)],
                dash=_DASHES[place // len(_COLORS) % len(_DASHES)],
                passing=_points(gates, everyone.passing, _LEFTS[0]),
                refused=_points(gates, everyone.refused, _LEFTS[1]),
                x=_LEFTS[0] + (place // lines) * (_LEFTS[1] - _LEFTS[0]),
                y=_LEGEND_TOP + (place % lines) * _LINE,
            )
        )
    return curves


def _points(gates: LegalAgeRates, rates: Sequence[Rate], left: float) -> str:
    known = [(age, rate[0]) for age, rate in zip(gates.challenge, rates, strict=True) if rate[0] is not None]
    return " ".join(f"{_x(age, left):g},{_y(share):g}" for age, share in known)


def _x(age: float, left: float) -> float:
    return round(left + (age - LEGAL) / (MOST_CHALLENGE - LEGAL) * _WIDTH, 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _HEIGHT, 1)
