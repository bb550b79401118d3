"""A plugin's card finds what lies beside it, as a card in a folder of cards does."""

from pathlib import Path

import pytest

from agebench.plugins import DatasetCard, ExternalCard, ModelCard, read_card

CALLED = """
name = "ruler"
title = "A ruler"
licence = "CC0-1.0"
format = "{format}"
source = "{source}"
input = {{ size = 32 }}
"""
DIVIDED = """
name = "discs"
title = "Discs"
reader = "csv"
licence = "CC0-1.0"
[[protocols]]
name = "lists"
kind = "lists"
files = { train = "train.txt", test = "test.txt" }
"""


@pytest.mark.parametrize(
    ("form", "source", "found"),
    [
        ("onnx", "ruler.onnx", "{folder}/ruler.onnx"),
        ("callable", "ruler.py:ages", "{folder}/ruler.py:ages"),
        ("command", "python {here}/ruler.py {input} {output}", "python {folder}/ruler.py {{input}} {{output}}"),
    ],
)
def test_model_beside_its_card_is_found(
    form: str, source: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ruler.toml").write_text(CALLED.format(format=form, source=source))
    monkeypatch.chdir(tmp_path)
    assert read_card(ExternalCard, Path("ruler.toml")).source == found.format(folder=tmp_path)


def test_lists_beside_a_dataset_card_are_found(tmp_path: Path) -> None:
    (tmp_path / "discs.toml").write_text(DIVIDED)
    (tmp_path / "train.txt").touch()
    card = read_card(DatasetCard, tmp_path / "discs.toml")
    assert card.protocols[0].files == {"train": str(tmp_path / "train.txt"), "test": "test.txt"}


def test_card_of_a_network_is_read() -> None:
    shipped = Path(__file__).parents[2] / "registry" / "models" / "tiny.toml"
    assert read_card(ModelCard, shipped).name == "tiny"
