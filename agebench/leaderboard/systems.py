"""Records grouped into systems, and what a leaderboard says of each: error, fairness, cost, and what to beware of."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from scipy import stats

from agebench.data import reject_reasons
from agebench.metrics.fairness import SIGNIFICANT
from agebench.reports.formatting import join_words
from agebench.types import WeightsKind, WeightsSource

# What may differ between the runs of one system.
_NOT_THE_SYSTEM = ("seed", "device")
# So many settings that differ are told in a system's name.
_TOLD = 2
_SHORTEST = 0.01  # seconds: timings are kept to the hundredth
LEAKY, SEEN, UNKNOWN = "leaky protocol", "trained on a test set", "unknown training data"
EXCLUDED, SUBSET, OTHER_IMAGES = "images excluded", "part of a test set missing", "other images than most systems"
# A row with one of these flags has no place in any ranking: its figures flatter, or may.
UNRANKED = frozenset({LEAKY, SEEN, EXCLUDED, SUBSET})
Figure = Mapping[str, Any]


@dataclass(frozen=True, eq=False)  # a system is itself alone, and may be a key
class System:
    """One system, trained on one dataset (or not here), by all its seeds.

    Attributes:
        name: model, head and input size.
        train: the training set; None for a model that was not trained here.
        records: its runs, by id.
        usual: test set -> the copy of it that most systems were tested on, where any record tells it.
    """

    name: str
    train: str | None
    records: tuple[Mapping[str, Any], ...]
    usual: Mapping[str, "Copy"] = field(default_factory=dict)

    @cached_property
    def _by_test(self) -> dict[str, dict[Any, Mapping[str, Any]]]:
        found: dict[str, dict[Any, Mapping[str, Any]]] = {}
        for record in self.records:
            for name in record["metrics"]["tests"]:
                # A seed that was run twice is no second seed: the first record of it counts.
                found.setdefault(name, {}).setdefault(record["config"].get("seed"), record)
        return found

    @cached_property
    def seeds(self) -> list[Any]:
        """Its seeds, each once."""
        return list(dict.fromkeys(record["config"].get("seed") for record in self.records))

    @cached_property
    def tests(self) -> list[str]:
        """The test sets that every seed has."""
        return [name for name, entries in self._by_test.items() if len(entries) == len(self.seeds)]

    def test_entries(self, test: str) -> list[Mapping[str, Any]]:
        """The entries of metrics.json for a test set, one a seed."""
        return [record["metrics"]["tests"][test] for record in self._by_test[test].values()]

    def images(self, test: str) -> frozenset[Hashable]:
        """On which images it was tested by all its seeds: equal for two systems where these are the same."""
        return frozenset(_images(record, test) for record in self._by_test[test].values())

    @cached_property
    def flags(self) -> list[str]:
        """What to beware of, in a few words each."""
        return _flags(self)

    @property
    def has_no_rank(self) -> bool:
        """Whether its figures flatter, or may: it has no place in any ranking."""
        return not UNRANKED.isdisjoint(self.flags)

    def tested(self, test: str) -> list["Tested"]:
        """How many images of a test set it was tested on, one entry a seed."""
        return [_tested(record, test) for record in self._by_test[test].values()]

    def copies(self, test: str) -> list["Copy"]:
        """The copies of a test set that its seeds read, one entry a seed; a seed whose record has none is left out."""
        found = (copy_of(record, test) for record in self._by_test[test].values())
        return [copy for copy in found if copy is not None]

    def metric(self, test: str, key: str = "mae") -> Figure:
        """A figure of all images of a test set, over the seeds."""
        return pool_seeds([entry["overall"].get(key) or {} for entry in self.test_entries(test)])


@dataclass(frozen=True)
class Copy:
    """One copy of a dataset, as a record identifies it.

    Attributes:
        fingerprint: of its audited samples, less excluded images.
        read: images in it, rejected ones included.
    """

    fingerprint: str
    read: int


def copy_of(record: Mapping[str, Any], test: str) -> Copy | None:
    """Return the copy of a dataset that a record was made with, None where the record does not hold it."""
    samples = (record.get("samples") or {}).get(test) or {}
    fingerprint = samples.get("fingerprint")
    return None if fingerprint is None else Copy(fingerprint, samples.get("read") or 0)


@dataclass(frozen=True)
class Tested:
    """How many images of a test set one run was tested on.

    Attributes:
        n: images tested.
        of: images it could have been tested on: all of the dataset, less those it was trained or validated on. None where
            the record does not tell.
    """

    n: int
    of: int | None


def _tested(record: Mapping[str, Any], test: str) -> Tested:
    samples = (record.get("samples") or {}).get(test) or {}
    n = samples.get("test")
    n = record["metrics"]["tests"][test]["n"] if n is None else n
    read = samples.get("read")
    if read is None:
        return Tested(n, None)
    # Of several folds every image is tested by some model that was not trained on it.
    folds = (record["metrics"].get("protocol") or {}).get("folds") or 1
    held_in = (samples.get("train") or 0) + (samples.get("val") or 0) if folds == 1 else 0
    return Tested(n, max(read - held_in, n))


def _images(record: Mapping[str, Any], test: str) -> Hashable:
    """What a record has to tell the images of a test by: the dataset's fingerprint, and how many of each group were tested.

    A held-out part of the same dataset by another seed has the same n at times, but not so many people and images of
    every age band, gender, race and their crossing.
    """
    entry = record["metrics"]["tests"][test]
    groups = (entry.get("groups") or {}).items()
    counts = [(grouping, name, group.get("n")) for grouping, inner in groups for name, group in inner.items()]
    fingerprint = (record.get("samples") or {}).get(test, {}).get("fingerprint")
    return fingerprint, entry["n"], entry.get("subjects"), frozenset(counts)


def pool_seeds(figures: Sequence[Figure]) -> Figure:
    """The mean over seeds; its interval holds that of the images and, by Student's distribution, that of the seeds.

    The two are added as independent errors are: by their squares.
    """
    count = len(figures)
    values = [of["value"] for of in figures if of.get("value") is not None]
    if not values or len(values) < count:
        return {}
    if count == 1:
        return figures[0]
    mean = sum(values) / count
    lows = [of["low"] for of in figures if of.get("low") is not None]
    highs = [of["high"] for of in figures if of.get("high") is not None]
    if len(lows) < count or len(highs) < count:
        return {"value": mean}
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    spread = _student(count - 1) * error
    below, above = mean - sum(lows) / count, sum(highs) / count - mean
    return {"value": mean, "low": mean - math.hypot(below, spread), "high": mean + math.hypot(above, spread)}


@cache
def _student(freedom: int) -> float:
    """The 97.5 % point; remembered, because scipy takes longer for it than all the rest of a row."""
    return float(stats.t.ppf(0.975, freedom))


def group_into_systems(records: Iterable[Mapping[str, Any]]) -> list[System]:
    """Records grouped into systems: runs that differ in nothing but their seed and their test sets."""
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for record in sorted(records, key=lambda record: str(record["id"])):
        config = {key: value for key, value in record["config"].items() if key not in _NOT_THE_SYSTEM}
        config["data"] = {key: value for key, value in config.get("data", {}).items() if key != "test"}
        systems.setdefault(json.dumps(config, sort_keys=True), []).append(record)
    called: dict[tuple[str | None, str], list[list[Mapping[str, Any]]]] = {}
    for found in systems.values():
        called.setdefault((found[0]["metrics"]["train"], _name(found[0])), []).append(found)
    usual = _usual_copies(systems.values())
    named = [
        System(f"{name}{mark}", train, tuple(found), usual)
        for (train, name), alike in called.items()
        for found, mark in zip(alike, _marks([found[0] for found in alike]), strict=True)
    ]
    return sorted(named, key=lambda row: (row.train or "", row.name))


def _usual_copies(systems: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Copy]:
    """Test set -> the copy that most systems were tested on; of equally many the one with more images.

    Systems with excluded images do not count: leaving images out changes the fingerprint.
    """
    counts: dict[str, Counter[Copy]] = {}
    for records in systems:
        held = {
            (test, copy)
            for record in records
            if not excludes(record)
            for test in record["metrics"]["tests"]
            if (copy := copy_of(record, test)) is not None
        }
        for test, copy in held:
            counts.setdefault(test, Counter())[copy] += 1
    return {test: _most_common(copies) for test, copies in counts.items()}


def _most_common(copies: Mapping[Copy, int]) -> Copy:
    return max(copies, key=lambda copy: (copies[copy], copy.read, copy.fingerprint))


def excludes(record: Mapping[str, Any]) -> bool:
    """Return whether images were left out by `--exclude` or `--limit`."""
    lists = record.get("excluded")
    if (record["config"].get("data") or {}).get("limit"):
        return True
    if isinstance(lists, Mapping):
        return any(not isinstance(of, Mapping) or of.get("images") != 0 for of in lists.values())
    return bool((record["config"].get("data") or {}).get("exclude"))


def test_sets(rows: Iterable[System]) -> list[str]:
    """All test sets, each once, in the order of the rows."""
    return list(dict.fromkeys(test for row in rows for test in row.tests))


def baseline_mae(rows: Iterable[System]) -> dict[str, dict[str, float]]:
    """Training set -> test set -> MAE of always answering the training set's median age: what all must beat."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for test in row.tests:
            floor = row.test_entries(test)[0].get("baseline_mae")
            if row.train and floor is not None:
                found.setdefault(row.train, {})[test] = floor
    return found


