"""Records to one page: by training set and test set, with intervals, ranks, fairness, cost and caveats."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import pandas as pd

from agebench.config.cards.suite import PublishedResult
from agebench.leaderboard.attributes import attribute_accuracies
from agebench.leaderboard.headline import Headline, headline_markdown
from agebench.leaderboard.image_ranking import ImageRankings
from agebench.leaderboard.marks import HOME, LEGEND, UNKNOWN, caveat_symbol, has_unknown_training_data, tested_of
from agebench.leaderboard.ranking import FEWEST_TESTS, Ranking, RankingResult, rank_systems
from agebench.leaderboard.shifts import LABELED, system_shift
from agebench.leaderboard.systems import (
    System,
    baseline_mae,
    caveats,
    failure_to_process_counts,
    group_into_systems,
    images_per_second,
    largest_gap,
    pool_seeds,
    robustness_summary,
    test_sets,
    worst_group,
)
from agebench.metrics.schema import MetricValue, RankedSystem, SystemRanking
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    group_name,
    join_words,
    latex_escaped,
    markdown_table,
    sanitize,
)
from agebench.reports.sections.rankings import ranking_table
from agebench.utils.io import csv_text

__all__ = ["group_into_systems", "leaderboard", "pool_seeds", "result_matrix", "test_sets"]

_LEFT = ["left"] * 7
_NAMED = 10  # so many systems without a rank are named
NO_RANKINGS = ImageRankings()


def leaderboard(
    rows: Sequence[System], published: Iterable[PublishedResult] = (), ranked: ImageRankings = NO_RANKINGS
) -> str:
    """Return the whole page as Markdown.

    Args:
        rows: the systems.
        published: results that were reported elsewhere.
        ranked: the rankings of the systems.
    """
    tests = test_sets(rows)
    parts = [
        "# Leaderboard",
        *headline_markdown(Headline.from_systems(rows, ranked)),
        "# Appendix: all systems",
        "MAE in years, with 95 % intervals; over several seeds the mean, its interval holding theirs. Systems are listed by "
        "training set, not crowned: where intervals overlap, `agebench compare` tests whether a difference is shown. "
        f"{LEGEND} `agebench reproduce RECORD` runs any row again, except rows with the caveat *not reproducible*.",
        _markdown(*result_matrix(rows, tests), align=["left", "left", *["right"] * (1 + len(tests))]),
        "## Ranks",
        _ranks(rows, ranked),
        *_shifts(rows, ranked),
        "## Subgroup performance",
        "The group with the largest MAE among those with enough images, and the largest gap between groups at equal ages. "
        "A difference is shown where the test of every seed finds it more than chance.",
        _fairness(rows),
        *_attributes(rows),
        "## Cost and caveats",
        "Images/s are those of the first run's machine, prediction alone (none where a head used the cached features of a "
        "frozen backbone); an image without an estimate is one that could not be read, or of which no face could be prepared.",
        _conditions(rows),
    ]
    stressed = _stress(rows)
    if stressed:
        parts += [
            "## Robustness",
            "The error on faces that are blurred, covered, turned, darkened, … (`agebench stress`), divided by that on the "
            "same faces as they are.",
            stressed,
        ]
    others = list(published)
    if others:
        parts += [
            "## Reported elsewhere",
            "Results that were not computed here; splits, faces and training data differ.",
            _published(others),
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def result_matrix(rows: Sequence[System], tests: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as plain text, of the table of systems against test sets; the last rows are the medians' floors."""
    table = [
        [
            sanitize(row.train or "not here"),
            sanitize(row.name),
            str(len(row.seeds)),
            *(_cell(row, test) if test in row.tests else DASH for test in tests),
        ]
        for row in rows
    ]
    table += [
        [
            sanitize(train),
            "always the median age of the training set",
            DASH,
            *(format_number(of.get(test)) for test in tests),
        ]
        for train, of in baseline_mae(rows).items()
    ]
    return ["trained on", "system", "seeds", *map(sanitize, tests)], table


