import json

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main
from agebench.metrics.schema import ComparisonFile
from agebench.reports.sections.evaluation import compare_text


def write(path, seed: int, spread: float, n: int = 300, labels: int = 0):
    age = np.random.default_rng(labels).uniform(10, 70, n)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age})
    table["age_pred"] = age + np.random.default_rng(seed).normal(0, spread, n)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def test_two_systems_of_two_seeds(tmp_path, capsys):
    good = ",".join(str(write(tmp_path / f"g{seed}.csv", seed, 3)) for seed in (1, 2))
    bad = ",".join(str(write(tmp_path / f"b{seed}.csv", seed, 6)) for seed in (3, 4))
    out = tmp_path / "out"
    assert main(["compare", f"good={good}", f"bad={bad}", "--json", "--out", str(out)]) == 0
    row = json.loads(capsys.readouterr().out)["tests"]["predictions"]["pairs"][0]
    assert (row["a"], row["b"]) == ("good", "bad")
    assert row["difference"]["value"] < -1
    assert "good is better than bad" in row["verdict"]
    assert (out / "figures" / "differences-0.png").is_file()
    report = (out / "comparison.md").read_text(encoding="utf-8")
    assert "good is better than bad" in report
    assert report.index("## Measurement") < report.index("predictions of good") < report.index("## predictions")
    assert "agebench compare" in report


def test_no_difference_is_said(tmp_path, capsys):
    a, b = write(tmp_path / "a.csv", 3, 4), write(tmp_path / "b.csv", 4, 4)
    assert main(["compare", str(a), str(b)]) == 0
    assert "no difference shown; to show 0.1 years about" in capsys.readouterr().out


def test_without_resamples_nothing_is_claimed(tmp_path, capsys):
    a, b = write(tmp_path / "a.csv", 3, 4), write(tmp_path / "b.csv", 4, 9)
    assert main(["compare", str(a), str(b), "--resamples", "0"]) == 0
    assert "not tested" in capsys.readouterr().out