@cache
def worst_group(row: System, test: str) -> tuple[str, str, Figure] | None:
    """(grouping, group, MAE over the seeds) of the group with the largest, among those with enough images."""
    first, *others = row.test_entries(test)
    found = []
    for grouping, groups in (first.get("groups") or {}).items():
        for name, group in groups.items():
            if grouping != "age_band" and group.get("ranked"):
                several = [group, *(other["groups"].get(grouping, {}).get(name, {}) for other in others)]
                mae = pool_seeds([of.get("mae") or {} for of in several])
                if mae:
                    found.append((mae["value"], grouping, name, mae))
    return max(found, key=lambda of: of[:3])[1:] if found else None


@dataclass(frozen=True)
class Gap:
    """The largest difference in MAE between two groups at equal ages.

    Attributes:
        grouping, worst, best: whose.
        worst_groups: the groups that may be the worst by any seed, largest first; () in old records.
        difference: years, over the seeds; of the first seed alone where the seeds name other groups.
        shown: whether every seed's test finds it more than chance; None where it was not tested.
    """

    grouping: str
    worst: str
    best: str
    difference: Figure
    shown: bool | None
    worst_groups: tuple[str, ...] = ()


@cache
def largest_gap(row: System, test: str) -> Gap | None:
    """The largest gap of all groupings; None where no groups can be compared."""
    first, *others = (
        {name: gap["standardised"] for name, gap in (entry.get("gaps") or {}).items() if gap.get("standardised")}
        for entry in row.test_entries(test)
    )
    found = []
    for grouping, gap in first.items():
        several = [gap, *(of[grouping] for of in others if grouping in of)]
        alike = len({(of.get("worst"), of.get("best")) for of in several}) == 1
        difference = pool_seeds([of["difference"] for of in several]) if alike else gap["difference"]
        ps = [of.get("p_holm") for of in several]
        shown = None if None in ps else all(p < SIGNIFICANT for p in ps)
        if difference.get("value") is not None:
            recorded = all("worst_groups" in part for part in several)
            possible = dict.fromkeys(name for part in several for name in part["worst_groups"]) if recorded else ()
            found.append(Gap(grouping, gap["worst"], gap["best"], difference, shown, tuple(possible)))
    return max(found, key=lambda of: of.difference["value"], default=None)


