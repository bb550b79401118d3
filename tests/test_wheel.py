"""What is installed from a wheel has its cards, its model and its templates with it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_wheel_is_whole_in_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    installed, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    done = subprocess.run(
        [sys.executable, "-m", "agebench", "list"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    # What needs more than Python files: the released model, the page's templates, the packaged cards.
    Image.new("RGB", (300, 300), "tan").save(empty / "photo.png")
    (empty / "records").mkdir()
    for record in (ROOT / "reports" / "results").glob("face-api-on-f*.json"):
        shutil.copy(record, empty / "records")
    for words in (
        ["predict", "photo.png", "--align", "none"],
        ["leaderboard", "--results", "records", "--site", "site"],
    ):
        subprocess.run(
            [sys.executable, "-m", "agebench", *words],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            check=True,
        )
    assert "face-api" in (empty / "site" / "index.html").read_text(encoding="utf-8")
    for name in ("utk", "fgnet", "synth", "efficientnet_lite0", "cross-dataset"):
        assert f"  {name} " in done.stdout
    code = "import agebench; print(agebench.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert str(installed) in where.stdout
