import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.cli import COMMANDS, main


@pytest.mark.parametrize("words", [["--help"], ["list"], ["info", "tiny"], ["run", "--help"], ["--version"]])
def test_the_front_door_loads_neither_torch_nor_pandas(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from agebench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'timm', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_help_imports_what_it_does_not_show() -> None:
    code = """
import contextlib, io, sys
from agebench.cli import COMMANDS, main
for command in COMMANDS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([command, "--help"])
    heavy = {"numpy", "pandas", "torch", "timm", "scipy", "pyarrow", "PIL", "pydantic", "tqdm", "matplotlib"} & set(sys.modules)
    assert not heavy, (command, heavy)
with contextlib.redirect_stdout(io.StringIO()):
    main(["list"])
heavy = {"numpy", "pandas", "torch", "timm", "scipy", "pyarrow", "PIL", "tqdm", "matplotlib"} & set(sys.modules)
assert not heavy, ("list", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train", "run"),
        ("scroe", "score"),
        ("Leaderbord", "leaderboard"),
        ("eval", "test"),
        ("download", "data download"),
    ],
)
def test_an_unknown_command_offers_the_near_one(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--test", "utk"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"agebench: no command '{word}'; did you mean `agebench {meant}`? `agebench --help` lists the commands\n"
    )


def test_a_command_like_none_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[31mqq"]) == 2
    assert capsys.readouterr().err.endswith("[31mqq'; `agebench --help` lists the commands\n")


def test_python_dash_m_is_the_console_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agebench", "list", "models"], capture_output=True, text=True, check=True
    )
    assert "efficientnet_lite0" in done.stdout


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"utk", "fgnet", "synth", "synth-shift"} <= found["datasets"].keys()
    assert {"resnet50", "efficientnet_b0", "efficientnet_lite0", "tiny"} <= found["models"].keys()
    assert found["broken"] == {}


def test_info_of_an_unknown_name_offers_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "fgnt"]) == 2
    assert "did you mean 'fgnet'" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"agebench {command}" in text
    assert "?." not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_print_json(name: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"agebench.cli.{name}").add_arguments(parser)
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for part in actions[0].choices.values() if actions else [parser]:
        assert "--json" in part.format_help(), part.prog


@pytest.mark.parametrize("words", [["explore", "synth"], ["data", "audit", "synth"], ["data", "align", "synth"]])
def test_an_out_that_cannot_be_written_stops_at_once(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agebench.data.readers.synth import SynthReader

    monkeypatch.setattr(SynthReader, "read", lambda self: pytest.fail("read before --out was tried"))
    (tmp_path / "file").write_text("")
    assert main([*words, "--out", str(tmp_path / "file" / "deeper")]) == 2
    assert f"{tmp_path / 'file' / 'deeper'}: cannot be written" in capsys.readouterr().err
