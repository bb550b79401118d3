"""What was found in datasets, as a page for people and as files for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.analysis.eda.label_plots import plot_comparison
from agebench.analysis.eda.plots import profile_figures
from agebench.analysis.eda.profile import (
    DatasetProfile,
    compare_datasets,
    crosstab,
    duplicates_with_conflicting_age,
    profile_dataset,
)
from agebench.config.cards.base import DatasetCard
from agebench.errors import UserError
from agebench.reports.document import BulletList, Document, Heading, Paragraph, TableBlock, figure_block, write_document
from agebench.reports.formatting import format_count, join_words
from agebench.reports.plots.run import dataset_colors
from agebench.reports.sections.provenance import ALIGNMENT_NAMES
from agebench.utils.io import write_csv, write_json

_MARK = "explore.json"


def write_profile(folder: Path, cards: Sequence[DatasetCard], *, seed: int = 0) -> dict[str, Any]:
    """Explore datasets, compare the first with each other one, write report.html, report.md, CSVs and explore.json.

    Everything is computed before the first file is written.

    Returns:
        What explore.json holds.

    Raises:
        UserError: a dataset is missing or unusable, or the folder holds something else.
    """
    ensure_overwritable(folder)
    found = [profile_dataset(card, seed=seed) for card in cards]
    pairs = [compare_datasets(found[0], other) for other in found[1:]]
    names = [of.card.name for of in found]
    page = Document(f"Exploring {join_words([of.card.title for of in found])}")
    for pair, other in zip(pairs, found[1:], strict=True):
        _add_comparison(page, pair, found[0], other, dataset_colors(names[0], names))
    for of in found:
        _add_dataset(page, of, several=len(found) > 1)
    content = {
        "schema": 1,
        "seed": seed,
        "datasets": {of.card.name: of.summary for of in found},
        "comparisons": pairs,
    }
    tables = {name: table for of in found for name, table in _tables(of).items()}
    for name, table in tables.items():
        write_csv(folder / name, table, index=name.startswith("crosstab"))
    write_json(folder / _MARK, content)
    write_document(folder, page)
    return content


def ensure_overwritable(folder: Path) -> None:
    """Raise UserError where `folder` holds something that `explore` did not make."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists()):
        raise UserError(f"{folder} holds something else; choose another folder with --out")


def _tables(of: DatasetProfile) -> dict[str, pd.DataFrame]:
    name = of.card.name
    wanted = [
        "sample_id",
        "path",
        "age",
        "age_low",
        "age_high",
        "gender",
        "race",
        "subject",
        "split",
        *of.samples.groups,
        "part",
    ]
    labels = of.table[[column for column in dict.fromkeys(wanted) if column in of.table]]
    crossings = {
        f"crosstab-{name}-{key.replace('*', '-')}.csv": crosstab(of.table, *key.split("*"))
        for key in of.summary["crosstabs"]
    }
    return {f"labels-{name}.csv": labels, **crossings}


def _add_dataset(page: Document, of: DatasetProfile, *, several: bool) -> None:
    """One dataset's section."""
    summary, prefix = of.summary, f"{of.card.name}-" if several else ""
    pictures = {
        key: figure_block(prefix + key, figure, caption) for key, (figure, caption) in profile_figures(of).items()
    }
    page.add(Heading(of.card.title), Paragraph(_in_words(of)))
    if summary["not_annotated"]:
        page.add(
            Paragraph(
                f"Not annotated: {join_words(summary['not_annotated'])}. Nothing can be said of what is not annotated."
            )
        )
    page.add(_counts_table(of), pictures.pop("samples"))
    page.add(Heading("Ages and groups", 3), pictures.pop("histograms"), _ages_table(summary))
    page.add(*(pictures[key] for key in pictures if key.startswith("crosstab")))
    page.add(pictures["age-by-group"], pictures["pyramids"])
    page.add(Heading("Train, validation, test", 3), *_parts_blocks(summary["parts"]), pictures["parts"])
    page.add(
        Heading("The images", 3),
        Paragraph(_images_in_words(summary["images"])),
        pictures["images"],
        pictures["mean-faces"],
    )
    page.add(*_conflicts(of))
    page.add(Paragraph(f"Licence: {of.card.licence}"))


