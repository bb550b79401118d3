"""A stress test written down: <test>.json, its answers, its pictures and a page of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agebench.analysis import stress_figures
from agebench.analysis.corruptions import Corruption
from agebench.analysis.stress import Answers, answers_table
from agebench.data.samples import Samples
from agebench.engine.loader import FaceSet
from agebench.files import atomic, write_json, write_text
from agebench.reports.figures import label, save
from agebench.reports.palette import COLOURS
from agebench.reports.tables import count, escaped, listed, markdown_table, number, with_interval


def write_stress(
    folder: Path,
    found: Mapping[str, Any],
    answers: Answers,
    samples: Samples,
    data: FaceSet,
    corruptions: Sequence[Corruption],
    *,
    coverage: float,
    colour: str = COLOURS[0],
) -> Path:
    """Write everything into `folder`; returns the page. The JSON comes last: where it stands, the rest stands too."""
    name, title = found["test"], label(found["test"])
    row = shown_face(data)
    made = {
        "overview": stress_figures.overview(found, title),
        "curves": stress_figures.curves(found, title, colour),
        "groups": stress_figures.groups(found, title),
        **{f"by-{place}": stress_figures.by_group(found, key, title) for place, key in enumerate(found["groups"])},
        "examples": stress_figures.examples(data, row, corruptions, coverage, title),
    }
    drawn = {key: figure for key, figure in made.items() if figure is not None}
    for key, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}-{key}.png")
    with atomic(folder / f"{name}.parquet") as temporary:
        answers_table(answers, samples).to_parquet(temporary, index=False)
    page = folder / f"{name}.md"
    pictures = [
        f"![{key}](figures/{name}-{key}.png)\n\n*{stress_figures.CAPTIONS[key.partition('-')[0]]}*" for key in drawn
    ]
    write_text(page, "\n\n".join([f"# {escaped(name)} under stress", stress_text(found), *pictures]) + "\n")
    write_json(folder / f"{name}.json", found)
    return page


def shown_face(data: FaceSet) -> int:
    """The most colourful of the 16 faces next to 30 years: on a grey print it cannot be seen that colour is removed."""
    near = np.argsort(np.abs(data.ages - 30), kind="stable")[:16]
    colour = [np.ptp(data.pixels[data.rows[place]][..., :3].astype(int), axis=-1).mean() for place in near]
    return int(near[np.argmax(colour)])


def stress_text(found: Mapping[str, Any]) -> str:
    """What the command prints: a sentence, the table by corruption, what a mirror does."""
    entries, summary = found["corruptions"], found["summary"]["relative_error"]
    ordered = sorted(entries.items(), key=lambda item: -item[1]["relative"]["value"])
    worst = [f"{name} (× {number(entry['relative']['value'])})" for name, entry in ordered[:3]]
    clean = found["clean"]
    parts = [
        f"**{escaped(found['test'])}**, n = {count(found['n'])}"
        + (f" of {count(found['subjects'])} subjects" if found["subjects"] else "")
        + f": MAE {with_interval(clean['mae'])} years as it is. Over {len(entries)} corruptions and their strengths the error is "
        f"**{with_interval(summary)} times** that, and the answers move by {with_interval(found['summary']['change'])} years. "
        f"What harms most: {listed(worst)}."
        + (
            " Below 1 a corruption makes the error smaller: it happens to pull the ages towards the truth, against a bias of "
            f"{with_interval(clean['bias'], sign=True)} years on the faces as they are."
            if ordered[-1][1]["relative"]["value"] < 0.98
            else ""
        ),
        _table(ordered, clean),
        _steady(found["consistency"]),
    ]
    small = [
        f"{name} ({count(entry['n'])})"
        for groups in found["groups"].values()
        for name, entry in groups.items()
        if not entry["ranked"]
    ]
    if small:
        parts.append(f"Too few images to rank, in the JSON but not in the pictures: {escaped(', '.join(small))}.")
    return "\n\n".join(parts)


def _table(ordered: Sequence[tuple[str, Mapping[str, Any]]], clean: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in ordered:
        rows.append(
            [
                escaped(name),
                with_interval(entry["relative"]),
                *(with_interval(entry["mae"][place]) for place in (0, -1)),
                with_interval(entry["bias"][-1], sign=True),
                with_interval(entry["change"][-1]),
            ]
        )
    rows.append(["none", "1.00", *[with_interval(clean["mae"])] * 2, with_interval(clean["bias"], sign=True), "0.00"])
    headers = ["corruption", "relative error", "MAE, weakest", "MAE, strongest", "bias, strongest", "answers move by"]
    return markdown_table(headers, rows)


def _steady(consistency: Mapping[str, Any]) -> str:
    mirror, shift = (with_interval(consistency[name]["change"]) for name in ("mirror", "small-shift"))
    return (
        f"The answer for the mirror image differs by {mirror} years on average, for a face moved by 2 % of the side by {shift} "
        "years. In brackets: 95 % bootstrap intervals; relative error: MAE, mean over the strengths, divided by the MAE of the "
        "faces as they are."
    )
