import json

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main


def test_a_plan_without_and_with_a_pilot(tmp_path, capsys):
    assert main(["plan", "--gap", "0.5", "--fpr", "0.01"]) == 0
    assert "From typical values" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    age = rng.integers(10, 60, 300).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(300), "age": age, "age_pred": age + rng.normal(0, 3, 300)})
    table.assign(gender=rng.choice(["f", "m|x"], 300)).to_csv(tmp_path / "p.csv", index=False)
    assert main(["plan", str(tmp_path / "p.csv")]) == 0
    text = capsys.readouterr().out
    assert "What this test set could have shown" in text
    assert "m\\|x" in text
    assert main(["plan", str(tmp_path / "p.csv"), "--json", "--power", "0.9"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["pilot"]["n"], plan["power"], len(plan["groups"])) == (300, 0.9, 2)


def test_an_impossible_power_ends_with_one_line_and_2(capsys):
    assert main(["plan", "--power", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["--half-width", "--gap", "--fpr", "--power", "--images-per-person", "--pairs"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "many"])
def test_numbers_out_of_range_end_with_one_line_and_2(capsys, option, value):
    assert main(["plan", option, value]) == 2
    error = capsys.readouterr().err
    assert f"{option} {value}: give " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_pilot_of_few_images_is_refused(tmp_path, capsys, n):
    pd.DataFrame({"sample_id": np.arange(n), "age": 30.0, "age_pred": 31.0}).to_csv(tmp_path / "p.csv", index=False)
    assert main(["plan", str(tmp_path / "p.csv")]) == 2
    assert f"a pilot of {n} image" in capsys.readouterr().err