def _in_words(of: DatasetProfile) -> str:
    summary = of.summary
    ages = summary["ages"]
    text = (
        f"{summary['n']:,} images, ages {ages['min']:g} to {ages['max']:g}, median {ages['p50']:g}; half of them lie between "
        f"{ages['p25']:g} and {ages['p75']:g} years."
    )
    if summary["subjects"]:
        per = summary["images_of_a_subject"]
        text += f" They show {summary['subjects']:,} people, {per['min']} to {per['max']} images each."
    if ages["in_tens_share"] > 0.15:
        text += (
            f" {100 * ages['in_tens_share']:.0f} % of the ages are whole tens, where 10 % would be if all years were alike: "
            "such labels are often rounded guesses, and a model cannot be more exact than they are."
        )
    if summary["exact_copies"]:
        text += f" {summary['exact_copies']:,} images are exact copies of others; a run keeps them on one side of its split."
    return text


def _counts_table(of: DatasetProfile) -> TableBlock:
    summary = of.summary
    rows = [["usable images", format_count(summary["n"])], ["people", format_count(summary["subjects"])]]
    rows += [["exact copies", format_count(summary["exact_copies"])]]
    rows += [["exact copies with different ages", format_count(summary["copies_with_other_labels"])]]
    rows += [[f"put aside: {reason}", format_count(n)] for reason, n in summary["put_aside"].items()]
    rows += [["a whole copy has", format_count(of.card.count)]] if of.card.count else []
    return TableBlock(["images", "n"], rows)


def _ages_table(summary: Mapping[str, Any]) -> TableBlock | None:
    rows = [
        [
            f"{column}: {name}",
            format_count(int(row["n"])),
            f"{row['median']:g}",
            f"{row['q1']:g} to {row['q3']:g}",
            f"{row['mean']:.1f}",
        ]
        for column, groups in summary["group_ages"].items()
        for name, row in groups.items()
    ]
    return TableBlock(["group", "n", "median age", "middle half", "mean age"], rows) if rows else None


def _parts_blocks(parts: Mapping[str, Any]) -> list[Paragraph | TableBlock]:
    if "note" in parts:
        return [Paragraph(f"It cannot be divided: {parts['note']}")]
    rows, words = [], []
    for found in parts["distances"]:
        groups = [f"{100 * value:.1f} %" for value in found["groups"].values()]
        pair = " and ".join(found["parts"])
        rows.append([pair, f"{found['age_years']:.2f}", f"{found['age_years_by_chance']:.2f}", *groups])
        if found["age_years"] > found["age_years_by_chance"]:
            words.append(pair)
    verdict = (
        f"The ages of {join_words(words)} lie further apart than chance would put them: people or an official split decide here."
        if words
        else "The ages of the parts lie no further apart than chance would put them."
    )
    headers = ["parts", "ages apart (years)", "by chance, up to", *parts["distances"][0]["groups"]]
    return [
        Paragraph(
            f"{verdict} Apart: how far a label moves on average to turn one part's ages into the other's (Wasserstein distance); "
            "by chance: what 19 of 20 blind draws stay below. For groups: the share of images that would have to change group."
        ),
        TableBlock(headers, rows),
    ]


def _images_in_words(images: Mapping[str, Any]) -> str:
    if not images["n"]:
        return "None of the sampled images could be opened."
    size = [images[side] for side in ("width", "height")]
    alike = all(of["p5"] == of["p95"] for of in size)
    text = (
        f"All {images['n']:,} sampled images are about {size[0]['median']:.0f} × {size[1]['median']:.0f} pixels."
        if alike
        else f"Of {images['n']:,} sampled images nine in ten are {size[0]['p5']:.0f} to {size[0]['p95']:.0f} pixels wide and "
        f"{size[1]['p5']:.0f} to {size[1]['p95']:.0f} high."
    )
    if images["grey"] >= 0.005:
        text += f" {100 * images['grey']:.0f} % are without colour."
    return text + " Measures of light are taken after shrinking to 120 pixels."


