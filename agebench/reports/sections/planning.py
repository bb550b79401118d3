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
            "MAE against the true ages if the labels have independent normal errors of this standard deviation. A dash: the "
            "labels cannot err so much, because the estimates lie closer to them.",
            markdown_table(
                ["sd of the labels' errors (years)", f"MAE (years; as labeled {format_number(plan.pilot.mae)})"], rows
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
    return (
        f"{source}: the absolute error has a standard deviation of {pilot.spread:.2f} years; the images of a person share "
        f"{100 * pilot.shared:.0f} % of its variance. Images per person: {plan.images_per_person:g}. Power: {100 * plan.power:g} %."
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
        markdown_table(["95 % interval of the MAE (years)", "people", "images"], intervals),
        markdown_table(["gap in MAE between two groups (years)", "people in each", "images in each"], gaps),
        markdown_table(["FPR to be shown", "true FPR", "minors", "of whom may pass", "minors if none passes"], rates),
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
        "Smallest gap: difference to all other images of the grouping that is shown with the power above. Smallest FPR: the lowest "
        "rate that could be shown, if no minor passed. Shrunk: towards the mean of the groups by what is noise (empirical Bayes); "
        "read it beside the raw figure, and rank by neither.",
        markdown_table([*headers, "smallest FPR shown"], rows),
    ]
