"""Whether a record holds together: its seal, figures that contradict one another, figures computed again."""

import math
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agebench._version import __version__
from agebench.errors import UserError
from agebench.leaderboard.published_estimates import LocalDatasets, estimates_digest, join_labels, read_estimates
from agebench.leaderboard.records import (
    SCHEMA,
    content_hash,
    estimates_file,
    predictions_digest,
    predictions_file,
    read_predictions,
)
from agebench.leaderboard.schema import schema_error
from agebench.metrics.cross_validation import evaluate_folds
from agebench.metrics.evaluate import VERSION
from agebench.metrics.prediction_format import FOLD
from agebench.types import Split

# What figures lead to that are text, missing, or too large to be any; or groups that the dataset does not have.
_MISFITS = (AttributeError, KeyError, TypeError, OverflowError, UserError)
_STRESS_TOLERANCE = 0.05  # years: a stress test may be made on another device, in another precision
_MOST_RESAMPLES = 100_000
_COUNTS = ("n", "ranked", "worst", "best")  # of a group or a gap: no figures, and compared as they are
# Version 1 compared replicates with the value to the last bit, which rounding on another machine decides otherwise: in
# groups of few images its ends moved by up to 3 % of the interval's width.
_VERSION_1_SHARE = 0.05
# Figures whose intervals version 1 computed otherwise: of its records only their values are computed again.
_OTHER_INTERVALS = frozenset(
    ["rmse", "median_ae", "p95_ae", "balanced_mae", "balanced_mae_bands", "range_hit", "difference", "ratio"]
)
_TOLERANCE = 1e-6  # years: numpy's sums differ by less between machines
_END_TOLERANCE = 1e-4  # years: resampled sums are single precision, and differ by up to 1e-5 between machines


def check_record(record: Any, run: Path | None = None) -> Iterator[str]:
    """What is wrong with a record, in sentences; nothing where it is right.

    Args:
        record: as `make_record` gives it.
        run: the run's folder, where it is there: its predictions must have the record's digest, and every figure must
            follow from them.
    """
    if not isinstance(record, Mapping):
        yield "it is no table of keys and values"
        return
    if record.get("schema", SCHEMA) != SCHEMA:
        yield f"its schema is {reprlib.repr(record['schema'])}; this agebench ({__version__}) knows {SCHEMA}"
        return
    problem = schema_error(record)
    if problem is not None:
        yield problem
        return
    try:
        if record["sha256"] != content_hash(record):
            yield "its seal is broken: it was changed after it was made"
        yield from _check_figures(record, run)
    except RecursionError:
        yield "its 'metrics' are nested too deeply to be figures"
    except _MISFITS as error:
        yield _shapeless(error)


def _shapeless(error: Exception) -> str:
    return f"its figures do not have the shape that metrics.json has: {type(error).__name__}: {error}"


def _check_figures(record: Mapping[str, Any], run: Path | None) -> Iterator[str]:
    for name, test in record["metrics"]["tests"].items():
        yield from (f"{name}: {problem}" for problem in _contradictions(test))
        yield from (f"{name}: {problem}" for problem in _lost_images(record, name))
        yield from (f"{name}: {problem}" for problem in _stress_contradictions(record, name))
        if run is not None and predictions_file(run, name).exists():
            try:
                table = read_predictions(run, name)
            except UserError as error:
                yield f"{name}: {error}"
                continue
            if predictions_digest(table) != record["predictions"][name]["sha256"]:
                yield f"{name}: the predictions in {run} are not those of the record"
                continue
            problems = list(_unfit_predictions(table, run, name))
            yield from (f"{name}: {problem}" for problem in problems or _recomputed(table, test))


def check_estimates(record: Mapping[str, Any], path: Path, present: LocalDatasets) -> Iterator[tuple[str, str | None]]:
    """What is wrong with the estimates beside a record: (test set, problem), the problem None where all its figures follow.

    A test set is passed over where it has no estimates there, or its data are not on this machine or other ones.

    Args:
        record: one that `check_record` finds nothing wrong with.
        path: its file.
        present: the datasets of this machine.
    """
    for name, test in record["metrics"]["tests"].items():
        file = estimates_file(path, name)
        if not file.exists():
            continue
        try:
            estimates = read_estimates(file)
        except UserError as error:
            yield name, str(error)
            continue
        if estimates_digest(estimates) != record["predictions"].get(name, {}).get("estimates_sha256"):
            yield name, f"the estimates in {file} are not those of the record"
            continue
        samples = present.samples(name)
        theirs = (record.get("samples") or {}).get(name, {}).get("fingerprint")
        if samples is None or theirs != present.fingerprint(name):
            continue
        table = join_labels(estimates, samples)
        if table is None:
            yield name, f"{file} has estimates of images that the dataset does not have"
            continue
        try:
            problems = list(_recomputed(table, test))
        except _MISFITS as error:
            problems = [_shapeless(error)]
        yield from ((name, problem) for problem in problems)
        if not problems:
            yield name, None


