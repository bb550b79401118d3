"""All works by name."""

from collections.abc import Callable

from comparison import figures, images, start, training
from comparison.timing import Work

WORKS: dict[str, Callable[[bool], Work]] = {
    "bootstrap": figures.bootstrap,
    "score": figures.score,
    "corruptions": images.corruptions,
    "conformal": figures.conformal,
    "calibration": figures.calibration,
    "duplicates": images.duplicates,
    "training": training.lite0,
    "training-resnet50": training.resnet50,
    "help": start.show_help,
    "list": start.show_list,
    "photograph": start.first_photograph,
}
