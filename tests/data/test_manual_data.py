"""The manual's cards and classes work as they stand there."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from agebench.data.readers import open_reader
from agebench.data.readers.folder import compile_pattern
from agebench.registry.builtin import readers
from agebench.registry.cards import DatasetCard, validated

MANUAL = Path(__file__).parents[2] / "docs" / "data.md"
TEXT = MANUAL.read_text(encoding="utf-8")
CARDS = {
    content["name"]: validated(DatasetCard, content, source=str(MANUAL))
    for content in map(tomllib.loads, re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(name: str, root: Path) -> pd.DataFrame:
    card = CARDS[name]
    return open_reader(card.reader, root, card.groups, card.options, source=name).read().table


def test_the_table(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/b.jpg")
    (tmp_path / "labels.csv").write_text("file;years;gender;Fitzpatrick\na.jpg;31;0;II\nb.jpg;52;9;\n")
    table = read("clinic", tmp_path)
    assert table["gender"].tolist()[0] == "male"
    assert table["gender"].isna().tolist() == [False, True]
    assert table["skin_type"].isna().tolist() == [False, True]


def test_the_pattern(tmp_path: Path) -> None:
    table = read("afad", touch(tmp_path, "AFAD/19/111/7-0.jpg", "AFAD/40/112/8-0.jpg"))
    assert table["age"].tolist() == [19, 40]
    assert table["gender"].tolist() == ["male", "female"]


@pytest.mark.parametrize(("pattern", "path"), re.findall(r"`([^`]*\{age[^`]*\.jpg)` fits\s`([^`]+)`", TEXT))
def test_other_patterns(pattern: str, path: str) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert match is not None
    assert int(match["age"]) in (22, 35)


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    if "dated" not in readers.names():
        exec(code[1], {"__name__": "manual"})
    reader = open_reader("dated", touch(tmp_path, "1987-2012-a.jpg"), (), {}, source="manual")
    assert reader.read().table["age"].tolist() == [25]


def test_every_key_of_a_card_is_explained() -> None:
    section = TEXT.split("## A card's keys")[1].split("\n## ")[0]
    assert {key for key in DatasetCard.model_fields if f"`{key}`" not in section} == set()