def matrix_csv(rows: Sequence[System]) -> str:
    """The table of systems against test sets as CSV: plain text, and no cell that a spreadsheet evaluates."""
    headers, table = result_matrix(rows, test_sets(rows))
    return csv_text(pd.DataFrame(table, columns=headers))


def matrix_latex(rows: Sequence[System]) -> str:
    """The table of systems against test sets as a LaTeX tabular, for the package booktabs."""
    headers, table = result_matrix(rows, test_sets(rows))
    lines = [" & ".join(map(latex_escaped, cells)) + r" \\" for cells in (headers, *table)]
    columns = "llr" + "r" * (len(headers) - 3)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]], *, align: Sequence[str]) -> str:
    # Of a row, only the names of its training set and of the system come from elsewhere.
    cells = [[*map(escape_markdown, row[:2]), *row[2:]] for row in rows]
    return markdown_table([*map(escape_markdown, headers)], cells, align=align)


def _cell(row: System, test: str) -> str:
    return f"{format_ci(row.metric(test))}{caveat_symbol(row, test)} ({tested_of(row, test)})"


def _system_label(row: System) -> str:
    """A system and its training set, for tables that do not have a column for it."""
    return f"{escape_markdown(row.name)} ({escape_markdown(row.train or 'not trained here')})"


RANKS = (
    "Systems are ranked beside systems that were tested on the same images, by one bootstrap of the people (or images) that is "
    "shared by all. A rank such as 1-4 is a 95 % interval: one more than the number of systems shown to be better, to the number "
    "of systems less those shown to be worse. The intervals of all ranks and of all differences hold at once (Mogstad, Romano, "
    "Shaikh and Wilhelm 2024). Where systems have several seeds, the intervals include the variance between trainings, to which "
    "all systems of one training set contribute."
)
NEW_DATASETS = (
    "These rankings hold on these test sets. A claim about new datasets takes the dataset as a random effect and needs at least "
    f"{FEWEST_TESTS} test sets that no system was trained on; no group of systems has so many."
)


def describe_ranks(found: RankingResult, ranked: ImageRankings = NO_RANKINGS) -> list[str]:
    """Describe the rankings: a sentence or two for each, and what they do not cover."""
    parts = [_describe_ranking(ranking, number) for number, ranking in enumerate(ranked.rankings, 1)]
    parts += ranked.missing
    parts += [_ranking_in_words(ranking, number) for number, ranking in enumerate(found.rankings, 1)]
    if not found.rankings:
        parts.append(NEW_DATASETS)
    ranked_runs = {run for ranking in ranked.rankings for system in ranking.systems for run in system.runs}
    left = [row for row in found.left_out if row.records[0].id not in ranked_runs]
    if left:
        more = len(left) - _NAMED
        named = [*map(_system_label, left[:_NAMED]), *[f"{more} more"] * (more > 0)]
        parts.append(
            "Without a rank, as their estimates are not beside their records, as no other system was tested on all the same "
            f"images, or as their figures flatter: {join_words(named)}."
        )
    return parts


def _describe_ranking(ranking: SystemRanking, number: int) -> str:
    """Describe one ranking in a paragraph."""
    tests = [
        f"{escape_markdown(test)}{HOME if home else ''} ({format_count(images)} images"
        + (f" of {format_count(people)} people)" if people else ")")
        for test, home, images, people in zip(
            ranking.tests, ranking.held_out, ranking.images, ranking.people, strict=True
        )
    ]
    pairs = len(ranking.differences)
    text = f"Ranking {number}: {len(ranking.systems)} systems on {join_words(tests)}. "
    if len(tests) > 1:
        text += "Mean, on these sets, of the MAE divided by the MAE of always answering the median age of the images. "
    text += f"{ranking.pairs_shown} of {pairs} pairs are shown to differ."
    if any(system.new_datasets for system in ranking.systems):
        text += (
            " On a new dataset: the interval of the mean over such datasets (random effect, Hartung and Knapp), and the prediction "
            "interval for one of them."
        )
    unusual = [_ranked_label(system) for system in ranking.systems if system.unusual_seeds]
    if unusual:
        text += f" The seeds of {join_words(unusual)} differ more than those of the other systems (F test, 1 %)."
    if ranking.single_runs:
        text += " Systems of a training set with one seed are ranked as the trained models they are."
    return text


