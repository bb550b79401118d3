"""The report of a dataset profile: HTML and Markdown for people, JSON and CSV files for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from agebench.analysis.eda.schema import DatasetComparison, DatasetSummary, ImageSummary, ProfileFile, SplitsSummary
from agebench.config.cards.dataset import DatasetCard
from agebench.errors import UserError
from agebench.reports.document import BulletList, Document, Heading, Paragraph, TableBlock, figure_block, write_document
from agebench.reports.formatting import DASH, format_count, join_words
from agebench.reports.plots.run import dataset_colors
from agebench.reports.sections.provenance import ALIGNMENT_NAMES
from agebench.utils.io import write_csv, write_json

_RESULT_FILE = "explore.json"
_LABEL_COLUMNS = ("sample_id", "path", "age", "age_low", "age_high", "gender", "race", "subject", "split")
_MAX_CONFLICTS = 20
# Thresholds above or below which a finding is stated in words.
_ROUNDED_AGES_SHARE = 0.15
_GRAY_SHARE = 0.005
_SIMILAR_AGES_OVERLAP = 0.8
_RARE_AGES_SHARE = 0.01
_GROUP_DISTANCE = 0.1


def write_profile(folder: Path, cards: Sequence[DatasetCard], *, seed: int = 0) -> ProfileFile:
    """Profile datasets, compare the first with each other dataset, and write the reports, CSV files and explore.json.

    Everything is computed before the first file is written.

    Args:
        folder: the folder of the report; it is created if it is missing.
        cards: the datasets; the first is compared with each of the others.
        seed: the seed of the split and of the image sample.

    Returns:
        The content of explore.json.

    Raises:
        UserError: a dataset is missing or unusable, or the folder contains other files.
    """
    _ensure_overwritable(folder)
    profiles = [profile_dataset(card, seed=seed) for card in cards]
    comparisons = [compare_datasets(profiles[0], other) for other in profiles[1:]]
    names = [profile.card.name for profile in profiles]
    document = Document(f"Profile of {join_words([profile.card.title for profile in profiles])}")
    for comparison, other in zip(comparisons, profiles[1:], strict=True):
        _add_comparison(document, comparison, profiles[0], other, dataset_colors(names[0], names))
    for profile in profiles:
        _add_dataset(document, profile, prefix=f"{profile.card.name}-" if len(profiles) > 1 else "")
    content = ProfileFile(
        seed=seed, datasets={profile.card.name: profile.summary for profile in profiles}, comparisons=comparisons
    )
    tables = {name: table for profile in profiles for name, table in _tables(profile).items()}
    for name, table in tables.items():
        write_csv(folder / name, table, index=name.startswith("crosstab"))
    write_json(folder / _RESULT_FILE, content.to_json())
    write_document(folder, document)
    return content


def _ensure_overwritable(folder: Path) -> None:
    """Check that a folder is missing, empty, or contains an earlier profile.

    Args:
        folder: the folder to check.

    Raises:
        UserError: the folder contains other files.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / _RESULT_FILE).exists()):
        raise UserError(f"{folder} holds something else; choose another folder with --out")


def _tables(profile: DatasetProfile) -> dict[str, pd.DataFrame]:
    """Return the CSV tables by file name."""
    name = profile.card.name
    columns = dict.fromkeys([*_LABEL_COLUMNS, *profile.samples.groups, "part"])
    labels = profile.table[[column for column in columns if column in profile.table]]
    crosstabs = {
        f"crosstab-{name}-{key.replace('*', '-')}.csv": crosstab(profile.table, *key.split("*"))
        for key in profile.summary.crosstabs
    }
    return {f"labels-{name}.csv": labels, **crosstabs}


def _add_dataset(document: Document, profile: DatasetProfile, *, prefix: str) -> None:
    """Append the section of one dataset; `prefix` starts the names of its figures."""
    summary = profile.summary
    figures = {
        key: figure_block(prefix + key, figure, caption) for key, (figure, caption) in profile_figures(profile).items()
    }
    document.add(Heading(profile.card.title), Paragraph(_describe_ages(summary)))
    if summary.not_annotated:
        document.add(
            Paragraph(
                f"Not annotated: {join_words(summary.not_annotated)}. The profile contains no results for these labels."
            )
        )
    document.add(_counts_table(profile), figures.pop("samples"))
    document.add(Heading("Ages and groups", 3), figures.pop("histograms"), _group_ages_table(summary))
    document.add(*(figures[key] for key in figures if key.startswith("crosstab")))
    document.add(figures["age-by-group"], figures["pyramids"])
    document.add(Heading("Train, validation and test splits", 3), *_split_blocks(summary.parts), figures["parts"])
    document.add(
        Heading("Images", 3),
        Paragraph(_describe_images(summary.images)),
        figures["images"],
        figures["mean-faces"],
    )
    document.add(*_conflict_blocks(profile))
    document.add(Paragraph(f"License: {profile.card.licence}"))


