"""Result records: one JSON a run, with everything that its figures depend on, and a way to check it."""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from agebench import __version__
from agebench.errors import UserError
from agebench.evaluation.folds import evaluate_folds
from agebench.files import write_json
from agebench.registry.cards import DatasetCard
from agebench.registry.protocol import DEFAULT
from agebench.reports.estimates import (
    Present,
    describe_dataset,
    estimates_digest,
    estimates_of,
    joined,
    plugins_of,
    read_estimates,
    write_estimates,
)

SCHEMA = 1
AGAIN = "again-"  # what the folder of a reproduction begins with: its outcome may differ, and that is no fault of the record
_MANIFEST = (
    "agebench",
    "versions",
    "git",
    "seed",
    "hardware",
    "train",
    "model",
    "faces",
    "protocol",
    "samples",
    "epochs",
    "best_epoch",
    "timings",
)
_NEEDED = ("schema", "id", "config", "model", "metrics", "predictions", "sha256")
_TOLERANCE = 1e-6  # years: numpy's sums differ by less between machines


def make_record(
    run: Path, cards: Mapping[str, DatasetCard] | None = None, initial: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        run: its folder.
        cards: of its datasets, as far as they are known; what decides a figure is taken over.
        initial: digests of the weights that it started from, for a run whose manifest has none.

    Raises:
        UserError: no finished run stands there, or one of its files cannot be read.
    """
    manifest, metrics = _json(run / "manifest.json"), _json(run / "metrics.json")
    if not manifest.get("finished"):
        raise UserError(f"{run}: the run is not finished; go on with it by `agebench run … --out {run} --resume`")
    settings = (run / "config.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256(settings.encode()).hexdigest()
    datasets = {name: describe_dataset(card) for name, card in (cards or {}).items()}
    predictions = {}
    for name in metrics["tests"]:
        estimates = estimates_of(run, name)
        predictions[name] = {"sha256": predictions_digest(pd.read_parquet(_predictions(run, name)))}
        if estimates is not None:
            predictions[name]["estimates_sha256"] = estimates_digest(estimates)
    # The same settings on another machine give other figures: what came out is part of the name, so that both are kept.
    outcome = hashlib.sha256(json.dumps(predictions, sort_keys=True).encode()).hexdigest()
    record = {
        "schema": SCHEMA,
        "id": f"{_stem(metrics, manifest)}-{digest[:8]}-{outcome[:8]}",
        "config": tomllib.loads(settings),
        "config_sha256": digest,
        **{key: manifest[key] for key in _MANIFEST if key in manifest},
        "datasets": datasets,
        "plugins": plugins_of(manifest["model"].get("head"), datasets),
        "metrics": metrics,
        "predictions": predictions,
    }
    if initial and "initial" not in record["model"]:
        record["model"] = {**record["model"], "initial": dict(initial)}
    return record | {"sha256": _seal(record)}


def write_record(
    run: Path,
    folder: Path,
    cards: Mapping[str, DatasetCard] | None = None,
    initial: Mapping[str, str] | None = None,
) -> Path:
    """`make_record` into `folder/<id>.json`: a file a run, so that records of different people merge.

    Where a dataset's card allows it, what was estimated for each image goes to `estimates_file`, without any label.
    """
    record = make_record(run, cards, initial)
    path = folder / f"{record['id']}.json"
    for name in record["metrics"]["tests"]:
        estimates = estimates_of(run, name)
        if estimates is not None and cards and name in cards and cards[name].estimates_public:
            write_estimates(estimates_file(path, name), estimates)
    write_json(path, record)
    return path


def estimates_file(record: Path, test: str) -> Path:
    """Where a record's estimates for a test set lie: reports/predictions/<id>/<test>.parquet beside reports/results/<id>.json."""
    return record.parent.parent / "predictions" / record.stem / f"{test}.parquet"


def read_records(folder: Path) -> dict[Path, dict[str, Any]]:
    """All records of a folder, by file.

    Raises:
        UserError: no such folder, or a file is no JSON.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of records; `agebench results add RUN` makes the first")
    return {path: _json(path) for path in sorted(folder.glob("*.json"))}


def read_record(path: Path) -> dict[str, Any]:
    """One record, unchecked.

    Raises:
        UserError: no such file, or it is no JSON.
    """
    return _json(path)


def runs_by_config(folder: Path) -> dict[str, Path]:
    """`config_sha256` -> run, of all runs in a folder, less those that only repeat what a record says."""
    return {
        hashlib.sha256(config.read_bytes()).hexdigest(): config.parent
        for config in sorted(folder.glob("*/config.toml"))
        if not config.parent.name.startswith(AGAIN)
    }


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
        yield f"its schema is {record['schema']!r}; this agebench ({__version__}) knows {SCHEMA}"
        return
    missing = [key for key in _NEEDED if key not in record]
    if missing:
        yield f"it has no '{missing[0]}'"
        return
    flat = [key for key in ("config", "model", "metrics", "predictions") if not isinstance(record[key], Mapping)]
    if flat or not {"train", "tests"} <= record["metrics"].keys():
        yield f"its '{flat[0] if flat else 'metrics'}' does not have the shape that `agebench results add` gives it"
        return
    if record["sha256"] != _seal(record):
        yield "its seal is broken: it was changed after it was made"
    try:
        yield from _check_figures(record, run)
    except (AttributeError, KeyError, TypeError) as error:
        yield f"its figures do not have the shape that metrics.json has: {type(error).__name__}: {error}"


def _check_figures(record: Mapping[str, Any], run: Path | None) -> Iterator[str]:
    for name, test in record["metrics"]["tests"].items():
        yield from (f"{name}: {problem}" for problem in _contradictions(test))
        file = _predictions(run, name) if run is not None else None
        if file is not None and file.exists():
            table = pd.read_parquet(file)
            if predictions_digest(table) != record["predictions"][name]["sha256"]:
                yield f"{name}: the predictions in {run} are not those of the record"
            else:
                yield from (f"{name}: {problem}" for problem in _recomputed(table, test))


def check_estimates(record: Mapping[str, Any], path: Path, present: Present) -> Iterator[tuple[str, str | None]]:
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
        table = joined(estimates, samples)
        if table is None:
            yield name, f"{file} has estimates of images that the dataset does not have"
            continue
        problems = list(_recomputed(table, test))
        yield from ((name, problem) for problem in problems)
        if not problems:
            yield name, None


def predictions_digest(table: pd.DataFrame) -> str:
    """SHA-256 of who was predicted what, whatever wrote the file."""
    rows = table[["sample_id", "age", "age_pred"]].sort_values(["sample_id", "age_pred"])
    return hashlib.sha256(rows.to_csv(index=False, float_format="%.4f").encode()).hexdigest()


def _contradictions(test: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be, whatever the predictions were."""
    for where, figures in [("all images", test["overall"]), *_each_group(test)]:
        for key, figure in figures.items():
            if not isinstance(figure, Mapping) or None in (figure.get("value"), figure.get("low"), figure.get("high")):
                continue
            if not figure["low"] - _TOLERANCE <= figure["value"] <= figure["high"] + _TOLERANCE:
                yield f"{where}: {key} = {figure['value']:.4f} lies outside its interval"
        mae, rmse, bias = (figures.get(key, {}).get("value") for key in ("mae", "rmse", "bias"))
        if None not in (mae, rmse, bias) and not abs(bias) - _TOLERANCE <= mae <= rmse + _TOLERANCE:
            yield f"{where}: |bias| <= MAE <= RMSE does not hold ({bias:.3f}, {mae:.3f}, {rmse:.3f})"
    bands = (test.get("groups") or {}).get("age_band") or {}
    if bands and sum(band["n"] for band in bands.values()) == test["n"]:
        mean = sum(band["n"] * band["mae"]["value"] for band in bands.values()) / test["n"]
        if abs(mean - test["overall"]["mae"]["value"]) > _TOLERANCE:
            yield f"MAE {test['overall']['mae']['value']:.4f} is not the mean of the age bands', {mean:.4f}"


def _recomputed(table: pd.DataFrame, test: Mapping[str, Any]) -> Iterator[str]:
    method = test["method"]
    single = [name for name in test["groups"] if name != "age_band" and "*" not in name]
    made = evaluate_folds(
        table,
        groups=single,
        train_ages=tuple(test["train_ages"]) if test.get("train_ages") else None,
        resamples=method["resamples"],
        seed=method["seed"],
        interval=method["interval"],
    )
    for where, ours, theirs in [
        ("all images", made["overall"], test["overall"]),
        *((name, entry, dict(_each_group(test)).get(name, {})) for name, entry in _each_group(made)),
        *((name, entry, dict(_each_gap(test)).get(name, {})) for name, entry in _each_gap(made)),
    ]:
        for key, figure in ours.items():
            if isinstance(figure, Mapping) and not _same(figure, theirs.get(key) or {}):
                yield f"{where}: {key} is {_text(theirs.get(key))} there, and {_text(figure)} by the predictions"
    if made["n"] != test["n"]:
        yield f"n is {test['n']} there, and {made['n']} by the predictions"


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


def _same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    # A missing end equals a missing end, and nothing else.
    pairs = [(ours.get(end, math.inf), theirs.get(end, math.inf)) for end in ("value", "low", "high")]
    return all(a == b or (a is not None and b is not None and abs(a - b) < _TOLERANCE) for a, b in pairs)


def _text(figure: Mapping[str, Any] | None) -> str:
    return "missing" if not figure or figure.get("value") is None else f"{figure['value']:.4f}"


def _seal(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stem(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    model = manifest["model"]
    if metrics["train"] is None:
        return f"{model['name']}-on-{'-'.join(metrics['tests'])}"
    protocol = (metrics.get("protocol") or {}).get("name", DEFAULT)
    home = metrics["train"] if protocol == DEFAULT else f"{metrics['train']}-{protocol}"
    return f"{home}-{model['name']}-{model['head']}-s{manifest['seed']}"


def _predictions(run: Path, test: str) -> Path:
    return run / "predictions" / f"{test}.parquet"


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; records are made of runs' folders by `agebench results add RUN`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file: {error}") from error
