"""Every line of the public API runs: as a doctest, in a plain file, from standard input and in a notebook."""

import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agebench as ab

SLOW = {"run", "evaluate", "stress", "explore", "audit"}
# Examples that read images run on 90 faces instead of the shipped datasets.
SMALLER = {"synth-shift": "few", "synth": "few", "600": "90"}
RESULTS = Path(__file__).parents[2] / "reports" / "results"
FUNCTIONS = [name for name in ab.__all__ if name[0].islower()]

# A dataset that is small enough for a line to run several times.
CARD = """
name = "few"
title = "Few"
reader = "synth"
licence = "CC0-1.0"
labels = ["age", "gender", "subject"]
groups = ["gender"]
faces = "none"
[options]
count = 90
seed = 11
size = 64
"""
# One script a line of the API; `folder` is an empty folder, `results` holds some records.
LINES = {
    "list": "assert ab.list_datasets() and ab.list_models() and ab.list_heads()",
    "load_dataset": "d = ab.load_dataset('few'); assert len(d.to_torch()) == len(d.frame); d.image(0)",
    "create_model": "assert ab.create_model('tiny', head='coral').head.out_features",
    "score": "assert ab.score([20, 30, 40], [21, 31, 41], resamples=100).overall['mae'].value == 1",
    "report": "rep = ab.score([20, 30, 40], [21, 31, 41], groups={'gender': ['f', 'm', 'f']}, resamples=0); "
    "assert len(rep.to_frame()) and rep.to_markdown() and len(rep.by_group); rep.gaps, rep.gates; rep.save(folder / 'report')",
    "compare": "ab.compare({'a': [1, 2, 3], 'b': [2, 2, 4]}, [1, 2, 3], resamples=100).pairs",
    "leaderboard": "assert len(ab.leaderboard(results).to_frame())",
    "explore": "assert ab.explore('few', out=folder / 'explore').report.exists()",
    "audit": "assert ab.audit('few', out=folder / 'audit').report.exists()",
    "run": "assert ab.run(train='few', model='tiny', epochs=1, device='cpu', out=folder / 'run').report.exists()",
    "load_estimator": "est = ab.load_estimator(folder / 'run', device='cpu')",
    "stress": "assert len(ab.stress(est, 'few', corruptions=['blur'], resamples=0, out=folder / 'stress').to_frame())",
    "evaluate": "ab.evaluate(lambda x: [40.0] * len(x), datasets='few', device='cpu', out=folder / 'test')",
}
QUICK = ["list", "create_model", "score", "report", "compare"]
# The lines of one script share a process: starting one takes longer than most lines.
SCRIPTS = [
    pytest.param(QUICK, id="quick"),
    pytest.param([name for name in LINES if name not in QUICK], id="all-others", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def homes_of_examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A registry, and a cache that the examples share: the generated faces are drawn once."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "registry" / "datasets").mkdir(parents=True)
    (folder / "registry" / "datasets" / "few.toml").write_text(CARD)
    return {"AGEBENCH_REGISTRY": str(folder / "registry"), "AGEBENCH_CACHE": str(folder / "cache")}


@pytest.fixture(autouse=True)
def examples_home(own_homes: None, homes_of_examples: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in homes_of_examples.items():
        monkeypatch.setenv(name, folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest records of the published results; those of all are held in tests/reports."""
    folder = tmp_path_factory.mktemp("records")
    for record in sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_size)[:4]:
        shutil.copy(record, folder)
    return folder


@pytest.fixture(scope="module")
def run_folder(homes_of_examples: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in homes_of_examples.items():
            patch.setenv(name, folder)
        ab.run(train="few", model="tiny", epochs=1, device="cpu", out=path)
    return path


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FUNCTIONS])
def test_doctest(name: str, results: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    names: dict[str, Any] = {"folder": tmp_path / "out", "results": results}
    if name == "stress":
        names["run_folder"] = request.getfixturevalue("run_folder")
    assert getattr(ab, name).__doc__ or name == "leaderboard"
    text = _function(name).__doc__ or ""
    for full, small in SMALLER.items() if name in SLOW else ():
        text = text.replace(full, small)
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    outcome = doctest.DocTestRunner().run(test)
    assert outcome.attempted or name == "load"
    assert not outcome.failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_describes_every_argument(name: str) -> None:
    function = _function(name)
    text = function.__doc__ or ""
    for argument in function.__code__.co_varnames[
        : function.__code__.co_argcount + function.__code__.co_kwonlyargcount
    ]:
        assert f"\n        {argument}: " in text, argument
    assert "Returns:" in text


@pytest.mark.parametrize("names", SCRIPTS)
def test_script_in_a_plain_file(names: list[str], results: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_script(names, tmp_path, results))
    _check(subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True), tmp_path)


@pytest.mark.parametrize("names", SCRIPTS)
def test_script_from_standard_input(names: list[str], results: Path, tmp_path: Path) -> None:
    script = _script(names, tmp_path, results)
    _check(subprocess.run([sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, text=True), tmp_path)


@pytest.mark.slow
def test_notebook(results: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.v4.new_notebook()
    lines = _start(tmp_path, results)
    show = ["ab.score([20, 30, 40], [21, 31, 41], resamples=0)", "ab.load_dataset('few')"]
    notebook.cells = [nbformat.v4.new_code_cell(line) for line in [*lines, *LINES.values(), *show]]
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells[-2:]:
        assert "text/html" in cell.outputs[-1].data, cell.source


def _function(name: str) -> Any:
    return getattr(importlib.import_module(ab._LAZY[name]), name)


def _start(folder: Path, results: Path) -> list[str]:
    paths = f"folder, results = Path({str(folder)!r}), Path({str(results)!r})"
    return ["from pathlib import Path", "import agebench as ab", paths]


def _script(names: list[str], folder: Path, results: Path) -> str:
    return "\n".join([*_start(folder, results), *(LINES[name] for name in names), ""])


def _check(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
