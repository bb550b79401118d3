"""Standard streams, folders and limits that are unusual: one line and the right exit code."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from factories import few_card

from agebench.cli import main
from agebench.config.toml_io import read_settings


def agebench(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "agebench", *words]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def test_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = agebench("list", "datasets", stdout=full)
    assert done.returncode == 1
    assert done.stderr.strip() == "agebench: standard output cannot be written: No space left on device"


def test_closed_standard_streams() -> None:
    """What is printed must not end in the next file that is opened."""
    done = agebench("list", "datasets", preexec_fn=lambda: [os.close(descriptor) for descriptor in (0, 1)])
    assert (done.returncode, done.stderr) == (0, "")


def test_standard_output_that_knows_ascii_alone() -> None:
    program = "from agebench.cli import _open_standard_streams as f; f(); print('5 \\u2013 7 \\u00b1 1')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "5 ? 7 ? 1\n"


def test_address_space_too_small_is_one_line(tmp_path: Path) -> None:
    limit = 1_200_000 * 1024
    words = ["run", "--train", "synth", "--model", "tiny", "--out", str(tmp_path / "run")]
    done = agebench(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ulimit -v allows 1,200,000 KiB" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "is a file, not a folder; choose another folder with --out"),
        ("file/run", "no run can be written there: Not a directory"),
        ("/proc", "is not empty and holds no run"),
        ("/proc/run", "no run can be written there"),
    ],
)
def test_out_that_is_no_folder(
    out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["run", "--train", "synth", "--model", "tiny", "--out", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_read_only_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["run", "--train", "synth", "--model", "tiny", "--out", str(tmp_path / "run")]) == 2
    assert "no run can be written there: Permission denied; choose another" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["/dev/zero", "/", "missing.toml"])
def test_config_that_is_no_config(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", source]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert source in line


def test_endless_exclude_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agebench.data.exclusions._MAX_BYTES", 1 << 20)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "few.toml").write_text(few_card(20, size=64))
    words = ["run", "--train", "few", "--model", "tiny", "--registry", str(tmp_path)]
    assert main([*words, "--exclude", "/dev/zero"]) == 2
    assert "/dev/zero: has more than 1,048,576 bytes" in capsys.readouterr().err


def test_run_without_a_training_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--train DATASET is missing" in line


def test_config_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if not os.fork():
        pipe.write_text("seed = 3\n")
        os._exit(0)
    assert read_settings(pipe) == {"seed": 3}
