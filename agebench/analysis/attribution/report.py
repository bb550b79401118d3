"""The report of an attribution analysis: `<test>.json`, figures, Markdown and HTML."""

from collections.abc import Mapping
from pathlib import Path

from agebench.analysis.attribution import plots
from agebench.analysis.attribution.run import AttributionResult
from agebench.analysis.attribution.sanity_checks import MAX_RANDOM_CORRELATION
from agebench.analysis.attribution.schema import AttributionFile, MethodAttribution
from agebench.analysis.robustness.report import CONTAMINATION
from agebench.reports.document import (
    Block,
    Document,
    Paragraph,
    TableBlock,
    blocks_to_text,
    figure_block,
    strong,
    write_document,
)
from agebench.reports.formatting import format_ci, format_count, format_number, group_name
from agebench.reports.plots.run import label
from agebench.utils.io import write_json


def write_attribution_report(folder: Path, result: AttributionResult) -> Path:
    """Write the figures and reports; `<test>.json` is written last, so that it marks a complete report.

    Args:
        folder: the folder of the reports; it is created if it is missing.
        result: the attribution maps, their summary and the results of the sanity checks.

    Returns:
        The path of the Markdown report.
    """
    summary, name = result.summary, result.summary.test
    title = label(name)
    figures = {
        "faces": plots.plot_examples(result, f"{title}: single faces"),
        **{
            f"mean-{index}": plots.plot_mean_maps(result, grouping, f"{title}: mean maps by {_by(grouping.name)}")
            for index, grouping in enumerate(result.groups)
        },
        "sanity": plots.plot_sanity(result, f"{title}: sanity checks (n = {summary.checked} faces)"),
    }
    document = Document(f"Attribution on {name}", _blocks(summary))
    for key, figure in figures.items():
        document.add(figure_block(f"{name}-{key}", figure, plots.CAPTIONS[key.partition("-")[0]]))
    report = write_document(folder, document, name)["markdown"]
    write_json(folder / f"{name}.json", summary.to_json())
    return report


def attribution_text(summary: AttributionFile) -> str:
    """Return the region shares and the sanity checks as text for a terminal.

    Args:
        summary: the content of `<test>.json`.

    Returns:
        The text.
    """
    return blocks_to_text(_blocks(summary))


def _blocks(summary: AttributionFile) -> list[Block]:
    target = "the predicted age" if summary.target == "age" else "the expectation of the predicted distribution"
    methods = summary.methods
    blocks: list[Block] = [
        Paragraph(
            [
                strong(summary.test),
                f": attribution of {target} on {format_count(summary.n)} of {format_count(summary.of)} faces, sampled "
                "equally from each age band as far as it has enough faces. A region's value is its share of the map divided by "
                "its share of the area.",
            ]
        ),
        _region_table(methods),
        _check_table(methods),
        Paragraph(
            f"The checks use {format_count(summary.checked)} faces. Random weights: Spearman's rank correlation between the "
            "map and the map of a network with random weights; the check passes if the upper end of its interval is below "
            f"{MAX_RANDOM_CORRELATION:g}. Deletion and insertion: additional change of the prediction compared with covering, or "
            "uncovering, cells in random order; the check passes above 0 for deletion and below 0 for insertion. In brackets: "
            "95 % bootstrap intervals."
        ),
        *(Paragraph(f"Note: {note}.") for note in summary.notes),
    ]
    small_groups = [
        f"{group_name(grouping, name)} ({format_count(entry.n)})"
        for grouping, groups in summary.groups.items()
        for name, entry in groups.items()
        if not entry.shown
    ]
    if caveat := CONTAMINATION.get(summary.contamination or ""):
        blocks.append(Paragraph(caveat))
    if small_groups:
        blocks.append(Paragraph(f"Groups with too few faces for a mean map: {', '.join(small_groups)}."))
    return blocks


def _region_table(methods: Mapping[str, MethodAttribution]) -> TableBlock:
    regions = list(next(iter(methods.values())).regions)
    rows = [
        [entry.title, *(format_number(entry.regions[region].times) for region in regions)] for entry in methods.values()
    ]
    return TableBlock(["method", *regions], rows)


def _check_table(methods: Mapping[str, MethodAttribution]) -> TableBlock:
    rows = []
    for entry in methods.values():
        sanity = entry.sanity
        rows.append(
            [
                entry.title,
                format_ci(sanity.randomised.rank_correlation) if sanity.randomised else "not possible",
                format_ci(sanity.deletion.difference, sign=True),
                format_ci(sanity.insertion.difference, sign=True),
                sanity.verdict(),
            ]
        )
    return TableBlock(["method", "random weights", "deletion (years)", "insertion (years)", "verdict"], rows)


def _by(grouping: str) -> str:
    return "age band" if grouping == "age_band" else label(group_name(grouping, grouping))
