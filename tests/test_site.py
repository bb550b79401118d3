"""The site of the manual: generated pages are complete, tutorials are notebooks, the configuration names every page."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from manual_site import load_hooks
from warm_commands import warm_commands

from agebench.cli import COMMANDS, build_parser
from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import ModelCard
from agebench.config.cards.suite import SuiteCard
from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.config.run import RunConfig
from agebench.leaderboard.schema import Record
from agebench.metrics.schema import MetricsFile
from agebench.types import RejectReason, RunState

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index")


HOOKS = load_hooks()


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    files: dict[str, str] = HOOKS.generated_files()
    return files


def rows(page: str, section: str) -> dict[str, list[str]]:
    """Key -> cells of the rows of one section's table."""
    text = page.split(f"{{ #{section} }}")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip("` "): cells[1:] for cells in (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)}


@pytest.mark.parametrize(
    "root", [RunConfig, PublishedConfig, ExternalConfig, DatasetCard, ModelCard, ExternalCard, SuiteCard]
)
def test_settings_and_cards_are_described_key_by_key(root: Any, pages: dict[str, str]) -> None:
    text = pages["reference/settings.md"] + pages["reference/cards.md"]
    seen: dict[Any, str] = {}
    HOOKS.walk(root, seen)
    for model in seen:
        shown = rows(text, HOOKS.anchor(model))
        assert shown.keys() == model.model_fields.keys()
        assert [name for name, cells in shown.items() if not cells[-1].strip()] == []


@pytest.mark.parametrize(("root", "name"), [(MetricsFile, "metrics-json"), (Record, "records")])
def test_result_schemas_have_all_keys(root: Any, name: str, pages: dict[str, str]) -> None:
    seen: dict[Any, str] = {}
    HOOKS.walk(root, seen)
    text = pages["reference/metrics-json.md"] + pages[f"reference/{name}.md"]
    for model in seen:
        assert rows(text, HOOKS.anchor(model)).keys() == model.model_fields.keys()


def test_command_line_page_has_every_visible_option(pages: dict[str, str]) -> None:
    page, count = pages["reference/cli.md"], 0
    for name, parser in HOOKS.subparsers(build_parser(COMMANDS)):
        nested = list(HOOKS.subparsers(parser))
        for full, command in [(name, parser), *((f"{name} {action}", inner) for action, inner in nested)]:
            section = page.split(f"agebench {full} {{ #")[1].split("\n## ")[0]
            for action in command._actions:
                if action.option_strings and action.help != "==SUPPRESS==" and "--help" not in action.option_strings:
                    assert action.option_strings[0] in section, full
                    assert action.help, f"{full} {action.option_strings[0]}"
                    count += 1
    assert count > 150


def test_codes_page_has_every_reason_and_state(pages: dict[str, str]) -> None:
    assert {code for codes in HOOKS.REASONS.values() for code in codes} == set(RejectReason)
    assert HOOKS.STATES.keys() == set(RunState)
    assert all(f"| `{code}` |" in pages["reference/codes.md"] for code in [*RejectReason, *RunState, *HOOKS.EXIT_CODES])


def test_navigation_names_pages_that_exist() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def targets(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in targets(part)]

    named = targets(config["nav"])
    assert len(named) == len(set(named))
    generated = HOOKS.PAGES.keys() | HOOKS.PROJECT_PAGES.keys()
    assert [page for page in named if page not in generated and not (DOCS / page).is_file()] == []


def test_new_page_joins_the_section_of_its_folder() -> None:
    nav = [{"Start": "index.md"}, {"How-to": ["how-to/index.md", {"Data": ["how-to/data.md"]}]}]
    assert HOOKS.add_to_navigation(nav, {"how-to/data.md", "how-to/new.md"}) == [
        {"Start": "index.md"},
        {"How-to": ["how-to/index.md", {"Data": ["how-to/data.md"]}, "how-to/new.md"]},
    ]


def test_links_out_of_the_manual_become_text_or_pages() -> None:
    replaced = HOOKS.replace_links(
        "[a](../../CONTRIBUTING.md#x) [b](../../reports/LEADERBOARD.md) [c](data.md)", DOCS / "how-to"
    )
    assert replaced == "[a](../contributing.md#x) b [c](data.md)"


def test_layer_diagram_becomes_an_inline_drawing() -> None:
    page = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    drawn = HOOKS.layer_diagram(page)
    assert "mermaid" not in drawn
    assert drawn.count("<rect") > 15


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_a_notebook_with_its_blocks(page: Path, pages: dict[str, str]) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    notebook = nbformat.reads(pages[f"tutorials/{page.stem}.ipynb"], as_version=4)
    nbformat.validate(notebook)
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|python)\n", text, re.MULTILINE)
    assert sum(cell.cell_type == "code" for cell in notebook.cells) == len(blocks) > 3
    assert f"]({page.stem}.ipynb)" in text
    assert "@@" not in text


# Shipped datasets of generated faces -> those that tutorials use here: drawing all faces would take longer than the rest.
SMALLER = {"synth": ("few", 420), "synth-shift": ("few-shift", 120)}


@pytest.fixture(scope="module")
def warm_home() -> Iterator[Path]:
    """A folder with the command `agebench`, smaller datasets, and the cache of their faces that tutorials share."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder, warm_commands(Path(folder)):
        cards = Path(folder) / "cards" / "datasets"
        cards.mkdir(parents=True)
        for shipped, (name, count) in SMALLER.items():
            card = (ROOT / "registry" / "datasets" / f"{shipped}.toml").read_text(encoding="utf-8")
            card = re.sub(r"(?m)^name = .*", f'name = "{name}"', card, count=1)
            card = re.sub(r"(?m)^count = .*", f"count = {count}", card, count=1)
            (cards / f"{name}.toml").write_text(card, encoding="utf-8")
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.costly_setup
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_as_a_notebook(
    page: Path, warm_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    if page.stem == "step-by-step":
        pytest.importorskip("captum", reason="captum is not installed")
    monkeypatch.setenv("PATH", f"{warm_home}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AGEBENCH_CACHE", str(warm_home / "cache"))
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(warm_home / "cards"))
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.from_dict(HOOKS.to_notebook(page.read_text(encoding="utf-8")))
    for cell in notebook.cells:
        cell.source = re.sub(r"\bsynth(-shift)?\b", lambda found: SMALLER[found[0]][0], cell.source)
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    )
    client.execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    if shutil.which("git") is None:  # mkdocs asks git for nothing, its themes may
        pytest.skip("git is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert len(index["docs"]) > 300
    for page in (tmp_path / "site").rglob("*.html"):
        if "leaderboard" not in page.parts[-2:]:
            loaded = re.findall(
                r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text(encoding="utf-8")
            )
            assert loaded == [], page


def test_examples_for_own_training_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "how-to" / "integrate.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {
        "ages": [16, 17, 20, 30],
        "estimates": [22.0, 26.0, 19.0, 33.0],
        "genders": ["f", "m", "f", "m"],
        "people": [1, 2, 3, 4],
    }
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    model = torch.nn.Flatten(0)
    figures = names["validate"](model, [(torch.tensor([21.0, 33.0]), torch.tensor([20.0, 30.0]))])
    assert figures == {"mae": 2.0, "bias": 2.0, "cs5": 1.0}
    assert {name: value.item() for name, value in names["values"].items()} == pytest.approx(
        {"val/mae": 16 / 3, "val/cs5": 1 / 3, "val/fpr_18_at_25": 0.5, "val/fnr_18_at_25": 1.0}
    )
    assert callable(names["scorer"])
    assert list((tmp_path / "report").iterdir())
