"""All figures of a dataset profile, with their captions; those of its images are drawn here."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.analysis.eda.image_stats import IMAGE_STATS, mean_face_by_group
from agebench.analysis.eda.label_plots import (
    plot_age_violins,
    plot_crosstab,
    plot_histograms,
    plot_population_pyramids,
    plot_splits,
    plot_violin,
)
from agebench.analysis.eda.profile import UNKNOWN, DatasetProfile, age_band_codes, group_columns, labels_or_unknown
from agebench.reports.plots.run import label
from agebench.reports.plots.style import FIGURE_WIDTH, GRAY, group_colors, styled


def profile_figures(profile: DatasetProfile) -> dict[str, tuple[Figure | None, str]]:
    """Draw the figures of a dataset profile.

    Args:
        profile: the profile.

    Returns:
        The figures and their captions by name; a figure is None if its data are missing.
    """
    crosstabs: dict[str, tuple[Figure | None, str]] = {
        f"crosstab-{key.replace('*', '-')}": (
            plot_crosstab(profile, *key.split("*")), f"Cross-tabulation of {key.replace('*', ' and ')}."
        )
        for key in [*profile.summary.crosstabs][:3]
    }  # fmt: skip
    return {
        "samples": (
            _plot_sample_grid(profile),
            "Random images with their labels. Do not publish images of people.",
        ),
        "histograms": (plot_histograms(profile), "Images by age and by group."),
        **crosstabs,
        "age-by-group": (
            plot_age_violins(profile),
            "Age by group: density (violin), median and quartiles (box); whiskers: 1.5 interquartile ranges. Groups of fewer "
            "than 30 images are shown as points.",
        ),
        "pyramids": (
            plot_population_pyramids(profile),
            "Population pyramids: women left, men right, five years per bar; scales differ between panels.",
        ),
        "parts": (plot_splits(profile), "Train, validation and test splits of a run with this seed."),
        "images": (_plot_image_stats(profile), "Image statistics; dashed: the median."),
        "mean-faces": (
            _plot_mean_faces(profile),
            "Mean aligned faces; sharp features indicate accurate alignment.",
        ),
    }


@styled
def _plot_sample_grid(profile: DatasetProfile, columns: int = 8) -> Figure | None:
    """Plot random images with their labels.

    Args:
        profile: the dataset's profile.
        columns: the maximum number of images per row.

    Returns:
        The figure, or None if no sampled image could be opened.
    """
    thumbnails, table = profile.image_sample.thumbnails, profile.image_sample.table
    if not len(thumbnails):
        return None
    labels = []
    for _, row in table.head(len(thumbnails)).iterrows():
        annotated = [label(row[column], 10) for column in ("gender", "race") if pd.notna(row[column])]
        labels.append(f"{row['age']:g} years\n{', '.join(annotated)}".rstrip())
    title = f"{label(profile.card.title)}: {len(thumbnails)} random images of {len(profile.table):,}"
    return _tile_images([*thumbnails], labels, min(columns, len(thumbnails)), title)


@styled
def _tile_images(tiles: Sequence[np.ndarray | None], labels: Sequence[str], columns: int, title: str) -> Figure:
    """Plot images in rows, each with a label above.

    Args:
        tiles: images (S, S, 3) uint8; None leaves a gap.
        labels: one label per tile.
        columns: the number of tiles per row.
        title: the title of the figure.

    Returns:
        The figure.
    """
    rows = -(-len(tiles) // columns)
    side, head = 1.0, 0.38  # in units of a tile's width
    width = columns * (side + 0.08)
    figure = Figure(figsize=(FIGURE_WIDTH, FIGURE_WIDTH / max(width, 5.4) * rows * (side + head) + 0.45))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.4 / figure.get_figheight()))
    axes.axis("off")
    for index, (tile, text) in enumerate(zip(tiles, labels, strict=True)):
        left, top = index % columns * (side + 0.08), index // columns * (side + head) + head
        if tile is not None:
            axes.imshow(tile, extent=(left, left + side, top + side, top), interpolation="bilinear")
        axes.text(left + side / 2, top - 0.04, text, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-0.04, max(width, 5.4)), ylim=(rows * (side + head), 0), aspect="equal")
    figure.suptitle(title)
    return figure


@styled
def _plot_image_stats(profile: DatasetProfile) -> Figure | None:
    """Plot size, brightness, contrast, sharpness and colorfulness of the sampled images.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure, or None if no sampled image could be opened.
    """
    table = profile.image_sample.table
    if not len(table):
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 5.4), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    sizes = table.groupby(["width", "height"]).size().reset_index(name="n")
    panels[0].scatter(
        sizes["width"], sizes["height"], s=12 + 60 * np.sqrt(sizes["n"] / sizes["n"].max()), color=GRAY, alpha=0.6
    )
    size = f"all {sizes['width'][0]} × {sizes['height'][0]}"
    panels[0].set_title(f"size: {size if len(sizes) == 1 else f'{len(sizes):,} different'}", fontsize=10)
    panels[0].set(xlabel="width (pixels)", ylabel="height (pixels)")
    panels[0].margins(0.15)
    for axes, (column, title) in zip(panels[1:], IMAGE_STATS.items(), strict=False):
        axes.hist(table[column], 30, color=GRAY)
        axes.axvline(table[column].median(), color="black", ls="--", lw=1)
        name, _, unit = title.partition(" (")
        axes.set_title(f"{name}, median {table[column].median():.0f}", fontsize=10)
        axes.set(xlabel=unit.rstrip(")"), ylabel="images")
        axes.xaxis.label.set_fontsize(8)
    _brightness_by_group(panels[5], profile)
    figure.suptitle(f"{label(profile.card.title)}: a random sample of {len(table):,} images")
    return figure


def _brightness_by_group(axes: Axes, profile: DatasetProfile) -> None:
    groups = group_columns(profile.samples)
    column = "race" if "race" in groups else groups[0] if groups else ""
    if not column:
        axes.remove()
        return
    table = profile.image_sample.table
    names = [name for name in sorted(profile.summary.groups[column]) if name != UNKNOWN][:6]
    palette = group_colors(profile.summary.groups[column])
    for position, name in enumerate(names):
        values = table.loc[labels_or_unknown(table[column]).eq(name), "brightness"].to_numpy(float)
        plot_violin(axes, position, values, palette[name])
    axes.set_xticks(range(len(names)), [label(name, 9) for name in names], fontsize=8)
    axes.set_title(f"brightness by {label(column)}", fontsize=10)
    axes.set(ylabel="mean gray level, 0 to 255", ylim=(0, 255))
    axes.yaxis.label.set_fontsize(8)


@styled
def _plot_mean_faces(profile: DatasetProfile) -> Figure | None:
    """Plot the mean face of each age band, for women and men separately if gender is annotated.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure, or None if faces must be detected first.
    """
    faces = profile.image_sample.faces
    if faces is None or not len(faces):
        return None
    table = profile.image_sample.table.iloc[profile.image_sample.face_rows]
    names, codes = age_band_codes(table)
    genders = [name for name in ("female", "male") if table["gender"].eq(name).any()]
    rows = {name: np.where(table["gender"].eq(name), codes, -1) for name in genders} or {"all": codes}
    means = {name: mean_face_by_group(faces, band_codes) for name, band_codes in rows.items()}
    tiles, labels = [], []
    for name, band_codes in rows.items():
        for code, band in enumerate(names):
            tiles.append(means[name].get(code))
            labels.append(f"{name}, {band}\n(n = {int((band_codes == code).sum())})")
    title = f"{label(profile.card.title)}: mean faces by age band (years); bands with few images are empty"
    return _tile_images(tiles, labels, len(names), title)
