"""Verification of records: the seal, contradictions between metrics, and metrics computed again."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import JsonValue

from agebench._version import __version__
from agebench.errors import UserError
from agebench.leaderboard.published_estimates import LocalDatasets, estimates_digest, join_labels, read_estimates
from agebench.leaderboard.records import (
    SCHEMAS,
    content_hash,
    estimates_file,
    garbage_collection_paused,
    predictions_digest,
    predictions_file,
    read_predictions,
    read_record,
    record_files,
)
from agebench.leaderboard.schema import Record, RecordSamples, parse_record, record_or_problem
from agebench.leaderboard.systems import worst_overlap
from agebench.metrics.cross_validation import evaluate_folds
from agebench.metrics.evaluate import VERSION
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import GroupDifference, GroupMetrics, MetricValue, ResultModel, TestResult
from agebench.types import Split

# What figures lead to that are text, missing, or too large to be any; or groups that the dataset does not have.
_MISFITS = (AttributeError, KeyError, TypeError, OverflowError, UserError)
_STRESS_TOLERANCE = 0.05  # years: a stress test may be made on another device, in another precision
_MOST_RESAMPLES = 100_000
_COUNTS = ("n", "eligible", "worst", "best")  # of a group or a gap: no figures, and compared as they are
# Until version 3, a replicate lay below the value or not, which rounding on another machine may decide otherwise. Of the
# interval's width, ends moved by up to 3 % in groups of few images (version 1 compared to the last bit) and by up to
# 0.3 % (version 2, whose ties do not catch the rounding of a figure near zero).
_END_SHARES = {1: 0.05, 2: 0.005}
# Figures whose intervals version 1 computed otherwise: of its records only their values are computed again.
_OTHER_INTERVALS = frozenset(
    ["rmse", "median_ae", "p95_ae", "balanced_mae", "balanced_mae_bands", "range_hit", "difference", "ratio"]
)
# Of a gap, since version 3: results of its tests, which are no figures.
_TESTED = ("p_holm", "worst_groups")
_P_TOLERANCE = 0.005  # a permutation that ties on one machine may not on another
_TOLERANCE = 1e-6  # years: numpy's sums differ by less between machines
_END_TOLERANCE = 1e-4  # years: resampled sums are single precision, and differ by up to 1e-5 between machines


def check_record(record: Any, run: Path | None = None) -> Iterator[str]:
    """Yield the faults of a record, in sentences; nothing for a valid record.

    Args:
        record: as `make_record` gives it.
        run: the run's folder, where it is there: see `check_predictions`.
    """
    parsed = _parse(record)
    if isinstance(parsed, str):
        yield parsed
        return
    yield from _problems(parsed, record)
    if run is not None:
        yield from (f"{name}: {problem}" for name, problem in _check_predictions(parsed, run) if problem is not None)


def check_predictions(content: Mapping[str, JsonValue], run: Path) -> Iterator[tuple[str, str | None]]:
    """Check the predictions of a run: yield (test set, problem), with problem None where all its figures follow.

    They must have the record's digest. A test set is passed over where the run has no predictions for it.

    Args:
        content: the JSON of a record that `check_record` can parse.
        run: the run's folder.
    """
    yield from _check_predictions(parse_record(content), run)


def find_runs(
    records: Mapping[Path, Mapping[str, JsonValue]], runs_by_config: Mapping[str, Sequence[Path]]
) -> dict[Path, Path]:
    """Return the runs of records, by the record's file: of the runs with its settings the one with its predictions.

    Where none has them, it is one whose predictions are those of no other record, so that `check_predictions` names it. A
    record whose settings have only runs of other records has no run.

    Args:
        records: the records by file, unchecked.
        runs_by_config: finished runs by `config_sha256`.
    """
    found: dict[Path, Path] = {}
    unmatched: dict[Path, Sequence[Path]] = {}
    for path, content in records.items():
        record = _parse(content)
        runs = () if isinstance(record, str) else runs_by_config.get(str(record.config_sha256), ())
        if isinstance(record, str) or not runs:
            continue
        count, run = max(((_count_equal_predictions(record, run), run) for run in runs), key=lambda pair: pair[0])
        if count:
            found[path] = run
        else:
            unmatched[path] = runs
    taken = set(found.values())
    for path, runs in unmatched.items():
        run_left = next((run for run in runs if run not in taken), None)
        if run_left is not None:
            found[path] = run_left
    return found


def _count_equal_predictions(record: Record, run: Path) -> int:
    """Count the test sets for which a run has the predictions of a record."""
    return sum(_has_predictions(record, run, name) for name in record.metrics.tests)


def _has_predictions(record: Record, run: Path, name: str) -> bool:
    if name not in record.predictions or not predictions_file(run, name).exists():
        return False
    try:
        return bool(predictions_digest(read_predictions(run, name)) == record.predictions[name].sha256)
    except _MISFITS:
        return False  # damaged; where no other run fits, `check_predictions` gives the reason


def read_valid_records(folder: Path) -> dict[Path, Record]:
    """Read, check and parse all records of a folder, by file; the JSON of one record at a time is in memory.

    Raises:
        UserError: no such folder, no record in it, a file is no JSON, or a record is not valid.
    """
    with garbage_collection_paused():
        records = {path: require_valid(read_record(path), path) for path in record_files(folder)}
    if not records:
        raise UserError(f"{folder}: contains no record; `agebench results add RUN` makes one")
    return records


def require_valid(content: object, path: Path) -> Record:
    """Parse a record, and require that it is valid.

    Args:
        content: the parsed JSON.
        path: its file, for the error message.

    Raises:
        UserError: `check_record` would yield a problem; the message has the first one.
    """
    parsed = _parse(content)
    problem = parsed if isinstance(parsed, str) else next(_problems(parsed, content), None)
    if isinstance(parsed, str) or problem is not None:
        raise UserError(f"{path}: {problem}; `agebench results check` lists all problems")
    return parsed


def _parse(record: Any) -> Record | str:
    """Parse the JSON of a record; return why it cannot be parsed, as a sentence, if it cannot."""
    if not isinstance(record, Mapping):
        return "it is no table of keys and values"
    if record.get("schema", 1) not in SCHEMAS:
        known = " and ".join(map(str, SCHEMAS))
        return f"its schema is {reprlib.repr(record['schema'])}; this agebench ({__version__}) knows {known}"
    return record_or_problem(record)


def _problems(parsed: Record, record: Any) -> Iterator[str]:
    """Yield the faults of a record that has the schema, in sentences."""
    try:
        if record["sha256"] != content_hash(record):
            yield "its seal is broken: it was changed after it was made"
        yield from _check_figures(parsed)
    except RecursionError:
        yield "its 'metrics' are nested too deeply to be figures"
    except _MISFITS as error:
        yield _shapeless(error)


def _shapeless(error: Exception) -> str:
    return f"its figures do not have the shape that metrics.json has: {type(error).__name__}: {error}"


def _check_figures(record: Record) -> Iterator[str]:
    for name, test in record.metrics.tests.items():
        yield from (f"{name}: {problem}" for problem in _contradictions(test))
        yield from (f"{name}: {problem}" for problem in _lost_images(record, name))
        yield from (f"{name}: {problem}" for problem in _stress_contradictions(record, name))
        yield from (f"{name}: {problem}" for problem in _shift_contradictions(record, name))
        stated = worst_overlap(record, name)
        if test.training_overlap not in (None, stated):
            yield f"{name}: its training_overlap is '{test.training_overlap}', and by its model's card it is '{stated}'"


def _check_predictions(record: Record, run: Path) -> Iterator[tuple[str, str | None]]:
    for name, test in record.metrics.tests.items():
        if not predictions_file(run, name).exists():
            continue
        try:
            table = read_predictions(run, name)
        except UserError as error:
            yield name, str(error)
            continue
        try:
            if predictions_digest(table) != record.predictions[name].sha256:
                problems = [f"the predictions in {run} are not those of the record"]
            else:
                problems = list(_unfit_predictions(table, run, name)) or list(_recomputed(table, test))
        except _MISFITS as error:
            problems = [_shapeless(error)]
        yield from _by_test(name, problems)


def check_estimates_files(content: Mapping[str, JsonValue], path: Path, present: LocalDatasets) -> Iterator[str]:
    """Yield a sentence for each file of estimates beside a record that is missing, damaged, or not the record's.

    No images are needed. A file is missed where the record has its digest and the dataset's card allows it.

    Args:
        content: the JSON of a record that `check_record` accepts.
        path: its file.
        present: the datasets with a card here.
    """
    record = parse_record(content)
    for name in record.metrics.tests:
        file = estimates_file(path, name)
        if file.exists():
            estimates = _own_estimates(record, file, name)
            if isinstance(estimates, str):
                yield f"{name}: {estimates}"
        elif _estimates_digest_of(record, name) is not None and present.has_public_estimates(name):
            yield (
                f"{name}: {file} is missing: the dataset's card allows estimates to be public, and without them the figures "
                "cannot be computed again; `agebench results add RUN` writes them beside it"
            )


def _own_estimates(record: Record, file: Path, name: str) -> pd.DataFrame | str:
    """Read a record's estimates; return why they cannot be used, as a sentence, if they cannot."""
    try:
        estimates = read_estimates(file)
    except UserError as error:
        return str(error)
    if estimates_digest(estimates) != _estimates_digest_of(record, name):
        return f"the estimates in {file} are not those of the record"
    return estimates


