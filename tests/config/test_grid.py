"""`--grid`: every combination of values, and nothing else."""

import pytest

from agebench.config.grid import parse_grid, split_values
from agebench.errors import UserError


def test_every_combination_in_order() -> None:
    points = parse_grid(["train.lr=1e-3,1e-4", "seed=0,1"])
    assert [point.label for point in points] == [
        "train.lr=1e-3 seed=0",
        "train.lr=1e-3 seed=1",
        "train.lr=1e-4 seed=0",
        "train.lr=1e-4 seed=1",
    ]
    assert points[1].settings == {"train": {"lr": 0.001}, "seed": 1}
    assert points[0].sets("seed")
    assert not points[0].sets("model.name")


def test_without_options_there_is_one_empty_point() -> None:
    (point,) = parse_grid([])
    assert (point.settings, point.label) == ({}, "")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        ('["a"],["a","b"]', ['["a"]', '["a","b"]']),
        ("'x,y',z", ["'x,y'", "z"]),
        ("{a=[1,2]},3", ["{a=[1,2]}", "3"]),
        ("it's,b", ["it's,b"]),
    ],
)
def test_commas_in_brackets_and_quotes_separate_nothing(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.lr"], "write it as key=value,value"),
        (["train.lr="], "write it as key=value,value"),
        (["seed=1", "seed=2"], "given twice"),
        (
            [f"seed={','.join(map(str, range(40)))}", f"train.epochs={','.join(map(str, range(40)))}"],
            "1,600 combinations",
        ),
    ],
)
def test_a_wrong_grid_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_grid(options)
