"""Help pages: groups, examples that the parser takes, renamed options, aliases and suggestions."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.cli import ALIASES, COMMANDS, build_parser, main
from agebench.cli._help import EXAMPLES, HIDDEN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return build_parser(COMMANDS)


def _subparsers(parser: argparse.ArgumentParser, prefix: str = "") -> dict[str, argparse.ArgumentParser]:
    """Every command and action once, under its first name."""
    named: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, subparser in action.choices.items():
                if subparser not in named.values():
                    named[f"{prefix}{word}"] = subparser
                    named |= _subparsers(subparser, f"{prefix}{word} ")
    return named


def test_every_command_and_action_has_two_examples(parser: argparse.ArgumentParser) -> None:
    assert set(_subparsers(parser)) == set(EXAMPLES)
    for command, (page, *examples) in EXAMPLES.items():
        assert len(examples) == 2
        assert (ROOT / page).is_file(), page
        assert all(example.startswith(f"agebench {command}") for example in examples)


def test_every_example_is_understood(parser: argparse.ArgumentParser) -> None:
    for command, (_, *examples) in EXAMPLES.items():
        for example in examples:
            assert parser.parse_args(shlex.split(example)[1:]).command == command.split()[0]


def test_help_shows_groups_and_examples(parser: argparse.ArgumentParser) -> None:
    for command, subparser in _subparsers(parser).items():
        text = subparser.format_help()
        assert "examples:\n  agebench" in text
        assert "manual: docs/" in text
        assert not any(option in text for option in HIDDEN)
        if command in ("run", "test"):
            assert all(f"\n{title}:\n" in text for title in ("data", "model", "training", "output"))


OLD = {
    "predict": (
        *(("--faces none", "--align none"), ("--search 640", "--detect-size 640"), ("--level 0.8", "--coverage 0.8")),
        *(("--trusted", "--allow-code-execution"), ("--draw d", "--annotate-dir d"), ("--every 5", "--detect-every 5")),
    ),
    "score": (("--first-age 16", "--p-first-age 16"),),
    "reproduce": (("--anyway", "--force"),),
}
POSITIONAL = {"predict": "model image.jpg", "score": "p.csv", "reproduce": "record.json"}


@pytest.mark.parametrize(("command", "old", "new"), [(name, *pair) for name, pairs in OLD.items() for pair in pairs])
def test_old_option_works_with_a_warning(
    command: str, old: str, new: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed = [parser.parse_args([command, *POSITIONAL[command].split(), *words.split()]) for words in (old, new)]
    assert vars(parsed[0]) == vars(parsed[1])
    old_option, new_option = old.split()[0], new.split()[0]
    assert capsys.readouterr().err.startswith(f"agebench: {old_option} is deprecated")
    text = _subparsers(parser)[command].format_help()
    assert f"{new_option}" in text
    assert f"{old_option} " not in text


@pytest.mark.parametrize(("command", "alias"), ALIASES.items())
def test_aliases_are_the_same_command(command: str, alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for word in (command, alias):
        with pytest.raises(SystemExit) as stopped:
            main([word, "--help"])
        assert stopped.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]


@pytest.mark.parametrize("words", ["data add n p", "data get n", "data check", "data faces n"])
def test_old_actions_of_data_work(words: str, parser: argparse.ArgumentParser) -> None:
    assert parser.parse_args(words.split()).act


def test_misspelled_action_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "imprt"])
    assert stopped.value.code == 2
    assert "did you mean 'import'?" in capsys.readouterr().err


def test_completion_of_commands_and_options() -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not installed")
    line = "agebench data impo"
    environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    code = "import os, sys; os.dup2(1, 8); os.dup2(2, 9); from agebench.cli import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.stdout.split() == ["import"], done.stderr