def _estimates_digest_of(record: Record, name: str) -> object:
    return record.predictions[name].estimates_sha256 if name in record.predictions else None


def check_estimates(
    content: Mapping[str, JsonValue], path: Path, present: LocalDatasets
) -> Iterator[tuple[str, str | None]]:
    """Check the estimates beside a record: yield (test set, problem), with problem None where all its figures follow.

    A test set is passed over where it has no estimates there, or its data are not on this machine or other ones.

    Args:
        content: the JSON of a record that `check_record` accepts.
        path: its file.
        present: the datasets of this machine.
    """
    record = parse_record(content)
    for name, test in record.metrics.tests.items():
        file = estimates_file(path, name)
        if not file.exists():
            continue
        estimates = _own_estimates(record, file, name)
        if isinstance(estimates, str):
            yield name, estimates
            continue
        samples = present.samples(name)
        theirs = record.samples.get(name, RecordSamples()).fingerprint
        if samples is None or theirs != present.fingerprint(name):
            continue
        table = join_labels(estimates, samples)
        if table is None:
            yield name, f"{file} has estimates of images that the dataset does not have"
            continue
        try:
            known = [group for group in samples.groups if table[group].notna().any()]
            problems = [*_groupings_left_out(test, known), *_recomputed(table, test)]
        except _MISFITS as error:
            problems = [_shapeless(error)]
        yield from _by_test(name, problems)


