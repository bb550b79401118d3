import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agebench import cli
from agebench.utils import locks, progress
from agebench.utils.progress import above_progress, console_log, silence, step


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread; the limit only ends a test that fails."""
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.005)


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> Stream:
    """Standard error, with progress that is shown at once; in the test's body, for pytest sets its own in between."""
    for name in ("SHOWN_AFTER_S", "REFRESHED_S", "LINE_EVERY_S"):
        monkeypatch.setattr(progress, name, 0.01)
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_progress_counts_and_names() -> None:
    with progress.progress(total=2000, label="utk: reading\x1b[31m", unit="img") as bar:
        bar.update(1500)
        bar.note = "3 img/s"
        assert bar.line() == "utk: reading�[31m: 1,500 of 2,000 img, 3 img/s, 0 s"
    assert list(progress.progress([1, 2])) == [1, 2]
    assert progress.progress([1, 2]).total == 2
    assert step("evaluating").line() == "evaluating: 0 s"


def test_slow_step_prints_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    with progress.progress(total=3, label="slow", unit="img"):
        until(lambda: lines.getvalue().count("slow: 0 of 3 img") >= 2)
    assert all(line.startswith("slow: ") for line in lines.getvalue().splitlines())


def test_innermost_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    with step("outer"):
        until(lambda: "outer" in lines.getvalue())
        with step("inner"):
            until(lambda: "inner" in lines.getvalue())
            lines.truncate(0)
            until(lambda: lines.getvalue().count("inner") >= 3)
            assert lines.getvalue().count("outer") <= 1  # at most one that was under way
        lines.truncate(0)
        until(lambda: "outer" in lines.getvalue())


def test_silence_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    with step("outer"), silence():
        time.sleep(0.03)
        lines.truncate(0)
        time.sleep(0.1)
        assert lines.getvalue() == ""


def test_bar_makes_room_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(monkeypatch, terminal=True)
    with step("outer"), above_progress(), console_log():
        until(lambda: "outer" in terminal.getvalue())
        print("a line", file=sys.stderr)
        said = terminal.getvalue()
        assert said[: said.index("a line")].endswith("\r")  # the bar is gone
        logging.getLogger("agebench.part").info("another")
        until(lambda: "outer" in terminal.getvalue()[len(said) :])
    assert sys.stderr is terminal


def test_console_log_names_the_program_in_warnings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    logger = logging.getLogger("agebench.part")
    with console_log():
        logger.info("epoch 1")
        logger.warning("no space: %s", "here")
        logger.debug("detail")
    logger.info("after the program")
    assert lines.getvalue() == "epoch 1\nagebench: no space: here\n"


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, terminal=False)
    closed = Stream(terminal=False)
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        with above_progress(), console_log(), step("x"):
            logging.getLogger("agebench").warning("lost")
            time.sleep(0.03)
        assert sys.stderr is stream


def test_every_command_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    import agebench.cli.list

    def slow(arguments: object) -> int:
        until(lambda: "agebench list: " in lines.getvalue())
        return 0

    monkeypatch.setattr(agebench.cli.list, "run", slow)
    assert cli.main(["list"]) == 0


def test_lock_names_whom_it_waits_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = shown(monkeypatch, terminal=False)
    monkeypatch.setattr(locks, "_REPORT_AFTER_S", 0.01)
    monkeypatch.setattr(locks, "_POLL_S", 0.01)
    path, held, may_end = tmp_path / "lock", threading.Event(), threading.Event()

    def hold() -> None:
        with locks.held(path, "preparing faces of utk"):
            held.set()
            may_end.wait(30)

    owner = threading.Thread(target=hold)
    owner.start()
    assert held.wait(30)
    threading.Thread(target=lambda: (until(lambda: "waiting for process" in lines.getvalue()), may_end.set())).start()
    with locks.held(path, "preparing faces of utk"):
        owner.join()
    assert f"preparing faces of utk: waiting for process {os.getpid()} on " in lines.getvalue()
    assert locks.lock_owner(path) == ""


def test_lock_of_an_unknown_owner(tmp_path: Path) -> None:
    assert locks.lock_owner(tmp_path / "lock") == ""
    (tmp_path / "lock.owner").write_bytes(b"\xff\x1b[31m" + b"x" * 1000)
    assert locks.lock_owner(tmp_path / "lock").isprintable()