def _describe_ages(summary: DatasetSummary) -> str:
    ages = summary.ages
    text = (
        f"{summary.n:,} images, ages {ages['min']:g} to {ages['max']:g}, median {ages['p50']:g} years; the middle half is "
        f"between {ages['p25']:g} and {ages['p75']:g} years."
    )
    per_subject = summary.images_of_a_subject
    if summary.subjects and per_subject:
        is_constant = per_subject.min == per_subject.max
        counts = f"{per_subject.max}" if is_constant else f"{per_subject.min} to {per_subject.max}"
        text += f" They show {summary.subjects:,} people with {counts} {'image' if counts == '1' else 'images'} each."
    if ages["in_tens_share"] > _ROUNDED_AGES_SHARE:
        text += (
            f" {100 * ages['in_tens_share']:.0f} % of the ages are multiples of ten, compared with 10 % for uniform ages. Such "
            "labels are often rounded estimates, which limit the measurable accuracy of a model."
        )
    if summary.exact_copies:
        text += (
            f" {summary.exact_copies:,} images are exact copies of others; a run keeps copies on one side of its split."
        )
    return text


def _counts_table(profile: DatasetProfile) -> TableBlock:
    summary = profile.summary
    rows = [
        ["usable images", format_count(summary.n)],
        ["people", format_count(summary.subjects)],
        ["exact copies", format_count(summary.exact_copies)],
        ["exact copies with different ages", format_count(summary.copies_with_other_labels)],
        *([f"rejected: {reason}", format_count(n)] for reason, n in summary.put_aside.items()),
    ]
    if profile.card.count:
        rows.append(["images of a complete copy", format_count(profile.card.count)])
    return TableBlock(["images", "n"], rows)


def _group_ages_table(summary: DatasetSummary) -> TableBlock | None:
    rows = [
        [
            f"{column}: {name}",
            format_count(row.n),
            f"{row.median:g}",
            f"{row.q1:g} to {row.q3:g}",
            f"{row.mean:.1f}",
        ]
        for column, groups in summary.group_ages.items()
        for name, row in groups.items()
    ]
    return TableBlock(["group", "n", "median age", "interquartile range", "mean age"], rows) if rows else None


def _split_blocks(splits: SplitsSummary) -> list[Paragraph | TableBlock]:
    """Describe how much the splits differ, compared with random splits of the same sizes."""
    if splits.note:
        return [Paragraph(f"The dataset cannot be split: {splits.note}")]
    rows, different = [], []
    for distance in splits.distances:
        pair = " and ".join(distance.parts)
        group_distances = [f"{100 * value:.1f} %" for value in distance.groups.values()]
        rows.append([pair, f"{distance.age_years:.2f}", f"{distance.age_years_by_chance:.2f}", *group_distances])
        if distance.age_years > distance.age_years_by_chance:
            different.append(pair)
    verdict = (
        f"The ages of {join_words(different)} differ more than those of random splits, because subjects or an official split "
        "determine the assignment."
        if different
        else "The ages of the splits do not differ more than those of random splits."
    )
    headers = ["splits", "age distance (years)", "random splits (years)", *splits.distances[0].groups]
    return [
        Paragraph(
            f"{verdict} Age distance: Wasserstein distance between the age histograms. Random splits: 95 % quantile of this "
            "distance. Groups: total variation distance, the share of images that would have to change their group."
        ),
        TableBlock(headers, rows),
    ]


def _describe_images(images: ImageSummary) -> str:
    width, height = images.width, images.height
    if width is None or height is None:
        return "None of the sampled images could be opened."
    if all(side.p5 == side.p95 for side in (width, height)):
        text = f"At least 90 % of {images.n:,} sampled images have {width.median:.0f} × {height.median:.0f} pixels."
    else:
        text = (
            f"Of {images.n:,} sampled images 90 % are {width.p5:.0f} to {width.p95:.0f} pixels wide, and 90 % are "
            f"{height.p5:.0f} to {height.p95:.0f} pixels high."
        )
    if (images.grey or 0) >= _GRAY_SHARE:
        text += f" {100 * (images.grey or 0):.0f} % have no color."
    return text + " Brightness, contrast, sharpness and colorfulness are measured at 120 pixels."