def failure_to_process_counts(row: System) -> tuple[int, int]:
    """(images without an answer, images read) of its test sets, each once: failure to process."""
    sets: dict[str, Mapping[str, Any]] = {}
    for record in row.records:
        for test, samples in (record.get("samples") or {}).items():
            if test in record["metrics"]["tests"]:
                sets.setdefault(test, samples)
    lost = read = 0
    for test in row.tests:
        samples = sets.get(test, {})
        lost += reject_reasons.failures_to_process(samples.get("rejected"), samples.get("quarantined"))
        read += samples.get("read") or 0
    return lost, read


def images_per_second(row: System) -> float | None:
    """How fast its first run answered, on whatever machine that was; None where the head alone did, on kept features."""
    first = row.records[0]
    timings = first.get("timings") or {}
    seconds = None if "features_s" in timings else timings.get("predict_s")
    seen = sum(test["n"] for test in first["metrics"]["tests"].values())
    return seen / seconds if seconds and seconds >= _SHORTEST else None


@dataclass(frozen=True)
class RobustnessSummary:
    """How a system holds on corrupted faces of a test set.

    Attributes:
        relative_error: error on them divided by that on the faces as they are, over the seeds.
        corruptions, strengths: how many; over other ones it is another figure.
    """

    relative_error: Figure
    corruptions: int
    strengths: int


def robustness_summary(row: System) -> dict[str, RobustnessSummary]:
    """Test set -> what the stress tests of its seeds found, those over the same corruptions as the first's."""
    found: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for record in row.records:
        for test, stress in (record.get("stress") or {}).items():
            if not all(stress["summary"].get(key) for key in ("relative_error", "corruptions", "strengths")):
                continue
            found.setdefault(test, {}).setdefault(record["config"].get("seed"), stress["summary"])
    stressed = {}
    for test, seeds in found.items():
        first, *others = seeds.values()
        kind = (first["corruptions"], first["strengths"])
        alike = [of for of in others if (of["corruptions"], of["strengths"]) == kind]
        figure = pool_seeds([of["relative_error"] for of in (first, *alike)])
        stressed[test] = RobustnessSummary(figure, len(first["corruptions"]), first["strengths"])
    return stressed


def caveats(row: System) -> list[str]:
    """What to beware of, in a few words each."""
    return row.flags


