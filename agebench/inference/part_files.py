"""A folder with the predictions for each shard in a file of its own, so that an interrupted job continues."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agebench.errors import UserError
from agebench.inference.batch_predict import Compute, PredictOptions, PredictSummary
from agebench.inference.input_sources import InputItem
from agebench.inference.shards import check_shard
from agebench.inference.writers import (
    SUFFIXES,
    PredictionSettings,
    Row,
    Write,
    check_suffix,
    parquet_output,
    printable_path,
    to_row,
)
from agebench.utils.io import atomic_write, check_file, check_folder
from agebench.utils.locks import held
from agebench.utils.progress import progress

_LOCK = ".agebench.lock"
_KEY = b"agebench-shard"


def is_folder(out: str | None) -> bool:
    """Return whether an output is a folder: it ends with a slash, or exists as a folder without the suffix of an output file.

    Args:
        out: the output; None: standard output.
    """
    if out is None:
        return False
    return out.endswith(("/", os.sep)) or (os.path.isdir(out) and Path(out).suffix.lower() not in SUFFIXES)


def check_output(out: str | None) -> None:
    """Check before long work that an output can be written.

    Args:
        out: a file, or a folder for a file of each shard; None: standard output.

    Raises:
        UserError: it cannot.
    """
    if out is None:
        return
    if is_folder(out):
        check_folder(Path(out))
        return
    check_suffix(Path(out))
    check_file(Path(out))


def check_inputs(out: str | None, inputs: Sequence[InputItem], *, annotated: bool) -> None:
    """Check before long work that inputs fit their output.

    Args:
        out: a file, or a folder for a file of each shard; None: standard output.
        inputs: the inputs.
        annotated: whether annotated images are drawn.

    Raises:
        UserError: they do not.
    """
    shards = [path for item in inputs if item.kind == "shards" for path in item.paths]
    if annotated and shards:
        raise UserError(f"--annotate-dir: the images of a shard are not drawn: unpack {shards[0]} first")
    for shard in shards:
        check_shard(shard)
    if out is None:
        return
    if not is_folder(out):
        if any(os.path.exists(out) and os.path.samefile(out, shard) for shard in shards if os.path.exists(shard)):
            raise UserError(f"--out {out}: is one of the shards, which it would replace; choose another file")
        return
    others = [item for item in inputs if item.kind != "shards"]
    if others:
        example = "standard input" if others[0].count is None else next(iter(others[0].paths))
        raise UserError(
            f"--out {out}: a folder has one file for each shard (.tar, .parquet), and {example} is no shard. Write these "
            "predictions to a .csv, .json or .parquet file"
        )


@dataclass(frozen=True)
class PartFolder:
    """The folder of predictions, one Parquet file for each shard: `train-0001.tar.parquet` for `train-0001.tar`.

    Attributes:
        path: the folder.
        names: the columns.
        about: how the ages are predicted; all files of the folder must agree in it.
        options: options of prediction; all files of the folder must agree in those that change a row.
        model_sha256: digest of the model's file; all files of the folder must agree in it. Empty: the model is a name.
    """

    path: Path
    names: Sequence[str]
    about: PredictionSettings
    options: PredictOptions
    model_sha256: str = ""

    def part(self, shard: str) -> Path:
        """Return the file of a shard's predictions.

        Args:
            shard: path of the shard.
        """
        return self.path / f"{printable_path(os.path.basename(shard))}.parquet"

    def pending(self, shards: Sequence[str]) -> list[str]:
        """Return the shards without a finished file, in order.

        A file is finished if its shard was read to the end and has the same size today.

        Args:
            shards: paths of the shards.

        Raises:
            UserError: two shards have the same name, or a file has other settings or is not from `agebench predict`.
        """
        shard_by_part: dict[Path, str] = {}
        for shard in shards:
            other = shard_by_part.setdefault(self.part(shard), shard)
            if other != shard:
                raise UserError(
                    f"{other} and {shard}: shards of the same name have the same output file. Rename one, or predict each "
                    "folder of shards with its own --out"
                )
        return [shard for part, shard in shard_by_part.items() if not self._is_finished(part, shard)]

    def _is_finished(self, part: Path, shard: str) -> bool:
        if not os.path.lexists(part):
            return False
        foreign = UserError(
            f"{part}: is in the way, and was not written by `agebench predict`; choose another folder with --out"
        )
        if not part.is_file():  # a pipe would block the reader
            raise foreign
        try:
            with pq.ParquetFile(part) as file:
                content = json.loads(file.schema_arrow.metadata[_KEY])
                settings, size, source = dict(content["settings"]), content["bytes"], content["shard"]
                last_input = file.read_row_group(file.num_row_groups - 1, columns=["input"])["input"][-1].as_py()
        except (OSError, pa.ArrowException, KeyError, IndexError, TypeError, ValueError, RecursionError):
            raise foreign from None
        if source != printable_path(shard):
            raise UserError(
                f"{part}: holds the predictions for {source}; predict {printable_path(shard)} with an --out of its own"
            )
        if settings != self._settings():
            changed = [name for name, value in self._settings().items() if settings.get(name) != value]
            raise UserError(
                f"{part}: was written with other settings ({', '.join(changed)}); choose another folder with --out, or delete "
                "this one"
            )
        # A last row with the path of the shard itself has the reason for which the rest of it could not be read.
        return bool(last_input != printable_path(shard) and size == os.path.getsize(shard))

    def _settings(self) -> Row:
        options: Row = {"align": self.options.faces, "detector": self.options.detector}
        options |= {"detect_size": self.options.search, "columns": list(self.names), "model_sha256": self.model_sha256}
        settings: Row = json.loads(json.dumps(self.about.to_json() | options))
        return settings  # as read from a file

    @contextmanager
    def open(self, shard: str) -> Iterator[Write]:
        """Open the file of a shard; it appears when the block ends without an error.

        Args:
            shard: path of the shard.

        Yields:
            The function that writes rows.
        """
        about = {"settings": self._settings(), "shard": printable_path(shard), "bytes": os.path.getsize(shard)}
        with (
            atomic_write(self.part(shard)) as temporary,
            parquet_output(temporary, self.names, self.about, {_KEY: json.dumps(about).encode()}) as write,
        ):
            yield write


def predict_parts(folder: PartFolder, inputs: Sequence[InputItem], compute: Compute) -> PredictSummary:
    """Predict shards, each into its own file; finished ones are skipped.

    Args:
        folder: the folder.
        inputs: the shards, see `check_inputs`.
        compute: where they are predicted.

    Raises:
        UserError: two shards have the same name, or the folder has other settings.
    """
    shards = [path for item in inputs for path in item.paths]
    folder.path.mkdir(parents=True, exist_ok=True)
    summary = PredictSummary()
    with held(folder.path / _LOCK, f"{folder.path}: predicting shards"):
        pending = folder.pending(shards)
        summary.finished_before = len(set(shards)) - len(pending)
        item = InputItem("shards", tuple(pending), None)
        with progress(label="ages", unit="img") as bar:
            by_shard = groupby(compute(item, ordered=False), key=lambda predicted: predicted.source)
            for shard, successive in by_shard:
                with folder.open(shard) as write:
                    for faces in (faces for predicted in successive for faces in predicted.images):
                        summary.add(faces, faces[0].input)
                        write([to_row(face, folder.options.challenge) for face in faces])
                        bar.update()
    return summary
