"""An explanation written down: <test>.json, its pictures and a page of text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agebench.analysis.attribution import plots
from agebench.analysis.attribution.run import AttributionResult
from agebench.analysis.attribution.sanity_checks import MAX_RANDOM_CORRELATION, format_verdict
from agebench.analysis.robustness.report import CONTAMINATION
from agebench.reports.formatting import escape_markdown, format_ci, format_count, format_number, markdown_table
from agebench.reports.plots.run import label, save
from agebench.utils.io import write_json, write_text


def write_attribution_report(folder: Path, looked: AttributionResult) -> Path:
    """Write everything into `folder`; returns the page. The JSON comes last: where it stands, the rest stands too."""
    found, name = looked.summary, looked.summary["test"]
    title = label(name)
    made = {
        "faces": plots.plot_examples(looked, f"{title}: single faces"),
        **{
            f"mean-{place}": plots.plot_mean_maps(looked, grouping, f"{title}: mean maps by {_by(grouping.name)}")
            for place, grouping in enumerate(looked.groups)
        },
        "sanity": plots.plot_sanity(looked, f"{title}: do the maps say anything? (n = {found['checked']} faces)"),
    }
    drawn = {key: figure for key, figure in made.items() if figure is not None}
    for key, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}-{key}.png")
    pictures = [f"![{key}](figures/{name}-{key}.png)\n\n*{plots.CAPTIONS[key.partition('-')[0]]}*" for key in drawn]
    page = folder / f"{name}.md"
    write_text(
        page,
        "\n\n".join([f"# {escape_markdown(name)}: where the model looks", attribution_text(found), *pictures]) + "\n",
    )
    write_json(folder / f"{name}.json", found)
    return page


def attribution_text(found: Mapping[str, Any]) -> str:
    """What the command prints: where the methods look, and what they are worth."""
    target = "the predicted age" if found["target"] == "age" else "the expectation of the predicted distribution"
    parts = [
        f"**{escape_markdown(found['test'])}**: what {target} comes from, on {format_count(found['n'])} of "
        f"{format_count(found['of'])} faces, every age "
        "band alike as far as it has faces. A region's figure says how much of the map lies there, as a multiple of its area.",
        _regions(found["methods"]),
        _checks(found["methods"]),
        f"The checks look at {format_count(found['checked'])} faces. Random weights: Spearman's rank correlation of "
        "the map with that of "
        f"a network with random weights must lie below {MAX_RANDOM_CORRELATION:g}, its interval with it. Deletion and "
        "insertion: how much "
        "further the answer moves than when cells are covered, or uncovered, in random order; above 0 is right for deletion, below "
        "0 for insertion. In brackets: 95 % bootstrap intervals.",
        *(f"Note: {escape_markdown(note)}." for note in found["notes"]),
    ]
    small = [
        f"{name} ({format_count(entry['n'])})"
        for groups in next(iter(found["methods"].values()))["groups"].values()
        for name, entry in groups.items()
        if not entry["shown"]
    ]
    if caveat := CONTAMINATION.get(found.get("contamination", "")):
        parts.append(caveat)
    if small:
        parts.append(f"Too few faces for a mean map: {escape_markdown(', '.join(small))}.")
    return "\n\n".join(parts)


def _regions(methods: Mapping[str, Any]) -> str:
    names = list(next(iter(methods.values()))["regions"])
    rows = [
        [entry["title"], *(format_number(entry["regions"][name]["times"]) for name in names)]
        for entry in methods.values()
    ]
    return markdown_table(["method", *names], rows)


def _checks(methods: Mapping[str, Any]) -> str:
    rows = []
    for entry in methods.values():
        sanity = entry["sanity"]
        rows.append(
            [
                entry["title"],
                format_ci(sanity["randomised"]["rank_correlation"]) if "randomised" in sanity else "not possible",
                format_ci(sanity["deletion"]["difference"], sign=True),
                format_ci(sanity["insertion"]["difference"], sign=True),
                format_verdict(sanity),
            ]
        )
    return markdown_table(["method", "random weights", "deletion (years)", "insertion (years)", "verdict"], rows)


def _by(grouping: str) -> str:
    return "age band" if grouping == "age_band" else escape_markdown(grouping.replace("*", " × "))
