"""Rankings of systems as Markdown: rank intervals, values, differences to the first."""

from collections.abc import Callable

from agebench.metrics.schema import ComparisonFile, MetricValue, NewDatasetClaim, RankedSystem, SystemRanking
from agebench.reports.formatting import DASH, escape_markdown, format_ci, format_count, join_words, markdown_table


def rank_interval(system: RankedSystem) -> str:
    """Format a rank interval as `1-4`, or `3` where its ends are equal."""
    low, high = system.rank_low, system.rank_high
    return str(low) if low == high else f"{low}-{high}"


def ranking_table(
    ranking: SystemRanking,
    label: Callable[[RankedSystem], str],
    metric: Callable[[RankedSystem], MetricValue] = lambda system: system.value,
) -> str:
    """One row a system: rank interval, value, difference to the first, and where known the claim about new datasets.

    Args:
        ranking: the ranking.
        label: returns a system's name as Markdown.
        metric: returns a system's metric with its own interval.
    """
    relative = len(ranking.tests) > 1
    to_first = {int(row[1]): row[2:] for row in ranking.differences if row[0] == 0}
    rows = []
    for place, system in enumerate(ranking.systems):
        value, low, high = to_first.get(place, (None, None, None))
        difference = MetricValue(value=value, ci_low=low, ci_high=high)
        rows.append(
            [
                rank_interval(system),
                label(system),
                format_ci(metric(system), digits=3 if relative else 2),
                DASH if value is None else format_ci(difference, digits=3 if relative else 2, sign=True),
            ]
        )
    headers = ["rank", "system", "MAE / baseline" if relative else "MAE (years)", "difference to the first"]
    claims = [system.new_datasets for system in ranking.systems]
    if any(claims):
        headers.append("on a new dataset")
        for row, claim in zip(rows, claims, strict=True):
            row.append(_claim_text(claim))
    return markdown_table(headers, rows, align=["right", "left", *["right"] * (len(headers) - 2)])


def _claim_text(claim: NewDatasetClaim | None) -> str:
    if claim is None:
        return DASH
    mean = MetricValue(value=claim.ratio, ci_low=claim.ci_low, ci_high=claim.ci_high)
    return f"{format_ci(mean, digits=3)}, one set {claim.prediction_low:.3f} to {claim.prediction_high:.3f}"


def ranks_on_test_set(result: ComparisonFile, test: str) -> dict[str, str]:
    """Return the rank intervals of one test set, system -> `1-3`; empty where systems were not ranked on it.

    Args:
        result: the comparison.
        test: the test set.
    """
    ranking = next((one for one in result.rankings if one.tests == [test]), None)
    return {} if ranking is None else {system.name: rank_interval(system) for system in ranking.systems}


def ranking_sections(result: ComparisonFile) -> list[str]:
    """Return the ranking over all test sets as Markdown parts; none for one test set.

    Args:
        result: the comparison.
    """
    ranking = next((one for one in result.rankings if len(one.tests) > 1), None)
    if ranking is None:
        return []
    tests = [
        f"{escape_markdown(test)} ({format_count(images)} images"
        + (f" of {format_count(people)} people)" if people else ")")
        for test, images, people in zip(ranking.tests, ranking.images, ranking.people, strict=True)
    ]
    text = (
        f"Mean over {join_words(tests)} of the MAE divided by the MAE of always answering the median age of the images. "
        f"{ranking.pairs_shown} of {len(ranking.differences)} pairs are shown to differ on these test sets. {RANKS}"
    )
    if any(system.new_datasets for system in ranking.systems):
        text += " On a new dataset: interval of the mean over such datasets, and prediction interval for one of them."
    else:
        text += " Nothing follows for other datasets: a claim about them needs five test sets."
    return ["## Over test sets", text, ranking_table(ranking, lambda system: escape_markdown(system.name))]


RANKS = (
    "A rank such as 1-4 is a 95 % interval: one more than the number of systems shown to be better, to the number of systems less "
    "those shown to be worse; all ranks of a table hold at once."
)