def _ranked_label(system: RankedSystem) -> str:
    """Return a ranked system with its training set."""
    return f"{escape_markdown(system.name)} ({escape_markdown(system.train or 'not trained here')})"


def _ranking_in_words(ranking: Ranking, number: int) -> str:
    first = [row for row, _, place in ranking.entries if place == 1]
    best = ranking.entries[0][0]
    return (
        f"Mean ranks {number}: {len(ranking.entries)} systems on "
        f"{join_words([_tested(best, test) for test in ranking.tests])}. "
        f"Mean ranks closer than {ranking.critical:.2f} are not distinguishable (Nemenyi, 5 %). By that, "
        f"{_all_or(len(first) - 1, len(ranking.entries) - 1)} share the first place with {_system_label(best)}."
    )


def _tested(row: System, test: str) -> str:
    """A test set with its mark and how many images each seed was tested on."""
    numbers = sorted({entry.n for entry in row.test_entries(test)})
    several = (
        f"{format_count(numbers[0])} to {format_count(numbers[-1])}" if len(numbers) > 1 else format_count(numbers[0])
    )
    return f"{escape_markdown(test)}{caveat_symbol(row, test)} ({several} images{' by seed' * (len(row.images(test)) > 1)})"


def _all_or(some: int, of: int) -> str:
    return f"{'both' if of == 2 else f'all {of}'} others" if some == of else f"{some} of the other {of} systems"


def _ranks(rows: Sequence[System], ranked: ImageRankings) -> str:
    found = rank_systems(rows)
    by_run = {record.id: row for row in rows for record in row.records}

    def table_of(ranking: SystemRanking) -> str:
        def cell_value(system: RankedSystem) -> MetricValue:
            # The same interval as in the table of all systems: that of the record, and of the seeds.
            row = next((by_run[run] for run in system.runs if run in by_run), None)
            return system.value if row is None or len(ranking.tests) > 1 else row.metric(ranking.tests[0])

        return ranking_table(ranking, label, cell_value)

    def label(system: RankedSystem) -> str:
        row = next((by_run[run] for run in system.runs if run in by_run), None)
        return _ranked_label(system) + UNKNOWN * (row is not None and has_unknown_training_data(row))

    tables = [table_of(ranking) for ranking in ranked.rankings]
    tables += [""] * len(ranked.missing)  # sentences without a table
    tables += [
        markdown_table(
            ["place", "system", "mean rank"],
            [[str(place), _system_label(row), f"{rank:.2f}"] for row, rank, place in ranking.entries],
            align=["right", "left", "right"],
        )
        for ranking in found.rankings
    ]
    blocks = zip_longest(describe_ranks(found, ranked), tables)
    return "\n\n".join([RANKS, *(part for block in blocks for part in block if part)])


ATTRIBUTES = (
    "The share of labeled images whose class a system predicts, of all and of each class; the last column is the accuracy of "
    "always predicting the most frequent class. Labels of gender are the datasets' own, often guessed from the photograph."
)
SHIFTS = (
    "MAE on another dataset less MAE on the held-out part of the training set, years, divided into what the other ages alone "
    "explain, what faces of the same ages add, and ages that the training set lacks. Last column: what a linear map that is "
    f"fitted on {LABELED} labeled images of the dataset mends."
)


