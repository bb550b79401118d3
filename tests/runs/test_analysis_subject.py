"""Estimators that are analyzed on a dataset: how its faces are prepared for them, and where their reports go."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agebench.config.cards.model import Architecture
from agebench.config.run import FacesConfig
from agebench.estimators.base import InputSpec
from agebench.estimators.exported.adapter import ExportedEstimator
from agebench.estimators.exported.card import read_card
from agebench.estimators.function import FunctionEstimator
from agebench.export.card import RunFacts, build_card
from agebench.metrics.schema import MetricsFile
from agebench.models.age_model import create_model
from agebench.registry.catalog import Catalog, load_catalog
from agebench.runs import estimators
from agebench.runs.estimators import AnalysisSubject

CARD = """
name = "six"
title = "Six faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
options = { count = 6, seed = 1, size = 64 }
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "six.toml").write_text(CARD)
    return load_catalog([tmp_path / "cards"])


class Prepared(Exception):
    """The settings of the faces that would be prepared."""


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(reader: Any, samples: Any, spec: Any, **options: Any) -> None:
        raise Prepared(spec.mode, spec.detector)

    monkeypatch.setattr(estimators, "load_or_build_face_cache", stop)


def zeros(images: np.ndarray) -> np.ndarray:
    return np.zeros(len(images))


def exported(faces: FacesConfig | None, path: Path = Path("model.ts"), name: str = "tiny") -> ExportedEstimator:
    """A file as `agebench export` writes it for a run with these settings, read again from its card."""
    architecture = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=32, head="regression")
    dataset = load_catalog([]).datasets.get("synth")
    card = build_card(create_model(architecture), architecture, dataset, RunFacts(), MetricsFile(), faces)
    text = json.dumps(card.to_json() | {"model": card.model.to_json() | {"name": name}})
    file: Any = SimpleNamespace(path=path, card=read_card(path, text))
    return ExportedEstimator(file)


def test_an_exported_file_keeps_the_runs_detector_and_mode() -> None:
    spec = exported(FacesConfig(mode="detect", detector="mtcnn")).input_spec
    assert (spec.mode, spec.detector) == ("detect", "mtcnn")
    plain = exported(None)
    assert (plain.input_spec.mode, plain.input_spec.detector) == ("", "")
    assert plain.info.card is not None
    assert not {"mode", "detector"} & plain.info.card.to_json()["input"].keys()


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("own", "faces", "expected"),
    [
        ({}, None, ("none", "yunet")),
        ({"mode": "detect", "detector": "mtcnn"}, None, ("detect", "mtcnn")),
        ({}, FacesConfig(mode="detect", detector="mtcnn"), ("detect", "mtcnn")),
        ({"mode": "detect", "detector": "mtcnn"}, FacesConfig(mode="none", detector="dlib"), ("detect", "mtcnn")),
    ],
)
def test_faces_are_prepared_as_the_estimator_states(
    own: dict[str, Any],
    faces: FacesConfig | None,
    expected: tuple[str, str],
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agebench.runs.resolve.default_detector", lambda: "yunet")
    subject = AnalysisSubject(FunctionEstimator(zeros, InputSpec(32, **own)), catalog)
    with pytest.raises(Prepared) as stopped:
        subject.load("six", faces)
    assert stopped.value.args == expected


@pytest.mark.parametrize("name", ["/home/u/site", "../../x", "..", "", "a" * 5000])
def test_reports_on_a_file_stay_in_runs_whatever_its_card_says(name: str, tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    folder = AnalysisSubject(exported(None, path, name), catalog).folder
    assert folder.parent == Path("runs")
    assert len(folder.name) < 100
    assert set(folder.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_reports_on_two_files_have_two_folders(tmp_path: Path, catalog: Catalog) -> None:
    folders = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "model.onnx").write_bytes(content)
        folders.append(AnalysisSubject(exported(None, tmp_path / "model.onnx"), catalog).folder)
    assert folders[0] == folders[2] != folders[1]
    assert folders[0].name.startswith("tiny-")


def test_reports_on_a_function_are_named_by_it(catalog: Catalog) -> None:
    assert AnalysisSubject(FunctionEstimator(zeros), catalog).folder == Path("runs") / "zeros"


def test_the_released_model_is_analyzed_by_its_name(tmp_path: Path, catalog: Catalog) -> None:
    subject = AnalysisSubject("agebench-base", catalog)
    with subject.opened() as estimator:
        samples, faces = subject.load("six")
        assert len(samples) == 6
        assert np.isfinite(estimator.estimate(faces.pixels[faces.rows[:2]]).age).all()
    assert subject.folder.parent == Path("runs")
