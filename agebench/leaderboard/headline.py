"""The answer that the leaderboard begins with: a short table of systems, and whether one may be trusted with an age gate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agebench.leaderboard.gate_rates import MINOR_YEARS, GateRatesByAge, gate_rate, refusal_rate, system_gates
from agebench.leaderboard.headline_systems import has_contamination, headline_systems
from agebench.leaderboard.image_ranking import ImageRankings
from agebench.leaderboard.marks import (
    HOME,
    NO_ESTIMATES,
    PARTIAL,
    TRAINED_ON,
    UNKNOWN,
    caveat_symbol,
    has_unanswered,
    tested_of,
)
from agebench.leaderboard.systems import Gap, System, is_contaminated, is_subset, largest_gap
from agebench.metrics.schema import MetricValue
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_ci,
    format_count,
    group_name,
    join_words,
    markdown_table,
    sanitize,
)
from agebench.reports.sections.rankings import rank_interval

LEGAL, CHALLENGE = 18, 25
# The share of minors that may pass where a system is trusted; the upper end of its interval counts.
TRUSTED_RATE = 0.01
QUESTION = "Which of these systems can be trusted with “is this person over 18?”"
NOTE = (
    "Distance: years outside the labeled range of ages, 0 within it; it is smaller than an MAE and cannot be compared with one. "
    f"In parentheses: images with an estimate, of all. {TRAINED_ON} trained or chosen on this test set, as its authors state; such "
    f"systems are listed apart, below the others. {UNKNOWN} what it was trained on is not known. {PARTIAL} not all images of the "
    f"dataset were at hand. {NO_ESTIMATES}: parentheses have those of the images that were read, and the others are in no "
    "error and in no rate. "
    f"{HOME} held-out part of its own training set. Beside the share of passing minors: the number of their images. A gate that "
    "refuses many adults lets few minors pass: read both columns. A dash: not measured. Labels that are ranges of ages leave open "
    "who is a minor. Rank: a 95 % interval among all systems that were tested on the same images; a system that was trained on "
    "them has none. Widest gap: the largest difference in MAE between two groups at equal ages on any of its test sets, years; a "
    "dash: no groups are annotated."
)


class Kind(StrEnum):
    """The origin of a system; the value is its text on the leaderboard."""

    INSTALLED = "installed"
    INSTALLED_CONTAMINATED = "installed, trained on a test set"
    TRAINED_HERE = "trained here"


@dataclass(frozen=True)
class HeadlineCell:
    """The error of a system on one test set.

    Attributes:
        error: MAE, or the mean distance to the range where labels are ranges of ages, years.
        mark: what the figure must not be read without.
        tested: images with an estimate, of all; of those that were read where many have none.
        minors: share of minors that pass the gate.
        n_minors: images of minors; 0 where unknown.
        refused: share of the people of legal age that the gate refuses.
        rank: rank interval among all systems that were tested on the same images, such as `1-3 of 15`; "" without a rank.
        gap: the largest difference in MAE between two groups at equal ages; None where no groups can be compared.
    """

    error: MetricValue
    mark: str
    tested: str
    minors: MetricValue
    n_minors: int
    refused: MetricValue
    rank: str = ""
    gap: Gap | None = None


@dataclass(frozen=True)
class HeadlineRow:
    """One system of the first table.

    Attributes:
        system: the system.
        kind: where it comes from.
        cells: test set -> error.
        licence: of the weights, or of the training data of a system that was trained here.
        gates: test set -> its rates of age gates.
    """

    system: System
    kind: Kind
    cells: Mapping[str, HeadlineCell]
    licence: str
    gates: Mapping[str, GateRatesByAge]

    @property
    def name(self) -> str:
        """The system, with its training set if it was trained here."""
        train = self.system.train
        return self.system.name if train is None else f"{self.system.name}, trained on {train}"

    @property
    def widest_gap(self) -> tuple[str, Gap] | None:
        """The test set with the largest gap, and the gap; None where no groups can be compared."""
        gaps = [(test, cell.gap) for test, cell in self.cells.items() if cell.gap is not None]
        return max(gaps, key=lambda item: item[1].difference.value or 0.0, default=None)


@dataclass(frozen=True)
class Headline:
    """The first table and the sentence below it.

    Attributes:
        rows: the systems.
        tests: the test sets, those of most systems first.
        ranges: test sets whose labels are ranges of ages.
        gate_tests: test sets whose labels are ages, so that minors are known; first the one on which most minors pass.
        trust: which systems may be trusted with the gate, as a sentence.
        left_out: names of the systems from elsewhere for which the table has no room.
    """

    rows: tuple[HeadlineRow, ...]
    tests: tuple[str, ...]
    ranges: frozenset[str]
    gate_tests: tuple[str, ...]
    trust: str
    left_out: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """The note below the table, with the systems that it has no room for."""
        left = (
            f" For {join_words(self.left_out)} there is no room here; the table of all systems has them."
            if self.left_out
            else ""
        )
        return NOTE + left

    @property
    def rank_tests(self) -> tuple[str, ...]:
        """The first test set on which systems have ranks, as a tuple; an empty one where none has."""
        return tuple(
            test for test in self.tests if any(test in row.cells and row.cells[test].rank for row in self.rows)
        )[:1]

    @classmethod
    def from_systems(cls, systems: Sequence[System], ranked: ImageRankings) -> "Headline":
        """Choose systems and collect their figures.

        Args:
            systems: all systems.
            ranked: their rankings and rates of age gates.
        """
        chosen = headline_systems(systems)
        counts = Counter(test for row in chosen for test in row.tests)
        installed = Counter(test for row in chosen if row.train is None for test in row.tests)
        tests = tuple(sorted(counts, key=lambda test: (-installed[test], -counts[test])))
        rows = tuple(_row(row, ranked) for row in chosen)
        ranges = frozenset(test for test in tests if any(_is_range(row, test) for row in chosen if test in row.tests))
        passing = {test: _mean_passing(rows, test) for test in tests}
        gate_tests = tuple(
            sorted((test for test in tests if passing[test] is not None), key=lambda test: -(passing[test] or 0.0))
        )
        left_out = [row for row in systems if row.train is None and not row.flatters_everywhere and row not in chosen]
        return cls(
            rows, tests, ranges, gate_tests, _describe_trust(rows), tuple(sanitize(row.name) for row in left_out)
        )


def _mean_passing(rows: Sequence[HeadlineRow], test: str) -> float | None:
    """The mean share of passing minors over the systems that were not trained on a test set; None where it was not measured."""
    cells = [row.cells[test] for row in rows if test in row.cells and row.cells[test].n_minors]
    shares = [cell.minors.value or 0.0 for cell in cells if TRAINED_ON not in cell.mark]
    return sum(shares) / len(shares) if shares else (0.0 if cells else None)


def _row(row: System, ranked: ImageRankings) -> HeadlineRow:
    found = {test: system_gates(row, test, ranked.gates) for test in row.tests}
    gates = {test: rates for test, rates in found.items() if rates is not None and rates.gates}
    kind = Kind.TRAINED_HERE
    if row.train is None:
        kind = Kind.INSTALLED_CONTAMINATED if has_contamination(row) else Kind.INSTALLED
    cells = {test: _cell(row, test, gates.get(test), ranked) for test in row.tests}
    return HeadlineRow(row, kind, cells, _licence(row), gates)


def _cell(row: System, test: str, rates: GateRatesByAge | None, ranked: ImageRankings) -> HeadlineCell:
    error = row.metric(test, "range_mae" if _is_range(row, test) else "mae")
    minors, n_minors = gate_rate(rates, LEGAL, CHALLENGE)
    place = ranked.rank_on(row, test)
    rank = "" if place is None else f"{rank_interval(place[0])} of {place[1]}"
    refused = refusal_rate(rates, LEGAL, CHALLENGE)
    mark = caveat_symbol(row, test)
    return HeadlineCell(error, mark, _tested(row, test), minors, n_minors, refused, rank, largest_gap(row, test))


def describe_largest_gap(gap: Gap) -> str:
    """Return the pair of groups of a gap, such as `female above male`, and whether the difference is shown.

    Args:
        gap: the gap.
    """
    pair = " above ".join(sanitize(group_name(gap.grouping, group)) for group in (gap.worst, gap.best))
    return pair if gap.shown is None else f"{pair}, {'shown' if gap.shown else 'not shown'}"


def _is_range(row: System, test: str) -> bool:
    return all(entry.metric("range_mae").value is not None for entry in row.test_entries(test))


def _tested(row: System, test: str) -> str:
    """`tested_of`; of a copy that lacks images and whose images all got an estimate, of the images that the card announces."""
    counts = [record.datasets[test].count for record in row.records_on(test) if test in record.datasets]
    announced = max((count for count in counts if isinstance(count, int)), default=0)
    if not is_subset(row, test) or not announced or has_unanswered(row, test):
        return tested_of(row, test)
    return f"{format_count(row.tested(test)[0].n)} of {format_count(announced)}"


def _licence(row: System) -> str:
    if row.train is not None:
        terms = [record.datasets[row.train].licence for record in row.records if row.train in record.datasets]
        return f"data: {sanitize(terms[0])}" if terms and terms[0] else DASH
    stated = [(record.model.model_extra or {}).get("licence") for record in row.records]
    return next((sanitize(licence) for licence in stated if licence), DASH)


def _describe_trust(rows: Sequence[HeadlineRow]) -> str:
    """Describe which systems may be trusted with the question whether a person is over 18.

    A system may be trusted if on each test set that it was not trained on the upper end of the interval of the share of minors
    that pass is at most `TRUSTED_RATE`.

    Args:
        rows: the systems.
    """
    asked = [
        (row, test, cell)
        for row in rows
        for test, cell in row.cells.items()
        if cell.n_minors and cell.minors.ci_high is not None and not is_contaminated(row.system, test)
    ]
    if not asked:
        return f"{QUESTION} That was not measured."
    # System -> what was measured on each of its test sets, the worst last.
    measured: dict[str, list[tuple[HeadlineRow, str, HeadlineCell]]] = {}
    for one in sorted(asked, key=_upper_end):
        measured.setdefault(one[0].name, []).append(one)
    gate = f"at T = {CHALLENGE} at most {TRUSTED_RATE * 100:g} % of minors of {LEGAL - MINOR_YEARS} to {LEGAL - 1} pass"
    fit = [row.name for row in rows if row.name in measured and _upper_end(measured[row.name][-1]) <= TRUSTED_RATE]
    if fit:
        named = []
        for name in fit:
            most = max((cell.refused for *_, cell in measured[name]), key=lambda rate: rate.value or 0.0)
            named.append(f"{_plain_name(measured[name][0][0])} (refuses up to {_percent(most)} of adults)")
        return f"{QUESTION} {join_words(named)}: by the upper ends of the intervals {gate}."
    # Each by its worst test set, and beside others that were measured on as many. Those that people install come first.
    installed = [of for of in measured.values() if of[0][0].kind is not Kind.TRAINED_HERE]
    peers = installed or list(measured.values())
    most_tests = max(map(len, peers))
    row, test, cell = min((of[-1] for of in peers if len(of) == most_tests), key=_upper_end)
    whose = "Of the installed ones measured" if installed else "Of those measured"
    sets = "one such test set" if most_tests == 1 else f"{most_tests} such test sets"
    return (
        f"{QUESTION} None. No system is shown to meet “{gate}” (upper end of the 95 % interval, on every test set that it was not "
        f"trained on). {whose} on {sets}, {_plain_name(row)} has the lowest worst upper end: on {test}, "
        f"{_percent(cell.minors)} of these minors pass, and {_percent(cell.refused)} of adults are refused."
    )


def _percent(rate: MetricValue) -> str:
    return format_ci(rate, percent=True, digits=1)


def _upper_end(measured: tuple[HeadlineRow, str, HeadlineCell]) -> float:
    return measured[2].minors.ci_high or 0.0


def short_rows(headline: Headline) -> list[HeadlineRow]:
    """Return at most six rows that stand for the table: four, one and one of each origin.

    Args:
        headline: the table.
    """
    most = {Kind.INSTALLED: 4, Kind.INSTALLED_CONTAMINATED: 1, Kind.TRAINED_HERE: 1}
    return [row for kind, count in most.items() for row in [one for one in headline.rows if one.kind is kind][:count]]


def headline_table(headline: Headline, rows: Sequence[HeadlineRow] | None = None) -> str:
    """Return the first table as Markdown.

    Args:
        headline: the table.
        rows: the rows that are shown; None: all.
    """
    gate_test = headline.gate_tests[:1]
    headers = ["system", *(_header(headline, test) for test in headline.tests)]
    headers += [f"minors passing at T = {CHALLENGE}, {escape_markdown(test)}" for test in gate_test]
    headers += [f"adults refused at T = {CHALLENGE}, {escape_markdown(test)}" for test in gate_test]
    headers += [f"rank, {escape_markdown(test)}" for test in headline.rank_tests]
    headers += ["widest gap", "from", "license"]
    table = []
    for row in headline.rows if rows is None else rows:
        minors = [row.cells.get(test) for test in gate_test]
        table.append(
            [
                escape_markdown(row.name),
                *(_cell_text(row.cells.get(test)) for test in headline.tests),
                *(_minors_text(cell) for cell in minors),
                *(_refused_text(cell) for cell in minors),
                *(_rank_text(row.cells.get(test)) for test in headline.rank_tests),
                _gap_text(row),
                row.kind.value,
                escape_markdown(row.licence),
            ]
        )
    align = ["left", *["right"] * (len(headline.tests) + 2 * len(gate_test) + len(headline.rank_tests))]
    align += ["left"] * (len(headers) - len(align))
    return markdown_table(headers, table, align=align)


def short_table(headline: Headline) -> str:
    """Return a narrow table of at most six rows as Markdown, for a README.

    Systems have the names of their cards. The number of images is in the header, and in a cell only where it differs; `of` and
    the number of all images follow where not all were tested.

    Args:
        headline: the table.
    """
    rows = short_rows(headline)
    headers, columns = ["system"], [[_short_name(row) for row in rows]]
    for test in headline.tests:
        cells = [row.cells.get(test) for row in rows]
        counts = Counter(cell.tested for cell in cells if cell is not None)
        usual = next(iter(counts.most_common(1)), ("", 0))[0]
        if not usual:
            continue
        measure = "distance" if test in headline.ranges else "MAE"
        headers.append(f"{escape_markdown(test)} {measure} ({_short_count(usual)})")
        columns.append([_short_cell(cell, usual) for cell in cells])
    for test in headline.gate_tests[:1]:
        cells = [row.cells.get(test) for row in rows]
        counts = Counter(str(cell.n_minors) for cell in cells if cell is not None and cell.n_minors)
        usual = next(iter(counts.most_common(1)), ("", 0))[0]
        headers.append(f"minors passing at T = {CHALLENGE}, {escape_markdown(test)} ({usual})")
        columns.append([_short_minors(cell, usual) for cell in cells])
        headers.append(f"adults refused at T = {CHALLENGE}, {escape_markdown(test)}")
        columns.append([_short_refused(cell) for cell in cells])
    return markdown_table(headers, list(zip(*columns, strict=True)), align=["left", *["right"] * (len(headers) - 1)])


def _short_name(row: HeadlineRow) -> str:
    return escape_markdown(_plain_name(row))


def _plain_name(row: HeadlineRow) -> str:
    """The name of a system's card, with the head and the training set of one that was trained here."""
    model, train = row.system.records[0].model, row.system.train
    parts = [model.name, *([model.head] if model.head else [])]
    return sanitize(", ".join(parts) + (f" (trained on {train})" if train is not None else ""))


