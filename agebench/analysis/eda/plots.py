"""All figures of a dataset profile, with their captions."""

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
            plot_sample_grid(profile),
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
        "images": (plot_image_stats(profile), "Image statistics; dashed: the median."),
        "mean-faces": (
            plot_mean_faces(profile),
            "Mean aligned faces; sharp features indicate accurate alignment.",
        ),
    }