def test_run_folders_are_compared_on_their_common_test_sets(tmp_path, capsys):
    for number, (run, spread) in enumerate({"one": 3, "two": 3.2, "three": 8}.items()):
        for test in ("fgnet", "utk", *(["own"] if run == "one" else [])):
            write(tmp_path / run / "predictions" / f"{test}.parquet", 10 * number, spread, labels=len(test))
    out = tmp_path / "out"
    assert (
        main(["compare", *(str(tmp_path / run) for run in ("one", "two", "three")), "--out", str(out), "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert set(result["tests"]) == {"fgnet", "utk"}
    assert "across" not in result  # mean ranks of two test sets show nothing
    assert [ranking["tests"] for ranking in result["rankings"]] == [["fgnet"], ["utk"], ["fgnet", "utk"]]
    for ranking in result["rankings"]:
        ranks = {row["name"]: (row["rank_low"], row["rank_high"]) for row in ranking["systems"]}
        assert ranks == {"one": (1, 2), "two": (1, 2), "three": (3, 3)}
    report = (out / "comparison.md").read_text(encoding="utf-8")
    assert "|   rank |" in report
    assert "## Over test sets" in report
    assert "Nemenyi" not in report


def test_five_test_sets_add_mean_ranks_and_a_claim_about_others(tmp_path, capsys):
    tests = ["one", "three", "eleven", "seventeen", "twentythree"]
    for number, (run, spread) in enumerate({"a": 3, "b": 3.2, "c": 8}.items()):
        for test in tests:
            path = tmp_path / run / "predictions" / f"{test}.parquet"
            write(path, 10 * number + len(test), spread, n=60, labels=len(test))
    out = tmp_path / "out"
    command = ["compare", *(str(tmp_path / run) for run in "abc"), "--resamples", "200", "--out", str(out), "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["across"]["ranks"]["c"] == 3
    claim = result["rankings"][-1]["systems"][-1]["new_datasets"]
    assert claim["datasets"] == 5
    assert claim["prediction_low"] < claim["ci_low"] < claim["ratio"]
    assert "Appendix: mean ranks over test sets" in (out / "comparison.md").read_text(encoding="utf-8")
    assert (out / "figures" / "critical-difference.png").is_file()
    result["across"]["friedman"]["p"] = 0.0002
    text = compare_text(ComparisonFile.model_validate(result))
    assert "over 5 test sets: p < 0.001, the systems differ over the test sets." in text


def test_two_systems_on_several_sets_are_ranked_over_all(tmp_path, capsys):
    for number, run in enumerate("ab"):
        for test in ("fgnet", "utk"):
            write(tmp_path / run / "predictions" / f"{test}.parquet", number, 3 + 5 * number, labels=len(test))
    folders = [str(tmp_path / run) for run in "ab"]
    assert main(["compare", *folders, "--resamples", "200", "--json"]) == 0
    (ranking,) = json.loads(capsys.readouterr().out)["rankings"]
    assert [row["rank_high"] for row in ranking["systems"]] == [1, 2]
    assert main(["compare", *folders, "--resamples", "0", "--json"]) == 0
    assert "rankings" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        (["a.csv"], "needs two systems"),
        (["x=a.csv", "x=b.csv"], "two systems are called 'x'"),
        (["a.csv", "c.csv"], "only 200 of 300 images"),
        (["a.csv", "other.csv"], "not the same labels"),
        (["a.csv", "run"], "files only, or run folders only"),
        (["x=", "b.csv"], "'x='"),
        (["x=a.csv", "y=a.csv"], "a.csv and a.csv are the same predictions"),
        (["x=a.csv", "y=b.csv,./b.csv"], "b.csv and b.csv are the same predictions"),
        (["x=run", "y=run"], "run and run are the same predictions"),
        (["x=a.csv", "y=b.csv,copy.csv"], "b.csv and copy.csv have the same estimate of every image"),
        (["x=one.csv", "y=a.csv", "--allow", "missing"], "x and y have only one image in common"),
        (["x=one.csv", "y=one-b.csv"], "x and y have only one image in common"),
        (["a.csv", "b.csv", "--match", "name"], "a.csv: --match name joins predictions to labels"),
        (
            ["run", "run2", "--labels", "a.csv"],
            "--labels a.csv: the predictions in the run folder run have their labels;",
        ),
        (
            ["run", "run2", "--labels", "a.csv", "--match", "name"],
            "leave out --labels and --match, or name files in its",
        ),
        (["run", "run2", "--match", "stem"], "--match stem: the predictions in the run folder run have their labels;"),
        (["a.csv", "b.csv", "--col", "age_pred=zz"], "--col age_pred=zz: no column 'zz' in a.csv"),
        (["a.csv", "b.csv", "--gate", "18@200"], "gate '18@200': give ages from 1 to 120 years"),
        (["a.csv", "b.csv", "--seed", "-1"], "--seed -1: give 0 or more"),
    ],
)
def test_bad_input_ends_with_one_line_and_2(tmp_path, monkeypatch, capsys, systems, message):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a.csv", 1), ("b.csv", 2)):
        write(tmp_path / name, seed, 4)
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "c.csv").write_text("".join(lines[:201]), encoding="utf-8")
    write(tmp_path / "other.csv", 4, 4, labels=7)
    (tmp_path / "copy.csv").write_bytes((tmp_path / "b.csv").read_bytes())
    for source, short in (("a.csv", "one.csv"), ("b.csv", "one-b.csv")):
        start = (tmp_path / source).read_text(encoding="utf-8").splitlines(keepends=True)[:2]
        (tmp_path / short).write_text("".join(start), encoding="utf-8")
    write(tmp_path / "run" / "predictions" / "t.parquet", 1, 4)
    write(tmp_path / "run2" / "predictions" / "t.parquet", 2, 4)
    assert main(["compare", *systems]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_named_column_may_be_in_one_of_the_systems(tmp_path, capsys):
    own, foreign = write(tmp_path / "own.csv", 1, 4), write(tmp_path / "foreign.csv", 2, 6)
    command = ["compare", f"a={own}", f"b={foreign}", "--resamples", "0", "--json"]
    assert main(command) == 0
    of_own_names = json.loads(capsys.readouterr().out)["tests"]
    pd.read_csv(foreign).rename(columns={"age_pred": "estimate"}).to_csv(foreign, index=False)
    assert main([*command, "--col", "age_pred=estimate"]) == 0
    assert json.loads(capsys.readouterr().out)["tests"] == of_own_names
    assert main([*command, "--col", "age_pred=estimat"]) == 2
    assert f"no column 'estimat' in {own} or {foreign}; did you mean 'estimate'?" in capsys.readouterr().err


def test_figures_margins_and_unanswered_images(tmp_path, capsys):
    a, b = (write(tmp_path / f"{name}.csv", seed, 4, n=600) for name, seed in (("a", 1), ("b", 2)))
    labels = pd.read_csv(a)[["sample_id", "age"]].assign(gender=["f", "m"] * 300)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    estimates = pd.read_csv(b)[["sample_id", "age_pred"]]
    estimates[estimates.index % 6 > 0].to_csv(b, index=False)
    command = ["compare", str(a), str(b), "--labels", str(tmp_path / "labels.csv"), "--resamples", "200"]
    assert main(command) == 2
    assert "--allow missing" in capsys.readouterr().err
    options = [
        "--allow",
        "missing",
        "--gate",
        "18@22",
        "--gate-ages",
        "13-17",
        "--margin",
        "mae=1",
        "--group",
        "gender",
    ]
    assert main([*command, *options]) == 0
    text = capsys.readouterr().out
    for words in ("Not answered by b: 100", "FPR at 18, T = 22", "gender, at equal ages", "equivalent within 1 years"):
        assert words in text
    assert main([*command, *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["tests"]["predictions"]["figures"]
    assert (figures["n"], figures["n_common"], figures["unanswered"]) == (600, 500, {"a": 0, "b": 100})
    assert figures["differences"][0]["failure"]["shown"]
    assert main([*command, "--margin", "mae"]) == 2


def test_systems_have_the_figures_of_score_and_one_difference(tmp_path, capsys):
    paths = [write(tmp_path / f"{name}.csv", seed, 4) for name, seed in (("a", 1), ("b", 2))]
    for path in paths:
        pd.read_csv(path).assign(gender=["f", "m", "m"] * 100, race=list("xyzz") * 75).to_csv(path, index=False)
    options = ["--resamples", "200", "--seed", "3", "--json"]
    assert main(["compare", *map(str, paths), *options]) == 0
    compared = json.loads(capsys.readouterr().out)["tests"]["predictions"]
    assert compared["pairs"][0]["difference"] == compared["figures"]["differences"][0]["mae"]["difference"]
    for path in paths:
        assert main(["score", str(path), *options]) == 0
        scored = json.loads(capsys.readouterr().out)["tests"][path.stem]
        figures = compared["figures"]["systems"][path.stem]
        for key in ("mae", "bias", "cs5"):
            assert figures[key] == scored["overall"][key]
        for name in ("gender", "race"):
            assert figures[f"gap({name})"] == scored["gaps"][name]["age_standardized"]["difference"]
        assert compared["systems"][path.stem]["mae"] == scored["overall"]["mae"]


def test_names_of_folders_keep_their_dots_and_paths_their_signs(tmp_path, monkeypatch, capsys):
    for place, folder in enumerate(("v1.2", "v1.3", "lr=0.1,wd=0", "here")):
        write(tmp_path / folder / "predictions" / "utk.parquet", place, 4)
    monkeypatch.chdir(tmp_path / "here")
    words = ["../v1.2", f"{tmp_path}/v1.3/", "../lr=0.1,wd=0", "."]
    assert main(["compare", *words, "--json", "--resamples", "0"]) == 0
    assert list(json.loads(capsys.readouterr().out)["tests"]["utk"]["systems"]) == [
        "v1.2",
        "v1.3",
        "lr=0.1,wd=0",
        "here",
    ]
    assert main(["compare", "a=../lr=0.1,wd=0", "b=../v1.2,../v1.3", "--json", "--resamples", "0"]) == 0
    systems = json.loads(capsys.readouterr().out)["tests"]["utk"]["systems"]
    assert {name: row["seeds"] for name, row in systems.items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize("word", ["", "=", "name=", "=a.csv", ","])
def test_a_word_without_predictions_is_refused(word, tmp_path, capsys):
    assert main(["compare", str(write(tmp_path / "a.csv", 3, 4)), word]) == 2
    assert f"'{word}' names no predictions" in capsys.readouterr().err
