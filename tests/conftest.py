"""What several tests share."""

import os
from pathlib import Path

import hypothesis
import pytest

# One thread a worker: two workers with two threads each wait for one another and take five times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# A busy machine is no bug, and a test that failed once fails again.
hypothesis.settings.register_profile("agebench", deadline=None, derandomize=True)
hypothesis.settings.load_profile("agebench")


@pytest.fixture(autouse=True)
def own_homes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own datasets, caches or registry."""
    home = tmp_path_factory.mktemp("home")
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
