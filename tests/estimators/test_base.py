"""The one result type, and estimators that are functions."""

import numpy as np
import pytest
from PIL import Image

from agebench.errors import AgebenchError, UserError
from agebench.estimators.base import AgeEstimates, EstimatorInfo, InputSpec, check_crops, concat_estimates, pad_planes
from agebench.estimators.function import FunctionEstimator
from agebench.inference.predictor import Predictor


def test_batches_are_joined_field_by_field() -> None:
    first = AgeEstimates(np.ones(2), np.ones(2), np.ones((2, 3)), 16, None, {"gender": np.ones((2, 2))})
    second = AgeEstimates(
        np.zeros(1), np.zeros(1), np.zeros((1, 3)), 16, np.array([True]), {"gender": np.zeros((1, 2))}
    )
    joined = concat_estimates([first, second])
    assert joined.age.tolist() == [1, 1, 0]
    assert joined.std is not None
    assert joined.probs is not None
    assert joined.failed is not None
    assert (joined.std.shape, joined.probs.shape, joined.first_age) == ((3,), (3, 3), 16)
    assert joined.failed.tolist() == [False, False, True]
    assert joined.tasks["gender"].shape == (3, 2)
    assert len(concat_estimates([])) == 0


@pytest.mark.parametrize(
    ("info", "status"),
    [
        (EstimatorInfo("a", trained_on=("utk",)), "known"),
        (EstimatorInfo("a"), "unknown"),
        (EstimatorInfo("a", training_data="FG-NET"), "none stated"),
    ],
)
def test_contamination_follows_from_the_training_data(info: EstimatorInfo, status: str) -> None:
    assert info.contamination("utk") == status


def test_crops_of_another_shape_are_refused() -> None:
    check_crops(np.zeros((0, 8, 8, 3), np.uint8), 8)
    for wrong in (np.zeros((1, 8, 8, 3)), np.zeros((1, 9, 9, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(UserError, match=r"they must be \(N, 8, 8, 3\), uint8"):
            check_crops(wrong, 8)
    assert pad_planes(np.ones((1, 8, 8, 3), np.uint8), 6).sum() == 192


def test_a_function_must_return_one_age_per_face() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    assert FunctionEstimator(lambda x: [30] * len(x)).estimate(images).age.tolist() == [30] * 4
    with pytest.raises(AgebenchError, match=r"returned the shape \(2,\) for 4 faces"):
        FunctionEstimator(lambda _: [1, 2]).estimate(images)
    with pytest.raises(AgebenchError, match="could not convert"):
        FunctionEstimator(lambda _: "young").estimate(images)


def test_a_face_without_an_estimate_has_a_reason() -> None:
    estimator = FunctionEstimator(lambda x: np.where(x.mean(axis=(1, 2, 3)) > 0, 30, np.nan), InputSpec(32))
    images = [Image.new("RGB", (32, 32), color) for color in ("black", "white")]
    with Predictor(estimator) as predictor:
        table = predictor.predict(images, faces="none")
    assert table["error"].tolist() == ["the model returned no estimate", ""]
    assert table["age"].isna().tolist() == [True, False]
