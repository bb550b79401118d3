"""The face cache: every image decoded, aligned and resized once, into one memory-mapped array of bytes."""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.faces.body_crops import (
    Body,
    Box,
    body_boxes,
    face_boxes_of,
    prepare_body,
    prepare_boxed_face,
    prepare_masked_body,
)
from agebench.data.faces.detectors.base import Detector, open_detector
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.types import RejectReason
from agebench.utils.blocks import Blocks
from agebench.utils.io import write_error, write_json
from agebench.utils.locks import held
from agebench.utils.parallel import parallel_map
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

# Faces that are prepared, synced and checked together.
BLOCK = 64


@dataclass(frozen=True)
class FaceCache:
    """The faces of a dataset's samples, row by row.

    Attributes:
        pixels: (N, S, S, C) uint8 RGB, memory-mapped, read-only; C is 3, or 6 where a body stands behind the face.
        row: sample_id -> row of `pixels`.
        refused: sample_id -> why there is no face; such a row of `pixels` is black.
        key: differs where anything differs that made the pixels.
        codes: sample_id -> the code of why there is no face.
        mode: how the faces were framed, as `AlignmentSpec.mode`, or `letterbox`; empty where it is not known.
    """

    pixels: np.ndarray
    row_by_id: dict[str, int]
    rejected: dict[str, str]
    key: str = ""
    codes: dict[str, RejectReason] = field(default_factory=dict)
    mode: str = ""

    def rows(self, samples: Samples) -> np.ndarray:
        """(len(samples),) the rows of `pixels` that hold these samples' faces."""
        return np.array([self.row_by_id[name] for name in samples.table["sample_id"]], dtype=np.int64)

    def drop_rejected(self, samples: Samples) -> Samples:
        """`samples` less those without a face, which go to quarantine with the reason."""
        reasons = samples.table["sample_id"].map(self.rejected)
        codes = samples.table["sample_id"].map(self.codes).fillna(RejectReason.OTHER)
        return samples.reject(reasons.notna(), reasons.fillna("").astype("str"), codes.astype("str"))

    def digest(self, count: int = 256) -> str:
        """SHA-256 of `count` faces, evenly spaced by name: other framing, other decoding or other images change it."""
        names = sorted(self.row_by_id)
        chosen = names[:: max(1, len(names) // count)][:count]
        return hashlib.sha256(b"".join(self.pixels[self.row_by_id[name]].tobytes() for name in chosen)).hexdigest()


def load_or_build_face_cache(
    reader: Reader, samples: Samples, spec: AlignmentSpec, *, name: str, workers: int | None = None
) -> FaceCache:
    """The faces of audited `samples`: from the cache, made where they are missing.

    The cache's key covers everything that determines the pixels: the images' bytes, their landmarks, and `spec`. A build
    that was interrupted continues; of several processes that build the same faces one does, the others wait for it. What
    does not have the digest that was written with it (a damaged disk, a file cut short) is prepared again.

    Raises:
        AgebenchError: the cache cannot be written (a full disk), or the detector fails; what was finished is kept.
    """
    boxed = spec.letterbox and any(face_boxes_of(samples))
    spec = replace(spec, letterbox=boxed)
    folder = cache_home() / "faces" / f"{name}-{spec.size}-{_key(reader, samples, spec)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", f"{name}: preparing faces"):
            refusals = _complete(folder, reader, samples, spec, name, workers)
    except OSError as error:
        raise write_error(folder, error) from error
    identities = samples.table["sample_id"].tolist()
    pixels = np.memmap(
        folder / "faces.u8", dtype=np.uint8, mode="r", shape=(len(samples), spec.size, spec.size, spec.channels)
    )
    refused, codes, mode = {}, {}, "letterbox" if boxed else spec.mode
    for row, text in refusals.items():
        code, _, reason = text.partition(": ")
        refused[identities[row]], codes[identities[row]] = reason, RejectReason(code)
    return FaceCache(
        pixels, {identity: row for row, identity in enumerate(identities)}, refused, folder.name, codes, mode
    )


def _complete(
    folder: Path, reader: Reader, samples: Samples, spec: AlignmentSpec, name: str, workers: int | None
) -> dict[int, str]:
    """Make the blocks that are unfinished or damaged; returns row -> why it has no face."""
    count = len(samples)
    blocks = Blocks(folder / "faces.u8", count, spec.size * spec.size * spec.channels, BLOCK)
    refusals = _read_refusals(folder / "refused.json", count)
    checked = blocks.check(lambda block: _refused(refusals, blocks.rows(block)), label=f"{name}: checking faces")
    if checked.n_damaged:
        print(
            f"{blocks.file}: {checked.n_damaged} of {len(blocks)} blocks of faces are not as they were written; "
            f"{len(blocks.rows_in(checked.pending)):,} faces of {name} are prepared again",
            file=sys.stderr,
        )
    rows = blocks.rows_in(checked.pending)
    refusals = {row: reason for row, reason in refusals.items() if row not in set(rows)}
    if rows:
        tasks = _tasks(samples, spec)
        detector = open_detector(spec.detector) if spec.mode == "detect" else None
        prepare = partial(_prepare_all, reader, spec, detector)
        with progress(total=len(rows), label=f"{name}: preparing faces", unit="img") as bar:
            # Only the last block may be a short one, so the chunks of the work are the blocks.
            work = parallel_map(prepare, [tasks[row] for row in rows], workers=workers, chunk=BLOCK)
            for block, (faces, reasons) in zip(checked.pending, work, strict=True):
                added = {row: reason for row, reason in zip(blocks.rows(block), reasons, strict=True) if reason}
                if added:  # on the disk before the digest that covers it
                    refusals |= added
                    _write_refusals(folder / "refused.json", refusals)
                blocks.write(block, faces.tobytes(), _refused(refusals, blocks.rows(block)))
                bar.update(len(faces))
    if rows or not (folder / "refused.json").exists():
        _write_refusals(folder / "refused.json", refusals)
    (folder / "state.u8").unlink(missing_ok=True)  # of earlier versions, which had no digests
    return refusals


def _tasks(samples: Samples, spec: AlignmentSpec) -> list[tuple[str, Sequence[float] | None, Body | None, Box | None]]:
    """What `_prepare_all` takes, of every sample."""
    landmarks = samples.table["landmarks"] if "landmarks" in samples.table else [None] * len(samples)
    bodies = body_boxes(samples, masked=spec.mask_bodies) if spec.bodies else [None] * len(samples)
    boxes = face_boxes_of(samples) if spec.letterbox else [None] * len(samples)
    return list(zip(samples.table["path"], landmarks, bodies, boxes, strict=True))


def _read_refusals(file: Path, count: int) -> dict[int, str]:
    """Row -> reason; nothing of a damaged file: the digests of the blocks that it speaks of then do not fit."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            int(row): text
            for row, text in content.items()
            if 0 <= int(row) < count and text.partition(": ")[0] in RejectReason.__members__.values()
        }
    except (FileNotFoundError, ValueError, AttributeError, RecursionError):
        return {}


def _write_refusals(file: Path, refusals: dict[int, str]) -> None:
    write_json(file, {str(row): refusals[row] for row in sorted(refusals)})


def _refused(refusals: dict[int, str], rows: Iterable[int]) -> bytes:
    """What the digest of a block covers beside its pixels: its refusals."""
    reasons = {row: refusals[row] for row in rows if row in refusals}
    return json.dumps(reasons).encode() if reasons else b""


def _prepare_all(
    reader: Reader,
    spec: AlignmentSpec,
    detector: Detector | None,
    tasks: Sequence[tuple[str, Sequence[float] | None, Body | None, Box | None]],
) -> tuple[np.ndarray, list[str]]:
    """(n, S, S, C) faces, and bodies behind them, and where there is neither, `code: reason` (else "")."""
    faces = np.zeros((len(tasks), spec.size, spec.size, spec.channels), dtype=np.uint8)
    reasons = []
    for number, (path, landmarks, body, box) in enumerate(tasks):
        try:
            image = open_image(reader.image_bytes(reader.whole_image(path) if spec.letterbox else path))
            shown = None
            if body is not None:
                whole = open_image(reader.image_bytes(body.path)) if body.path else image
                shown = (
                    prepare_masked_body(whole, body, spec.size)
                    if spec.mask_bodies
                    else prepare_body(whole, body.box, spec.size)
                )
            if shown is not None:
                faces[number, ..., 3:] = shown
            # A model that sees a body can do without a face that is not found; nothing can do without both.
            with suppress(ImageRejectedError) if shown is not None else nullcontext():
                if spec.letterbox or not reader.shows_face(path):
                    faces[number, ..., :3] = prepare_boxed_face(image, box, spec.size)
                else:
                    faces[number, ..., :3] = align_or_crop(image, spec, landmarks, detector)
            reasons.append("")
        except ImageRejectedError as refusal:
            reasons.append(f"{refusal.reason}: {refusal}")
        except OSError as error:
            reasons.append(f"{RejectReason.UNREADABLE}: cannot be read: {error.strerror or error}")
        except UserError:  # a package that is missing is no matter of this image
            raise
        except AgebenchError as error:
            raise AgebenchError(f"{path}: {error}") from error
    return faces, reasons


def _key(reader: Reader, samples: Samples, spec: AlignmentSpec) -> str:
    digest = hashlib.sha256(json.dumps(spec.key(), sort_keys=True).encode())
    for column in ("sample_id", "bytes_digest"):
        digest.update("\n".join(samples.table[column]).encode())
    if "landmarks" in samples.table and spec.mode in ("landmarks", "boxes"):
        digest.update(
            json.dumps([list(points) if points is not None else None for points in samples.table["landmarks"]]).encode()
        )
    if spec.bodies:
        bodies = body_boxes(samples, masked=spec.mask_bodies)
        digest.update(
            json.dumps(
                [body and [*body[:2], body.path and reader.version_token(body.path), *body.masks] for body in bodies]
            ).encode()
        )
    if spec.letterbox:
        digest.update(json.dumps(face_boxes_of(samples)).encode())
    return digest.hexdigest()[:16]
