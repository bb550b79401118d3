"""The one result type, and estimators that are functions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
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
    for other in ([np.zeros((8, 8, 3), np.uint8)], Image.new("RGB", (8, 8)), None, "a.jpg"):
        with pytest.raises(UserError, match=r"faces of type \w+; they must be an array \(N, 8, 8, 3\), uint8"):
            check_crops(other, 8)  # type: ignore[arg-type]
    assert pad_planes(np.ones((1, 8, 8, 3), np.uint8), 6).sum() == 192


def test_a_function_must_return_one_age_per_face() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    assert FunctionEstimator(lambda x: [30] * len(x)).estimate(images).age.tolist() == [30] * 4
    with pytest.raises(AgebenchError, match=r"returned the shape \(2,\) for 4 faces"):
        FunctionEstimator(lambda _: [1, 2]).estimate(images)
    with pytest.raises(AgebenchError, match="could not convert"):
        FunctionEstimator(lambda _: "young").estimate(images)


def test_a_function_may_return_a_tensor_with_a_gradient() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    ages = torch.full((2, 1), 30.0, dtype=torch.bfloat16, requires_grad=True)
    assert FunctionEstimator(lambda _: ages).estimate(images).age.tolist() == [30, 30]
    with pytest.raises(AgebenchError, match=r"requires grad"):
        FunctionEstimator(lambda _: list(ages.float().reshape(-1))).estimate(images)


def test_a_face_without_an_estimate_has_a_reason() -> None:
    estimator = FunctionEstimator(lambda x: np.where(x.mean(axis=(1, 2, 3)) > 0, 30, np.nan), InputSpec(32))
    images = [Image.new("RGB", (32, 32), color) for color in ("black", "white")]
    with Predictor(estimator) as predictor:
        table = predictor.predict(images, faces="none")
    assert table["error"].tolist() == ["the model returned no estimate", ""]
    assert table["age"].isna().tolist() == [True, False]


def test_an_infinite_age_is_no_estimate() -> None:
    with Predictor(FunctionEstimator(lambda x: [np.inf] * len(x), InputSpec(32))) as predictor:
        (row,) = predictor.predict([np.zeros((32, 32, 3), np.uint8)], faces="none").itertuples()
    assert np.isnan(row.age)
    assert row.error == "the model returned no estimate"


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 1), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.array(1),
        Image.new("RGB", (32, 32)),
        {"a.jpg": 1},
        pd.DataFrame({"path": ["a.jpg"]}),
        None,
        3,
        "a.jpg",
    ],
    ids=lambda images: type(images).__name__,
)
def test_what_is_no_list_of_images_is_refused(images: Any) -> None:
    with (
        Predictor(FunctionEstimator(lambda x: [30] * len(x), InputSpec(32))) as predictor,
        pytest.raises(UserError, match="give a list of images, also of one"),
    ):
        predictor.predict(images, faces="none")


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (2, 32, 32)], ids=["RGB", "gray"])
def test_a_stack_of_images_is_a_list_of_them(shape: tuple[int, ...]) -> None:
    with Predictor(FunctionEstimator(lambda x: [30] * len(x), InputSpec(32))) as predictor:
        rows = predictor.predict(np.zeros(shape, np.uint8), faces="none")
    assert rows.age.tolist() == [30, 30]


def test_levels_and_ages_must_be_numbers() -> None:
    predictor = Predictor(FunctionEstimator(lambda x: [30] * len(x)))
    with pytest.raises(UserError, match=r"level = 'x': give a number, e\.g\. 0\.9"):
        predictor.interval("x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threshold = '18': give a number"):
        predictor.gate("18", 25)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="challenge = '25': give a number"):
        predictor.gate(18, "25")  # type: ignore[arg-type]
