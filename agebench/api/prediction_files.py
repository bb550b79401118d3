"""Metrics of prediction files: `score_files` for one system, `compare_files` for several systems on the same images."""

import hashlib
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from agebench._version import __version__
from agebench.api.scoring import ComparisonReport, IntervalMethod, ScoreReport, check_options
from agebench.errors import UserError
from agebench.metrics.age_gates import LEGAL_AGES, parse_gate
from agebench.metrics.comparing import DEFAULT_GATES, compare_on_test_sets
from agebench.metrics.groups import MIN_GROUP
from agebench.metrics.paired_figures import FigureOptions, parse_margins
from agebench.metrics.prediction_io import PREDICTED, FilePair, JoinedPredictions, Match, MismatchKind, read_predictions
from agebench.metrics.requirements import Requirement, parse_requirement
from agebench.metrics.schema import MeasuredFile, Measurement, MetricsFile
from agebench.metrics.scoring import ScoreOptions, score_predictions
from agebench.utils.integrity import read_json_table

PathLike = str | Path


def score_files(
    predictions: PathLike | Sequence[PathLike],
    *,
    labels: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    allow: Collection[MismatchKind] = (),
    match: Match = "id",
    calibration: PathLike | None = None,
    groups: Sequence[str] | None = None,
    first_age: int = 0,
    train_ages: tuple[float, float] | None = None,
    legal_ages: Sequence[int] = LEGAL_AGES,
    challenge_ages: Sequence[float] = (),
    gates: Sequence[str] = (),
    gate_ages: tuple[int, int] | None = None,
    require: Sequence[str] = (),
    preset: Literal["", "nist"] = "",
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalMethod = "bca",
    min_group: int = MIN_GROUP,
    name: str = "",
    command: Sequence[str] = (),
) -> ScoreReport:
    r"""Compute all metrics of predictions in files; the same as `agebench score`.

    Args:
        predictions: CSV or Parquet file with the columns `sample_id`, `age_pred` and, without `labels`, `age`; optional
            `age_low`, `age_high`, `age_std`, `p`, `subject` and group columns. Several files: seeds of one system; age gates,
            uncertainty and NIST's figures are then those of the first.
        labels: CSV or Parquet file with `sample_id`, `age` and other known labels, joined to the predictions.
        columns: agebench's name of a column -> its name in the files; a file without it keeps its own of agebench's name.
        allow: mismatches that are counted and excluded instead of refused: `missing`, `extra`, `duplicates`.
        match: how predictions and labels are joined: by the whole `sample_id` (`id`), by the file's name in it (`name`), or by
            that name without its extension (`stem`).
        calibration: predictions on the validation part, for conformal intervals.
        groups: columns to group by, or crossings such as `gender*race`; None: every column with 2 to 20 values.
        first_age: the age of the first entry of the column `p`, in years.
        train_ages: lowest and highest age in the training set, for the MAE within this range.
        legal_ages: ages of the age gates, in years.
        challenge_ages: estimates from which a person passes; empty: each legal age, and 7 years more.
        gates: further age gates such as `18@25`: legal age and challenge age.
        gate_ages: first and last completed year of the minors that count at the gates; None: all below the legal age.
        require: limits such as `mae<=4.5`, `fpr(18@25)<=0.01` or `mae(every race)<=6`; see `requirements` and `verdict` of the
            report.
        preset: `nist` adds the metrics of NIST's FATE AEV.
        resamples: number of bootstrap resamples, 100 or more; 0: no intervals.
        seed: seed of the bootstrap and of the permutation tests.
        interval: bootstrap method of the intervals.
        min_group: smallest number of images of a subgroup that is compared with others.
        name: name of the test set in the report; empty: the first file's name.
        command: words of the command line that computes the metrics, for the report; empty: this function.

    Returns:
        The report: `overall`, `by_group`, `gaps`, `gates`, `to_frame()`, `to_markdown()`, `save(folder)`.

    Raises:
        UserError: a file cannot be read, a column is missing, images do not match, two files hold the same estimates, a rate
            of an age gate is required of several files, or an option is out of range.

    Examples:
        >>> import agebench as ab
        >>> folder.mkdir()
        >>> _ = (folder / "a.csv").write_text("sample_id,age,age_pred\n1.jpg,20,22\n2.jpg,30,29\n")
        >>> ab.score_files(folder / "a.csv", resamples=0).overall["mae"].value
        1.5
    """
    options = ScoreOptions(
        groups=None if groups is None else tuple(groups),
        train_ages=train_ages,
        resamples=resamples,
        seed=seed,
        interval=interval,
        minimum=min_group,
        legal_ages=tuple(legal_ages),
        challenges=tuple(challenge_ages),
        gates=tuple(parse_gate(text) for text in gates),
        minor_ages=gate_ages,
        requirements=tuple(parse_requirement(text) for text in require),
        preset=preset,
        first_age=first_age,
    )
    check_options(options)
    paths = _paths(predictions)
    _check_named_once(paths)
    if len(paths) > 1:
        _check_no_rates(options.requirements, paths[0])
    label_path = None if labels is None else Path(labels)
    calibration_path = None if calibration is None else Path(calibration)
    pairs: list[FilePair] = [(path, label_path) for path in paths]
    pairs += [(calibration_path, None)] if calibration_path else []
    read = partial(read_predictions, columns=columns, others=pairs)
    seeds = [read(path, label_path, allow=allow, match=match) for path in paths]
    table = seeds[0].table
    _check_seeds(paths, seeds)
    if len(table) < 2:
        raise UserError(f"{paths[0]}: only one row; metrics of a test set need at least two")
    calibrated = read(calibration_path).table if calibration_path else None
    name = name or paths[0].stem
    metrics = score_predictions(name, seeds, options, calibrated)
    files = [("predictions", path) for path in paths]
    files += [("labels", label_path)] if label_path else []
    files += [("calibration", calibration_path)] if calibration_path else []
    measurement = _measurement(files, command, "score_files")
    return ScoreReport(name, metrics.model_copy(update={"measurement": measurement}), table)


