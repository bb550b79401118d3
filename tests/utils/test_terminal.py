"""No name that comes from a card, a file or a table moves the cursor of who reads our output."""

import io
import json
import logging
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from agebench.cli import main
from agebench.utils.progress import progress
from agebench.utils.terminal import escape_controls, printable_streams

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\x7fage\x08"


def has_controls(text: str) -> bool:
    return any(letter not in "\n\t" and escape_controls(letter) != letter for letter in text)


def test_escape_controls_is_readable_as_json() -> None:
    assert json.loads(f'"{escape_controls(EVIL)}"') == EVIL
    for text in ("Ä 中 é 🙂", "a\tb\n", "a\r\nb", ""):
        assert escape_controls(text) == text


def test_streams_escape_what_is_printed_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with printable_streams():
        print(EVIL)
        sys.stderr.writelines([EVIL])
        logging.StreamHandler().emit(logging.makeLogRecord({"msg": EVIL}))
        with printable_streams():
            print("\udcff", file=sys.stderr)
    out, err = capsys.readouterr()
    assert not has_controls(out + err)
    assert out.count("\\u001b") == 2
    assert err.count("\\u001b") == 4
    assert "\\udcff" in err


def test_progress_bars_show_no_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("agebench.utils.progress.SHOWN_AFTER_S", 0.01)
    with printable_streams(), progress(total=2, label=EVIL):
        while not terminal.getvalue():
            threading.Event().wait(0.01)
    assert not has_controls(terminal.getvalue().replace("\r", ""))


@pytest.fixture
def evil_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cards and files whose words and names are control characters."""
    words = json.dumps(EVIL)  # a TOML string can be written as JSON
    folder = tmp_path / "registry" / "datasets"
    folder.mkdir(parents=True)
    card = f'name = "mine"\ntitle = {words}\nreader = "folder"\nlicence = {words}\nhow_to_get = {words}\n'
    (folder / "mine.toml").write_text(card)
    (folder / "broken.toml").write_text(
        f'name = "broken"\ntitle = {words}\nreader = {words}\nlicence = ""\nx = {words}\n'
    )
    (tmp_path / "photos" / "20").mkdir(parents=True)
    (tmp_path / "photos" / "20" / EVIL.replace("/", "")).with_suffix(".jpg").write_bytes(b"no image")
    table = f"sample_id,age,age_pred,{EVIL.strip()}\n"
    table += "".join(f"{EVIL.strip()}{row},{20 + row},{21 + row},{EVIL.strip()}{row % 2}\n" for row in range(80))
    (tmp_path / "table.csv").write_text(table.replace("\r", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = (
    ["list"],
    ["info", "mine"],
    ["info", EVIL],
    ["data", "list"],
    ["data", "add", "mine", "photos"],
    ["data", "add", "mine", f"photos/{EVIL}"],
    ["data", "check", "mine", "--full"],
    ["score", "table.csv"],
    ["score", "table.csv", "--json"],
    ["score", f"{EVIL}.csv"],
    ["compare", f"{EVIL}=table.csv", "b=table.csv"],
    ["run", "--train", EVIL],
    ["leaderboard", "--results", EVIL],
    ["new", "head", EVIL],
    ["run", f"--{EVIL}"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: escape_controls(" ".join(words)).split("\\")[0])
def test_commands_print_no_control_characters(
    words: list[str], evil_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--resamples", "0"] if words[0] in ("score", "compare") else ["--registry", "registry"]
    words = [*words, *more]
    if "check" in words:
        main(["data", "add", "mine", "photos", "--registry", "registry"])
    with suppress(SystemExit):
        main(words)
    out, err = capsys.readouterr()
    assert out + err
    assert not has_controls(out + err), ascii(out + err)
    if "--json" in words:
        json.loads(out)


def test_streams_are_restored_and_closed_ones_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        main(["--help"])
    assert (sys.stdout, sys.stderr) == before
    monkeypatch.setattr(sys, "stdout", None)
    with printable_streams():
        assert sys.stdout is None
