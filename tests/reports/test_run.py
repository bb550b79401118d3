import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from agebench.errors import UserError
from agebench.metrics.evaluate import evaluate
from agebench.metrics.schema import Gap, MetricsFile
from agebench.reports.formatting import escape_markdown, format_ci
from agebench.reports.plots.run import dataset_colors, label
from agebench.reports.run import summary, write_report
from agebench.reports.sections.gaps import describe_gap

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
    tests = {name: evaluate(table, groups=groups[name], resamples=100).to_json() for name, table in tables.items()}
    tests["one"]["baseline_mae"] = 20.25
    (tmp_path / "predictions").mkdir()
    for name, table in tables.items():
        table.to_parquet(tmp_path / "predictions" / f"{name}.parquet")
    write(tmp_path, "metrics", {"schema": 1, "train": "one", "tests": tests})
    write(tmp_path, "manifest", MANIFEST)
    write(tmp_path, "history", HISTORY)
    return tmp_path


@pytest.fixture
def rendered() -> None:
    """To be asked for by those who look at the pictures."""


@pytest.fixture(autouse=True)
def unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests read the text alone, and pictures take a second a report."""
    if "rendered" not in request.fixturenames:
        monkeypatch.setattr(FigureCanvasAgg, "print_png", lambda self, path: Path(path).touch())


def write(folder: Path, name: str, content: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def rewritten(folder: Path, **changes: Any) -> str:
    """The report of the folder with some of its metrics' first-set keys changed."""
    metrics = read(folder, "metrics")
    metrics["tests"]["one"] |= changes
    write(folder, "metrics", metrics)
    return write_report(folder).read_text()


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith("|")]


def test_the_tables_say_what_metrics_say(folder: Path) -> None:
    text = write_report(folder).read_text()
    for test in read(folder, "metrics")["tests"].values():
        entries = [test["overall"], *(entry for groups in test["groups"].values() for entry in groups.values())]
        for entry in entries:
            mae, bias, cs5 = entry["mae"], entry["bias"], entry["cs5"]
            if mae["ci_low"] is None or entry.get("n", 5) < 5:  # "too few" in the table
                continue
            assert f"{mae['value']:.2f} [{mae['ci_low']:.2f}, {mae['ci_high']:.2f}]" in text
            assert f"{bias['value']:+.2f} [{bias['ci_low']:+.2f}, {bias['ci_high']:+.2f}]" in text
            assert f"{cs5['value'] * 100:.1f} % [{cs5['ci_low'] * 100:.1f}, {cs5['ci_high'] * 100:.1f}]" in text
    assert any(row.startswith("| one (held-out part) | 290 |") and row.endswith("| 20.25 |") for row in rows(text))


def test_nothing_is_computed_again(folder: Path) -> None:
    metrics = read(folder, "metrics")
    tampered = {"value": 77.77, "ci_low": 70.0, "ci_high": 80.0}
    metrics["tests"]["two"]["overall"]["mae"] = tampered
    metrics["tests"]["one"]["groups"]["gender"]["female"]["bias"] = tampered
    write(folder, "metrics", metrics)
    text = write_report(folder).read_text()
    assert "77.77 [70.00, 80.00] years on two" in text
    assert "+77.77 [+70.00, +80.00]" in text
    assert "77.77 [70.00, 80.00]" in summary(MetricsFile.from_json(metrics))
    assert summary(folder) == summary(MetricsFile.from_json(metrics))


def test_the_floor_is_named_and_who_does_not_pass_it(folder: Path) -> None:
    passed = write_report(folder).read_text()
    assert "would be off by 20.25 years" in passed
    assert "not shown to be better" not in passed
    assert "**On one it is not shown to be better than that.**" in rewritten(folder, baseline_mae=1.5)
    assert "median" not in summary(MetricsFile.from_json({"train": "x", "tests": {"y": {"n": 1, "overall": {}}}}))


def test_names_from_data_are_harmless(folder: Path) -> None:
    manifest = read(folder, "manifest")
    manifest["model"] |= {"title": "a `net` | <b>big</b>", "backbone": "some_net_x"}
    write(folder, "manifest", manifest)
    text = write_report(folder).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert r"a\|b" in text
    assert r"a \`net\` \| &lt;b&gt;big&lt;/b&gt;" in text
    assert "some_net_x, 3.4 million" in text