def compare_files(
    systems: Mapping[str, PathLike | Sequence[PathLike]],
    *,
    labels: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    allow: Collection[MismatchKind] = (),
    match: Match = "id",
    groups: Sequence[str] | None = None,
    gates: Sequence[str] = (),
    gate_ages: tuple[int, int] | None = None,
    margins: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalMethod = "bca",
    command: Sequence[str] = (),
) -> ComparisonReport:
    r"""Compare systems by their prediction files or run folders; the same as `agebench compare`.

    Args:
        systems: name of a system -> its prediction file or run folder; several: its seeds. Run folders are compared on every
            test set that all of them have.
        labels: CSV or Parquet file with `sample_id`, `age` and other known labels, joined to the predictions in files; run
            folders have their own.
        columns: agebench's name of a column -> its name in the files; a file without it keeps its own of agebench's name.
        allow: mismatches that are counted and excluded instead of refused: `missing`, `extra`, `duplicates`.
        match: how predictions and labels are joined: by the whole `sample_id` (`id`), by the file's name in it (`name`), or by
            that name without its extension (`stem`).
        groups: columns whose largest gaps in MAE are compared, or crossings; None: every column with 2 to 20 values.
        gates: age gates such as `18@25`: legal age and challenge age; empty: `18@25`.
        gate_ages: first and last completed year of the minors that count at the gates; None: all below the legal age.
        margins: differences that do not matter, such as `mae=0.25` or `fpr=0.02`: tests of non-inferiority and equivalence.
        resamples: number of bootstrap resamples, 100 or more; 0: no intervals.
        seed: seed of the bootstrap and of the permutation tests.
        interval: bootstrap method of the intervals.
        command: words of the command line that compares the systems, for the report; empty: this function.

    Returns:
        The report of the first test set: `systems`, `pairs`, `figures`, `to_frame()`, `to_markdown()`, `save(folder)`; `tests`
        has those of all test sets.

    Raises:
        UserError: fewer than two systems, a file that cannot be read, a file that is named twice, seeds with the same estimates,
            `labels` with run folders, or systems without two common images.

    Examples:
        >>> import agebench as ab
        >>> folder.mkdir()
        >>> _ = (folder / "a.csv").write_text("sample_id,age,age_pred\n1.jpg,20,22\n2.jpg,30,29\n")
        >>> _ = (folder / "b.csv").write_text("sample_id,age,age_pred\n1.jpg,20,25\n2.jpg,30,28\n")
        >>> ab.compare_files({"a": folder / "a.csv", "b": folder / "b.csv"}, resamples=0).systems["mae"].to_dict()
        {'a': 1.5, 'b': 3.5}
    """
    if len(systems) < 2:
        raise UserError("a comparison needs two systems at least: agebench compare A=a.csv B=b.csv")
    options = FigureOptions(
        gates=tuple(parse_gate(text) for text in gates) or DEFAULT_GATES,
        minor_ages=gate_ages,
        groups=None if groups is None else tuple(groups),
        margins=parse_margins(margins),
        resamples=resamples,
        seed=seed,
        interval=interval,
    )
    check_options(options)
    paths = {name: _paths(several) for name, several in systems.items()}
    _check_named_once([path for several in paths.values() for path in several])
    label_path = None if labels is None else Path(labels)
    test_files = _test_files(paths)
    folder = next((path for several in paths.values() for path in several if path.is_dir()), None)
    if folder and (label_path or match != "id"):
        given = f"--labels {label_path}" if label_path else f"--match {match}"
        raise UserError(
            f"{given}: the predictions in the run folder {folder} have their labels; leave out --labels and --match, or name "
            "files in its predictions/"
        )
    pairs: list[FilePair] = [
        (path, label_path) for by_system in test_files.values() for several in by_system.values() for path in several
    ]
    read = partial(read_predictions, labels=label_path, columns=columns, allow=allow, match=match, others=pairs)
    tests = {
        test: {name: [read(path) for path in several] for name, several in by_system.items()}
        for test, by_system in test_files.items()
    }
    for joined in tests.values():
        for name, several in joined.items():
            _check_seeds(paths[name], several)
    trained_on = {_training_set(path) for several in paths.values() for path in several if path.is_dir()}
    result = compare_on_test_sets(tests, options, allow_missing="missing" in allow, held_out=trained_on)
    files = [
        (f"predictions of {name}", file)
        for name, several in paths.items()
        for path in several
        for file in (_files_by_test(path).values() if path.is_dir() else [path])
    ]
    files += [("labels", label_path)] if label_path else []
    measurement = _measurement(files, command, "compare_files")
    return ComparisonReport(next(iter(result.tests)), result.model_copy(update={"measurement": measurement}))


