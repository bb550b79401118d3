"""The face cache: every image decoded, aligned and resized once, into one memory-mapped array of bytes."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from agebench.data.bodies import (
    Body,
    Box,
    bodies_of,
    face_boxes_of,
    prepare_body,
    prepare_boxed_face,
    prepare_masked_body,
)
from agebench.data.detectors import Detector, open_detector
from agebench.data.faces import FaceSpec, prepare_face
from agebench.data.images import open_image
from agebench.data.parallel import map_in_order
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.errors import AgebenchError, ImageRefused, UserError
from agebench.files import write_error, write_json
from agebench.paths import cache_home
from agebench.progress import progress

PENDING, READY, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Faces:
    """The faces of a dataset's samples, row by row.

    Attributes:
        pixels: (N, S, S, C) uint8 RGB, memory-mapped, read-only; C is 3, or 6 where a body stands behind the face.
        row: sample_id -> row of `pixels`.
        refused: sample_id -> why there is no face; such a row of `pixels` is black.
        key: differs where anything differs that made the pixels.
        mode: how the faces were framed, as `FaceSpec.mode`, or `letterbox`; empty where it is not known.
    """

    pixels: np.ndarray
    row: dict[str, int]
    refused: dict[str, str]
    key: str = ""
    mode: str = ""

    def rows(self, samples: Samples) -> np.ndarray:
        """(len(samples),) the rows of `pixels` that hold these samples' faces."""
        return np.array([self.row[name] for name in samples.table["sample_id"]], dtype=np.int64)

    def keep(self, samples: Samples) -> Samples:
        """`samples` less those without a face, which go to quarantine with the reason."""
        reasons = samples.table["sample_id"].map(self.refused)
        return samples.without(reasons.notna(), reasons.fillna("").astype("str"))

    def digest(self, count: int = 256) -> str:
        """SHA-256 of `count` faces, evenly spaced by name: other framing, other decoding or other images change it."""
        names = sorted(self.row)
        chosen = names[:: max(1, len(names) // count)][:count]
        return hashlib.sha256(b"".join(self.pixels[self.row[name]].tobytes() for name in chosen)).hexdigest()


def build_faces(reader: Reader, samples: Samples, spec: FaceSpec, *, name: str, workers: int | None = None) -> Faces:
    """The faces of audited `samples`: from the cache, made where they are missing.

    The cache's key covers everything that determines the pixels: the images' bytes, their landmarks, and `spec`. A build
    that was interrupted continues; of several processes that build the same faces one does, the others wait for it.

    Raises:
        AgebenchError: the cache cannot be written (a full disk), or the detector fails; what was finished is kept.
    """
    boxed = spec.letterbox and any(face_boxes_of(samples))
    spec = replace(spec, letterbox=boxed)
    folder = cache_home() / "faces" / f"{name}-{spec.size}-{_key(reader, samples, spec)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            _complete(folder, reader, samples, spec, name, workers)
    except OSError as error:
        raise write_error(folder, error) from error
    identities = samples.table["sample_id"].tolist()
    pixels = np.memmap(
        folder / "faces.u8", dtype=np.uint8, mode="r", shape=(len(samples), spec.size, spec.size, spec.channels)
    )
    refused = {
        identities[int(row)]: reason for row, reason in json.loads((folder / "refused.json").read_text()).items()
    }
    return Faces(
        pixels,
        {identity: row for row, identity in enumerate(identities)},
        refused,
        folder.name,
        "letterbox" if boxed else spec.mode,
    )


def _complete(folder: Path, reader: Reader, samples: Samples, spec: FaceSpec, name: str, workers: int | None) -> None:
    """Make the rows that are still pending. A row's state is written after its pixels, and both before the next chunk."""
    count, size = len(samples), spec.size
    with (folder / "faces.u8").open("a+b") as pixels, (folder / "state.u8").open("a+b") as states:
        os.truncate(pixels.fileno(), count * size * size * spec.channels)
        os.truncate(states.fileno(), count)
    state = np.fromfile(folder / "state.u8", dtype=np.uint8)
    pending = np.flatnonzero(state == PENDING)
    reasons_file = folder / "refused.json"
    if not len(pending) and reasons_file.exists():
        return
    reasons = json.loads(reasons_file.read_text()) if reasons_file.exists() else {}
    landmarks = samples.table["landmarks"] if "landmarks" in samples.table else [None] * count
    bodies = bodies_of(samples, masked=spec.mask_bodies) if spec.bodies else [None] * count
    boxes = face_boxes_of(samples) if spec.letterbox else [None] * count
    tasks = list(zip(samples.table["path"], landmarks, bodies, boxes, strict=True))
    detector = open_detector(spec.detector) if spec.mode == "detect" else None
    prepare = partial(_prepare_all, reader, spec, detector)
    with (folder / "faces.u8").open("r+b") as pixels, (folder / "state.u8").open("r+b") as states:
        with progress(total=len(pending), label=f"{name}: preparing faces", unit="img") as bar:
            work = map_in_order(prepare, [tasks[row] for row in pending], workers=workers)
            for faces, refusals in work:
                rows = pending[: len(faces)]
                pending = pending[len(faces) :]
                for row, face, refusal in zip(rows, faces, refusals, strict=True):
                    _write(pixels.fileno(), face.tobytes(), int(row) * face.nbytes)
                    if refusal:
                        reasons[str(row)] = refusal
                if any(refusals):
                    write_json(reasons_file, reasons)
                for row, refusal in zip(rows, refusals, strict=True):
                    _write(states.fileno(), bytes([REFUSED if refusal else READY]), int(row))
                bar.update(len(faces))
        os.fsync(pixels.fileno())
    write_json(reasons_file, reasons)


def _prepare_all(
    reader: Reader,
    spec: FaceSpec,
    detector: Detector | None,
    tasks: Sequence[tuple[str, Sequence[float] | None, Body | None, Box | None]],
) -> tuple[np.ndarray, list[str]]:
    """(n, S, S, C) faces, and bodies behind them, and where there is neither, the reason (else "")."""
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
            with suppress(ImageRefused) if shown is not None else nullcontext():
                if spec.letterbox or not reader.shows_face(path):
                    faces[number, ..., :3] = prepare_boxed_face(image, box, spec.size)
                else:
                    faces[number, ..., :3] = prepare_face(image, spec, landmarks, detector)
            reasons.append("")
        except ImageRefused as refusal:
            reasons.append(str(refusal))
        except OSError as error:
            reasons.append(f"cannot be read: {error.strerror or error}")
        except UserError:  # a package that is missing is no matter of this image
            raise
        except AgebenchError as error:
            raise AgebenchError(f"{path}: {error}") from error
    return faces, reasons


def _write(descriptor: int, content: bytes, offset: int) -> None:
    # pwrite, not the memory map: on a full disk it raises, where the map would kill the process.
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _key(reader: Reader, samples: Samples, spec: FaceSpec) -> str:
    digest = hashlib.sha256(json.dumps(spec.key(), sort_keys=True).encode())
    for column in ("sample_id", "bytes_digest"):
        digest.update("\n".join(samples.table[column]).encode())
    if "landmarks" in samples.table and spec.mode in ("landmarks", "boxes"):
        digest.update(
            json.dumps([list(points) if points is not None else None for points in samples.table["landmarks"]]).encode()
        )
    if spec.bodies:
        bodies = bodies_of(samples, masked=spec.mask_bodies)
        digest.update(
            json.dumps(
                [body and [*body[:2], body.path and reader.stamp(body.path), *body.masks] for body in bodies]
            ).encode()
        )
    if spec.letterbox:
        digest.update(json.dumps(face_boxes_of(samples)).encode())
    return digest.hexdigest()[:16]
