"""The manual's cards and classes work as they stand there."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from agebench.config.cards.dataset import DatasetCard
from agebench.config.toml_io import validate_model
from agebench.data.readers import open_reader
from agebench.data.readers.age_parsing import age_range
from agebench.data.readers.folder import compile_pattern
from agebench.registry.catalog import load_catalog

MANUAL = Path(__file__).parents[2] / "docs" / "how-to" / "dataset-card.md"
TEXT = MANUAL.read_text(encoding="utf-8")
CARDS = {
    content["name"]: validate_model(DatasetCard, content, source=str(MANUAL))
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


def test_further_tables_and_lists(tmp_path: Path) -> None:
    touch(tmp_path, "faces/7_31_a.jpg", "faces/8_52_b.jpg", "faces/9_20_c.jpg")
    (tmp_path / "people.csv").write_text("who,sex\n7,1\n8,2\n9,2\n")
    (tmp_path / "glasses.txt").write_text("7_31_a.jpg 1\n8_52_b.jpg 0\n")
    (tmp_path / "train.txt").write_text("7_31_a.jpg\n9_20_c, extra\n")
    (tmp_path / "test.txt").write_text("faces/8_52_b.jpg 52\n")
    table = read("campus", tmp_path)
    assert table["age"].tolist() == [31, 52, 20]
    assert table["gender"].tolist() == ["male", "female", "female"]
    assert table["glasses"].tolist()[:2] == ["yes", "no"]
    assert table["split"].tolist() == ["train", "test", "train"]


def test_the_hub(tmp_path: Path) -> None:
    for split, bucket in (("train", "3-9"), ("validation", "more than 70")):
        labels = {"photo": [{"bytes": b"x", "path": None}], "bucket": [bucket], "gender": ["Male"], "person": [7]}
        pd.DataFrame(labels).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    table = read("campus-hub", tmp_path)
    assert table["age"].tolist() == [6, 80]
    assert table["split"].tolist() == ["train", "test"]
    assert table["subject"].tolist() == ["7", "7"]


@pytest.mark.parametrize(
    "text", re.findall(r"`([^`]+)`", TEXT.split("### Ages that are ranges")[1].split(" are ranges")[0])
)
def test_ranges(text: str) -> None:
    assert age_range(text, (0, 90)) is not None


def test_the_cards_that_ship_are_listed() -> None:
    manual = "".join(page.read_text(encoding="utf-8") for page in MANUAL.parent.glob("*.md"))
    assert {name for name in load_catalog().datasets.names() if f"`{name}`" not in manual} == set()


@pytest.mark.parametrize(("pattern", "path"), re.findall(r"`([^`]*\{age[^`]*\.jpg)` fits\s`([^`]+)`", TEXT))
def test_other_patterns(pattern: str, path: str) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert match is not None
    assert int(match["age"]) in (22, 35)


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    exec(code[1], {"__name__": "manual"})
    reader = open_reader("dated", touch(tmp_path, "1987-2012-a.jpg"), (), {}, source="manual")
    assert reader.read().table["age"].tolist() == [25]
