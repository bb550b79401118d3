"""One division or many from a protocol; what leaks is found, never assumed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.protocol import Protocol
from agebench.config.toml_io import validate_model
from agebench.data.samples import Samples, validate_samples
from agebench.data.splits.folds import Folds
from agebench.data.splits.protocols import make_folds
from agebench.data.splits.split_files import write_split_files
from agebench.data.splits.splits import make_split
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog
from agebench.types import Split


def protocol(**content: Any) -> Protocol:
    return Protocol.model_validate({"name": "mine", **content})


def samples(people: list[int | None], digests: list[int] | None = None, **more: list[Any]) -> Samples:
    digest = [f"d{number}" for number in (digests or range(len(people)))]
    table = pd.DataFrame(
        {
            "sample_id": [f"s{number}" for number in range(len(people))],
            "path": [f"images/{number}.jpg" for number in range(len(people))],
            "age": [float(number % 70 + 1) for number in range(len(people))],
            "subject": [None if who is None else f"{who:03d}" for who in people],
            "bytes_digest": digest,
            "pixels_digest": digest,
            **more,
        }
    )
    return validate_samples(table)


def divide(one: Protocol | None, whole: Samples, seed: int = 0, root: Path | None = None) -> Folds:
    return make_folds(one, whole, test=0.2, val=0.15, seed=seed, source="few", root=root)


PEOPLE = [number // 3 for number in range(60)]  # 20 people, 3 images each


def test_without_a_protocol_it_is_the_split_of_always() -> None:
    whole = samples(PEOPLE)
    ours, theirs = divide(None, whole, seed=3).split(0), make_split(whole, test=0.2, val=0.15, seed=3)
    for part in ("train", "val", "test"):
        pd.testing.assert_frame_equal(getattr(ours, part).table, getattr(theirs, part).table)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=10, max_size=20), st.integers(2, 5), st.integers(0, 3))
def test_k_folds_test_each_image_once_and_nobody_stands_on_both_sides(pictures: list[int], k: int, seed: int) -> None:
    people = np.repeat(np.arange(len(pictures)), pictures).tolist()
    folds = divide(protocol(kind="folds", k=k), samples(people), seed)
    assert ((folds.assignment == Split.TEST).sum(axis=0) == 1).all()
    assert folds.count_leaks() == {"duplicates": 0, "subjects": 0}
    for parts in folds.assignment:
        whose = [set(np.array(people)[parts == part]) for part in (Split.TRAIN, Split.VAL, Split.TEST)]
        assert sum(map(len, whose)) == len(set(people))


@pytest.mark.parametrize(
    "one",
    [
        None,
        protocol(kind="folds", k=3),
        protocol(kind="leave-one-subject-out"),
        protocol(kind="holdout", strict=False),
        protocol(kind="official", column="part"),
    ],
    ids=["default", "folds", "leave-one-out", "holdout", "official"],
)
def test_the_order_of_rows_changes_no_split(one: Protocol | None) -> None:
    ages = [20.0 + who % 2 for who in PEOPLE]  # many people of one mean age
    whole = samples(PEOPLE, part=["test" if who % 5 == 0 else "train" for who in PEOPLE], age=ages)
    other = Samples(whole.table.sample(frac=1, random_state=0).reset_index(drop=True), whole.groups)
    first, second = (
        pd.DataFrame(folds.assignment.T, index=folds.samples.table["sample_id"]).sort_index()
        for folds in (divide(one, whole, seed=3), divide(one, other, seed=3))
    )
    pd.testing.assert_frame_equal(first, second)


def test_leave_one_person_out() -> None:
    folds = divide(protocol(kind="leave-one-subject-out"), samples(PEOPLE))
    assert folds.names == tuple(f"{who:03d}" for who in range(20))
    for name, parts in zip(folds.names, folds.assignment, strict=True):
        assert set(np.array(PEOPLE)[parts == Split.TEST]) == {int(name)}
        assert 6 <= (parts == Split.VAL).sum() <= 12
        assert not set(np.array(PEOPLE)[parts == Split.VAL]) & set(np.array(PEOPLE)[parts == Split.TRAIN])


def test_of_three_people_one_validates() -> None:
    folds = divide(protocol(kind="leave-one-subject-out"), samples([1, 1, 1, 2, 2, 2, 3, 3, 3]))
    assert [(parts == Split.VAL).sum() for parts in folds.assignment] == [3, 3, 3]


def test_the_five_splits_of_ten_folders() -> None:
    whole = samples(PEOPLE, folder=[who % 10 for who in PEOPLE])
    rotations = [
        {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9]},
        {"train": [2, 3, 4, 5, 6, 7], "val": [8, 9], "test": [0, 1]},
    ]
    folds = divide(protocol(kind="folds", column="folder", splits=rotations), whole)
    assert set(whole.table["folder"][folds.assignment[1] == Split.TEST]) == {0, 1}
    assert set(whole.table["folder"][folds.assignment[0] == Split.VAL]) == {6, 7}
    assert folds.to_frame().columns.tolist() == ["fold 1", "fold 2"]


def test_image_by_image_leaks_and_strictly_it_does_not() -> None:
    whole = samples([None] * 60, digests=[number // 2 for number in range(60)])
    loose = divide(protocol(kind="holdout", strict=False, test_share=0.5), whole)
    assert loose.count_leaks()["duplicates"] > 5
    assert divide(protocol(kind="holdout", test_share=0.5), whole).count_leaks() == {"duplicates": 0, "subjects": 0}


@pytest.mark.parametrize("official", [None, protocol(kind="official"), protocol(kind="official", column="fold")])
def test_images_outside_of_an_official_split_are_rejected_with_a_reason(
    official: Protocol | None,
) -> None:
    parts = ["train"] * 30 + ["val"] * 10 + ["test"] * 18 + [None] * 2
    whole = samples([None] * 60, split=parts, fold=parts)
    folds = divide(official, whole)
    assert folds.samples.rejected["sample_id"].tolist() == ["s58", "s59"]
    assert set(folds.samples.rejected["reason"]) == {"in no part of the official split"}
    assert folds.assignment[0].tolist() == [Split.TRAIN] * 30 + [Split.VAL] * 10 + [Split.TEST] * 18
    assert len(divide(protocol(kind="holdout"), whole).samples) == 60  # other divisions have them


def test_a_protocols_own_lists_may_name_images_that_the_official_split_does_not(tmp_path: Path) -> None:
    whole = samples([None] * 9, split=["train"] * 4 + ["test"] * 3 + [None] * 2)
    for name, numbers in (("train", (0, 1, 2)), ("val", (7,)), ("test", (8,))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"s{number}" for number in numbers))
    files = {part: f"{part}.txt" for part in ("train", "val", "test")}
    folds = make_folds(protocol(kind="lists", files=files), whole, test=0.2, val=0.2, seed=0, root=tmp_path)
    assert folds.assignment[0].tolist() == [0, 0, 0, -1, -1, -1, -1, 1, 2]


def test_an_official_split_runs_as_published_and_its_leaks_are_counted() -> None:
    parts = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    digests = list(range(60))
    digests[59] = 0
    whole = samples([None] * 58 + [7, 8], digests, split=parts)
    whole.table.loc[3, "subject"] = "007"
    folds = divide(protocol(kind="official"), whole)
    assert folds.count_leaks() == {"duplicates": 1, "subjects": 1}
    assert (folds.assignment >= 0).all()
    strict = divide(protocol(kind="official", strict=True), whole)
    assert strict.count_leaks() == {"duplicates": 0, "subjects": 0}
    assert strict.n_cross_split_removed == 2


def test_ages_from_and_below_are_put_aside_with_their_reason() -> None:
    folds = divide(protocol(kind="holdout", ages_from=10, ages_below=30), samples([None] * 60))
    assert folds.samples.table["age"].between(10, 29).all()
    assert len(folds.samples.rejected) == 40
    assert folds.samples.rejected["reason"].iloc[0] == "age 1 is outside the protocol's [10, 30)"


def lists(root: Path) -> Protocol:
    (root / "train.txt").write_text("\n".join(f"images/{number}.jpg" for number in range(40)))
    (root / "test.csv").write_text("image_name,age\n" + "\n".join(f"{number}.jpg,1" for number in range(40, 59)))
    return protocol(kind="lists", files={"train": "train.txt", "test": "test.csv"})


def test_lists_name_images_by_path_or_by_file(tmp_path: Path) -> None:
    folds = divide(lists(tmp_path), samples([None] * 60), root=tmp_path)
    assert folds.assignment[0, 40:].tolist() == [Split.TEST] * 19 + [-1]
    assert (folds.assignment[0, :40] == Split.VAL).sum() == 6


def test_an_image_that_was_put_aside_may_stand_in_a_list(tmp_path: Path) -> None:
    whole = samples([None] * 60)
    less = whole.reject(whole.table["sample_id"] == "s50", "unreadable")
    assert (divide(lists(tmp_path), less, root=tmp_path).assignment == Split.TEST).sum() == 18


def test_lists_beside_the_card_are_found(tmp_path: Path) -> None:
    one = lists(tmp_path)
    card = DatasetCard(name="few", title="", reader="csv", licence="x", protocols=(one,)).located(tmp_path)
    assert (divide(card.protocols[0], samples([None] * 60)).assignment == Split.TEST).sum() == 19


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "folds", "column": "folder"}, "no column 'folder'; there are: sample_id, path, age"),
        ({"kind": "folds", "k": 30}, "30 folds of 20 groups of images"),
        ({"kind": "official"}, "no column 'split'"),
        ({"kind": "holdout", "ages_from": 90}, r"no image is within its ages \[90, …\); the dataset's are 1 to 60"),
        (
            {"kind": "folds", "column": "age", "splits": [{"train": [*range(40)], "test": [99]}]},
            "nothing is left for test",
        ),
        ({"kind": "folds", "column": "gender"}, "no column 'gender'"),
        ({"kind": "lists", "files": {"train": "a", "test": "b"}}, "no list 'a', neither in"),
    ],
)
def test_what_does_not_fit_the_data_is_one_clear_error(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        divide(protocol(**content), samples(PEOPLE))
    assert "protocol 'mine' of 'few'" in str(refused.value)


def test_people_that_are_unknown_cannot_be_left_out() -> None:
    with pytest.raises(UserError, match="subject is unknown for 1 images, the first is s2"):
        divide(protocol(kind="leave-one-subject-out"), samples([1, 2, None, 3]))


def test_lists_that_name_what_is_not_there_or_twice(tmp_path: Path) -> None:
    one = lists(tmp_path)
    with (tmp_path / "train.txt").open("a") as file:
        file.write("\ngone.jpg\nlost.jpg\n")
    with pytest.raises(UserError, match=r"names 2 images \(of 42\) that the dataset lacks, the first is 'gone.jpg'"):
        divide(one, samples([None] * 60), root=tmp_path)
    (tmp_path / "train.txt").write_text("images/50.jpg\n")
    with pytest.raises(UserError, match="1 images of test are also in train, the first is 's50'"):
        divide(one, samples([None] * 60), root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "folds"}, "folds need either k or column"),
        ({"kind": "folds", "k": 3, "splits": [{"train": [1], "test": [2]}]}, "splits need the column"),
        ({"kind": "folds", "column": "x", "splits": [{"train": [1], "test": [1]}]}, "'1' is in two splits"),
        ({"kind": "official", "k": 3}, "k does not apply to kind 'official'"),
        ({"kind": "lists", "files": {"train": "/etc/passwd", "test": "b"}}, "is outside of its folder"),
        ({"kind": "lists", "files": {"train": "a"}}, "need files for train and test"),
        ({"kind": "holdout", "ages_from": 9, "ages_below": 9}, "ages_from must be less than ages_below"),
        ({"kind": "holdout", "name": "default"}, "two protocols are called 'default'"),
        ({"kind": "holdouts"}, "kind = 'holdouts'"),
        ({"kind": "holdout", "testshare": 0.2}, "unknown key 'protocols.0.testshare'; did you mean 'test_share'"),
    ],
)
def test_a_protocol_that_cannot_be_meant_is_refused_with_its_card(content: dict[str, Any], message: str) -> None:
    card = {"name": "few", "title": "", "reader": "csv", "licence": "x", "protocols": [{"name": "mine", **content}]}
    with pytest.raises(UserError) as refused:
        validate_model(DatasetCard, card, source="few.toml")
    assert message in str(refused.value)


def test_an_unknown_protocol_has_its_neighbours_named() -> None:
    card = DatasetCard(name="few", title="", reader="csv", licence="x", protocols=(protocol(kind="official"),))
    assert card.protocol("default") is None
    with pytest.raises(UserError, match="dataset 'few' has no protocol 'mne'; did you mean 'mine'"):
        card.protocol("mne")


def test_saved_lists_are_a_protocol_again(tmp_path: Path) -> None:
    whole = samples(PEOPLE)
    folds = divide(protocol(kind="holdout"), whole)
    write_split_files(tmp_path, folds)
    files = {"train": "train.csv", "val": "valid.csv", "test": "test.csv"}
    again = divide(protocol(kind="lists", files=files), whole, root=tmp_path)
    assert (again.assignment == folds.assignment).all()


def test_the_manuals_cards_are_good_ones(tmp_path: Path) -> None:
    manual = Path(__file__).parents[3] / "docs" / "how-to" / "protocols.md"
    (tmp_path / "datasets").mkdir()
    for number, card in enumerate(re.findall(r"```toml\n(.*?)```", manual.read_text(encoding="utf-8"), re.DOTALL)):
        (tmp_path / "datasets" / f"{number}.toml").write_text(card)
    found = load_catalog([tmp_path]).datasets
    assert found.broken() == {}
    five = found.get("agedb-facebase").protocol("facebase")
    assert five is not None
    folds = divide(five, samples(PEOPLE, folder=[who % 10 for who in PEOPLE]))
    assert len(folds) == 5
    assert folds.count_leaks() == {"duplicates": 0, "subjects": 0}
    shown = re.findall(
        r"^\| `?([a-z_`, -]+)`? \|", manual.read_text(encoding="utf-8").split("## A protocol of your own")[1], re.M
    )
    assert {key for key in Protocol.model_fields if key not in " ".join(shown)} == set()


def test_every_shipped_protocol_is_in_the_manual() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "protocols.md").read_text(encoding="utf-8")
    found = load_catalog().datasets
    for name in found.names():
        for one in found.get(name).protocols:
            assert any(f"`{name}`" in line and f"`{one.name}`" in line for line in text.splitlines()), (name, one.name)
