"""Labels that do not fit: images that a model judges quite unlike those it judges alike."""

import numpy as np
import pandas as pd

N_NEIGHBORS = 201
MIN_ROWS = 100  # images; among fewer there is no telling what is usual
MAD_THRESHOLD = 5.0  # robust standard deviations


def suspected_label_errors(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose label lies far from those of images with nearly the same prediction, the farthest first.

    Among images that a model takes for the same age, labels scatter by the model's error. A label that lies more than five
    robust standard deviations (1.48 times the median absolute deviation) from their median is wrong, or the face is unusual:
    only a person can decide.

    Args:
        table: age and age_pred in years, one row an image.

    Returns:
        Those rows with the further column `far`, signed: positive where the label is too old.
    """
    if len(table) < MIN_ROWS:
        return table.head(0).assign(far=0.0)
    ordered = table.sort_values("age_pred", kind="stable")
    apart = (ordered["age"] - ordered["age_pred"]).reset_index(drop=True)
    middle = _rolling_median(apart)
    spread = 1.4826 * _rolling_median((apart - middle).abs())
    far = (apart - middle).to_numpy(float) / np.maximum(spread.to_numpy(float), 0.5)
    order = np.argsort(-np.abs(far), kind="stable")
    return ordered.assign(far=far).iloc[order[: int((np.abs(far) > MAD_THRESHOLD).sum())]]


def largest_errors(table: pd.DataFrame, count: int = 24) -> pd.DataFrame:
    """The rows with the largest errors, the largest first."""
    errors = (table["age_pred"] - table["age"]).abs()
    return table.loc[errors.sort_values(ascending=False, kind="stable").index[:count]]


def _rolling_median(values: "pd.Series[float]") -> "pd.Series[float]":
    return (
        values.rolling(min(N_NEIGHBORS, len(values)), center=True, min_periods=MIN_ROWS // 2).median().bfill().ffill()
    )
