"""Result records: one JSON file per run, with everything that its metrics depend on."""

import gc
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pandas as pd
from pydantic import JsonValue

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.protocol import DEFAULT
from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.leaderboard.published_estimates import (
    describe_dataset,
    estimates_digest,
    estimates_of,
    plugins_of,
    write_estimates,
)
from agebench.leaderboard.schema import RecordModel
from agebench.metrics.schema import MetricsFile
from agebench.utils.integrity import MANIFEST, checked, read_json_table, read_table
from agebench.utils.io import is_temporary, write_json

SCHEMA, SCHEMAS = 2, (1, 2)
# what the folder of a reproduction begins with: its outcome may differ, and that is no fault of the record
REPRODUCTION_PREFIX = "again-"
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
    "limit",
    "excluded",
    "samples",
    "epochs",
    "best_epoch",
    "timings",
)


def make_record(
    run: Path, cards: Mapping[str, DatasetCard] | None = None, initial: Mapping[str, str] | None = None
) -> dict[str, JsonValue]:
    """Make the record of a finished run.

    Args:
        run: its folder.
        cards: of its datasets, as far as they are known; what decides a figure is taken over.
        initial: digests of the weights that it started from, for a run whose manifest has none.

    Raises:
        UserError: the folder has no finished run, or one of its files cannot be read.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; `agebench results add` takes the folder of a finished run")
    manifest, metrics_file = _json(run / "manifest.json"), checked(run, "metrics.json")
    metrics = MetricsFile.from_json(_json(metrics_file), metrics_file)
    if not manifest.get("finished"):
        raise UserError(f"{run}: the run is not finished; continue it by `agebench run … --out {run} --resume`")
    model = validate_model(RecordModel, _table(manifest, "model"), source=f"{run / 'manifest.json'}: model")
    settings = _settings(checked(run, "config.toml"))
    digest = hashlib.sha256(settings.encode()).hexdigest()
    datasets = {name: describe_dataset(card) for name, card in (cards or {}).items()}
    predictions: dict[str, JsonValue] = {}
    for name in metrics.tests:
        estimates = estimates_of(run, name)
        digests = {"sha256": predictions_digest(read_predictions(run, name))}
        if estimates is not None:
            digests["estimates_sha256"] = estimates_digest(estimates)
        predictions[name] = {**digests}
    # The same settings on another machine give other figures: what came out is part of the name, so that both are kept.
    outcome = hashlib.sha256(json.dumps(predictions, sort_keys=True).encode()).hexdigest()
    record: dict[str, JsonValue] = {
        "schema": SCHEMA,
        "id": f"{_stem(metrics, model, manifest)}-{digest[:8]}-{outcome[:8]}",
        "config": tomllib.loads(settings),
        "config_sha256": digest,
        **{key: manifest[key] for key in _MANIFEST if key in manifest},
        "datasets": {**datasets},
        "plugins": {**plugins_of(model.head, datasets)},
        "metrics": metrics.to_json(),
        "predictions": predictions,
        **({"stress": stress} if (stress := _stress_of(run)) else {}),
    }
    if initial and "initial" not in model.model_fields_set:
        record["model"] = {**_table(manifest, "model"), "initial": {**initial}}
    return record | {"sha256": content_hash(record)}


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
    for name in _table(_table(record, "metrics"), "tests"):
        estimates = estimates_of(run, name)
        if estimates is not None and cards and name in cards and cards[name].estimates_public:
            write_estimates(estimates_file(path, name), estimates)
    write_json(path, record)
    return path


def estimates_file(record: Path, test: str) -> Path:
    """Return the file of a record's estimates: reports/predictions/<id>/<test>.parquet beside reports/results/<id>.json."""
    return record.parent.parent / "predictions" / record.stem / f"{test}.parquet"


def record_files(folder: Path) -> list[Path]:
    """List the files of a folder's records.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of records; `agebench results add RUN` makes the first")
    return sorted(path for path in folder.glob("*.json") if not is_temporary(path))


def read_records(folder: Path) -> dict[Path, dict[str, JsonValue]]:
    """Read all records of a folder, by file.

    Raises:
        UserError: no such folder, or a file is no JSON.
    """
    with garbage_collection_paused():
        return {path: _json(path) for path in record_files(folder)}


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause garbage collection: a thousand records are ten million values that all stay, and are searched again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_record(path: Path) -> dict[str, JsonValue]:
    """Read one record, unchecked.

    Raises:
        UserError: no such file, or it is no JSON.
    """
    return _json(path)


def runs_by_config(folder: Path) -> dict[str, list[Path]]:
    """Return `config_sha256` -> finished runs for all runs in a folder, except reproductions of records."""
    runs: dict[str, list[Path]] = {}
    for config in sorted(folder.glob("*/config.toml")):
        run = config.parent
        if not run.name.startswith(REPRODUCTION_PREFIX) and _is_finished(run):
            runs.setdefault(hashlib.sha256(config.read_bytes()).hexdigest(), []).append(run)
    return runs


def _is_finished(run: Path) -> bool:
    """Return whether a run's manifest states that it is finished; one that cannot be read states nothing."""
    try:
        return bool(read_json_table(run / MANIFEST).get("finished"))
    except UserError:
        return False


def _stress_of(run: Path) -> dict[str, JsonValue]:
    """Return test set -> result of `agebench stress` for this run, without groups and curves."""
    found = [_json(path) for path in sorted((run / "stress").glob("*.json")) if not is_temporary(path)]
    return {str(of["test"]): {key: of[key] for key in ("n", "summary", "clean", "method")} for of in found}


def predictions_digest(table: pd.DataFrame) -> str:
    """Compute the SHA-256 of sample ids, ages and predictions, independent of the file format."""
    rows = table[["sample_id", "age", "age_pred"]].sort_values(["sample_id", "age_pred"])
    return hashlib.sha256(rows.to_csv(index=False, float_format="%.4f").encode()).hexdigest()


def content_hash(record: Mapping[str, object]) -> str:
    """Compute the SHA-256 of a record without its seal."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stem(metrics: MetricsFile, model: RecordModel, manifest: Mapping[str, JsonValue]) -> str:
    if metrics.train is None:
        return f"{model.name}-on-{'-'.join(metrics.tests)}"
    protocol = metrics.protocol.name if metrics.protocol else DEFAULT
    home = metrics.train if protocol == DEFAULT else f"{metrics.train}-{protocol}"
    return f"{home}-{model.name}-{model.head}-s{manifest['seed']}"


def read_predictions(run: Path, test: str) -> pd.DataFrame:
    """Read what a run predicted for a test set.

    Raises:
        UserError: no such file, or it is damaged.
    """
    file = predictions_file(run, test)
    if not file.exists():
        raise UserError(f"{file}: missing; without its predictions the figures of this run cannot be checked")
    return read_table(run, file.relative_to(run).as_posix())


def predictions_file(run: Path, test: str) -> Path:
    """Return the file of a run's predictions for a test set."""
    return run / "predictions" / f"{test}.parquet"


def _table(content: Mapping[str, JsonValue], key: str) -> dict[str, JsonValue]:
    """Return the table of a key; an empty one where it is missing or no table."""
    table = content.get(key)
    return table if isinstance(table, dict) else {}


def _json(path: Path) -> dict[str, JsonValue]:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; records are made of runs' folders by `agebench results add RUN`"
        ) from None
    except RecursionError:
        raise UserError(
            f"{path}: not a readable JSON file: it is nested too deeply; a record that `agebench results add RUN` makes is not"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file: {error}") from error


def _settings(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable TOML file: {error}") from error
    return text


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which is no number; an unknown number is null in JSON")
