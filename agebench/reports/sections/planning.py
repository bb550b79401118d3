"""The result of `agebench plan` as Markdown."""

from agebench.metrics.schema import PlanResult
from agebench.reports.formatting import DASH, escape_markdown, format_count, format_number, markdown_table


def plan_text(plan: PlanResult) -> str:
    """Render a plan: the errors it assumes, sizes, the resolution of the pilot's groups, and the effect of label errors.

    Args:
        plan: the result.
    """
    parts = ["## Sizes of a test", _basis(plan), *_sizes(plan)]
    if plan.groups:
        parts += _groups(plan)
    if plan.label_noise:
        rows = [[f"{noise.label_sd:g}", format_number(noise.mae)] for noise in plan.label_noise]
        parts += [
            "### If labels err",
            "Labels are often guesses. If they err by this much (standard deviation of independent normal errors), the MAE "
            "against the true ages is the one beside it. A dash: the labels cannot err so much, because the estimates lie "
            "closer to them.",
            markdown_table(
                ["labels err by (years)", f"MAE against true ages (years; as labeled {format_number(plan.pilot.mae)})"],
                rows,
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _basis(plan: PlanResult) -> str:
    pilot = plan.pilot
    source = (
        f"From a pilot of {format_count(pilot.n)} images"
        + (f" of {format_count(pilot.people)} people" if pilot.people else "")
        + f", MAE {format_number(pilot.mae)} years"
        if pilot.n
        else "From typical values; a pilot's predictions give your own"
    )
    number = f"{plan.images_per_person:g} image{'s' * (plan.images_per_person != 1)} of each person"
    several = (
        f" Images of one person err alike ({100 * pilot.shared:.0f} % of the variance is common to them), so a second image of a "
        "person is worth less than an image of another person."
    )
    return (
        f"{source}. Absolute errors differ from image to image with a standard deviation of {pilot.spread:.2f} years.{several} "
        f"Planned with {number}, and so that a difference or rate is shown in {100 * plan.power:g} % of such tests (the power)."
    )


def _sizes(plan: PlanResult) -> list[str]:
    intervals = [[f"±{row.half_width:g}", format_count(row.people), format_count(row.images)] for row in plan.intervals]
    gaps = [
        [f"{row.gap:g}", format_count(row.people_per_group), format_count(row.images_per_group)] for row in plan.gaps
    ]
    rates = [
        [
            f"{100 * row.limit:g} %",
            f"{100 * row.rate:g} %",
            format_count(row.minors),
            format_count(row.allowed),
            format_count(row.minors_without_any),
        ]
        for row in plan.rates
    ]
    return [
        "### To know the MAE",
        markdown_table(["MAE known to within (years, 95 %)", "people needed", "images needed"], intervals),
        "### To show a gap between two groups",
        markdown_table(["gap in MAE (years)", "people needed in each group", "images needed in each group"], gaps),
        "### To show that few minors pass an age gate",
        "FPR: share of minors that pass. To show that it is at most the first rate, when it truly is the second, so many minors "
        "are needed, of whom at most so many may pass. The last column is the least number: it suffices if not one passes.",
        markdown_table(
            ["FPR at most", "true FPR", "minors needed", "of whom may pass", "minors if none passes"], rates
        ),
    ]


def _groups(plan: PlanResult) -> list[str]:
    rows = [
        [
            f"{escape_markdown(row.grouping.replace('*', ' × '))}: {escape_markdown(row.group.replace('*', ' × '))}",
            format_count(row.people),
            format_count(row.n),
            format_number(row.mae),
            format_number(row.mae_shrunk),
            DASH if row.half_width is None else f"±{row.half_width:.2f}",
            format_number(row.smallest_gap),
            format_count(row.minors),
            DASH if row.smallest_fpr is None else f"{100 * row.smallest_fpr:.2g} %",
        ]
        for row in plan.groups
    ]
    headers = [
        "group",
        "people",
        "images",
        "MAE (years)",
        "MAE, shrunk",
        "95 % interval",
        "smallest gap shown",
        "minors",
    ]
    return [
        "### What this test set could have shown",
        "Smallest gap: a group that differs by less from all other images would mostly not be noticed in this test set. "
        "Smallest FPR: the lowest rate that could be shown, if no minor passed. MAE, shrunk: MAEs of small groups are "
        "partly luck; here each is moved towards the mean of the groups by as much as is expected to be luck (empirical "
        "Bayes). Read it beside the raw figure, and rank by neither.",
        markdown_table([*headers, "smallest FPR shown"], rows),
    ]