@given(name=st.text(min_size=1))
def test_any_name_stays_in_its_cell(name: str) -> None:
    cell = escape_markdown(name)
    assert not re.search(r"[<>\x00-\x1f\x7f\u2028]", cell)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]]", cell)
    figure = label(name)
    assert not re.search(r"(?<!\\)\$", figure)
    assert len(figure.replace(r"\$", "$")) <= 34


@pytest.mark.parametrize(
    ("figure", "style", "says"),
    [
        ({"value": 4.519, "ci_low": 4.4, "ci_high": 4.63}, {}, "4.52 [4.40, 4.63]"),
        ({"value": -0.001, "ci_low": None, "ci_high": 1.0}, {}, "0.00"),
        ({"value": 0.5551, "ci_low": 0.5, "ci_high": 0.6}, {"percent": True, "digits": 1}, "55.5 % [50.0, 60.0]"),
        ({"value": 1.0, "ci_low": -1.0, "ci_high": 2.0}, {"sign": True}, "+1.00 [-1.00, +2.00]"),
        ({"value": None}, {}, "–"),
        (None, {}, "–"),
    ],
)
def test_a_figure_and_its_interval(figure: dict[str, float] | None, style: dict[str, Any], says: str) -> None:
    assert format_ci(figure, **style) == says


def test_every_picture_that_is_shown_exists(folder: Path, rendered: None) -> None:
    text = write_report(folder).read_text()
    shown = [part.split(")")[0] for part in text.split("](figures/")[1:]]
    assert {"scatter", "error-by-age", "cumulative-scores", "learning-curves", "groups-0", "errors-0", "errors-1"} == {
        name.removesuffix(".png") for name in shown
    }
    assert sorted(shown) == sorted(file.name for file in (folder / "figures").iterdir())
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(shown)
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|:")]
    assert page.count("<tr>") == sum(bool(line.strip("| ")) for line in rows)  # a head without names is not shown
    for name in shown:
        with Image.open(folder / "figures" / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors()) > 20


def test_one_dataset_has_one_colour_whatever_is_tested() -> None:
    both, alone = dataset_colors("one", ["one", "two"]), dataset_colors("one", ["two"])
    assert both == alone
    assert len(set(both.values())) == 2


def test_missing_figures_are_dashes(folder: Path) -> None:
    metrics = read(folder, "metrics")
    metrics["tests"]["two"]["overall"]["rmse"] = {"value": None, "ci_low": None, "ci_high": None}
    metrics["tests"]["one"]["overall"]["bias"] = {"value": 1.234, "ci_low": None, "ci_high": None}
    write(folder, "metrics", metrics)
    table = summary(MetricsFile.from_json(metrics))
    assert "| – |" in " ".join(table.split())
    assert "| +1.23 |" in " ".join(table.split())
    assert "No groups are annotated in two" in write_report(folder).read_text()


@pytest.mark.parametrize("value", [None, "absent"])
def test_whatever_is_optional_may_be_missing(folder: Path, value: str | None) -> None:
    metrics, manifest = read(folder, "metrics"), read(folder, "manifest")
    for table, kept in ((manifest, ("schema",)), *((test, ("n",)) for test in metrics["tests"].values())):
        for key in set(table) - set(kept):
            if value is None:
                table[key] = None
            else:
                del table[key]
    write(folder, "metrics", metrics)
    write(folder, "manifest", manifest)
    for name in ("history.json", "predictions/one.parquet", "predictions/two.parquet"):
        (folder / name).unlink()
    text = write_report(folder).read_text()
    assert "trained on **one**" in text
    assert "figures/" not in text
    assert "| two | 60 | – |" in rows(text)


def test_a_value_may_be_null_in_every_group(folder: Path) -> None:
    none = {"value": None, "ci_low": None, "ci_high": None}
    entry = {"n": 3, "mae": none, "bias": none, "cs5": none}
    groups = {"age_band": {"0-12": entry, "unknown": entry}, "gender": {"x": entry}}
    text = rewritten(folder, groups=groups, gaps={"gender": None}, overall={"mae": none}, cs=[None, 0.5])
    assert "| x (not compared) | 3 | – | – | – |" in rows(text)


