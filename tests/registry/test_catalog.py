import os
from pathlib import Path

import pytest

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.model import ModelCard
from agebench.config.toml_io import read_toml, validate_model
from agebench.errors import UserError
from agebench.metrics.groups import AGE_BAND_COLUMN
from agebench.registry.catalog import load_catalog

MODEL = """
name = "{name}"
title = "A model"
backbone = "resnet18"
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "models" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_shipped_cards_are_all_good() -> None:
    found = load_catalog()
    assert found.datasets.broken() == {}
    assert found.models.broken() == {}


def test_extra_folders_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", "one", MODEL.format(name="one"))
    write(tmp_path / "b", "two", MODEL.format(name="two"))
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(tmp_path / "a"))
    assert {"one", "two", "tiny"} <= set(load_catalog([tmp_path / "b"]).models.names())


def test_two_cards_of_one_name_are_both_named(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine", MODEL.format(name="tiny"))
    with pytest.raises(UserError) as refused:
        load_catalog([tmp_path])
    assert str(mine) in str(refused.value)
    assert "registry/models/tiny.toml" in str(refused.value)


def test_a_card_with_a_typo_is_listed_as_broken_and_the_others_stand(tmp_path: Path) -> None:
    path = write(tmp_path, "typo", MODEL.format(name="typo") + 'hed = "coral"\n')
    found = load_catalog([tmp_path])
    assert found.models.broken() == {"typo": f"{path}: unknown key 'hed'; did you mean 'head'?"}
    assert "tiny" in found.models.names()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('size = "big"', "size = 'big': input should be a valid integer"),
        ("size = 4", "size = 4: input should be greater than or equal to 32"),
        ("[train]\nlr = -1", "train.lr = -1: input should be greater than 0"),
        ("[train]\noptimizer = 'sgd'", "unknown key 'train.optimizer'; did you mean 'optimiser'?"),
        ("size = ", "not a readable TOML card"),
    ],
)
def test_a_bad_card_names_file_key_and_value(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, "bad", MODEL.format(name="bad") + line + "\n")
    with pytest.raises(UserError) as refused:
        validate_model(ModelCard, read_toml(path), source=str(path))
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_no_group_is_called_like_the_bands_of_true_age() -> None:
    content = {"name": "mine", "title": "", "reader": "csv", "licence": "x", "groups": [AGE_BAND_COLUMN]}
    with pytest.raises(UserError, match="'age_band' is the name of the bands of the true age; give the column another"):
        validate_model(DatasetCard, content, source="mine.toml")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such registry folder"):
        load_catalog([tmp_path / "nothing"])


def test_shipped_suites_name_what_exists() -> None:
    found = load_catalog()
    assert found.suites.names()
    for suite in map(found.suites.get, found.suites.names()):
        assert {*suite.train, *suite.test} <= set(found.datasets.names())
        assert set(suite.models) <= set(found.models.names())


def test_a_card_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    write(tmp_path, "a", 'name = "mine-coral"\nextends = "mine"\nhead = "coral"\n[train]\nlr = 0.5\n')
    write(tmp_path, "b", MODEL.format(name="mine") + "size = 64\nhead_options = { loss = 'l2' }\n[train]\nepochs = 3\n")
    card = load_catalog([tmp_path]).models.get("mine-coral")
    assert (card.backbone, card.size, card.head) == ("resnet18", 64, "coral")
    assert (card.train.epochs, card.train.lr) == (3, 0.5)
    assert card.head_options == {}  # they were the other head's


@pytest.mark.parametrize(
    ("base", "message"),
    [("tinny", "did you mean 'tiny'"), ("mine", "leads back to itself"), ("other", "back to itself")],
)
def test_a_card_that_extends_nothing_is_broken(base: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "mine", f'name = "mine"\nextends = "{base}"\n')
    write(tmp_path, "other", 'name = "other"\nextends = "mine"\n')
    reason = load_catalog([tmp_path]).models.broken()["mine"]
    assert str(path) in reason
    assert message in reason


GOOD = MODEL.format(name="good")
DATASET = 'name = "bad"\ntitle = ""\nreader = "folder"\nlicence = "x"\n'
UNUSABLE = {
    "extends-list": 'extends = ["utk"]',
    "extends-table": "extends = { a = 1 }",
    "extends-number": "extends = 3",
    "name-list": 'name = ["a"]\ntitle = "t"\nbackbone = "resnet18"',
    "no-name": 'title = "t"\nbackbone = "resnet18"',
    "long-name": MODEL.format(name="a" * 300),
    "deep-list": "x = " + "[" * 50_000,
    "deep-closed": "x = " + "[" * 90 + "]" * 90,
    "deep-table": "x = " + "{a = " * 500 + "1" + "}" * 500,
    "huge-integer": MODEL.format(name="bad") + "size = " + "9" * 5000,
    "long-integer": MODEL.format(name="bad") + "head_options = { x = " + "9" * 4000 + " }",
    "hexadecimal": MODEL.format(name="bad") + "head_options = { x = 0x" + "f" * 20_000 + " }",
    "dots": "a" + ".a" * 50_000 + " = 1",
    "quoted-dots": '"a"' + '."a"' * 50_000 + " = 1",
    "dotted-header": "[a" + ".a" * 50_000 + "]",
    "std-zero": MODEL.format(name="bad") + "std = [0, 0, 0]",
    "std-nan": MODEL.format(name="bad") + "std = [nan, 1, 1]",
    "mean-infinite": MODEL.format(name="bad") + "mean = [inf, 0, 0]",
    "rate-infinite": MODEL.format(name="bad") + "train = { lr = inf }",
    "not-utf8": b'title = "\xff\xfe"',
    "empty": "",
    "many-keys": "\n".join(f"key{number} = 1" for number in range(20_000)),
    "too-long": "#" * 2_000_000,
    "home-unknown": 'name = "bad"\nkind = "external"\ntitle = ""\nformat = "onnx"\nsource = "~no-such-user/m"\nlicence = ""',
}
PATTERNS = {
    "integer": "5",
    "list": '["a"]',
    "nested-repeat": r"'{:(a+)+b}{age}.jpg'",
    "nested-count": r"'{:(?:\d*x?){30}}{age}.jpg'",
    "open": "'{age:(}.jpg'",
    "twice": "'{age}{age}.jpg'",
    "long": "'{age}" + "a" * 5000 + "'",
    "count": r"'{age:\d{99999999999}}'",
}


def unusable(folder: Path, kind: str, text: str | bytes) -> Path:
    path = folder / kind / "bad.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_card_is_broken_alone(text: str | bytes, tmp_path: Path) -> None:
    path = unusable(tmp_path, "models", text)
    write(tmp_path, "good", GOOD)
    found = load_catalog([tmp_path])
    reason = found.models.broken()["bad"]
    assert reason.startswith(f"{path}: ")
    assert len(reason) < 2000
    assert {"good", "tiny"} <= set(found.models.names())


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_an_unusable_pattern_breaks_its_card(pattern: str, tmp_path: Path) -> None:
    path = unusable(tmp_path, "datasets", f"{DATASET}options = {{ pattern = {pattern} }}")
    reason = load_catalog([tmp_path]).datasets.broken()["bad"]
    assert reason.startswith(f"{path}: options.pattern")


@pytest.mark.parametrize("target", ["/dev/zero", "pipe", "folder", "gone"])
def test_a_card_that_is_no_regular_file_is_broken(target: str, tmp_path: Path) -> None:
    card = tmp_path / "models" / "bad.toml"
    card.parent.mkdir()
    if target == "pipe":
        os.mkfifo(card)
    elif target == "folder":
        card.mkdir()
    else:
        card.symlink_to(target)
    found = load_catalog([tmp_path])
    assert "bad" in found.models.broken()
    assert "tiny" in found.models.names()


def test_a_broken_card_keeps_no_name_from_a_good_one(tmp_path: Path) -> None:
    path = write(tmp_path, "good", "title = ")
    write(tmp_path, "other", GOOD)
    found = load_catalog([tmp_path])
    assert found.models.get("good").title == "A model"
    assert f"good ({path})" in found.models.broken()


def test_a_card_with_many_problems_lists_the_first(tmp_path: Path) -> None:
    write(tmp_path, "bad", MODEL.format(name="bad") + "\n".join(f"key{number} = 1" for number in range(30)))
    assert load_catalog([tmp_path]).models.broken()["bad"].endswith("; and 25 more problems")
