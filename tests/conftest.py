"""What several tests share."""

import functools
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from matplotlib.layout_engine import ConstrainedLayoutEngine

from agebench.cli import GC_THRESHOLDS
from agebench.data.readers.synth import SynthReader
from agebench.registry.builtin import detectors, heads, readers
from agebench.utils.io import atomic_write

# As in every command: the modules that all tests import would be searched for garbage again and again.
gc.set_threshold(*GC_THRESHOLDS)

# One thread a worker: two workers with two threads each wait for one another and take five times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# A busy machine is no bug, and a test that failed once fails again.
hypothesis.settings.register_profile("agebench", deadline=None, derandomize=True)
hypothesis.settings.load_profile("agebench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first what shares a costly fixture: pytest-xdist moves the last tests of a worker to others, not the first."""
    items.sort(key=lambda item: item.get_closest_marker("costly_setup") is None)


_HOME_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all tests' homes."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(autouse=True, scope="session")
def shared_homes(common: Path) -> Iterator[None]:
    """Nor does a fixture that several tests share, which is made before `own_homes`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_DATA", str(common / "shared" / "data"))
        patch.setenv("AGEBENCH_CACHE", str(common / "shared" / "cache"))
        patch.delenv("AGEBENCH_REGISTRY", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def drawn_faces(common: Path) -> Iterator[None]:
    """A generated face is drawn once for all workers, each of which would draw the same hundreds again."""
    folder = common / "drawn"
    folder.mkdir(exist_ok=True)
    draw = SynthReader._render

    @functools.wraps(draw)
    def load(reader: SynthReader, index: int) -> bytes:
        path = folder / f"{reader.version_token('')}-{reader.size}-{index}.png"
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_bytes(draw(reader, index))
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SynthReader, "_render", load)
        yield


# Only these tests arrange what is on a figure, as users get it: those that look at figures, and those of reports and pages.
ARRANGING = ("analysis", "leaderboard", "reports", "test_examples.py", "test_site.py")


@pytest.fixture(autouse=True)
def plain_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and saved, but their parts stay where they are: moving them takes a fifth of the time of a small run."""
    if request.path.relative_to(Path(__file__).parent).parts[0] not in ARRANGING:
        monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)


@pytest.fixture(autouse=True)
def own_plugins() -> Iterator[None]:
    """What a test registers leaves with it."""
    names = {registry: {*registry.names(), *registry._broken} for registry in (readers, heads, detectors)}
    yield
    for registry, there in names.items():
        for name in {*registry.names(), *registry._broken} - there:
            for items in (registry._items, registry._lazy, registry._broken, registry._origin):
                items.pop(name, None)


@pytest.fixture(autouse=True)
def own_homes(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own datasets, caches or registry."""
    # Numbered here: `mktemp` lists all earlier folders to number the next one.
    home = homes / str(next(_HOME_NUMBERS))
    home.mkdir()
    monkeypatch.setenv("AGEBENCH_DATA", str(home / "data"))
    monkeypatch.setenv("AGEBENCH_CACHE", str(home / "cache"))
    monkeypatch.delenv("AGEBENCH_REGISTRY", raising=False)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data that `AGEBENCH_TEST_DATA` names."""
    folder = os.environ.get("AGEBENCH_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: AGEBENCH_TEST_DATA names no folder")
    return Path(folder)


# Drawing generated faces takes the most time.
FEW_CARD = """name = "few"
title = "Generated faces"
reader = "synth"
licence = "CC0-1.0"
labels = ["age", "gender", "race", "subject"]
groups = ["gender", "race"]
faces = "none"
options = { count = 180, seed = 1, size = 64 }
"""


@pytest.fixture(scope="session")
def small_run(common: Path) -> Path:
    """A finished run of the small model, which all workers share; tests do not write into it."""
    from agebench.cli import main

    home = common / "small"
    with FileLock(f"{home}.lock"):
        if not (home / "run").exists():
            (home / "registry" / "datasets").mkdir(parents=True)
            (home / "registry" / "datasets" / "synth.toml").write_text(FEW_CARD)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AGEBENCH_CACHE", str(home / "cache"))
                patch.setenv("AGEBENCH_DATA", str(home / "data"))
                words = ["run", "--train", "few", "--test", "few", "--model", "tiny", "--epochs", "1"]
                words += ["--registry", str(home / "registry"), "--set", "evaluate.resamples=100"]
                assert main([*words, "--out", str(home / "run")]) == 0
    return home / "run"


@pytest.fixture
def with_few(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of that run's dataset can be found."""
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(small_run.parent / "registry"))
