"""Several rows that name one image go through import, check, run and report."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main
from agebench.data.readers.synth import SynthReader

CARD = 'name = "raters"\ntitle = "Raters"\nreader = "csv"\nlicence = "none"\nfaces = "none"\ngroups = ["gender"]\n'


@pytest.fixture
def raters(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 40 images, each rated twice, and a registry with its card."""
    reader = SynthReader(None, ("gender",), count=40, seed=3, size=32)
    (tmp_path / "registry" / "datasets").mkdir(parents=True)
    (tmp_path / "registry" / "datasets" / "raters.toml").write_text(CARD)
    root = tmp_path / "images"
    root.mkdir()
    rows = []
    for number, row in enumerate(reader.read().table.itertuples()):
        Image.open(io.BytesIO(reader.image_bytes(str(row.path)))).convert("RGB").save(root / f"{number}.png")
        rows += [(f"{number}-{rater}", f"{number}.png", int(row.age) + rater, row.gender) for rater in (0, 1)]
    pd.DataFrame(rows, columns=["sample_id", "path", "age", "gender"]).to_csv(root / "labels.csv", index=False)
    return root, tmp_path / "registry"


@pytest.mark.slow
def test_a_run_on_rows_of_one_image(raters: tuple[Path, Path], tmp_path: Path) -> None:
    root, registry = raters
    own = ["--registry", str(registry)]
    assert main(["data", "add", "raters", str(root), *own]) == 0
    assert main(["data", "check", "raters", "--full", *own]) == 0
    run = tmp_path / "run"
    words = ["--train", "raters", "--test", "raters", "--model", "tiny", "--epochs", "1", "--device", "cpu"]
    assert main(["run", *words, "--out", str(run), *own]) == 0
    parts = [pd.read_parquet(run / "samples" / f"raters-{part}.parquet") for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 80
    images = [set(part["path"]) for part in parts]
    assert sum(map(len, images)) == len(set.union(*images)) == 40
    samples = json.loads((run / "manifest.json").read_text())["samples"]["raters"]
    assert (samples["read"], samples["rejected"]) == (80, {})


@pytest.mark.slow
def test_a_run_says_which_rows_were_rejected(raters: tuple[Path, Path], tmp_path: Path) -> None:
    root, registry = raters
    table = pd.read_csv(root / "labels.csv").drop(columns="sample_id")
    table.iloc[2:].drop(index=range(3, 80, 2)).to_csv(root / "labels.csv", index=False)  # one row an image …
    with (root / "labels.csv").open("a") as file:
        file.write("0.png,20,male\n0.png,40,male\n1.png,90,male\n")  # … but two of the first and of the second
    own = ["--registry", str(registry)]
    assert main(["data", "add", "raters", str(root), *own]) == 0
    assert main(["data", "check", "raters", *own]) == 1
    run = tmp_path / "run"
    words = ["--train", "raters", "--test", "raters", "--model", "tiny", "--epochs", "1", "--device", "cpu"]
    assert main(["run", *words, "--out", str(run), *own]) == 0
    samples = json.loads((run / "manifest.json").read_text())["samples"]["raters"]
    assert samples["read"] == 42
    assert samples["rejected"] == {"conflicting-labels": 4}
    assert samples["quarantined"] == {"rows with one id or image and different labels": 4}
    kept = pd.read_parquet(run / "samples" / "quarantined.parquet")
    assert kept["code"].tolist() == ["conflicting-labels"] * 4
    assert "rows with one id or image and different labels" in (run / "report.md").read_text()
