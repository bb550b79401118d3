"""`agebench explore` on small generated sets, through the real command."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from agebench.analysis.eda.distances import (
    age_histogram,
    histogram_intersection,
    total_variation,
    wasserstein,
    wasserstein_null_quantile,
)
from agebench.analysis.eda.image_stats import FACE_PIXELS, sample_images
from agebench.analysis.eda.profile import profile_dataset
from agebench.analysis.eda.report import _meaning
from agebench.analysis.eda.schema import DatasetComparison
from agebench.cli import main
from agebench.config.cards.dataset import DatasetCard
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.readers import readers
from agebench.metrics.groups import band_names
from agebench.registry.catalog import load_catalog
from agebench.reports.document import (
    BulletList,
    Document,
    Heading,
    Paragraph,
    TableBlock,
    figure_block,
    to_html,
    to_markdown,
)
from agebench.reports.plots.style import group_colors
from agebench.reports.sections.provenance import ALIGNMENT_NAMES

SYNTH = """
name = "few"
title = "A few <script>alert(1)</script> *faces*"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender", "race"]
[options]
count = 90
seed = 3
"""
TABLE = """
name = "plain"
title = "Plain"
reader = "csv"
licence = "CC0-1.0"
faces = "none"
groups = ["hat"]
[options]
table = "labels.csv"
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(SYNTH)
    (tmp_path / "cards" / "datasets" / "plain.toml").write_text(TABLE)
    return tmp_path / "cards"