def _conflicts(of: DatasetProfile) -> list[Heading | Paragraph | TableBlock]:
    rows = duplicates_with_conflicting_age(of.table)
    if not len(rows):
        return []
    shown = [[row["sample_id"], f"{row['age']:g}", row["pixels_digest"][:8]] for _, row in rows.head(20).iterrows()]
    return [
        Heading("The same picture, another age", 3),
        Paragraph(
            f"{len(rows):,} images have the pixels of another image and a different age; at most one of each is right."
        ),
        TableBlock(["image", "age", "picture"], shown),
    ]


def _add_comparison(
    page: Document, pair: Mapping[str, Any], first: DatasetProfile, other: DatasetProfile, palette: Mapping[str, str]
) -> None:
    one, two = pair["first"], pair["second"]
    page.add(Heading(f"{one} and {two}"), BulletList(_meaning(pair)))
    page.add(
        figure_block(
            f"compared-{one}-{two}",
            plot_comparison(first, other, palette),
            f"{one} and {two}: ages, and groups that both know.",
        )
    )
    rows = [
        ["ages in common", f"{100 * pair['age_overlap']:.1f} %"],
        ["ages apart (years)", f"{pair['age_distance_years']:.2f}"],
        [f"images of {two} at ages that {one}'s training part lacks", f"{100 * pair['outside_training_ages']:.1f} %"],
        [f"… or has fewer than {pair['rare_below']} images of", f"{100 * pair['at_rare_training_ages']:.1f} %"],
        [f"images of {two} that also stand in {one}", format_count(pair["same_images"])],
    ]
    rows += [
        [
            f"{column}: images that would have to change group",
            "–" if of["distance"] is None else f"{100 * of['distance']:.1f} %",
        ]
        for column, of in pair["groups"].items()
    ]
    page.add(TableBlock([f"{one} against {two}", "figure"], rows))


def _meaning(pair: Mapping[str, Any]) -> list[str]:
    """What the error on the second of a model that was trained on the first will and will not mean, a sentence each."""
    one, two = pair["first"], pair["second"]
    said = []
    if pair["age_overlap"] < 0.8:
        said.append(
            f"The ages share {100 * pair['age_overlap']:.0f} % and lie {pair['age_distance_years']:.1f} years apart. MAE rises "
            f"with age, so MAE on {two} and MAE on {one} do not compare as they stand: compare within age bands, or at equal ages."
        )
    else:
        said.append(
            f"The ages are much alike ({100 * pair['age_overlap']:.0f} % in common): MAE on both may be compared directly."
        )
    if pair["at_rare_training_ages"] > 0.01:
        said.append(
            f"{100 * pair['at_rare_training_ages']:.1f} % of {two} lie at ages of which {one} trains on fewer than "
            f"{pair['rare_below']} images a year: errors there say more about the ages than about the faces."
        )
    ways = list(pair["faces"].values())
    if len(set(ways)) > 1:
        how = [f"those of {name} are {ALIGNMENT_NAMES[way]}" for name, way in pair["faces"].items()]
        said.append(
            f"Faces reach the model in different ways: {join_words(how)}. Part of a cross-dataset gap is framing."
        )
    for column, of in pair["groups"].items():
        if of["only_one_knows"]:
            said.append(
                f"{column}: {join_words(of['only_one_knows'])} stand in one of the two only; no such groups can be compared."
            )
        elif (of["distance"] or 0) > 0.1:
            said.append(
                f"{column} is distributed differently ({100 * of['distance']:.0f} % of images): compare group by group."
            )
    for name, missing in pair["groups_missing"].items():
        labels = [column for column in missing if column != "subject"]
        if labels:
            said.append(
                f"{name} does not annotate {join_words(labels)}: a fairness figure there cannot be had, nor be compared."
            )
        if "subject" in missing:
            said.append(
                f"{name} does not say who is who: its intervals take images as independent and are too narrow if they are not."
            )
    if pair["same_images"]:
        said.append(
            f"{pair['same_images']:,} images of {two} also stand in {one}: a run drops those it was trained on from the test."
        )
    else:
        said.append(f"No image of {two} stands in {one}, byte by byte or pixel by pixel; the same people still may.")
    return said
