import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.evaluation.evaluate import evaluate
from agebench.reports.run_report import summary, write_report

MANIFEST = {
    "schema": 1,
    "name": "a-run",
    "agebench": "0.1.0",
    "versions": {"torch": "2.0"},
    "git": None,
    "hardware": {"cpu": "a CPU", "cores": 2, "device": "cpu"},
    "seed": 0,
    "train": {"name": "one", "title": "Set One"},
    "model": {
        "title": "A net",
        "backbone": "net",
        "head": "regression",
        "parameters": 3_400_000,
        "weights": "random",
        "size": 112,
    },
    "faces": {"size": 112, "coverage": 1.0, "datasets": {"one": "none", "two": "landmarks"}},
    "samples": {
        "one": {
            "read": 900,
            "train": 500,
            "val": 100,
            "test": 290,
            "duplicates": 7,
            "quarantined": {"a damaged image": 10},
        },
        "two": {"read": 60, "test": 60, "in_training_set": 0, "quarantined": {}},
    },
    "best_epoch": 2,
    "epochs": 2,
    "timings": {"train_s": 100.0, "images_per_s": 80.0, "total_s": 4000.0},
}
HISTORY = [
    {"epoch": 1, "loss": 0.9, "val_mae": 8.0, "lr": 1e-3, "images_per_s": 80.0, "seconds": 50.0},
    {"epoch": 2, "loss": 0.5, "val_mae": 6.0, "lr": 1e-4, "images_per_s": 80.0, "seconds": 50.0},
]


def answers(count: int, seed: int, **columns: Any) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    age = generator.integers(1, 80, count).astype(float)
    table = pd.DataFrame(
        {"sample_id": [f"{n}" for n in range(count)], "age": age, "age_pred": age + generator.normal(1, 5, count)}
    )
    return table.assign(**{name: generator.choice(values, count) for name, values in columns.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tables = {"one": answers(290, 0, gender=["female", "male"], race=["<script>", "a|b"]), "two": answers(60, 1)}
    groups = {"one": ["gender", "race"], "two": []}
    tests = {name: evaluate(table, groups=groups[name], resamples=100) for name, table in tables.items()}
    tests["one"]["baseline_mae"] = 20.25
    (tmp_path / "predictions").mkdir()
    for name, table in tables.items():
        table.to_parquet(tmp_path / "predictions" / f"{name}.parquet")
    write(tmp_path, "metrics", {"schema": 1, "train": "one", "tests": tests})
    write(tmp_path, "manifest", MANIFEST)
    write(tmp_path, "history", HISTORY)
    return tmp_path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_the_tables_say_what_metrics_say(folder: Path) -> None:
    text = write_report(folder).read_text()
    metrics = read(folder, "metrics")
    for test in metrics["tests"].values():
        mae = test["overall"]["mae"]
        assert f"{mae['value']:.2f} [{mae['low']:.2f}, {mae['high']:.2f}]" in text
        assert f"{test['overall']['cs5']['value'] * 100:.1f} %" in text
    assert "20.25" in text
    assert "| one (held-out part) | 290 |" in " ".join(text.split())
    assert "10 × a damaged image" in text


def test_nothing_is_computed_again(folder: Path) -> None:
    metrics = read(folder, "metrics")
    metrics["tests"]["two"]["overall"]["mae"] = {"value": 77.77, "low": 70.0, "high": 80.0}
    write(folder, "metrics", metrics)
    assert "77.77 [70.00, 80.00]" in write_report(folder).read_text()
    assert "77.77 [70.00, 80.00]" in summary(metrics)


def test_names_from_data_are_harmless(folder: Path) -> None:
    text = write_report(folder).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert r"a\|b" in text


def test_every_picture_that_is_shown_exists(folder: Path) -> None:
    text = write_report(folder).read_text()
    shown = [part.split(")")[0] for part in text.split("](figures/")[1:]]
    assert {"scatter.png", "error-by-age.png", "learning-curves.png", "groups-one.png"} <= set(shown)
    for name in shown:
        with Image.open(folder / "figures" / name) as image:
            assert min(image.size) > 200
            assert len(set(image.convert("L").getdata())) > 20


def test_missing_intervals_and_groups_are_dashes_not_crashes(folder: Path) -> None:
    metrics = read(folder, "metrics")
    del metrics["tests"]["two"]["gaps"]
    metrics["tests"]["two"]["overall"]["rmse"] = {"value": None, "low": None, "high": None}
    metrics["tests"]["one"]["overall"]["bias"] = {"value": 1.234, "low": None, "high": None}
    write(folder, "metrics", metrics)
    write(folder, "history", HISTORY[:1])
    text = write_report(folder).read_text()
    assert "No groups are annotated" in text
    assert "| 1.23 |" in " ".join(text.split())


@pytest.mark.parametrize(("p", "says"), [(0.001, "worst for"), (0.8, "no difference is shown")])
def test_a_gap_is_claimed_only_where_the_test_shows_one(folder: Path, p: float, says: str) -> None:
    metrics = read(folder, "metrics")
    metrics["tests"]["one"]["gaps"]["gender"]["p_holm"] = p
    write(folder, "metrics", metrics)
    text = write_report(folder).read_text()
    assert f"**gender**: {says}" in text