def _contradictions(test: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be, whatever the predictions were."""
    for where, figures in [("all images", test["overall"]), *_each_group(test)]:
        for key, figure in figures.items():
            if not isinstance(figure, dict):  # asked a million times: of Mapping it would take ten times as long
                continue
            value, low, high = figure.get("value"), figure.get("low"), figure.get("high")
            if value is None or low is None or high is None:
                continue
            if not low - _TOLERANCE <= value <= high + _TOLERANCE:
                yield f"{where}: {key} = {value:.4f} lies outside its interval"
        mae, rmse, bias = (figures.get(key, {}).get("value") for key in ("mae", "rmse", "bias"))
        if None not in (mae, rmse, bias) and not abs(bias) - _TOLERANCE <= mae <= rmse + _TOLERANCE:
            yield f"{where}: |bias| <= MAE <= RMSE does not hold ({bias:.3f}, {mae:.3f}, {rmse:.3f})"
    bands = (test.get("groups") or {}).get("age_band") or {}
    if bands and sum(band["n"] for band in bands.values()) == test["n"]:
        mean = sum(band["n"] * band["mae"]["value"] for band in bands.values()) / test["n"]
        if abs(mean - test["overall"]["mae"]["value"]) > _TOLERANCE:
            yield f"MAE {test['overall']['mae']['value']:.4f} is not the mean of the age bands', {mean:.4f}"


def _lost_images(record: Mapping[str, Any], name: str) -> Iterator[str]:
    """Images of a test set that were neither tested nor trained on nor rejected: nothing may leave a test unseen."""
    samples, n = (record.get("samples") or {}).get(name) or {}, record["metrics"]["tests"][name]["n"]
    if (record["metrics"].get("protocol") or {}).get("folds", 1) != 1 or samples.get("test") is None:
        return  # of several folds, train and val are means, and an image may be tested more than once
    if n != samples["test"]:
        yield f"n is {n}, and {samples['test']} images were to be tested"
    if samples.get("read") is None or samples.get("quarantined") is None:
        return
    used = sum(samples.get(part) or 0 for part in ("train", "val", "test"))
    lost = samples["read"] - used - sum(samples["quarantined"].values())
    # An official split may give an image no part; a test set that nothing is trained on has no such images.
    if lost < 0 or (lost and name != record["metrics"]["train"]):
        yield f"{samples['read']} images were read, and {samples['read'] - lost} tested, trained on or rejected"


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


def _stress_contradictions(record: Mapping[str, Any], name: str) -> Iterator[str]:
    stress = (record.get("stress") or {}).get(name)
    if stress is None:
        return
    clean, mae = stress["clean"]["mae"]["value"], record["metrics"]["tests"][name]["overall"]["mae"]["value"]
    if abs(clean - mae) > _STRESS_TOLERANCE:
        yield f"the stress test's MAE on the faces as they are is {clean:.4f}, that of the run {mae:.4f}"


def _recomputed(table: pd.DataFrame, test: Mapping[str, Any]) -> Iterator[str]:
    method = test["method"]
    if not 0 <= method["resamples"] <= _MOST_RESAMPLES:
        yield f"its intervals are of {method['resamples']} resamples; more than {_MOST_RESAMPLES} are not computed again"
        return
    version = method.get("version", 1)
    if not 1 <= version <= VERSION:
        yield f"its intervals are of version {version}; this agebench ({__version__}) knows 1 to {VERSION}"
        return
    values_only = _OTHER_INTERVALS if version == 1 else frozenset()
    share = _VERSION_1_SHARE if version == 1 else 0.0
    single = [name for name in test["groups"] if name != "age_band" and "*" not in name]
    made = evaluate_folds(
        table,
        groups=single,
        train_ages=tuple(test["train_ages"]) if test.get("train_ages") else None,
        resamples=method["resamples"],
        seed=method["seed"],
        interval=method["interval"],
        version=version,
    )
    for where, ours, theirs in [
        ("all images", made["overall"], test["overall"]),
        *((name, entry, dict(_each_group(test)).get(name, {})) for name, entry in _each_group(made)),
        *((name, entry, dict(_each_gap(test)).get(name, {})) for name, entry in _each_gap(made)),
    ]:
        for key, figure in ours.items():
            if isinstance(figure, Mapping) and not _same(
                figure, theirs.get(key) or {}, value_only=key in values_only, share=share
            ):
                yield f"{where}: {key} is {_text(theirs.get(key))} there, and {_text(figure)} by the predictions"
            elif key in _COUNTS and figure != theirs.get(key):
                yield f"{where}: {key} is {theirs.get(key)} there, and {figure} by the predictions"
    for key in ("n", "subjects"):
        if made[key] != test.get(key):
            yield f"{key} is {test.get(key)} there, and {made[key]} by the predictions"


def _each_group(test: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{grouping} {name}", entry)
        for grouping, entries in (test.get("groups") or {}).items()
        for name, entry in entries.items()
    ]


def _each_gap(test: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    gaps = [(f"gap by {grouping}", gap) for grouping, gap in (test.get("gaps") or {}).items()]
    even = [(f"{name} at equal ages", gap["standardised"]) for name, gap in gaps if gap.get("standardised")]
    return [*gaps, *even]


def _same(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, value_only: bool, share: float) -> bool:
    """Whether two figures agree; `share` of the interval's width is allowed to its ends."""
    ends = ("low", "high")
    width = (ours.get("high") or 0) - (ours.get("low") or 0) if None not in map(ours.get, ends) else 0
    tolerances = {"value": _TOLERANCE} | ({} if value_only else dict.fromkeys(ends, _END_TOLERANCE + share * width))
    # A missing end equals a missing end, and nothing else.
    pairs = [(ours.get(end, math.inf), theirs.get(end, math.inf), tolerance) for end, tolerance in tolerances.items()]
    return all(a == b or (a is not None and b is not None and abs(a - b) < tolerance) for a, b, tolerance in pairs)


def _text(figure: Mapping[str, Any] | None) -> str:
    return "missing" if not figure or figure.get("value") is None else f"{figure['value']:.4f}"
