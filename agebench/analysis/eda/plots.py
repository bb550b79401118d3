"""All figures of a dataset, with what is said below them."""

from typing import Any

from matplotlib.figure import Figure

from agebench.analysis.eda.image_plots import plot_image_stats, plot_mean_faces, plot_sample_grid
from agebench.analysis.eda.label_plots import (
    plot_age_violins,
    plot_crosstab,
    plot_histograms,
    plot_population_pyramids,
    plot_splits,
)
from agebench.analysis.eda.profile import DatasetProfile


def profile_figures(found: DatasetProfile) -> dict[str, tuple[Figure | None, str]]:
    """Every figure of one dataset with its caption."""
    pairs: dict[str, Any] = {
        f"crosstab-{key.replace('*', '-')}": (
            plot_crosstab(found, *key.split("*")), f"Cross-tabulation of {key.replace('*', ' and ')}."
        )
        for key in [*found.summary["crosstabs"]][:3]
    }  # fmt: skip
    return {
        "samples": (
            plot_sample_grid(found),
            "Random images with their labels. Images of people: look at them, do not publish them.",
        ),
        "histograms": (plot_histograms(found), "Images by age and by group."),
        **pairs,
        "age-by-group": (
            plot_age_violins(found),
            "Age by group: the violin is the shape, the box median and quartiles, whiskers "
            "1.5 box lengths. "
            "Groups of fewer than 30 images are shown as points.",
        ),
        "pyramids": (
            plot_population_pyramids(found),
            "Age pyramids: women left, men right, five years a bar; scales differ between panels.",
        ),
        "parts": (plot_splits(found), "Train, validation and test part, as a run with this seed divides the images."),
        "images": (plot_image_stats(found), "What the image files are like; dashed: the median."),
        "mean-faces": (
            plot_mean_faces(found),
            "Mean faces on the template that models see: sharp where faces are aligned well.",
        ),
    }
