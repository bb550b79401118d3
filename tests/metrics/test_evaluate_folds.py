import numpy as np
import pandas as pd
import pytest

from agebench.metrics.cross_validation import evaluate_folds
from agebench.metrics.evaluate import evaluate, evaluate_seeds


def answers(images: list[int], seed: int, fold: str) -> pd.DataFrame:
    ages = np.array(images) % 60 + 5.0
    return pd.DataFrame(
        {
            "sample_id": [f"s{image}" for image in images],
            "age": ages,
            "age_pred": ages + np.random.default_rng(seed).normal(0, 5, len(images)),
            "subject": None,
            "tested_in": fold,
        }
    )


def test_images_that_are_tested_once_are_one_test() -> None:
    table = pd.concat([answers(list(range(40)), 1, "a"), answers(list(range(40, 50)), 2, "b")])
    found = evaluate_folds(table, resamples=100)
    folds = found.folds
    whole = evaluate(table.drop(columns="tested_in").reset_index(drop=True), resamples=100)
    assert found.model_copy(update={"folds": None}) == whole
    assert (folds.names, folds.n) == (["a", "b"], [40, 10])


def test_folds_that_answer_about_the_same_images_are_seeds() -> None:
    apart = [answers(list(range(40)), seed, f"{seed}") for seed in (1, 2, 3)]
    found = evaluate_folds(pd.concat(apart), resamples=100)
    seeds = evaluate_seeds([table.drop(columns="tested_in") for table in apart], resamples=100)
    assert found.model_copy(update={"folds": None}) == seeds


def test_answers_about_one_image_are_resampled_together() -> None:
    table = pd.concat([answers(list(range(60)), 1, "a"), answers(list(range(30, 90)), 2, "b")])
    found = evaluate_folds(table, resamples=300)
    assert (found.n, found.subjects, found.method.resampled) == (120, None, "images")
    assert found.notes[-1] == "90 images, tested 1.3 times each on average"
    apart = evaluate(table.assign(subject=[f"{row}" for row in range(120)]), resamples=300)
    assert found.overall["mae"].value == pytest.approx(apart.overall["mae"].value)