def _groupings_left_out(test: TestResult, known: Sequence[str]) -> Iterator[str]:
    for name in known:
        if name not in test.groups:
            yield f"it has no groups by {name}, which the dataset has"


def _by_test(name: str, problems: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each problem with its test set; None in its place where there is none."""
    yield from ((name, problem) for problem in problems)
    if not problems:
        yield name, None


def _contradictions(test: TestResult) -> Iterator[str]:
    """Yield contradictions within the metrics, independent of the predictions."""
    overall: list[tuple[str, Mapping[str, object]]] = [("all images", test.overall)]
    groups = [(where, _set_fields(group)) for where, group in _each_group(test)]
    for where, metrics in [*overall, *groups]:
        values = {key: metric for key, metric in metrics.items() if isinstance(metric, MetricValue)}
        for key, metric in values.items():
            if metric.value is None or metric.ci_low is None or metric.ci_high is None:
                continue
            if not metric.ci_low - _TOLERANCE <= metric.value <= metric.ci_high + _TOLERANCE:
                yield f"{where}: {key} = {metric.value:.4f} lies outside its interval"
        mae, rmse, bias = (values[key].value if key in values else None for key in ("mae", "rmse", "bias"))
        if mae is None or rmse is None or bias is None:
            continue
        if not abs(bias) - _TOLERANCE <= mae <= rmse + _TOLERANCE:
            yield f"{where}: |bias| <= MAE <= RMSE does not hold ({bias:.3f}, {mae:.3f}, {rmse:.3f})"
    bands, total = test.groups.get("age_band", {}), test.metric("mae").value
    if bands and total is not None and sum(band.n for band in bands.values()) == test.n:
        mean = sum(band.n * (band.mae.value or 0.0) for band in bands.values()) / test.n
        if abs(mean - total) > _TOLERANCE:
            yield f"MAE {total:.4f} is not the mean of the age bands', {mean:.4f}"


def _lost_images(record: Record, name: str) -> Iterator[str]:
    """Yield images of a test set that were neither tested nor trained on nor rejected."""
    samples, n = record.samples.get(name, RecordSamples()), record.metrics.tests[name].n
    folds = record.metrics.protocol.folds if record.metrics.protocol else 1
    if folds not in (None, 1) or samples.test is None:
        return  # With several folds, train and val are means, and an image may be tested more than once.
    if n != samples.test:
        yield f"n is {n}, and {samples.test} images were to be tested"
    rejected = samples.rejected if samples.quarantined is None else samples.quarantined
    if samples.read is None or rejected is None:
        return
    lost = samples.read - (samples.train or 0) - (samples.val or 0) - samples.test - sum(rejected.values())
    # An official split may give an image no part; a test set without training has no such images.
    if lost < 0 or (lost and name != record.metrics.train):
        yield f"{samples.read} images were read, and {samples.read - lost} tested, trained on or rejected"


def _unfit_predictions(table: pd.DataFrame, run: Path, name: str) -> Iterator[str]:
    """Predictions that are not one finite number for each image of the test, or whose labels are not the samples'."""
    if not np.isfinite(table["age_pred"].to_numpy(float)).all():
        yield "a prediction is not a finite number"
    twice = table.duplicated(["sample_id", FOLD] if FOLD in table else ["sample_id"])
    if twice.any():
        yield f"{int(twice.sum())} predictions are repeated, the first of '{table.loc[twice, 'sample_id'].iloc[0]}'"
    tested = _tested_samples(run, name)
    if tested is None:
        return
    ages = tested.set_index("sample_id")["age"]
    missing = tested.loc[~tested["sample_id"].isin(table["sample_id"]), "sample_id"]
    if len(missing):
        yield f"{len(missing)} of {len(tested)} test images have no prediction, the first is '{missing.iloc[0]}'"
    expected = table["sample_id"].map(ages)
    other = ~np.isclose(
        expected.to_numpy(float), table["age"].to_numpy(float)
    )  # also where the image is none of the test
    if other.any():
        row = table[other].iloc[0]
        yield (
            f"{int(other.sum())} predictions are of images or labels that samples/ does not have, the first is "
            f"'{row['sample_id']}' with age {row['age']:g}"
        )


def _tested_samples(run: Path, name: str) -> pd.DataFrame | None:
    """The images that a run was to be tested on, as it kept them: sample_id and age. None where it kept none."""
    single, several = (run / "samples" / f"{name}-{part}.parquet" for part in ("test", "folds"))
    try:
        if single.exists():
            return pd.read_parquet(single, columns=["sample_id", "age"])
        if not several.exists():
            return None
        table = pd.read_parquet(several)
    except (OSError, ValueError) as error:
        raise UserError(f"{run / 'samples'}: a file of {name} is not readable: {error}") from error
    tested: pd.DataFrame = table.loc[(table == Split.TEST.label).any(axis=1), ["sample_id", "age"]]
    return tested


def _stress_contradictions(record: Record, name: str) -> Iterator[str]:
    stress, mae = (record.stress or {}).get(name), record.metrics.tests[name].metric("mae").value
    clean = None if stress is None else stress.clean.mae.value
    if clean is not None and mae is not None and abs(clean - mae) > _STRESS_TOLERANCE:
        yield f"the stress test's MAE on the faces as they are is {clean:.4f}, that of the run {mae:.4f}"


def _shift_contradictions(record: Record, name: str) -> Iterator[str]:
    """Yield contradictions between why the error differs from that on another test set and the errors on both."""
    tests = record.metrics.tests
    shift = tests[name].shift
    if shift is None or shift.difference.value is None:
        return
    difference, parts = shift.difference.value, [shift.parts.mix, shift.parts.same, shift.parts.outside]
    maes = [tests[of].metric("mae").value for of in (name, shift.source) if of in tests]
    if len(maes) == 2 and abs((maes[0] or 0.0) - (maes[1] or 0.0) - difference) > _TOLERANCE:
        yield f"its shift from {shift.source} is {difference:.4f}, which is not the difference of their MAEs"
    total = sum(part.value or 0.0 for part in parts)
    if abs(total - difference) > _TOLERANCE:
        yield f"its shift from {shift.source} is {difference:.4f}, and the parts of it add up to {total:.4f}"


def _recomputed(table: pd.DataFrame, test: TestResult) -> Iterator[str]:
    method = test.method
    if method is None:
        yield "it does not have the method of its intervals"
        return
    if not 0 <= method.resamples <= _MOST_RESAMPLES:
        yield f"its intervals are of {method.resamples} resamples; more than {_MOST_RESAMPLES} are not computed again"
        return
    version = method.version
    if not 1 <= version <= VERSION:
        yield f"its intervals are of version {version}; this agebench ({__version__}) knows 1 to {VERSION}"
        return
    values_only = _OTHER_INTERVALS if version == 1 else frozenset()
    share = _END_SHARES.get(version, 0.0)
    single = [name for name in test.groups if name != "age_band" and "*" not in name]
    made = evaluate_folds(
        table,
        groups=single,
        train_ages=(test.train_ages[0], test.train_ages[1]) if test.train_ages else None,
        resamples=method.resamples,
        seed=method.seed,
        interval=method.interval,
        version=version,
    )
    counts = (*_COUNTS, "subjects") if version > 3 else _COUNTS
    exact = (*counts, *_TESTED) if version > 2 else counts
    ours_by, theirs_by = _all_figures(made), _all_figures(test)
    for where in {**ours_by, **theirs_by}:
        ours, theirs = ours_by.get(where, {}), theirs_by.get(where, {})
        for key in {**ours, **theirs}:
            metric, recorded = ours.get(key), theirs.get(key)
            if isinstance(metric, MetricValue) or isinstance(recorded, MetricValue):
                made_here, known = (of if isinstance(of, MetricValue) else MetricValue() for of in (metric, recorded))
                if not _same(made_here, known, value_only=key in values_only, share=share):
                    yield f"{where}: {key} is {_text(known)} there, and {_text(made_here)} by the predictions"
            elif key in exact and not _equal(metric, recorded):
                yield f"{where}: {key} is {recorded} there, and {metric} by the predictions"
    totals = [("n", made.n, test.n), ("subjects", made.subjects, test.subjects)]
    if version > 3 and made.method is not None:
        totals.append(("clusters", made.method.clusters, method.clusters))
    for key, ours_n, theirs_n in totals:
        if ours_n != theirs_n:
            yield f"{key} is {theirs_n} there, and {ours_n} by the predictions"


def _all_figures(test: TestResult) -> dict[str, Mapping[str, object]]:
    """Return part of the result -> key -> figure, count or name."""
    parts = [*_each_group(test), *_each_gap(test)]
    return {"all images": test.overall, **{where: _set_fields(part) for where, part in parts}}


def _equal(ours: object, theirs: object) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= _P_TOLERANCE
    return ours == theirs


def _set_fields(result: ResultModel) -> dict[str, object]:
    return {key: getattr(result, key) for key in result.model_fields_set}


def _each_group(test: TestResult) -> list[tuple[str, GroupMetrics]]:
    return [(f"{grouping} {name}", group) for grouping, groups in test.groups.items() for name, group in groups.items()]


def _each_gap(test: TestResult) -> list[tuple[str, GroupDifference]]:
    gaps: list[tuple[str, GroupDifference]] = []
    for grouping, gap in test.gaps.items():
        gaps.append((f"gap by {grouping}", gap))
        if gap.age_standardized is not None:
            gaps.append((f"gap by {grouping} at equal ages", gap.age_standardized))
    return gaps


def _same(ours: MetricValue, theirs: MetricValue, *, value_only: bool, share: float) -> bool:
    """Return whether two metrics agree; the ends may differ by `share` of the interval's width."""
    sides = [abs(end - ours.value) for end in (ours.ci_low, ours.ci_high) if end is not None and ours.value is not None]
    width = 2 * sum(sides) / len(sides) if sides else 0.0  # of an interval that is open on one side: twice the other
    pairs = [(ours.value, theirs.value, _TOLERANCE)]
    if not value_only:
        tolerance = _END_TOLERANCE + share * width
        pairs += [(ours.ci_low, theirs.ci_low, tolerance), (ours.ci_high, theirs.ci_high, tolerance)]
    # A missing end equals a missing end, and nothing else.
    return all(a == b or (a is not None and b is not None and abs(a - b) < tolerance) for a, b, tolerance in pairs)


def _text(metric: MetricValue) -> str:
    return "missing" if metric.value is None else f"{metric.value:.4f}"
