import numpy as np

from agebench.analysis.attribution.methods import select_methods
from agebench.analysis.attribution.sanity_checks import sanity_check
from agebench.analysis.attribution.schema import SanityChecks
from agebench.estimators.base import InputSpec
from agebench.estimators.function import FunctionEstimator
from agebench.training.dataloader import FaceDataset

COUNT, SIZE = 6, 32


def upper_half(images: np.ndarray) -> np.ndarray:
    ages: np.ndarray = images[:, : images.shape[1] // 2].mean(axis=(1, 2, 3)) / 255 * 80
    return ages


def checks(clusters: np.ndarray, *, sign: float = 1.0) -> SanityChecks:
    """Of maps that mark the upper half of the images, or with the sign -1 the lower half."""
    pixels = np.random.default_rng(0).integers(180, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    data = FaceDataset(pixels, np.arange(COUNT), np.full(COUNT, 30, np.float32))
    target, _, _ = select_methods(FunctionEstimator(upper_half, InputSpec(SIZE)), data, ["occlusion"])
    maps = np.zeros((COUNT, SIZE, SIZE), np.float32)
    maps[:, : SIZE // 2] = (1 + sign) / 2
    maps[:, SIZE // 2 :] = (1 - sign) / 2
    return sanity_check(target, data, {"occlusion": maps}, clusters)[0]["occlusion"]


def test_the_verdict_on_faces_of_several_people() -> None:
    good, bad = checks(np.arange(COUNT)), checks(np.arange(COUNT), sign=-1)
    assert (good.passed, good.verdict()) == (True, "passes all checks")
    assert (bad.passed, bad.verdict()) == (False, "fails: deletion, insertion")


def test_faces_of_one_person_decide_nothing() -> None:
    found = checks(np.zeros(COUNT, np.int64))
    assert (found.passed, found.deletion.passed, found.insertion.passed) == (None, None, None)
    assert found.verdict() == "not determined: one person"
