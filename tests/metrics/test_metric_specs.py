"""Ranges belong to metrics: names of columns, groups and systems change nothing but names."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.errors import UserError
from agebench.metrics.auxiliary_targets import evaluate_tasks
from agebench.metrics.bootstrap import Replicates
from agebench.metrics.comparison import align_systems, compare_systems
from agebench.metrics.confidence_intervals import metric_values
from agebench.metrics.evaluate import evaluate
from agebench.metrics.metric_specs import SPECS, metric_of
from agebench.metrics.presets.nist_fate import nist

COLUMNS = (
    "accuracy",
    "accuracy_of",
    "coverage",
    "cs",
    "epsilon",
    "even",
    "mae",
    "overall",
    "pearson",
    "range_hit",
    "x/y",
)
VALUES = ("accuracy", "cs", "cs5", "coverage", "difference", "even", "mae", "pearson", "range_hit", "ratio", "x/y", "y")


def predictions(columns: dict[str, list[str]], n: int = 180) -> pd.DataFrame:
    """Estimates that are far off, with a column for each entry of `columns`, sorted so that ranks of names stay the same."""
    rng = np.random.default_rng(3)
    age = rng.integers(10, 40, n).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + rng.normal(8, 6, n)})
    for name, values in columns.items():
        table[name] = np.array(sorted(values))[rng.integers(0, len(values), n)]
    return table


def renamed(content: Any, names: dict[str, str]) -> Any:
    """`content` with its keys and texts renamed."""
    if isinstance(content, dict):
        return {names.get(key, key): renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


def plain(columns: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Harmless names of the same order in place of `columns`, and the way back."""
    back: dict[str, str] = {}
    harmless: dict[str, list[str]] = {}
    for idx, (name, values) in enumerate(columns.items()):
        harmless[f"column{idx}"] = [f"value{idx}-{rank:02}" for rank in range(len(values))]
        back |= {f"column{idx}": name, **dict(zip(harmless[f"column{idx}"], sorted(values), strict=True))}
    return harmless, back


awkward = st.dictionaries(
    st.sampled_from(COLUMNS),
    st.lists(st.sampled_from(VALUES), min_size=2, max_size=4, unique=True),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12, deadline=None)
@given(awkward)
def test_evaluate_renaming_columns_and_groups_changes_names_only(columns: dict[str, list[str]]) -> None:
    harmless, back = plain(columns)
    ours = evaluate(predictions(columns), groups=list(columns), resamples=50, minimum=10)
    theirs = evaluate(predictions(harmless), groups=list(harmless), resamples=50, minimum=10)
    for part in ("overall", "groups", "gaps"):
        assert ours.to_json()[part] == renamed(theirs.to_json()[part], back)


@settings(max_examples=8, deadline=None)
@given(awkward, st.lists(st.sampled_from(VALUES), min_size=2, max_size=3, unique=True))
def test_tasks_renaming_changes_names_only(columns: dict[str, list[str]], classes: list[str]) -> None:
    harmless, back = plain(columns | {"task": classes})
    tables = []
    for made in (columns | {"task": classes}, harmless):
        table = predictions(made)
        tables.append(table.assign(**{f"{list(made)[-1]}_pred": table[list(made)[-1]].to_numpy()[::-1]}))
    ours = evaluate_tasks(tables[0], ["task"], groups=list(columns), resamples=50)["task"]
    name = list(harmless)[-1]
    theirs = evaluate_tasks(tables[1], [name], groups=list(harmless)[:-1], resamples=50)[name]
    # Each column is renamed apart: a class and a group may have one name.
    assert ours.to_json()["groups"] == renamed(theirs.to_json()["groups"], back)
    assert ours.to_json()["classes"] == renamed(theirs.to_json()["classes"], back)
    assert (ours.accuracy, ours.balanced_accuracy) == (theirs.accuracy, theirs.balanced_accuracy)


def test_nist_region_called_cs_has_an_interval_in_years() -> None:
    table = predictions({"accuracy": ["1", "cs", "mae"], "gender": ["female", "male"]})
    groups = nist(table, origin="accuracy", resamples=50).all_ages.by_origin.groups
    for group in groups.values():
        assert 5 < group.mae.ci_low <= group.mae.value <= group.mae.ci_high < 15


def test_compare_systems_called_like_metrics() -> None:
    tables = {
        name: [predictions({}).assign(age_pred=lambda table, step=step: table["age_pred"] + step)]
        for step, name in enumerate(("cs5", "accuracy", "cs5-accuracy"))
    }
    found = compare_systems(align_systems(tables), resamples=50)
    harmless = compare_systems(align_systems(dict(zip("abc", tables.values(), strict=True))), resamples=50)
    assert [of.mae for of in found.systems.values()] == [of.mae for of in harmless.systems.values()]
    assert [of.difference for of in found.pairs] == [of.difference for of in harmless.pairs]


@pytest.mark.parametrize("name", SPECS)
def test_figures_stay_within_the_range_of_their_metric(name: str) -> None:
    spec = SPECS[name]
    draws = np.random.default_rng(0).normal(0.5, 3, (1, 200))
    found = metric_values([(name,)], Replicates(np.array([0.5]), draws, np.zeros((1, 1)), 9), "percentile")[name,]
    assert metric_of(("cs5", "accuracy", name)) is spec
    assert None not in (found.ci_low, found.ci_high)
    assert (found.ci_low == spec.lower) == (spec.lower > -np.inf)
    assert (found.ci_high == spec.upper) == (spec.upper < np.inf)


def test_groups_whose_names_collide_are_refused() -> None:
    table = predictions({"a": ["x", "x*y"], "b": ["y*z", "z"]})
    with pytest.raises(UserError, match=r"group 'a\*b': two different groups would be called 'x\*y\*z'"):
        evaluate(table, groups=["a*b"], resamples=0)


def test_a_column_with_a_star_in_its_name_is_a_column() -> None:
    table = predictions({"a*b": ["x", "y"]})
    assert list(evaluate(table, groups=["a*b"], resamples=0).groups["a*b"]) == ["x", "y"]