def test_one_image_and_one_epoch_make_a_report(folder: Path) -> None:
    table = answers(1, 2)
    table.to_parquet(folder / "predictions" / "two.parquet")
    metrics = read(folder, "metrics")
    metrics["tests"] = {"two": evaluate(table, resamples=100).to_json()}
    write(folder, "metrics", metrics)
    write(folder, "history", HISTORY[:1])
    text = write_report(folder).read_text()
    assert "figures/scatter.png" in text
    assert "figures/learning-curves.png" in text


@pytest.mark.parametrize(("p", "says"), [(0.001, "worst for"), (0.8, "no difference is shown")])
def test_a_gap_is_claimed_only_where_the_test_shows_one(folder: Path, p: float, says: str) -> None:
    gap = read(folder, "metrics")["tests"]["one"]["gaps"]["gender"]
    assert f"**gender**: {says}" in rewritten(folder, gaps={"gender": gap | {"p_holm": p}})


def test_a_gap_that_shrinks_at_equal_ages_is_said_to(folder: Path) -> None:
    figure = {"value": 2.0, "ci_low": 1.0, "ci_high": 3.0}
    gap = {"difference": figure, "worst": "female", "best": "male", "p_holm": 0.01}
    even = gap | {"difference": {"value": 0.5, "ci_low": -0.5, "ci_high": 1.5}, "p_holm": 0.4, "coverage": 0.9}
    text = rewritten(folder, gaps={"gender": gap | {"standardised": even, "shrinks": True}})
    assert "worst for female, MAE 2.00 [1.00, 3.00] years above male, p = 0.010." in text
    assert "At equal ages (90 % of the images): female, MAE 0.50 [-0.50, 1.50] years above male" in text
    assert "no difference is shown. So part of the raw gap comes from the groups' different ages" in text
    assert "too few ages" in rewritten(folder, gaps={"gender": gap | {"standardised": None}})
    bare = rewritten(
        folder, gaps={"gender": {"difference": figure, "worst": "female", "standardised": even["difference"]}}
    )
    assert "At equal ages: female, MAE 0.50 [-0.50, 1.50]" in bare


def test_what_was_resampled_is_named(folder: Path) -> None:
    assert "intervals, resampling images." in write_report(folder).read_text()
    assert "resampling the 82 subjects of one and single images elsewhere." in rewritten(folder, subjects=82)


def test_what_was_left_out_is_counted_with_its_reason(folder: Path) -> None:
    text = write_report(folder).read_text()
    assert "- one, 10 images (1.1 %): 10 × a damaged image" in text
    assert "| one | 900 | 500 | 100 | 290 | 7 | – | 10 |" in rows(text)


def test_small_groups_are_shown_and_marked(folder: Path) -> None:
    groups = read(folder, "metrics")["tests"]["one"]["groups"]
    del groups["gender"]["female"]["eligible"]
    groups["gender"]["female"]["n"] = 29
    assert any(row.startswith("| female (not compared) | 29 |") for row in rows(rewritten(folder, groups=groups)))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metrics\.json"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json: cannot be read"):
        write_report(tmp_path)


def test_gap_text_names_the_groups_that_may_be_worst() -> None:
    gap = {"difference": {"value": 0.3, "ci_low": -0.1, "ci_high": 0.7}, "worst": "a", "best": "c", "p_holm": 0.5}
    assert "it may be a, b or c." in describe_gap("race", Gap.model_validate(gap | {"worst_groups": ["a", "b", "c"]}))
    assert "may be" not in describe_gap("race", Gap.model_validate(gap | {"worst_groups": ["a"]}))


def test_pretraining_on_faces_is_named_with_its_caveat(folder: Path) -> None:
    assert "pre-training data" not in write_report(folder).read_text()
    manifest = read(folder, "manifest")
    write(folder, "manifest", manifest | {"model": manifest["model"] | {"pretraining_data": "MS-Celeb-1M"}})
    text = write_report(folder).read_text()
    assert "MS-Celeb-1M (face recognition: " in text
    assert "may also be in the test sets" in text
