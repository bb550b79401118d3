"""Regions of the face that stress tests and heatmaps report, where the faces are framed otherwise than by the template."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.analysis.attribution.run import AttributionResult, explain
from agebench.analysis.robustness.corruptions import select_corruptions
from agebench.analysis.robustness.report import robustness_text
from agebench.analysis.robustness.run import run_stress
from agebench.analysis.robustness.schema import RobustnessFile
from agebench.data.faces.regions import FACE, missing_regions, region_boxes, region_mask
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators.base import InputSpec
from agebench.estimators.function import FunctionEstimator
from agebench.runs.estimators import SubjectDescription
from agebench.training.dataloader import FaceDataset

COUNT, SIZE = 6, 32


def upper_half(images: np.ndarray) -> np.ndarray:
    ages: np.ndarray = images[:, : images.shape[1] // 2].mean(axis=(1, 2, 3)) / 255 * 80
    return ages


class Subject:
    """A function that is analyzed on a few faces of one framing."""

    def __init__(self, mode: str, coverage: float = 1.0) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
        ages = np.linspace(20, 70, COUNT)
        self.estimator = FunctionEstimator(upper_half, InputSpec(SIZE, coverage))
        self.samples = Samples(pd.DataFrame({"sample_id": [f"{row}" for row in range(COUNT)], "age": ages}))
        self.data = FaceDataset(pixels, np.arange(COUNT), ages.astype(np.float32), mode=mode)

    def opened(self) -> Any:
        return nullcontext(self.estimator)

    def load(self, name: str) -> tuple[Samples, FaceDataset]:
        return self.samples, self.data

    def describe(self, name: str) -> SubjectDescription:
        return SubjectDescription()

    def datasets(self, name: str) -> tuple[str, list[str]]:
        return "", [name]


def stressed(subject: Any, folder: Path, *, required: tuple[str, ...] = ()) -> RobustnessFile:
    chosen = select_corruptions(["blur", "eyes", "forehead", "corners"])
    return run_stress(subject, "few", chosen, folder, required=required, resamples=0)[0]


def explained(subject: Subject) -> AttributionResult:
    pytest.importorskip("captum")
    return explain(subject.estimator, subject.samples, subject.data, methods=["occlusion"], images=COUNT, minimum=1)


@pytest.mark.parametrize("mode", ["box", "boxes", "letterbox"])
def test_stress_leaves_out_regions_of_faces_that_are_cut_out_by_boxes(mode: str, tmp_path: Path) -> None:
    found = stressed(Subject(mode), tmp_path)
    assert found.summary.corruptions == ["blur", "corners"]
    assert len(found.notes) == 2
    assert "Note: the region 'eyes' is left out: the faces are cut out by boxes" in robustness_text(found)


@pytest.mark.parametrize("mode", ["", "none", "landmarks", "detect"])
def test_stress_covers_the_regions_of_aligned_faces(mode: str, tmp_path: Path) -> None:
    found = stressed(Subject(mode), tmp_path)
    assert found.summary.corruptions == ["blur", "eyes", "forehead", "corners"]
    assert "notes" not in found.to_json()


def test_stress_refuses_a_region_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--corruption eyes: the faces are cut out by boxes.*--occlude"):
        stressed(Subject("box"), tmp_path, required=("eyes",))


def test_explain_leaves_out_regions_of_faces_that_are_cut_out_by_boxes() -> None:
    summary = explained(Subject("box")).summary
    assert list(summary.methods["occlusion"].regions) == ["corners"]
    assert sum("is left out: the faces are cut out by boxes" in note for note in summary.notes) == 4


def test_a_region_that_a_tight_crop_does_not_show_is_left_out(tmp_path: Path) -> None:
    found = stressed(Subject("detect", coverage=0.6), tmp_path)
    assert found.summary.corruptions == ["blur", "eyes", "corners"]
    assert found.notes == [
        "the region 'forehead' is left out: it lies outside the images, which show only part of the face"
    ]
    summary = explained(Subject("detect", coverage=0.6)).summary
    assert list(summary.methods["occlusion"].regions) == ["eyes", "nose", "mouth", "corners"]
    assert found.notes[0] in summary.notes


@pytest.mark.parametrize("name", [*FACE, "corners"])
@pytest.mark.parametrize("coverage", [0.3, 0.6, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("offset", [-0.3, 0.0, 0.3])
def test_the_boxes_of_a_region_lie_in_the_image(name: str, coverage: float, offset: float) -> None:
    boxes = region_boxes(name, coverage, offset)
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in boxes)
    assert bool(boxes) == (name not in missing_regions("none", coverage, offset))


def test_a_partly_visible_region_is_covered_by_the_stated_share() -> None:
    """At this coverage the forehead's upper part is outside the image."""
    boxes = region_boxes("forehead", 0.9)
    assert boxes[0][1] == 0
    whole, half = (float(region_mask(boxes, 100, grow).sum()) for grow in (1.0, 0.5**0.5))
    assert half == pytest.approx(whole / 2, rel=0.01)
