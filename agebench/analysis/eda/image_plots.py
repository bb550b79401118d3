"""The figures of a dataset's images: some of them, what their files are like, and the mean face."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.analysis.eda.image_stats import IMAGE_STATS, mean_face_by_group
from agebench.analysis.eda.label_plots import FIGURE_WIDTH, plot_violin
from agebench.analysis.eda.profile import UNKNOWN, DatasetProfile, age_band_codes, group_columns, labels_or_unknown
from agebench.reports.plots.run import label
from agebench.reports.plots.style import GRAY, group_colors, styled


@styled
def plot_sample_grid(found: DatasetProfile, columns: int = 8) -> Figure | None:
    """Random images, whole, with their labels. None where none could be opened."""
    thumbs, table = found.pictures.thumbnails, found.pictures.table
    if not len(thumbs):
        return None
    labels = []
    for _, row in table.head(len(thumbs)).iterrows():
        known = [label(row[column], 10) for column in ("gender", "race") if pd.notna(row[column])]
        labels.append(f"{row['age']:g} years\n{', '.join(known)}".rstrip())
    title = f"{label(found.card.title)}: {len(thumbs)} random images of {len(found.table):,}"
    return tile_images([*thumbs], labels, min(columns, len(thumbs)), title)


@styled
def tile_images(tiles: Sequence[np.ndarray | None], labels: Sequence[str], columns: int, title: str) -> Figure:
    """Pictures (S, S, 3) in rows, each below its label; None leaves a place empty."""
    rows = -(-len(tiles) // columns)
    side, head = 1.0, 0.38  # of a tile's width
    width = columns * (side + 0.08)
    figure = Figure(figsize=(FIGURE_WIDTH, FIGURE_WIDTH / max(width, 5.4) * rows * (side + head) + 0.45))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.4 / figure.get_figheight()))
    axes.axis("off")
    for place, (tile, text) in enumerate(zip(tiles, labels, strict=True)):
        left, top = place % columns * (side + 0.08), place // columns * (side + head) + head
        if tile is not None:
            axes.imshow(tile, extent=(left, left + side, top + side, top), interpolation="bilinear")
        axes.text(left + side / 2, top - 0.04, text, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-0.04, max(width, 5.4)), ylim=(rows * (side + head), 0), aspect="equal")
    figure.suptitle(title)
    return figure


@styled
def plot_image_stats(found: DatasetProfile) -> Figure | None:
    """Size, brightness, contrast, sharpness and colour of the sampled images. None where none could be opened."""
    table = found.pictures.table
    if not len(table):
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 5.4), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    sizes = table.groupby(["width", "height"]).size().reset_index(name="n")
    panels[0].scatter(
        sizes["width"], sizes["height"], s=12 + 60 * np.sqrt(sizes["n"] / sizes["n"].max()), color=GRAY, alpha=0.6
    )
    one = f"all {sizes['width'][0]} × {sizes['height'][0]}"
    panels[0].set_title(f"size: {one if len(sizes) == 1 else f'{len(sizes):,} different'}", fontsize=10)
    panels[0].set(xlabel="width (pixels)", ylabel="height (pixels)")
    panels[0].margins(0.15)
    for axes, (column, title) in zip(panels[1:], IMAGE_STATS.items(), strict=False):
        axes.hist(table[column], 30, color=GRAY)
        axes.axvline(table[column].median(), color="black", ls="--", lw=1)
        name, _, unit = title.partition(" (")
        axes.set_title(f"{name}, median {table[column].median():.0f}", fontsize=10)
        axes.set(xlabel=unit.rstrip(")"), ylabel="images")
        axes.xaxis.label.set_fontsize(8)
    _brightness_by_group(panels[5], found)
    figure.suptitle(f"{label(found.card.title)}: a random sample of {len(table):,} images")
    return figure


def _brightness_by_group(axes: Axes, found: DatasetProfile) -> None:
    groups = group_columns(found.samples)
    column = "race" if "race" in groups else groups[0] if groups else ""
    if not column:
        axes.remove()
        return
    table = found.pictures.table
    names = [name for name in sorted(found.summary["groups"][column]) if name != UNKNOWN][:6]
    palette = group_colors(found.summary["groups"][column])
    for place, name in enumerate(names):
        values = table.loc[labels_or_unknown(table[column]).eq(name), "brightness"].to_numpy(float)
        plot_violin(axes, place, values, palette[name])
    axes.set_xticks(range(len(names)), [label(name, 9) for name in names], fontsize=8)
    axes.set_title(f"brightness by {label(column)}", fontsize=10)
    axes.set(ylabel="mean grey level, 0 to 255", ylim=(0, 255))
    axes.yaxis.label.set_fontsize(8)


@styled
def plot_mean_faces(found: DatasetProfile) -> Figure | None:
    """The mean face of every age band, of women and of men where that is known. None where faces must be detected first."""
    faces, table = found.pictures.faces, found.pictures.table
    if faces is None or not len(faces):
        return None
    names, codes = age_band_codes(table)
    genders = [name for name in ("female", "male") if table["gender"].eq(name).any()]
    rows = {name: np.where(table["gender"].eq(name), codes, -1) for name in genders} or {"all": codes}
    means = {name: mean_face_by_group(faces, of) for name, of in rows.items()}
    tiles, labels = [], []
    for name, of in rows.items():
        for code, band in enumerate(names):
            tiles.append(means[name].get(code))
            labels.append(f"{name}, {band}\n(n = {int((of == code).sum())})")
    title = f"{label(found.card.title)}: mean faces by age band (years); bands of few images are left empty"
    return tile_images(tiles, labels, len(names), title)
