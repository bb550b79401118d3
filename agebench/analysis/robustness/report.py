"""A stress test written down: <test>.json, its answers, its pictures and a page of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agebench.analysis.robustness import plots
from agebench.analysis.robustness.corruptions import Corruption
from agebench.analysis.robustness.evaluate import RobustnessPredictions, to_frame
from agebench.data.samples import Samples
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    join_words,
    markdown_table,
)
from agebench.reports.plots.run import label, save
from agebench.reports.plots.style import COLORS
from agebench.training.dataloader import FaceDataset
from agebench.utils.io import atomic_write, write_json, write_text

# Status of a dataset in the training data of an estimator that is not a run -> caveat.
CONTAMINATION = {
    "known": "The model was trained on this dataset: its errors here are smaller than on faces that are new to it.",
    "unknown": "The model's training data are not known: this dataset may be among them.",
}


def write_robustness_report(
    folder: Path,
    found: Mapping[str, Any],
    answers: RobustnessPredictions,
    samples: Samples,
    data: FaceDataset,
    corruptions: Sequence[Corruption],
    *,
    coverage: float,
    colour: str = COLORS[0],
) -> Path:
    """Write everything into `folder`; returns the page. The JSON comes last: where it stands, the rest stands too."""
    name, title = found["test"], label(found["test"])
    row = pick_example_face(data)
    made = {
        "overview": plots.plot_overview(found, title),
        "curves": plots.plot_curves(found, title, colour),
        "groups": plots.plot_groups(found, title),
        **{f"by-{place}": plots.plot_by_group(found, key, title) for place, key in enumerate(found["groups"])},
        "examples": plots.plot_examples(data, row, corruptions, coverage, title),
    }
    drawn = {key: figure for key, figure in made.items() if figure is not None}
    for key, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}-{key}.png")
    with atomic_write(folder / f"{name}.parquet") as temporary:
        to_frame(answers, samples).to_parquet(temporary, index=False)
    page = folder / f"{name}.md"
    pictures = [f"![{key}](figures/{name}-{key}.png)\n\n*{plots.CAPTIONS[key.partition('-')[0]]}*" for key in drawn]
    write_text(page, "\n\n".join([f"# {escape_markdown(name)} under stress", robustness_text(found), *pictures]) + "\n")
    write_json(folder / f"{name}.json", found)
    return page


def pick_example_face(data: FaceDataset) -> int:
    """The most colourful of the 16 faces next to 30 years: on a grey print it cannot be seen that colour is removed."""
    near = np.argsort(np.abs(data.ages - 30), kind="stable")[:16]
    colour = [np.ptp(data.pixels[data.rows[place]][..., :3].astype(int), axis=-1).mean() for place in near]
    return int(near[np.argmax(colour)])


def robustness_text(found: Mapping[str, Any]) -> str:
    """What the command prints: a sentence, the table by corruption, what a mirror does."""
    entries, summary = found["corruptions"], found["summary"]["relative_error"]
    ordered = sorted(entries.items(), key=lambda item: -item[1]["relative"]["value"])
    worst = [f"{name} (× {format_number(entry['relative']['value'])})" for name, entry in ordered[:3]]
    clean = found["clean"]
    parts = [
        f"**{escape_markdown(found['test'])}**, n = {format_count(found['n'])}"
        + (f" of {format_count(found['subjects'])} subjects" if found["subjects"] else "")
        + f": MAE {format_ci(clean['mae'])} years as it is. Over {len(entries)} corruptions and their strengths the error is "
        f"**{format_ci(summary)} times** that, and the answers move by {format_ci(found['summary']['change'])} years. "
        f"What harms most: {join_words(worst)}."
        + (
            " Below 1 a corruption makes the error smaller: it happens to pull the ages towards the truth, against a bias of "
            f"{format_ci(clean['bias'], sign=True)} years on the faces as they are."
            if ordered[-1][1]["relative"]["value"] < 0.98
            else ""
        ),
        _table(ordered, clean),
        _steady(found["consistency"]),
    ]
    small = [
        f"{name} ({format_count(entry['n'])})"
        for groups in found["groups"].values()
        for name, entry in groups.items()
        if not entry["ranked"]
    ]
    if caveat := CONTAMINATION.get(found.get("contamination", "")):
        parts.append(caveat)
    if small:
        parts.append(
            f"Too few images to rank, in the JSON but not in the pictures: {escape_markdown(', '.join(small))}."
        )
    return "\n\n".join(parts)


def _table(ordered: Sequence[tuple[str, Mapping[str, Any]]], clean: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in ordered:
        rows.append(
            [
                escape_markdown(name),
                format_ci(entry["relative"]),
                *(format_ci(entry["mae"][place]) for place in (0, -1)),
                format_ci(entry["bias"][-1], sign=True),
                format_ci(entry["change"][-1]),
            ]
        )
    rows.append(["none", "1.00", *[format_ci(clean["mae"])] * 2, format_ci(clean["bias"], sign=True), "0.00"])
    headers = ["corruption", "relative error", "MAE, weakest", "MAE, strongest", "bias, strongest", "answers move by"]
    return markdown_table(headers, rows)


def _steady(consistency: Mapping[str, Any]) -> str:
    mirror, shift = (format_ci(consistency[name]["change"]) for name in ("mirror", "small-shift"))
    return (
        f"The answer for the mirror image differs by {mirror} years on average, for a face moved by 2 % of the side by {shift} "
        "years. In brackets: 95 % bootstrap intervals; relative error: MAE, mean over the strengths, divided by the MAE of the "
        "faces as they are."
    )
