"""Work over processes: in order, few items at a time."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from factories import few_card

from agebench.errors import AgebenchError
from agebench.utils.parallel import _bounded_map, parallel_map


def die(items: Sequence[int]) -> None:
    """End as a process does that the system kills for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(AgebenchError, match="a worker process was killed, most often because memory ran out"):
        list(parallel_map(die, range(4), workers=2, chunk=1, min_items=2))


class Pool(Executor):
    """Does its work when it is given, or never."""

    def __init__(self, *, quick: bool) -> None:
        self.quick, self.given = quick, list[Future[Any]]()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future = Future[Any]()
        self.given.append(future)
        if self.quick:
            future.set_result(function(*arguments, **named))
        return future


def counted(taken: list[int]) -> Iterator[list[int]]:
    for number in range(10):
        taken.append(number)
        yield [number]


def test_a_result_that_is_ready_waits_for_no_other() -> None:
    taken: list[int] = []
    results = _bounded_map(Pool(quick=True), sum, counted(taken), max_in_flight=8)
    assert next(results) == 0
    assert taken == [0]
    assert list(results) == list(range(1, 10))


def test_a_slow_worker_is_given_no_more_than_it_should_hold() -> None:
    taken: list[int] = []
    pool = Pool(quick=False)

    def finished() -> Iterator[list[int]]:
        for chunk in counted(taken):
            yield chunk
            if len(pool.given) == 3:
                pool.given[0].set_result("first")
                pool.given[1].set_result("second")

    results = _bounded_map(pool, sum, finished(), max_in_flight=4)
    assert [next(results), next(results)] == ["first", "second"]
    assert taken == [0, 1, 2, 3]


SCRIPT = """
import os
from agebench.utils.parallel import parallel_map

def total(numbers):
    return sum(numbers)

print("started")
print(list(parallel_map({function}, range(8), workers=2, chunk=2, min_items=1)))
"""


def run_script(how: str, code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "script.py").write_text(code)
    words = {"file": ["script.py"], "stdin": ["-"], "command": ["-c", code], "module": ["-m", "script"]}[how]
    given = code if how == "stdin" else ""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, input=given, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("how", ["file", "stdin", "command", "module"])
@pytest.mark.parametrize("function", ["sum", "total"])
def test_parallel_map_needs_no_main_guard(how: str, function: str, tmp_path: Path) -> None:
    done = run_script(how, SCRIPT.format(function=function), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\n[1, 5, 9, 13]\n"
    assert not done.stderr


def test_parallel_map_leaves_this_process() -> None:
    assert os.getpid() not in set(parallel_map(process_of, range(4), workers=2, chunk=2, min_items=1))


def test_parallel_map_works_here_with_what_cannot_be_pickled() -> None:
    assert list(parallel_map(lambda numbers: len(numbers), range(4), workers=2, chunk=2, min_items=1)) == [2, 2]


def process_of(numbers: Any) -> int:
    return os.getpid()


PIPELINE = """
from pathlib import Path
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import resolve_config
from agebench.runs.run_dir import RunDir
from agebench.runs.run import run

print("started")
cards = load_catalog([Path("cards")])
settings = {"data": {"train": "few", "test": ["few"]}, "model": {"name": "tiny", "size": 32}, "device": "cpu"}
settings |= {"train": {"epochs": 1}, "evaluate": {"resamples": 100}}
folder = RunDir(Path("run"))
with folder.locked():
    result = run(resolve_config(cards, [settings]), cards, folder, quiet=True)
print("images", result.metrics.tests["few"].n)
"""
CARD = few_card(640, title="Generated faces, enough for several processes", seed=11, size=64)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_plain_script_runs_the_pipeline(how: str, tmp_path: Path) -> None:
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(CARD)
    done = run_script(how, PIPELINE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1
    assert "images 128" in done.stdout