def _short_cell(cell: HeadlineCell | None, usual: str) -> str:
    if cell is None:
        return DASH
    return _short_value(format_ci(cell.error), cell.mark, "" if cell.tested == usual else _short_count(cell.tested))


def _short_count(tested: str) -> str:
    """`1,002` for `1,002 of 1,002`."""
    count, _, total = tested.partition(" of ")
    return count if count == total else tested


def _short_minors(cell: HeadlineCell | None, usual: str) -> str:
    if cell is None or not cell.n_minors:
        return DASH
    n = str(cell.n_minors)
    return _short_value(_percent(cell.minors), cell.mark, "" if n == usual else n)


def _short_refused(cell: HeadlineCell | None) -> str:
    if cell is None or cell.refused.value is None:
        return DASH
    return _short_value(_percent(cell.refused), cell.mark, "")


def _short_value(value: str, mark: str, tested: str) -> str:
    """Mark a value and keep its interval in one line: `3.86? [3.47, 4.31] (967 of 1,002)`."""
    point, bracket, interval = value.partition(" [")
    kept = f"{bracket}{interval}".replace(", ", ",\N{NO-BREAK SPACE}")
    return f"{point}{mark}{kept}" + (f" ({tested})" if tested else "")


def _header(headline: Headline, test: str) -> str:
    measure = "distance to the range" if test in headline.ranges else "MAE"
    return f"{escape_markdown(test)}, {measure}"