def _shifts(rows: Sequence[System], ranked: ImageRankings) -> list[str]:
    table = []
    for row in rows:
        for test in row.tests:
            shift = system_shift(row, test, ranked.shifts)
            if shift is not None:
                parts = (shift.difference, shift.mix, shift.same, shift.outside, shift.recalibrated)
                table.append(
                    [_system_label(row), escape_markdown(test), *(format_ci(part, sign=True) for part in parts)]
                )
    headers = ["system", "test set", "difference", "mix of ages", "same ages", "ages outside", "mended by a linear map"]
    align = ["left", "left", *["right"] * 5]
    return ["## Why other datasets are harder", SHIFTS, markdown_table(headers, table, align=align)] if table else []


def _fairness(rows: Sequence[System]) -> str:
    table = []
    for row in rows:
        for test in row.tests:
            worst, gap = worst_group(row, test), largest_gap(row, test)
            if worst is None or gap is None:
                continue
            grouping, group, mae = worst
            shown = DASH if gap.shown is None else "shown" if gap.shown else "not shown"
            ends = " above ".join(escape_markdown(group_name(gap.grouping, end)) for end in (gap.worst, gap.best))
            if len(gap.worst_groups) > 1:
                ends += f"; any of {len(gap.worst_groups)} may be worst"
            table.append(
                [
                    _system_label(row),
                    escape_markdown(test),
                    f"{escape_markdown(group_name(grouping, group))} {format_ci(mae)}",
                    f"{format_ci(gap.difference)} ({ends})",
                    shown,
                ]
            )
    return markdown_table(
        ["system", "test set", "worst group", "largest gap at equal ages", "difference"], table, align=_LEFT[:5]
    )


def _attributes(rows: Sequence[System]) -> list[str]:
    table = [
        [
            _system_label(row),
            escape_markdown(test),
            escape_markdown(found.target),
            format_count(found.n),
            _share(found.accuracy),
            "; ".join(f"{escape_markdown(name)} {_share(recall)}" for name, recall in found.recalls.items()),
            _share(MetricValue(value=found.majority)),
        ]
        for row in rows
        for test in row.tests
        for found in attribute_accuracies(row, test)
    ]
    headers = ["system", "test set", "target", "labeled images", "accuracy", "right, by class", "most frequent class"]
    align = ["left", "left", "left", "right", "right", "left", "right"]
    return ["## Other predicted attributes", ATTRIBUTES, markdown_table(headers, table, align=align)] if table else []


def _share(metric: MetricValue) -> str:
    return format_ci(metric, digits=1, percent=True)


def _conditions(rows: Sequence[System]) -> str:
    table = []
    for row in rows:
        model, speed = row.records[0].model, images_per_second(row)
        lost, read = failure_to_process_counts(row)
        table.append(
            [
                _system_label(row),
                DASH if not model.parameters else f"{model.parameters / 1e6:.1f} million",
                DASH if speed is None else f"{speed:,.0f}",
                escape_markdown(model.weights or DASH),
                f"{format_count(lost)} of {format_count(read)}" if read else DASH,
                escape_markdown(join_words(caveats(row)) or "none"),
            ]
        )
    headers = ["system", "parameters", "images/s", "started from", "without an estimate", "caveats"]
    return markdown_table(headers, table, align=["left", "right", "right", "left", "right", "left"])


def _stress(rows: Sequence[System]) -> str:
    table = [
        [
            _system_label(row),
            escape_markdown(test),
            format_ci(of.relative_error),
            str(of.corruptions),
            str(of.strengths),
        ]
        for row in rows
        for test, of in robustness_summary(row).items()
    ]
    headers = ["system", "test set", "× the error", "corruptions", "strengths of each"]
    return markdown_table(headers, table, align=["left", "left", *["right"] * 3]) if table else ""


def _published(rows: Sequence[PublishedResult]) -> str:
    table = [
        [
            escape_markdown(row.train),
            escape_markdown(row.test),
            escape_markdown(row.system),
            escape_markdown(row.metric),
            f"{row.value:g}",
            escape_markdown("; ".join(filter(None, [row.protocol, row.note]))),
            escape_markdown(row.citation),
        ]
        for row in rows
    ]
    return markdown_table(["trained on", "tested on", "system", "figure", "value", "how", "source"], table, align=_LEFT)
