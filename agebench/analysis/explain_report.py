"""An explanation written down: <test>.json, its pictures and a page of text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agebench.analysis import explain_figures
from agebench.analysis.explain import Looked
from agebench.analysis.map_sanity import DESTROYED, verdict
from agebench.files import write_json, write_text
from agebench.reports.figures import label, save
from agebench.reports.tables import count, escaped, markdown_table, number, with_interval


def write_explanation(folder: Path, looked: Looked) -> Path:
    """Write everything into `folder`; returns the page. The JSON comes last: where it stands, the rest stands too."""
    found, name = looked.found, looked.found["test"]
    title = label(name)
    made = {
        "faces": explain_figures.faces(looked, f"{title}: single faces"),
        **{
            f"mean-{place}": explain_figures.mean_maps(looked, grouping, f"{title}: mean maps by {_by(grouping.name)}")
            for place, grouping in enumerate(looked.groups)
        },
        "sanity": explain_figures.sanity(looked, f"{title}: do the maps say anything? (n = {found['checked']} faces)"),
    }
    drawn = {key: figure for key, figure in made.items() if figure is not None}
    for key, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}-{key}.png")
    pictures = [
        f"![{key}](figures/{name}-{key}.png)\n\n*{explain_figures.CAPTIONS[key.partition('-')[0]]}*" for key in drawn
    ]
    page = folder / f"{name}.md"
    write_text(page, "\n\n".join([f"# {escaped(name)}: where the model looks", explain_text(found), *pictures]) + "\n")
    write_json(folder / f"{name}.json", found)
    return page


def explain_text(found: Mapping[str, Any]) -> str:
    """What the command prints: where the methods look, and what they are worth."""
    target = "the predicted age" if found["target"] == "age" else "the expectation of the predicted distribution"
    parts = [
        f"**{escaped(found['test'])}**: what {target} comes from, on {count(found['n'])} of {count(found['of'])} faces, every age "
        "band alike as far as it has faces. A region's figure says how much of the map lies there, as a multiple of its area.",
        _regions(found["methods"]),
        _checks(found["methods"]),
        f"The checks look at {count(found['checked'])} faces. Random weights: Spearman's rank correlation of the map with that of "
        f"a network with random weights must lie below {DESTROYED:g}, its interval with it. Deletion and insertion: how much "
        "further the answer moves than when cells are covered, or uncovered, in random order; above 0 is right for deletion, below "
        "0 for insertion. In brackets: 95 % bootstrap intervals.",
        *(f"Note: {escaped(note)}." for note in found["notes"]),
    ]
    small = [
        f"{name} ({count(entry['n'])})"
        for groups in next(iter(found["methods"].values()))["groups"].values()
        for name, entry in groups.items()
        if not entry["shown"]
    ]
    if small:
        parts.append(f"Too few faces for a mean map: {escaped(', '.join(small))}.")
    return "\n\n".join(parts)


def _regions(methods: Mapping[str, Any]) -> str:
    names = list(next(iter(methods.values()))["regions"])
    rows = [
        [entry["title"], *(number(entry["regions"][name]["times"]) for name in names)] for entry in methods.values()
    ]
    return markdown_table(["method", *names], rows)


def _checks(methods: Mapping[str, Any]) -> str:
    rows = []
    for entry in methods.values():
        sanity = entry["sanity"]
        rows.append(
            [
                entry["title"],
                with_interval(sanity["randomised"]["rank_correlation"]),
                with_interval(sanity["deletion"]["difference"], sign=True),
                with_interval(sanity["insertion"]["difference"], sign=True),
                verdict(sanity),
            ]
        )
    return markdown_table(["method", "random weights", "deletion (years)", "insertion (years)", "verdict"], rows)


def _by(grouping: str) -> str:
    return "age band" if grouping == "age_band" else escaped(grouping.replace("*", " × "))
