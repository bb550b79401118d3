"""All figures of a dataset, with what is said below them."""

from typing import Any

from matplotlib.figure import Figure

from agebench.analysis.explore import Explored
from agebench.analysis.explore_images import average_faces, image_measures, sample_grid
from agebench.analysis.explore_labels import crossing, histograms, parts, pyramids, violins


def figures_of(found: Explored) -> dict[str, tuple[Figure | None, str]]:
    """Every figure of one dataset with its caption."""
    pairs: dict[str, Any] = {
        f"crosstab-{key.replace('*', '-')}": (
            crossing(found, *key.split("*")), f"Cross-tabulation of {key.replace('*', ' and ')}."
        )
        for key in [*found.summary["crosstabs"]][:3]
    }  # fmt: skip
    return {
        "samples": (sample_grid(found), "Random images with their labels. Images of people: look at them, do not publish them."),
        "histograms": (histograms(found), "Images by age and by group."),
        **pairs,
        "age-by-group": (
            violins(found), "Age by group: the violin is the shape, the box median and quartiles, whiskers 1.5 box lengths. "
            "Groups of fewer than 30 images are shown as points.",
        ),
        "pyramids": (pyramids(found), "Age pyramids: women left, men right, five years a bar; scales differ between panels."),
        "parts": (parts(found), "Train, validation and test part, as a run with this seed divides the images."),
        "images": (image_measures(found), "What the image files are like; dashed: the median."),
        "mean-faces": (average_faces(found), "Mean faces on the template that models see: sharp where faces are aligned well."),
    }  # fmt: skip
