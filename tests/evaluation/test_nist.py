import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.evaluation.nist import nist


def faces(n: int = 3000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(10, 60, n).astype(float)
    gender = rng.choice(["female", "male"], n, p=[0.2, 0.8])
    table = pd.DataFrame({"age": age, "age_pred": age + rng.normal(0, 4, n), "gender": gender})
    return table.assign(region=rng.choice(["north", "south"], n), sample_id=np.arange(n).astype(str))


def test_mae_is_the_plain_mean_over_cells_of_sex_and_age():
    table = faces()
    found = nist(table, resamples=0)
    errors = (table.age_pred - table.age).abs()
    cells = errors.groupby([table.gender, table.age]).mean()
    assert found["mae"]["value"] == pytest.approx(cells.mean())
    assert found["mae"]["cells"] == len(cells)
    assert found["by_sex"]["female"]["mae"]["value"] == pytest.approx(cells["female"].mean())
    assert set(found["by_origin"]["groups"]) == {"north", "south"}
    assert found["accuracy"]["3"]["value"] == pytest.approx((errors <= 3).mean())


def test_the_tasks_are_rates():
    table = faces()
    found = nist(table, resamples=0)
    teens = table.age.between(13, 16)
    said = (table.age_pred >= 13) & (table.age_pred < 17)
    assert found["age_range_13_16"]["tpr"]["value"] == pytest.approx(said[teens].mean())
    assert found["age_range_13_16"]["fpr"]["value"] == pytest.approx(said[~teens].mean())
    young = table.age < 18
    assert found["challenge_25"]["challenge"]["25"]["fpr"]["value"] == pytest.approx(
        (table.age_pred[young] >= 25).mean()
    )


def test_without_gender_the_layout_is_refused():
    with pytest.raises(UserError, match="--col gender"):
        nist(faces().drop(columns="gender"))


def test_mean_over_cells_of_single_rows_has_an_interval():
    # One row in each cell shows no spread within cells; neighboring ages do.
    rng = np.random.default_rng(0)
    age = np.repeat(np.arange(20.0, 60), 2)
    table = pd.DataFrame({"age": age, "age_pred": age + rng.normal(0, 4, 80), "gender": ["female", "male"] * 40})
    mae = nist(table, resamples=200)["mae"]
    spread = np.abs(table["age_pred"] - age).std() / 80**0.5
    assert mae["high"] - mae["low"] == pytest.approx(2 * 1.96 * spread, rel=0.3)


def test_accuracy_of_one_is_not_certain():
    table = pd.DataFrame({"age": np.arange(40.0), "age_pred": np.arange(40.0) + 0.1, "gender": ["female", "male"] * 20})
    assert nist(table, resamples=100)["accuracy"]["5"]["low"] == pytest.approx(0.025 ** (1 / 40))