def _test_files(systems: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, list[Path]]]:
    """Return test set -> system -> files of predictions, one for each seed."""
    folders = [path for paths in systems.values() for path in paths if path.is_dir()]
    if not folders:
        return {"predictions": {name: list(paths) for name, paths in systems.items()}}
    if len(folders) < sum(len(paths) for paths in systems.values()):
        raise UserError("give files only, or run folders only: they hold their test sets by name")
    files = {folder: _files_by_test(folder) for folder in folders}
    common = [test for test in files[folders[0]] if all(test in tests for tests in files.values())]
    if not common:
        held = "; ".join(f"{folder}: {', '.join(tests) or 'none'}" for folder, tests in files.items())
        raise UserError(f"the run folders have no test set in common ({held})")
    return {test: {name: [files[path][test] for path in paths] for name, paths in systems.items()} for test in common}


def _files_by_test(folder: Path) -> dict[str, Path]:
    """Return test set -> file of predictions in a run folder."""
    return {file.stem: file for file in sorted(folder.glob("predictions/[!.]*.parquet"))}


def _training_set(folder: Path) -> str:
    """Return the training set of a run; empty where the folder does not name one."""
    path = folder / "metrics.json"
    return (MetricsFile.from_json(read_json_table(path), path).train or "") if path.exists() else ""


def _paths(files: PathLike | Sequence[PathLike]) -> list[Path]:
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if not paths:
        raise UserError("no prediction file is named. Pass the path of a CSV or Parquet file.")
    return paths


def _check_named_once(paths: Sequence[Path]) -> None:
    """Raise a UserError if two paths lead to the same file or run folder."""
    named: dict[Path, Path] = {}
    for path in paths:
        target = path.resolve()
        if target in named:
            raise UserError(
                f"{named[target]} and {path} are the same predictions; every seed and every system has its own, so name them once"
            )
        named[target] = path


def _check_no_rates(requirements: Sequence[Requirement], first: Path) -> None:
    """Raise a UserError if a requirement is about an age gate, whose rates are those of the first of several files.

    Args:
        requirements: limits on figures of several files.
        first: the first file.
    """
    for requirement in requirements:
        if requirement.gate is not None:
            raise UserError(
                f"requirement '{requirement}': of several files, age gates are those of the first ({first}); give one file, or "
                f"see the mean over the files with `agebench compare --gate {requirement.gate.label}`"
            )


def _check_seeds(paths: Sequence[Path], seeds: Sequence[JoinedPredictions]) -> None:
    """Raise a UserError if two seeds have the same estimates of every image, as copies have.

    Copies of one seed would show trainings without any spread. All columns of estimates that the seeds have are compared.

    Args:
        paths: of the seeds.
        seeds: their predictions.
    """
    if len(seeds) < 2:
        return
    columns = ["sample_id", *(name for name in PREDICTED if all(name in joined.table for joined in seeds))]
    copies: dict[int, Path] = {}
    for path, joined in zip(paths, seeds, strict=True):
        table = joined.table[columns]
        if "p" in table:
            # Lists have no hash; single precision and double may hold the same.
            table = table.assign(p=[np.asarray([] if row is None else row, float).tobytes() for row in table["p"]])
        rows = pd.util.hash_pandas_object(table, index=False)
        digest = int(rows.to_numpy().sum())  # A sum, because rows may be in another order.
        if digest in copies:
            raise UserError(
                f"{copies[digest]} and {path} have the same estimate of every image, as copies of one seed have; "
                "leave one out, or if the system does not depend on the seed, give one file"
            )
        copies[digest] = path


def _measurement(files: Sequence[tuple[str, Path]], command: Sequence[str], function: str) -> Measurement:
    """Record when, with which version and command, and from which files metrics are computed.

    Args:
        files: role and path of each file.
        command: words of the command line after `agebench`; empty: `function` was called.
        function: name of the called function.
    """
    return Measurement(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        command=shlex.join(["agebench", *command]) if command else f"agebench.{function}(...)",
        files=[MeasuredFile(role=role, name=path.name, sha256=_sha256(path)) for role, path in files],
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
