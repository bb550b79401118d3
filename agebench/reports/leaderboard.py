"""Records to one table of systems: by training set and test set, with intervals, fairness, cost and what to beware of."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from agebench.evaluation.comparison import critical_difference
from agebench.registry.cards import Published
from agebench.reports.protocol_text import LEAKY, leaks_of, protocol_of
from agebench.reports.tables import DASH, count, escaped, group_name, listed, markdown_table, number, with_interval

# What may differ between the runs of one system.
_NOT_THE_SYSTEM = ("seed", "device")
_LEFT = ["left"] * 7
Figure = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One system, trained on one dataset (or not here), by all its seeds.

    Attributes:
        name: model, head and input size.
        train: the training set; None for a model that was not trained here.
        records: one a seed.
    """

    name: str
    train: str | None
    records: tuple[Mapping[str, Any], ...]

    @property
    def tests(self) -> list[str]:
        """The test sets that every seed has."""
        first, *others = (record["metrics"]["tests"] for record in self.records)
        return [name for name in first if all(name in tests for tests in others)]

    def figure(self, test: str, key: str = "mae") -> Figure:
        """A figure of all images of a test set, over the seeds."""
        return over_seeds([record["metrics"]["tests"][test]["overall"].get(key) or {} for record in self.records])


def over_seeds(figures: Sequence[Figure]) -> Figure:
    """The mean over seeds; its interval holds that of the images and, by Student's distribution, that of the seeds.

    The two are added as independent errors are: by their squares.
    """
    values = [figure["value"] for figure in figures if figure.get("value") is not None]
    if len(values) < len(figures) or not values:
        return {}
    if len(values) == 1:
        return figures[0]
    mean = statistics.fmean(values)
    spread = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    reach = {
        end: [abs(figure[end] - figure["value"]) for figure in figures if figure.get(end) is not None]
        for end in ("low", "high")
    }
    if any(len(found) < len(values) for found in reach.values()):
        return {"value": mean}
    low, high = (math.hypot(statistics.fmean(reach[end]), spread) for end in ("low", "high"))
    return {"value": mean, "low": mean - low, "high": mean + high}