def _flags(row: System) -> list[str]:
    model = row.records[0].get("model") or {}
    tests = [test for record in row.records for test in record["metrics"]["tests"].values()]
    found = {
        "random start": WeightsSource.of_model(model).kind is WeightsKind.RANDOM,
        "one seed": len(row.seeds) == 1 and row.train is not None,
        LEAKY: any(map(has_leakage, row.records)),
        UNKNOWN: any(test.get("contamination") == "unknown" for test in tests),
        SEEN: any(test.get("contamination") in ("known", "validated") for test in tests),
        EXCLUDED: any(map(excludes, row.records)),
        SUBSET: any(is_subset(row, test) for test in row.tests),
        OTHER_IMAGES: any(has_other_images(row, test) for test in row.tests),
        **({_picked(row): True} if _picked(row) else {}),
        "a seed run twice": len(row.records) > len({_run(record) for record in row.records}),
        **{f"not reproducible: {reason}": True for reason in irreproducibility_reasons(row)},
    }
    return [word for word, holds in found.items() if holds]


def _picked(row: System) -> str:
    """Several seeds in words where they are not the first ones, and may be the best of many; else empty."""
    seeds = sorted(row.seeds, key=lambda seed: (seed is None, seed or 0))
    if row.train is None or len(seeds) < 2 or seeds == list(range(len(seeds))):
        return ""
    return f"seeds {join_words([str(seed) for seed in seeds])}, not 0 to {len(seeds) - 1}"


def has_other_images(row: System, test: str) -> bool:
    """Whether images or labels of a test set differ from those that most systems were tested on."""
    usual = row.usual.get(test)
    return usual is not None and any(copy.fingerprint != usual.fingerprint for copy in row.copies(test))


def is_subset(row: System, test: str) -> bool:
    """Whether a test set was read from a copy that lacks images: fewer than most systems read, or than its card announces."""
    usual = row.usual.get(test)
    least = 0 if usual is None else usual.read
    counts = [(record.get("datasets") or {}).get(test, {}).get("count") for record in row.records]
    least = max([least, *(count for count in counts if isinstance(count, int))])
    return any(copy.read < least for copy in row.copies(test))


def irreproducibility_reasons(row: System) -> list[str]:
    """What of a system nobody else can get: its figures cannot be reproduced from public parts."""
    found = []
    for record in row.records:
        model = record.get("model") or {}
        weights = WeightsSource.of_model(model)
        if weights.kind is WeightsKind.FILE:
            found.append(f"weights from the {model.get('weights')}")
        if model.get("file_sha256") and not str(model.get("source")).startswith("package:"):
            found.append("the model is a file of somebody's")
        if str(record.get("git") or "").endswith("+changes"):
            found.append("the code was changed")
        found += [
            f"{name} is not public"
            for name, dataset in (record.get("datasets") or {}).items()
            if dataset.get("public") is False
        ]
    return list(dict.fromkeys(found))


def has_leakage(record: Mapping[str, Any]) -> bool:
    """Whether images or people of the test are trained on, wherever it is said: of the run, its metrics, one test set."""
    places = [record, record["metrics"], *record["metrics"]["tests"].values()]
    protocols = [of for of in (place.get("protocol") for place in places) if isinstance(of, Mapping)]
    said = [place.get("leaks") for place in [*places, *protocols]]
    return any(any(of.values()) if isinstance(of, Mapping) else bool(of) for of in said)


def _run(record: Mapping[str, Any]) -> str:
    return json.dumps([record["config"].get("seed"), sorted(record["metrics"]["tests"])])


def _marks(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells systems apart that are called alike: the few settings that differ, or else a hash of all of them."""
    if len(records) == 1:
        return [""]
    settings = [_flat(record["config"]) for record in records]
    keys = sorted({key for of in settings for key in of if len({repr(other.get(key)) for other in settings}) > 1})
    if len(keys) <= _TOLD:
        return ["".join(f", {key} {of.get(key, 'default')}" for key in keys) for of in settings]
    return [f" #{(of.get('config_sha256') or of['id'].rpartition('-')[2])[:8]}" for of in records]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the system, as `section.key` -> value."""
    sections = {key: value if isinstance(value, Mapping) else {"": value} for key, value in config.items()}
    flat = {f"{name}.{key}".rstrip("."): value for name, section in sections.items() for key, value in section.items()}
    return {key: value for key, value in flat.items() if key not in (*_NOT_THE_SYSTEM, "data.test")}


def _name(record: Mapping[str, Any]) -> str:
    model = record["model"]
    frozen = " frozen" if (record["config"].get("train") or {}).get("freeze") else ""
    head = f", {model['head']}" if model.get("head") else ""
    size = f", {model['size']} px" if model.get("size") else ""
    protocol = (record["metrics"].get("protocol") or {}).get("name", "default")
    divided = "" if protocol == "default" else f", protocol {protocol}"
    return f"{model.get('title') or model['name']}{frozen}{head}{size}{divided}"
