"""`evaluate` writes into a folder of its own alone, and each result keeps its figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import few_card

import agebench as ab
from agebench.api import experiments
from agebench.config.cards.external import ExternalCard, ExternalInput
from agebench.config.toml_io import read_settings
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, InputSpec
from agebench.estimators.external.base import ExternalEstimator
from agebench.estimators.function import FunctionEstimator


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PROJECT = {"figures/plot.png": "mine", "report.md": "mine"}
TRAINED = {"config.toml": '[data]\ntrain = "utk"\ntest = ["utk"]\n', "manifest.json": '{"finished": true}'}
FOLDERS = {
    "project": (PROJECT, "is not empty and holds no run"),
    "project-with-settings": ({**PROJECT, "config.toml": 'title = "mine"\n'}, "is not empty and holds no run"),
    "project-with-damaged-settings": ({**PROJECT, "config.toml": "mine"}, "is not empty and holds no run"),
    "trained-run": (TRAINED, "holds a run with other settings"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_evaluate_touches_no_folder_of_something_else(kind: str, tmp_path: Path) -> None:
    contents, message = FOLDERS[kind]
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message):
        ab.evaluate(lambda faces: [40.0] * len(faces), datasets="synth-shift", device="cpu", out=tmp_path)
    assert files_of(tmp_path) == before


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and a registry in it with one small dataset."""
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(few_card(30, seed=11, size=64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(tmp_path / "cards"))
    return tmp_path


def evaluate_constant(age: float, out: Path | None = None) -> ab.EvalResult:
    quick = {"evaluate.resamples": 100}
    return ab.evaluate(lambda faces: [age] * len(faces), datasets="few", device="cpu", settings=quick, out=out)


def estimates(result: ab.EvalResult) -> set[float]:
    return set(result.tests["few"].predictions["age_pred"])


@pytest.mark.slow
def test_results_of_two_functions_of_one_name_stay_apart(few: Path) -> None:
    first, second = evaluate_constant(40.0), evaluate_constant(10.0)
    assert (first.path.name, second.path.name) == ("lambda-on-few", "lambda-on-few-2")
    replaced = evaluate_constant(20.0, out=first.path)
    assert replaced.path == first.path
    assert [estimates(result) for result in (first, second, replaced)] == [{40.0}, {10.0}, {20.0}]
    assert first.to_frame().loc["few", "value"] != replaced.to_frame().loc["few", "value"]
    assert first.to_markdown() != replaced.to_markdown()


@pytest.mark.parametrize("name", ["s0", "s1"])
def test_default_folder_of_a_run_is_named_after_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "_open", lambda *_, **__: FunctionEstimator(len))
    Path("runs", name).mkdir(parents=True)
    # The default folder is occupied, so that the message has its name and nothing is computed.
    Path("runs", f"{name}-on-synth-shift", "notes").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^runs/{name}-on-synth-shift is not empty"):
        ab.evaluate(f"runs/{name}", datasets="synth-shift", device="cpu")


class FakeEstimator(FunctionEstimator):
    """An estimator with a further target whose classes nobody named."""

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        return replace(super().estimate(images), tasks={"mood": np.ones((len(images), 2), np.float32) / 2})


@pytest.mark.slow
def test_faces_are_prepared_as_the_estimator_states(few: Path) -> None:
    estimators = [FakeEstimator(lambda faces: [40.0] * len(faces), InputSpec(32, mode=mode)) for mode in ("none", "")]
    quick = {"evaluate.resamples": 100}
    results = [ab.evaluate(estimator, datasets="few", device="cpu", settings=quick) for estimator in estimators]
    assert [read_settings(result.path / "config.toml")["faces"].get("mode") for result in results] == ["none", None]
    assert "mood_pred" not in results[0].tests["few"].predictions


def test_a_cards_visible_region_stays_when_its_model_is_opened() -> None:
    framed = ExternalInput(visible=1.0)
    card = ExternalCard(
        name="mine", title="Mine", format="command", source="estimate {input} {output}", input=framed, licence="CC0-1.0"
    )
    with ExternalEstimator(card) as estimator:
        assert estimator.input_spec.visible == 1.0
