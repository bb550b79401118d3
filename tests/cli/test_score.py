import json

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main


@pytest.fixture
def predictions(tmp_path):
    """300 predictions with a group whose name is a script."""
    rng = np.random.default_rng(0)
    age = rng.integers(5, 70, 300)
    table = pd.DataFrame({"sample_id": [f"i{place}" for place in range(300)], "age": age})
    table["age_pred"] = (age + rng.normal(0, 4, 300)).round(2)
    table["age_std"] = 4.0
    table["tone"] = rng.choice(["<script>alert(1)</script>", "a|b", "$x_1$\x1b[31m"], 300)
    path = tmp_path / "predictions.csv"
    table.to_csv(path, index=False)
    return path


def test_json_is_the_structure_of_metrics(predictions, capsys):
    assert main(["score", str(predictions), "--json", "--name", "mine", "--resamples", "200"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["schema"] == 2
    entry = metrics["tests"]["mine"]
    assert entry["n"] == 300
    assert entry["overall"]["mae"]["ci_low"] < entry["overall"]["mae"]["value"] < entry["overall"]["mae"]["ci_high"]
    assert set(entry["age_gates"]) == {"13", "16", "18", "21"}
    assert entry["uncertainty"]["source"] == "age_std"
    assert len(entry["groups"]["tone"]) == 3


def test_the_published_figures_come_out(test_data, capsys):
    folder = test_data / "published-predictions"
    files = [str(folder / f"morph2-or-cnn-seed{seed}.csv") for seed in range(3)]
    assert (
        main(["score", *files, "--labels", str(folder / "morph2-test-labels.csv"), "--json", "--resamples", "0"]) == 0
    )
    entry = json.loads(capsys.readouterr().out)["tests"]["morph2-or-cnn-seed0"]
    assert [round(value, 2) for value in entry["seeds"]["metrics"]["mae"]["values"]] == [2.87, 2.81, 2.82]
    assert [round(value, 2) for value in entry["seeds"]["metrics"]["rmse"]["values"]] == [4.08, 3.97, 3.87]


def test_what_is_written_and_printed_holds_no_foreign_markup(predictions, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["score", str(predictions), "--out", str(out), "--calibration", str(predictions), "--resamples", "100"])
        == 0
    )
    screen, report = capsys.readouterr().out, (out / "report.md").read_text(encoding="utf-8")
    assert "| tone: <script>alert(1)</script> |" in screen
    assert "| tone: a|b " in screen
    assert "| tone: $x_1$\ufffd[31m " in screen
    assert main(["score", str(predictions), "--full", "--resamples", "100"]) == 0
    for text in (report, capsys.readouterr().out):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert "a\\|b" in text
        assert "\x1b" not in text
    assert "\x1b" not in screen
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["tests"]["predictions"]["conformal"]["levels"]
    pictures = {path.name for path in (out / "figures").iterdir()}
    assert pictures == {
        *(
            "scatter.png",
            "error-by-age.png",
            "cumulative-scores.png",
            "groups-0.png",
            "gates-0.png",
            "det-0.png",
            "uncertainty-0.png",
        ),
    }
    assert all(f"figures/{name}" in report for name in pictures)


def test_options_reach_the_figures(predictions, capsys):
    options = [
        "--group",
        "tone",
        "--train-ages",
        "20",
        "40",
        "--legal-age",
        "18",
        "--challenge",
        "30",
        "--resamples",
        "0",
    ]
    assert main(["score", str(predictions), "--json", *options]) == 0
    entry = json.loads(capsys.readouterr().out)["tests"]["predictions"]
    assert entry["train_ages"] == [20, 40]
    assert list(entry["age_gates"]["18"]["challenge"]) == ["30"]
    assert entry["overall"]["mae"]["ci_low"] is None


def test_the_nist_layout_needs_gender(predictions, capsys):
    assert main(["score", str(predictions), "--preset", "nist", "--resamples", "100"]) == 2
    assert "needs the column gender" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("a,20,21\n", [], "one row"),
        ("a,20,nan\nb,20,21\n", [], "not a finite number"),
        ("a,20,21\nb,20,21\n", ["--group", "sex"], "no group column 'sex'"),
        ("a,20,21\nb,20,21\n", ["--resamples", "7"], "--resamples 7: give 100 or more"),
        ("a,20,21\nb,20,21\n", ["--seed", "-1"], "--seed -1: give 0 or more"),
        ("a,20,21\nb,20,21\n", ["--challenge", "nan"], "--challenge nan: give a number, from 0 to 120"),
        ("a,20,21\nb,20,21\n", ["--challenge", "inf"], "--challenge inf: give a number"),
        ("a,20,21\nb,20,21\n", ["--train-ages", "nan", "30"], "--train-ages nan: give a number"),
        ("a,20,21\nb,20,21\n", ["--train-ages", "40", "20"], "train ages (40, 20): give the lower age first"),
        ("a,20,21\nb,20,21\n", ["--legal-age", "-5"], "--legal-age -5: give from 1 to 120"),
        ("a,20,21\nb,20,21\n", ["--legal-age", "18.5"], "--legal-age 18.5: give an integer"),
        ("a,20,21\nb,20,21\n", ["--gate", "150@200"], "gate '150@200': give ages from 1 to 120 years"),
        ("a,20,21\nb,20,21\n", ["--match", "stem"], "--match stem joins predictions to labels"),
        ("a,20,21\nb,20,21\n", ["--col", "age_pred=zz"], "no column 'zz' in"),
        ("a,20,21\nb,20,21\n", ["--p-first-age", "-7"], "--p-first-age -7: give from 0 to 120"),
        ("a,20,21\nb,20,21\n", ["--min-group", "0"], "--min-group 0: give 1 or more"),
        ("a,20,21\nb,20,1e300\n", [], "age_pred of 'b' is 1e+300, which is no number of years"),
        ("a,20,21\nb,20,21\n", ["--labels", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_bad_input_ends_with_one_line_and_2(tmp_path, capsys, rows, options, message):
    path = tmp_path / "p.csv"
    path.write_text("sample_id,age,age_pred\n" + rows, encoding="utf-8")
    assert main(["score", str(path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_named_column_may_be_in_one_of_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"sample_id": [f"i{n}" for n in range(40)], "age": 30.0, "age_pred": np.arange(20.0, 60.0)})
    table.to_csv("cal.csv", index=False)
    table[["sample_id", "age_pred"]].to_csv("preds.csv", index=False)
    table[["sample_id"]].assign(years=31.0, age=1.0).to_csv("lab.csv", index=False)
    command = ["score", "preds.csv", "--labels", "lab.csv", "--calibration", "cal.csv", "--resamples", "0", "--json"]
    assert main([*command, "--col", "age=years"]) == 0
    score = json.loads(capsys.readouterr().out)["tests"]["preds"]
    assert score["overall"]["bias"]["value"] == pytest.approx(table["age_pred"].mean() - 31)
    assert main([*command, "--col", "age=yers"]) == 2
    error = capsys.readouterr().err
    assert "--col age=yers: no column 'yers' in lab.csv or cal.csv; did you mean 'years'?" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("copied", ["same", "link", "copy", "reordered"])
def test_copies_of_one_seed_are_no_seeds(predictions, tmp_path, monkeypatch, capsys, copied):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.csv"
    if copied == "link":
        other.symlink_to(predictions)
    else:
        rows = pd.read_csv(predictions)
        (rows if copied == "copy" else rows[::-1]).assign(tone="a").to_csv(other, index=False)
    other = tmp_path / "." / predictions.name if copied == "same" else other
    assert main(["score", "predictions.csv", str(other), "--resamples", "0"]) == 2
    error = capsys.readouterr().err
    same = "are the same predictions" if copied in ("same", "link") else "have the same estimate of every image"
    assert f"predictions.csv and {other} {same}" in error
    way_out = "leave one out, or if the system does not depend on the seed, give one file\n"
    assert copied in ("same", "link") or error.endswith(way_out)
    assert error.count("\n") == 1
    rows = pd.read_csv(predictions)
    rows.loc[0, "age_pred"] += 1
    rows.to_csv(tmp_path / "second.csv", index=False)
    assert main(["score", "predictions.csv", "second.csv", "--resamples", "0"]) == 0


def test_figures_of_the_first_of_several_files_are_named_and_decide_nothing(predictions, tmp_path, capsys):
    rows = pd.read_csv(predictions)
    second = tmp_path / "second.csv"
    rows.assign(age_pred=rows["age_pred"] + 9).to_csv(second, index=False)
    command = ["score", str(predictions), str(second), "--resamples", "0"]
    assert main([*command, "--require", "mae<=1", "--out", str(tmp_path / "out")]) in (3, 4)
    note = "2 seeds (figures are the mean over them). Of the first file alone: age gates and uncertainty."
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, report):
        assert note in text
        assert "| minors that pass at T = 18 (legal age 18), first file " in text
    assert main(command[:2] + command[3:]) == 0
    assert "first file" not in capsys.readouterr().out
    assert main([*command, "--require", "mae<=4", "--require", "fpr(18@25)<=0.01"]) == 2
    error = capsys.readouterr().err
    assert (
        f"requirement 'fpr(18@25)<=0.01': of several files, age gates are those of the first ({predictions})" in error
    )
    assert "agebench compare --gate 18@25" in error
    assert error.count("\n") == 1


def test_groups_below_the_own_minimum_are_marked_without_a_number(predictions, tmp_path, capsys):
    table = pd.read_csv(predictions)
    table["tone"] = np.where(np.arange(len(table)) < 60, "few", "many")
    table.to_csv(predictions, index=False)
    command = ["score", str(predictions), "--resamples", "0", "--group", "tone"]
    assert main([*command, "--min-group", "100", "--out", str(tmp_path / "out")]) == 0
    assert "60 (not compared) |" in capsys.readouterr().out
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| few (not compared) |" in report
    assert "< 30" not in report
    assert main(command) == 0
    assert "60 (not" not in capsys.readouterr().out


@pytest.mark.parametrize("column", ["age_std", "p"])
def test_seeds_that_differ_in_one_column_of_estimates_are_no_copies(tmp_path, capsys, column):
    paths = [tmp_path / f"{name}.parquet" for name in ("first", "second", "copy")]
    table = pd.DataFrame({"sample_id": ["a", "b"], "age": [0.0, 1.0], "age_pred": 0.5, "age_std": 0.5})
    table["p"] = [[0.5, 0.5], [0.5, 0.5]]
    table.to_parquet(paths[0])
    table.assign(**{column: {"age_std": [0.5, 0.25], "p": [[0.5, 0.5], [0.25, 0.75]]}[column]}).to_parquet(paths[1])
    assert main(["score", *map(str, paths[:2]), "--resamples", "0"]) == 0
    capsys.readouterr()
    table["p"] = [np.asarray(row, np.float32) for row in table["p"]]
    table[::-1].drop(columns="age_std").to_parquet(paths[2])
    assert main(["score", str(paths[0]), str(paths[2]), "--resamples", "0"]) == 2
    assert f"{paths[0]} and {paths[2]} have the same estimate of every image" in capsys.readouterr().err


NO_LISTS = "column p of 'i0' is not a list of numbers, one probability an age"


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        ({"p": "0.5 0.5"}, [], NO_LISTS),
        ({"p": 0.5}, [], NO_LISTS),
        ({"p": [[[0.5], [0.5]]] * 4}, [], NO_LISTS),
        ({"p": [["a", "b"]] * 4}, [], NO_LISTS),
        ({"p": [[0.5, 0.5]] * 4}, ["--group", "p"], "group 'p': the column 'p' holds lists or structs"),
        ({"tags": [{"a": 1}] * 4}, ["--group", "tags"], "group 'tags': the column 'tags' holds lists or structs"),
        ({"subject": [[1]] * 4}, [], "the column subject holds lists or structs"),
        ({"age_band": ["x", "y"] * 2}, [], "group 'age_band': 'age_band' is what the bands of the true age are called"),
    ],
)
def test_a_column_that_is_not_what_its_name_says_is_one_line_and_2(tmp_path, capsys, column, options, message):
    table = pd.DataFrame({"sample_id": [f"i{n}" for n in range(4)], "age": 20.0, "age_pred": 0.5})
    path = tmp_path / "p.parquet"
    table.assign(**column).to_parquet(path)
    assert main(["score", str(path), "--resamples", "0", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_groups_are_labels_unless_others_are_named(tmp_path, capsys):
    table = pd.DataFrame({"sample_id": [f"i{n}" for n in range(40)], "age": 20.0, "age_pred": 21.0})
    table = table.assign(gender=["f", "m"] * 20, gender_pred=["f", "f", "m", "m"] * 10, gender_prob=[0.5, 0.9] * 20)
    table = table.assign(tested_in=[1, 2] * 20, age_band=["young", "old"] * 20, tags=[[1]] * 40)
    path = tmp_path / "p.parquet"
    table.to_parquet(path)

    def groups(*options):
        assert main(["score", str(path), "--json", "--resamples", "0", "--col", "theirs=age_band", *options]) == 0
        return set(json.loads(capsys.readouterr().out)["tests"]["p"]["groups"])

    assert groups() == {"age_band", "gender", "theirs", "gender*theirs"}
    assert groups("--group", "tested_in", "--group", "gender_pred") == {"age_band", "tested_in", "gender_pred"}


def test_all_one_age_is_scored_and_said(tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text("sample_id,age,age_pred\n" + "".join(f"i{n},30,{n}\n" for n in range(20, 40)), encoding="utf-8")
    assert main(["score", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "every label is 30 years" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "code"), [(["mae<=9"], 0), (["mae<=9", "fpr(18@25)<=0.0001"], 3), (["mae<=9", "mae<=0.1"], 4)]
)
def test_requirements_set_the_exit_code(tmp_path, capsys, limits, code):
    rng = np.random.default_rng(0)
    age = rng.integers(10, 60, 400).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(400), "age": age, "age_pred": age + rng.normal(0, 3, 400)})
    table.to_csv(tmp_path / "p.csv", index=False)
    options = [word for limit in limits for word in ("--require", limit)]
    assert main(["score", str(tmp_path / "p.csv"), "--resamples", "200", "--json", *options]) == code
    results = json.loads(capsys.readouterr().out)["tests"]["p"]["requirements"]
    assert results[0]["limit"] == 9.0
    assert main(["score", str(tmp_path / "p.csv"), "--resamples", "200", *options]) == code
    assert "### Requirements" in capsys.readouterr().out
