"""The prose checker finds what it is for, and nothing in code."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("prose_checker", Path(__file__).with_name("prose.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
prose_checker = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(prose_checker)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prose_checker, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""What a model does."""\n', "opens with 'What'"),
        ('"""Load a file from a stranger."""\n', "'stranger'"),
        ("x = 1  # the card says so\n", "'says'"),
        ('raise ValueError("the colour is wrong")\n', "'colour'"),
        ('"""Normalise images."""\n', "'Normalise'"),
    ],
)
def test_word_is_found(text: str, expected: str, root: Path) -> None:
    (root / "module.py").write_text(text)
    assert expected in "\n".join(prose_checker.problems(root / "module.py"))


def test_names_keys_and_code_are_not_prose(root: Path) -> None:
    (root / "module.py").write_text('said = {"standardised": 1}\n"""Return what `normalise` returns."""\n')
    (root / "page.md").write_text("Use `says`.\n```sh\nagebench stranger\n```\n[x](picture.md)\n")
    assert not [*prose_checker.problems(root / "module.py"), *prose_checker.problems(root / "page.md")]