def plain(home: Path, count: int = 40) -> None:
    """A dataset without gender, race and subjects, with a group of three images and two copies with different ages."""
    home.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        pixels = generator.integers(0, 255, (40, 40, 3)) if number != 1 else np.asarray(Image.open(home / "0.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"{number}.png")
        rows.append({"path": f"{number}.png", "age": 20 + number, "hat": "<b>tall</b>" if number < 3 else "none"})
    pd.DataFrame(rows).to_csv(home / "labels.csv", index=False)


@pytest.mark.slow
def test_two_datasets_compared(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    plain(tmp_path / "data" / "plain")
    out = tmp_path / "page"
    assert main(["explore", "few", "plain", "--registry", str(registry), "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    few, other = shown["datasets"]["few"], shown["datasets"]["plain"]
    assert few["n"] == 90
    assert sum(few["groups"]["gender"].values()) == 90
    assert sum(map(sum, (row.values() for row in few["crosstabs"]["gender*race"].values()))) == 90
    assert sum(few["parts"]["n"].values()) == 90
    assert other["groups"] == {"hat": {"<b>tall</b>": 3, "none": 37}}
    assert other["not_annotated"] == ["gender", "race", "subject"]
    assert other["copies_with_other_labels"] == 2
    assert shown["comparisons"][0]["groups_missing"]["plain"] == ["gender", "race", "subject"]

    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "<script" not in page
    assert "<b>tall" not in page
    assert "<script" not in text
    assert "<b>tall" not in text
    assert page.count("data:image/png;base64,") == len(list((out / "figures").glob("*.png")))
    assert "does not annotate gender and race" in page
    labels = pd.read_csv(out / "labels-few.csv")
    assert set(labels["part"]) == {"train", "val", "test"}
    assert (out / "crosstab-few-gender-race.csv").exists()


@pytest.mark.parametrize("way", get_args(DatasetCard.model_fields["faces"].annotation))
def test_every_framing_that_a_card_may_name_has_its_words(way: str) -> None:
    pair = {"first": "few", "second": "other", "faces": {"few": "none", "other": way}}
    pair |= {"age_overlap": 0.9, "at_rare_training_ages": 0.0, "groups": {}, "groups_missing": {}, "same_images": 0}
    said = " ".join(_meaning(DatasetComparison.model_construct(**pair)))
    assert (f"those of other are {ALIGNMENT_NAMES[way]}" in said) == (way != "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "no dataset called 'nosuch'"),
        (["utk"], "not on this machine"),
        (["few", "--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_input_writes_nothing(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "page"
    assert main(["explore", *words, "--registry", str(registry), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_another_folder_is_left_alone(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(["explore", "few", "--registry", str(registry), "--out", str(tmp_path / "mine")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_too_few_images_to_divide(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    plain(tmp_path / "data" / "plain", count=3)
    found = profile_dataset(load_catalog([registry]).datasets.get("plain"))
    assert found.summary.n == 3
    assert "too few" in found.summary.parts.note
    assert found.table["part"].isna().all()


def test_distances() -> None:
    young, old = age_histogram(pd.Series([10.0, 10.9, 11.0])), age_histogram(pd.Series([15.0, 15.0, 16.2]))
    assert wasserstein(young, young) == 0
    assert wasserstein(young, old) == pytest.approx(5.0)
    assert histogram_intersection(young, old) == 0
    assert histogram_intersection(young, young) == pytest.approx(1)
    assert total_variation({"a": 3, "b": 1}, {"a": 1, "b": 3}) == pytest.approx(0.5)


def test_chance_covers_blind_draws() -> None:
    generator = np.random.default_rng(1)
    ages = generator.integers(1, 80, 900)
    limit = wasserstein_null_quantile(age_histogram(pd.Series(ages.astype(float))), 600, 200)
    above = 0
    for _ in range(200):
        drawn = generator.permutation(ages).astype(float)
        above += wasserstein(age_histogram(pd.Series(drawn[:600])), age_histogram(pd.Series(drawn[600:800]))) > limit
    assert 1 <= above <= 22  # 10 expected


def test_groups_keep_their_colour() -> None:
    few, many = (
        group_colors(["female", "White"]),
        group_colors(["Asian", "Black", "female", "male", "White", "x", "y"]),
    )
    assert few["female"] == many["female"]
    assert few["White"] == many["White"]
    some, every = group_colors(["18-24", "55-64"]), group_colors(band_names())
    assert {band: every[band] for band in some} == some
    assert len(set(every.values())) == len(every)
    races = group_colors(["Asian", "Black", "Indian", "Others", "White", "unknown"])
    assert len(set(races.values())) == 6


def test_a_figure_is_laid_out_and_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is most of a warm call's time: `savefig` would do it twice."""
    draws: list[Figure] = []
    draw = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (draws.append(self), draw(self, renderer)))
    figure = Figure(figsize=(3, 2), layout="constrained")
    figure.subplots().set_ylabel("years")
    picture = figure_block("one", figure, "One.")
    assert picture is not None
    assert len(draws) == 1
    with Image.open(io.BytesIO(picture.png)) as image:
        assert image.size == (330, 220)
        assert np.asarray(image)[:, 0].min() == 255  # the label stands within the frame


def test_measures_stand_beside_their_image_and_the_unreadable_are_left_out(registry: Path, tmp_path: Path) -> None:
    home = tmp_path / "plain"
    plain(home)
    (home / "7.png").write_bytes(b"no image")
    card = load_catalog([registry]).datasets.get("plain")
    reader = readers.get("csv")(home, card.groups, table="labels.csv")
    found = sample_images(reader, reader.read(), card, seed=0)
    assert sorted(found.table["path"]) == sorted(f"{number}.png" for number in range(40) if number != 7)
    for path, brightness, thumb in zip(found.table["path"], found.table["brightness"], found.thumbnails, strict=False):
        with Image.open(home / path) as image:
            assert brightness == pytest.approx(np.asarray(image.convert("L"), float).mean(), abs=1)
            assert thumb.mean() == pytest.approx(np.asarray(image).mean(), abs=2)


def test_images_without_landmarks_are_measured_and_have_no_face(registry: Path, tmp_path: Path) -> None:
    home = tmp_path / "plain"
    plain(home)
    card = load_catalog([registry]).datasets.get("plain")
    card = card.model_copy(update={"faces": "landmarks", "landmark_points": (0, 1, 2)})
    reader = readers.get("csv")(home, card.groups, table="labels.csv")
    samples = reader.read()
    eyes_and_nose = [[12.0, 12.0, 27.0, 12.0, 20.0, 24.0] if row % 4 else None for row in range(len(samples))]
    samples = replace(samples, table=samples.table.assign(landmarks=eyes_and_nose))
    found = sample_images(reader, samples, card, seed=0)
    assert len(found.table) == found.summary().n == 40
    assert found.faces is not None
    assert len(found.faces) == len(found.face_rows) == 30
    assert found.table["landmarks"].iloc[found.face_rows].notna().all()
    path = found.table["path"].iloc[found.face_rows[-1]]
    spec = AlignmentSpec("landmarks", FACE_PIXELS, landmark_points=(0, 1, 2))
    with Image.open(home / path) as image:
        assert np.array_equal(found.faces[-1], align_or_crop(image.convert("RGB"), spec, eyes_and_nose[1]))


def test_a_page_lets_no_markup_in() -> None:
    bad = "<img src=x onerror=alert(1)> [a](javascript:b) `c` | d"
    page = Document(bad, [Heading(bad), Paragraph(bad), BulletList([bad]), TableBlock([bad], [[bad]])])
    assert "<img" not in to_html(page)
    text = to_markdown(page)
    assert "<img" not in text
    assert "[a](" not in text