def _cell_text(cell: HeadlineCell | None) -> str:
    return DASH if cell is None else f"{format_ci(cell.error)}{cell.mark} ({cell.tested})"


def _rank_text(cell: HeadlineCell | None) -> str:
    return (cell.rank if cell is not None else "") or DASH


def _gap_text(row: HeadlineRow) -> str:
    if row.widest_gap is None:
        return DASH
    test, gap = row.widest_gap
    return f"{format_ci(gap.difference)} ({escape_markdown(test)}: {escape_markdown(describe_largest_gap(gap))})"


def _minors_text(cell: HeadlineCell | None) -> str:
    if cell is None or not cell.n_minors:
        return DASH
    return f"{_percent(cell.minors)}{cell.mark} ({format_count(cell.n_minors)})"


def _refused_text(cell: HeadlineCell | None) -> str:
    if cell is None or cell.refused.value is None:
        return DASH
    return f"{_percent(cell.refused)}{cell.mark}"


def headline_markdown(headline: Headline) -> list[str]:
    """Return the paragraphs that the leaderboard begins with.

    Args:
        headline: the table.
    """
    if not headline.rows:
        return []
    return [
        "Which estimator, for what? Systems that people install, then the best that were trained here. Errors are years with 95 % "
        "intervals; passing minors are people of 13 to 17 whom the system takes for 25 or older, refused adults people of 18 or "
        "older whom it takes for younger than 25.",
        headline_table(headline),
        escape_markdown(headline.trust),
        headline.note,
    ]