def rows_of(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Records grouped into systems: runs that differ in nothing but their seed and their test sets."""
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        config = {key: value for key, value in record["config"].items() if key not in _NOT_THE_SYSTEM}
        config["data"] = {key: value for key, value in config.get("data", {}).items() if key != "test"}
        systems.setdefault(json.dumps(config, sort_keys=True), []).append(record)
    names = Counter((found[0]["metrics"]["train"], _name(found[0])) for found in systems.values())
    named = []
    for found in systems.values():
        train, name = found[0]["metrics"]["train"], _name(found[0])
        # Where two systems are called alike, a hash of their settings tells them apart.
        name += f" #{found[0]['id'].rpartition('-')[2]}" if names[train, name] > 1 else ""
        named.append(Row(name, train, tuple(found)))
    return sorted(named, key=lambda row: (row.train or "", row.name))


def leaderboard(records: Iterable[Mapping[str, Any]], published: Iterable[Published] = ()) -> str:
    """The whole page as Markdown."""
    rows = rows_of(records)
    tests = list(dict.fromkeys(test for row in rows for test in row.tests))
    parts = [
        "# Leaderboard",
        "MAE in years, with 95 % intervals; over several seeds the mean, its interval holding theirs. Systems are listed by "
        "training set, not crowned: where intervals overlap, `agebench compare` says whether a difference is shown. "
        "° tested on the held-out part of its own training set. "
        f"{LEAKY} its protocol leaks: images or people of the test are trained on.",
        markdown_table(*matrix(rows, tests), align=["left", "left", *["right"] * (1 + len(tests))]),
        _ranks(rows, tests),
        "## For whom it is worse",
        "The group with the largest MAE among those with enough images, and the largest gap between groups at equal ages.",
        _fairness(rows),
        "## What it takes, and what to beware of",
        _conditions(rows),
    ]
    others = list(published)
    if others:
        parts += [
            "## Published elsewhere",
            "Not run here: other splits, faces and training data stand behind each of these figures.",
            _published(others),
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def matrix(rows: Sequence[Row], tests: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of systems against test sets; the last rows are floors that all must beat."""
    table = [
        [
            escaped(row.train or "not here"),
            escaped(row.name),
            str(len(row.records)),
            *(with_interval(row.figure(test)) + _mark(row, test) if test in row.tests else DASH for test in tests),
        ]
        for row in rows
    ]
    floors: dict[str, dict[str, float]] = {}
    for row in rows:
        for test in row.tests:
            floor = row.records[0]["metrics"]["tests"][test].get("baseline_mae")
            if row.train and floor is not None:
                floors.setdefault(row.train, {})[test] = floor
    table += [
        [escaped(train), "always the median age of the training set", DASH, *(number(of.get(test)) for test in tests)]
        for train, of in floors.items()
    ]
    return ["trained on", "system", "seeds", *map(escaped, tests)], table


def _mark(row: Row, test: str) -> str:
    if test != row.train:
        return ""
    return "°" + (LEAKY if any(leaks_of(record["metrics"]) for record in row.records) else "")


def _ranks(rows: Sequence[Row], tests: Sequence[str]) -> str:
    """Mean ranks over the test sets that most systems share, and which of them cannot be told apart."""
    whole = [row for row in rows if set(tests) <= set(row.tests)]
    if len(tests) < 2 or len(whole) < 3:
        return "Mean ranks need three systems on two test sets at least."
    maes = pd.DataFrame({test: [row.figure(test)["value"] for row in whole] for test in tests})
    ranks = maes.rank().mean(axis=1).sort_values()
    critical = critical_difference(len(whole), len(tests))
    names = [
        f"{escaped(whole[place].name)} ({escaped(whole[place].train or 'not trained here')})" for place in ranks.index
    ]
    near = int((ranks - ranks.iloc[0] < critical).sum()) - 1
    said = (
        f"Over {listed(list(map(escaped, tests)))}, mean ranks closer than {critical:.2f} cannot be told apart (Nemenyi, 5 %). "
        f"By that, {near} of the other {len(whole) - 1} systems share the first rank with {names[0]}."
    )
    ranked = [[name, f"{rank:.2f}"] for name, rank in zip(names, ranks, strict=True)]
    return f"{said}\n\n{markdown_table(['system', 'mean rank'], ranked)}"


def _fairness(rows: Sequence[Row]) -> str:
    table = []
    for row in rows:
        for test in row.tests:
            entry = row.records[0]["metrics"]["tests"][test]
            worst = [
                (group["mae"]["value"], f"{escaped(group_name(grouping, name))} {with_interval(group['mae'])}")
                for grouping, groups in entry["groups"].items()
                for name, group in groups.items()
                if grouping != "age_band" and group.get("ranked")
            ]
            even = [gap["standardised"] for gap in entry["gaps"].values() if gap.get("standardised")]
            if worst and even:
                gap = max(even, key=lambda of: of["difference"]["value"])
                p = gap.get("p_holm")
                shown = DASH if p is None else "shown" if p < 0.05 else "not shown"
                ends = f"{escaped(gap['worst'])} above {escaped(gap['best'])}".replace("*", " × ").replace("\\ ×", " ×")
                table.append(
                    [
                        f"{escaped(row.name)} ({escaped(row.train or 'not trained here')})",
                        escaped(test),
                        max(worst)[1],
                        f"{with_interval(gap['difference'])} ({ends})",
                        shown,
                    ]
                )
    return markdown_table(
        ["system", "test set", "worst group", "largest gap at equal ages", "difference"], table, align=_LEFT[:5]
    )


def _conditions(rows: Sequence[Row]) -> str:
    table = []
    for row in rows:
        first = row.records[0]
        model, timings = first.get("model") or {}, first.get("timings") or {}
        seen = sum(first["metrics"]["tests"][test]["n"] for test in row.tests)
        speed = seen / timings["predict_s"] if timings.get("predict_s") else None
        lost = sum(sum((of.get("quarantined") or {}).values()) for of in (first.get("samples") or {}).values())
        table.append(
            [
                f"{escaped(row.name)} ({escaped(row.train or 'not trained here')})",
                DASH if not model.get("parameters") else f"{model['parameters'] / 1e6:.1f} million",
                DASH if speed is None else f"{speed:,.0f}",
                escaped(model.get("weights") or DASH),
                count(lost),
                listed(_flags(row)) or "none",
            ]
        )
    headers = ["system", "parameters", "images/s, asked", "started from", "images without an answer", "beware"]
    return markdown_table(headers, table, align=["left", "right", "right", "left", "right", "left"])


def _flags(row: Row) -> list[str]:
    model, tests = row.records[0].get("model") or {}, row.records[0]["metrics"]["tests"]
    found = []
    if model.get("weights") == "random":
        found.append("random start")
    if len(row.records) == 1 and row.train is not None:
        found.append("one seed")
    if any(test.get("leaks") for test in tests.values()):
        found.append("leaky protocol")
    if any(test.get("contamination") == "unknown" for test in tests.values()):
        found.append("unknown training data")
    if any(test.get("contamination") == "known" for test in tests.values()):
        found.append("trained on a test set")
    return found


def _published(rows: Sequence[Published]) -> str:
    table = [
        [
            escaped(row.train),
            escaped(row.test),
            escaped(row.system),
            escaped(row.metric),
            f"{row.value:g}",
            escaped("; ".join(filter(None, [row.protocol, row.note]))),
            escaped(row.citation),
        ]
        for row in rows
    ]
    return markdown_table(["trained on", "tested on", "system", "figure", "value", "how", "source"], table, align=_LEFT)


def _name(record: Mapping[str, Any]) -> str:
    model = record["model"]
    head = f", {model['head']}" if model.get("head") else ""
    size = f", {model['size']} px" if model.get("size") else ""
    protocol = protocol_of(record["metrics"])
    return f"{model.get('title') or model['name']}{head}{size}" + (f", protocol {protocol}" if protocol else "")
