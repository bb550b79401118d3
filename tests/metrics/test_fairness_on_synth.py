"""Generated faces, whose truth is known: a planted bias is found, and none where there is none."""

import io

import numpy as np
import pytest
from PIL import Image

from agebench.data.readers.synth import SynthReader
from agebench.metrics.evaluate import evaluate

GROUPS = ("gender", "race")


def ridge_estimates(reader: SynthReader, train: int, side: int = 24) -> np.ndarray:
    """Ages that a ridge regression on the pixels, fitted on the first `train` pictures, gives to all."""
    table = reader.read().table
    pixels = np.stack(
        [
            np.asarray(
                Image.open(io.BytesIO(reader.image_bytes(path))).convert("RGB").resize((side, side)), float
            ).ravel()
            for path in table["path"]
        ]
    )
    pixels = (pixels - pixels[:train].mean(axis=0)) / 64
    age = table["age"].to_numpy()
    mean = age[:train].mean()
    # The dual form: as many unknowns as pictures.
    kernel = pixels[:train] @ pixels[:train].T + 300 * np.eye(train)
    return mean + pixels @ (pixels[:train].T @ np.linalg.solve(kernel, age[:train] - mean))


@pytest.mark.slow
@pytest.mark.parametrize(("column", "group"), [("race", "dark"), ("gender", "female")])
def test_a_bias_planted_in_the_pictures_is_found(column, group):
    reader = SynthReader(None, GROUPS, count=1600, seed=4, size=48, bias_group=f"{column}={group}", bias_strength=0.9)
    table = reader.read().table.assign(age_pred=ridge_estimates(reader, 800))[800:]
    gaps = evaluate(table, groups=GROUPS).gaps
    assert gaps[column].flagged
    assert gaps[column].age_standardized.worst == group
    other = "gender" if column == "race" else "race"
    assert not gaps[other].flagged


@pytest.mark.slow
def test_with_no_bias_nothing_is_flagged_in_95_of_100_seeds():
    flagged = 0
    for seed in range(100):
        table = SynthReader(None, GROUPS, count=600, seed=seed).read().table
        rng = np.random.default_rng(seed)
        # Errors that grow with age, and that people carry from picture to picture.
        own = dict(zip(table["subject"].unique(), rng.normal(0, 2, table["subject"].nunique()), strict=True))
        error = rng.normal(0, 2 + table["age"] / 20) + table["subject"].map(own)
        gaps = evaluate(table.assign(age_pred=table["age"] + error), groups=GROUPS, resamples=200, seed=seed).gaps
        assert set(gaps) == {"gender", "race", "gender*race"}
        flagged += any(gap.flagged for gap in gaps.values())
    assert flagged <= 5