def _conflict_blocks(profile: DatasetProfile) -> list[Heading | Paragraph | TableBlock]:
    conflicts = duplicates_with_conflicting_age(profile.table)
    if not len(conflicts):
        return []
    rows = [
        [str(row["sample_id"]), f"{row['age']:g}", row["pixels_digest"][:8]]
        for _, row in conflicts.head(_MAX_CONFLICTS).iterrows()
    ]
    return [
        Heading("Identical images with different ages", 3),
        Paragraph(
            f"{len(conflicts):,} images have the same pixels as another image and a different age; at most one of the ages is "
            "correct."
        ),
        TableBlock(["image", "age", "pixel digest"], rows),
    ]


def _add_comparison(
    document: Document,
    comparison: DatasetComparison,
    first: DatasetProfile,
    second: DatasetProfile,
    palette: Mapping[str, str],
) -> None:
    """Append the section that compares two datasets; `palette` assigns a color to each dataset."""
    source, target = comparison.first, comparison.second
    rows = [
        ["overlap of the age histograms", f"{100 * comparison.age_overlap:.1f} %"],
        ["age distance (years)", f"{comparison.age_distance_years:.2f}"],
        [
            f"images of {target} at ages without training images in {source}",
            f"{100 * comparison.outside_training_ages:.1f} %",
        ],
        [
            f"images of {target} at ages with fewer than {comparison.rare_below} training images in {source}",
            f"{100 * comparison.at_rare_training_ages:.1f} %",
        ],
        [f"images of {target} that are also in {source}", format_count(comparison.same_images)],
    ]
    rows += [
        [
            f"{column}: images that would have to change their group",
            DASH if difference.distance is None else f"{100 * difference.distance:.1f} %",
        ]
        for column, difference in comparison.groups.items()
    ]
    document.add(
        Heading(f"{source} and {target}"),
        BulletList(_meaning(comparison)),
        figure_block(
            f"compared-{source}-{target}",
            plot_comparison(first, second, palette),
            f"{source} and {target}: ages, and groups that both datasets annotate.",
        ),
        TableBlock([f"{source} compared with {target}", "value"], rows),
    )


def _meaning(comparison: DatasetComparison) -> list[str]:
    """Explain how to interpret the error on the second dataset of a model trained on the first, one sentence per item."""
    source, target = comparison.first, comparison.second
    return [
        _describe_age_overlap(comparison),
        *_describe_rare_ages(comparison),
        *_describe_alignment(comparison),
        *_describe_groups(comparison),
        (
            f"{comparison.same_images:,} images of {target} are also in {source}: a run drops its training images from the "
            "test set."
            if comparison.same_images
            else f"{source} and {target} have no image in common, by bytes or by pixels; they may show the same people."
        ),
    ]


def _describe_age_overlap(comparison: DatasetComparison) -> str:
    source, target, overlap = comparison.first, comparison.second, 100 * comparison.age_overlap
    if comparison.age_overlap < _SIMILAR_AGES_OVERLAP:
        return (
            f"The age histograms overlap by {overlap:.0f} %, and their distance is {comparison.age_distance_years:.1f} years. "
            f"MAE increases with age, so MAE on {target} and MAE on {source} are not directly comparable: compare within age "
            "bands, or use the age-standardized MAE."
        )
    return f"The ages are similar ({overlap:.0f} % overlap): MAE on both datasets can be compared directly."


def _describe_rare_ages(comparison: DatasetComparison) -> list[str]:
    share = comparison.at_rare_training_ages
    if share <= _RARE_AGES_SHARE:
        return []
    return [
        f"{100 * share:.1f} % of {comparison.second} have ages of which {comparison.first} has fewer than "
        f"{comparison.rare_below} training images a year: their errors reflect missing training data rather than the faces."
    ]


def _describe_alignment(comparison: DatasetComparison) -> list[str]:
    if len(set(comparison.faces.values())) == 1:
        return []
    methods = [f"those of {name} are {ALIGNMENT_NAMES[mode]}" for name, mode in comparison.faces.items()]
    return [f"Faces are aligned differently: {join_words(methods)}. Part of a cross-dataset gap is due to framing."]


def _describe_groups(comparison: DatasetComparison) -> list[str]:
    sentences = []
    for column, difference in comparison.groups.items():
        if difference.only_one_knows:
            sentences.append(
                f"{column}: only one of the datasets has {join_words(difference.only_one_knows)}; these groups cannot be "
                "compared."
            )
        elif difference.distance is not None and difference.distance > _GROUP_DISTANCE:
            sentences.append(
                f"{column} is distributed differently ({100 * difference.distance:.0f} % of images): compare each group "
                "separately."
            )
    for name, missing in comparison.groups_missing.items():
        labels = [column for column in missing if column != "subject"]
        if labels:
            sentences.append(
                f"{name} does not annotate {join_words(labels)}: fairness metrics for these labels cannot be computed there."
            )
        if "subject" in missing:
            sentences.append(
                f"{name} does not identify subjects: its intervals assume independent images, and are too narrow otherwise."
            )
    return sentences
