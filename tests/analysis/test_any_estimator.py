"""Stress test and occlusion maps of estimators that are no run: a function, a callable's card, an exported file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import agebench as ab
from agebench.analysis.attribution.methods import compute_attributions, select_methods
from agebench.analysis.robustness.corruptions import select_corruptions
from agebench.analysis.robustness.evaluate import predict_corrupted
from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.estimators.base import Guarantees, InputSpec
from agebench.estimators.function import FunctionEstimator
from agebench.registry.catalog import load_catalog
from agebench.runs.estimators import AnalysisSubject, load_estimator
from agebench.training.dataloader import FaceDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_few")]
CARD = """
kind = "external"
name = "brightness"
title = "Brightness as an age"
format = "callable"
source = "brightness.py:ages"
licence = "CC0-1.0"
training_data = "{training}"
trained_on = {trained_on}
input = {{ size = 32, value_range = [0, 255] }}
"""


def upper_half(images: np.ndarray) -> np.ndarray:
    """Age of the upper half's brightness: only pixels there matter."""
    ages: np.ndarray = images[:, : images.shape[1] // 2].mean(axis=(1, 2, 3)) / 255 * 80
    return ages


@pytest.fixture
def registry(tmp_path: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "brightness.toml").write_text(CARD.format(training="unknown", trained_on="[]"))
    (folder / "models" / "brightness.py").write_text("def ages(x):\n    return x.mean(axis=(1, 2, 3)) / 255 * 80\n")
    monkeypatch.setenv("AGEBENCH_CACHE", str(small_run.parent / "cache"))
    return folder


def faces(n: int, size: int = 32) -> FaceDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return FaceDataset(pixels, np.arange(n), np.linspace(1, 80, n).astype(np.float32))


def test_stress_of_a_function_moves_as_the_pixels_do() -> None:
    estimator = FunctionEstimator(lambda images: images.mean(axis=(1, 2, 3)), InputSpec(32))
    chosen = select_corruptions(["blur", "darker"])
    found = predict_corrupted(estimator, faces(5), chosen)
    assert found.clean == pytest.approx(faces(5).pixels.mean(axis=(1, 2, 3)), abs=1e-4)
    assert found.consistency["mirror"][0] == pytest.approx(found.clean, abs=0.6)
    assert {name: ages.shape for name, ages in found.corrupted.items()} == {
        corruption.name: (len(corruption.severities), 5) for corruption in chosen
    }


def test_stress_needs_an_estimate_for_every_face() -> None:
    estimator = FunctionEstimator(lambda images: np.where(np.arange(len(images)) == 0, np.nan, 30), InputSpec(32))
    with pytest.raises(AgebenchError, match="no estimate for 1 of 3 faces under 'clean'"):
        predict_corrupted(estimator, faces(3), [])


def test_occlusion_of_a_function_marks_the_pixels_that_matter() -> None:
    pytest.importorskip("captum")
    target, methods, notes = select_methods(FunctionEstimator(upper_half, InputSpec(32)), faces(4), [])
    assert methods == ["occlusion"]
    assert len(notes) == 2
    maps = np.abs(compute_attributions(target, faces(4), methods)["occlusion"])
    assert maps[:, :12].min() > 100 * maps[:, 20:].max()


def test_methods_with_gradients_need_a_network() -> None:
    with pytest.raises(UserError, match=r"it needs the network of a run.*applicable methods: occlusion"):
        select_methods(FunctionEstimator(upper_half, InputSpec(32)), faces(2), ["grad-cam"])


@pytest.mark.parametrize("model", ["brightness", "export/model.ts"])
def test_every_estimator_has_one_interface(model: str, registry: Path, small_run: Path) -> None:
    name = str(small_run / model) if "/" in model else model
    with load_estimator(name, trusted=True, device="cpu", catalog=load_catalog([registry])) as estimator:
        spec = estimator.input_spec
        images = np.zeros((3, spec.size, spec.size, 3), np.uint8)
        assert estimator.estimate(images).age.shape == (3,)
        assert len(estimator.estimate(images[:0])) == 0
        assert isinstance(estimator, Guarantees) == ("/" in model)
        assert estimator.info.name


def test_stress_and_explain_take_a_card_and_a_file(
    registry: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum")
    shared = ["--test", "few", "--registry", str(registry), "--device", "cpu", "--json", "--allow-code-execution"]
    stress = ["--resamples", "0", "--corruption", "blur"]
    found = {}
    for model in ("brightness", str(small_run / "export" / "model.ts"), str(small_run)):
        out = tmp_path / Path(model).name
        words = ["--images", "6", "--method", "occlusion", "--out", str(out / "explain")]
        assert main(["stress", model, *shared, *stress, "--out", str(out / "stress")]) == 0
        stressed = json.loads(capsys.readouterr().out)
        assert main(["explain", model, *shared, *words]) == 0
        found[Path(model).name] = (stressed, json.loads(capsys.readouterr().out))
        assert (out / "stress" / "few.md").exists()
        assert (out / "explain" / "few.md").exists()
    assert found["brightness"][0]["contamination"] == "unknown"
    assert found["model.ts"][0]["contamination"] == "known"
    assert "estimator" not in found["run"][0]
    assert "randomised" not in found["model.ts"][1]["methods"]["occlusion"]["sanity"]
    assert "randomised" in found["run"][1]["methods"]["occlusion"]["sanity"]


def test_occlusion_of_an_exported_onnx_file_is_that_of_its_network(
    small_run: Path, tmp_path: Path, registry: Path
) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    cards = ["--registry", str(registry)]
    assert main(["export", str(small_run), "--format", "onnx", "--out", str(tmp_path), *cards]) == 0
    catalog = load_catalog([registry])
    network = AnalysisSubject(str(small_run), catalog, "cpu")
    exported = AnalysisSubject(str(tmp_path / "model.onnx"), catalog, "cpu")
    _, data = network.load("few")
    few = FaceDataset(data.pixels, data.rows[:4], data.ages[:4])
    maps = []
    for subject in (network, exported):
        target, methods, _ = select_methods(subject.estimator, few, ["occlusion"])
        maps.append(compute_attributions(target, few, methods)["occlusion"])
    assert maps[1] == pytest.approx(maps[0], abs=0.3)  # pixels are rounded to uint8 between
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.99
    pair = [predict_corrupted(subject.estimator, data, []) for subject in (network, exported)]
    assert pair[1].clean == pytest.approx(pair[0].clean, abs=0.01)


def test_an_open_estimator_is_measured_and_stays_open(registry: Path, small_run: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"corruptions": ["blur"], "resamples": 0, "device": "cpu"}
    by_path = ab.stress(small_run, "few", out=tmp_path / "path", **words)
    with ab.load_estimator(small_run, device="cpu") as estimator:
        by_estimator = ab.stress(estimator, "few", out=tmp_path / "open", **words)
        size = estimator.estimator.input_spec.size
        assert len(estimator.estimate(np.zeros((1, size, size, 3), np.uint8)).age) == 1
    # Of a run, the images that it was trained on are left out both times.
    pd.testing.assert_frame_equal(by_path.to_frame(), by_estimator.to_frame())
    constant = ab.stress(lambda faces: [40.0] * len(faces), "few", out=tmp_path / "constant", **words)
    assert constant.metrics.summary.relative_error.value == pytest.approx(1)
