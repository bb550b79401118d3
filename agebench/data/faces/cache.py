"""The face cache: each image is decoded, aligned and resized once, into a memory-mapped array of bytes."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    face_boxes,
    prepare_body,
    prepare_boxed_face,
    prepare_masked_body,
)
from agebench.data.faces.box_faces import AnnotatedFace, annotated_faces, crop_face_box
from agebench.data.faces.detectors.base import Detector, open_detector
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.reject_reasons import FAILURES_TO_READ
from agebench.data.samples import Samples
from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.types import RejectReason
from agebench.utils.blocks import Blocks
from agebench.utils.io import write_error, write_json
from agebench.utils.locks import held
from agebench.utils.parallel import parallel_map
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress
from agebench.utils.ray_cluster import RayCluster

logger = logging.getLogger(__name__)

# Number of faces that are prepared, synced to disk and checked together.
BLOCK = 64
# Blocks of one task on a cluster: some seconds of work.
_BLOCKS_PER_TASK = 8

# Faces of samples, and for each sample why there is none (else an empty text).
_Prepared = tuple[np.ndarray, list[str]]
# Path, landmarks, body, face box and, for crops by a box, the annotated face of a sample.
_Task = tuple[str, Sequence[float] | None, Body | None, Box | None, AnnotatedFace | None]


@dataclass(frozen=True)
class FaceCache:
    """Prepared faces of a dataset's samples.

    Attributes:
        pixels: (N, S, S, C) uint8 RGB, memory-mapped, read-only; C is 3, or 6 with the body in the last three channels.
        row_by_id: sample_id -> row of `pixels`.
        rejected: sample_id -> why there is no face; the row of `pixels` is black.
        key: digest of everything that determines the pixels.
        codes: sample_id -> code of why there is no face.
        mode: framing of the faces, as `AlignmentSpec.mode`, or `letterbox`; empty if unknown.
    """

    pixels: np.ndarray
    row_by_id: dict[str, int]
    rejected: dict[str, str]
    key: str = ""
    codes: dict[str, RejectReason] = field(default_factory=dict)
    mode: str = ""

    def rows(self, samples: Samples) -> np.ndarray:
        """Return the (len(samples),) rows of `pixels` with the faces of these samples."""
        return np.array([self.row_by_id[name] for name in samples.table["sample_id"]], dtype=np.int64)

    def drop_rejected(self, samples: Samples) -> Samples:
        """Reject the samples without a face, with the reason."""
        reasons = samples.table["sample_id"].map(self.rejected)
        codes = samples.table["sample_id"].map(self.codes).fillna(RejectReason.OTHER)
        return samples.reject(reasons.notna(), reasons.fillna("").astype("str"), codes.astype("str"))

    def digest(self, count: int = 256) -> str:
        """Return the SHA-256 of `count` faces, evenly spaced by name.

        It changes with framing, decoding and images.
        """
        ids = sorted(self.row_by_id)
        ids = ids[:: max(1, len(ids) // count)][:count]
        return hashlib.sha256(b"".join(self.pixels[self.row_by_id[name]].tobytes() for name in ids)).hexdigest()


def load_or_build_face_cache(
    reader: Reader,
    samples: Samples,
    spec: AlignmentSpec,
    *,
    name: str,
    workers: int | None = None,
    cluster: RayCluster | None = None,
) -> FaceCache:
    """Load prepared faces from the cache, and prepare the missing ones.

    The key of the cache covers everything that determines the pixels: the images' bytes, their landmarks, and `spec`. An
    interrupted build continues. If several processes build the same faces, one works and the others wait. Blocks that do
    not match their stored digest (a damaged disk, a truncated file) are prepared again, as are blocks with an image that could
    not be read.

    Args:
        reader: reader of the dataset.
        samples: samples with digests.
        spec: the face preparation.
        name: name of the dataset, for the cache and error messages.
        workers: processes; None for one per core.
        cluster: a Ray cluster that prepares the faces, with the dataset at the same path on each host; None: this machine.

    Raises:
        AgebenchError: the cache cannot be written (full disk), or the detector fails. Finished blocks are kept.
    """
    is_boxed = spec.letterbox and any(face_boxes(samples))
    spec = replace(spec, letterbox=is_boxed)
    folder = cache_home() / "faces" / f"{name}-{spec.size}-{_key(reader, samples, spec)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", f"{name}: preparing faces"):
            rejections = _build_missing(folder, reader, samples, spec, name, workers, cluster)
    except OSError as error:
        raise write_error(folder, error) from error
    ids = samples.table["sample_id"].tolist()
    pixels = np.memmap(
        folder / "faces.u8", dtype=np.uint8, mode="r", shape=(len(samples), spec.size, spec.size, spec.channels)
    )
    reasons, codes, mode = {}, {}, "letterbox" if is_boxed else "box" if spec.fit else spec.mode
    for row, rejection in rejections.items():
        code, _, reason = rejection.partition(": ")
        reasons[ids[row]], codes[ids[row]] = reason, RejectReason(code)
    row_by_id = {sample_id: row for row, sample_id in enumerate(ids)}
    return FaceCache(pixels, row_by_id, reasons, folder.name + _unread_suffix(codes), codes, mode)


def _build_missing(
    folder: Path,
    reader: Reader,
    samples: Samples,
    spec: AlignmentSpec,
    name: str,
    workers: int | None,
    cluster: RayCluster | None,
) -> dict[int, str]:
    """Prepare the blocks that are missing or damaged; return row -> `code: reason` of the samples without a face."""
    count = len(samples)
    blocks = Blocks(folder / "faces.u8", count, spec.size * spec.size * spec.channels, BLOCK)
    rejections_file = folder / "refused.json"
    rejections = _read_rejections(rejections_file, count)
    checked = blocks.check(
        lambda block: _digest_suffix(rejections, blocks.rows(block)), label=f"{name}: checking faces"
    )
    if checked.n_damaged:
        logger.warning(
            "%s: %d of %d blocks of faces are not as they were written; %s faces of %s are prepared again",
            blocks.file,
            checked.n_damaged,
            len(blocks),
            f"{len(blocks.rows_in(checked.pending)):,}",
            name,
        )
    rows = blocks.rows_in(checked.pending)
    rejections = {row: rejection for row, rejection in rejections.items() if row not in set(rows)}
    if rows:
        tasks = _make_tasks(samples, spec)
        detector = open_detector(spec.detector) if spec.mode == "detect" or spec.fit else None
        prepare = partial(_prepare_faces, reader, spec, detector)
        with progress(total=len(rows), label=f"{name}: preparing faces", unit="img") as bar:
            # Only the last block may be shorter, so each chunk of the results is one block.
            results = _prepared_blocks(prepare, [tasks[row] for row in rows], workers, cluster)
            for block, (faces, reasons) in zip(checked.pending, results, strict=True):
                added = {row: reason for row, reason in zip(blocks.rows(block), reasons, strict=True) if reason}
                if added:  # written before the digest that covers them
                    rejections |= added
                    _write_rejections(rejections_file, rejections)
                is_read = not any(_code(reason) in FAILURES_TO_READ for reason in added.values())
                suffix = _digest_suffix(rejections, blocks.rows(block))
                blocks.write(block, faces.tobytes(), suffix, is_finished=is_read)
                bar.update(len(faces))
    if rows or not rejections_file.exists():
        _write_rejections(rejections_file, rejections)
    (folder / "state.u8").unlink(missing_ok=True)  # written by earlier versions, which had no digests
    return rejections


def _prepared_blocks(
    prepare: Callable[[Sequence[_Task]], _Prepared],
    tasks: Sequence[_Task],
    workers: int | None,
    cluster: RayCluster | None,
) -> Iterator[_Prepared]:
    """Yield faces and rejections block by block, in order, prepared by processes of this machine or by a cluster."""
    if cluster is None:
        yield from parallel_map(prepare, tasks, workers=workers, chunk=BLOCK)
        return
    size = BLOCK * _BLOCKS_PER_TASK
    groups = (tasks[start : start + size] for start in range(0, len(tasks), size))
    for _, (faces, reasons) in cluster.map(prepare, groups):
        for start in range(0, len(faces), BLOCK):
            yield faces[start : start + BLOCK], reasons[start : start + BLOCK]


def _make_tasks(samples: Samples, spec: AlignmentSpec) -> list[_Task]:
    """Return the input of `_prepare_faces` for every sample."""
    landmarks = samples.table["landmarks"] if "landmarks" in samples.table else [None] * len(samples)
    bodies = body_boxes(samples, masked=spec.mask_bodies) if spec.bodies else [None] * len(samples)
    boxes = face_boxes(samples) if spec.letterbox else [None] * len(samples)
    annotated = annotated_faces(samples, spec.mode) if spec.fit else [None] * len(samples)
    return list(zip(samples.table["path"], landmarks, bodies, boxes, annotated, strict=True))


def _read_rejections(file: Path, count: int) -> dict[int, str]:
    """Read row -> `code: reason`; empty for a damaged file, because the digests of the affected blocks then do not match."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            int(row): text
            for row, text in content.items()
            if 0 <= int(row) < count and _code(text) in RejectReason.__members__.values()
        }
    except (FileNotFoundError, ValueError, AttributeError, RecursionError):
        return {}


def _code(rejection: str) -> str:
    return rejection.partition(": ")[0]


def _unread_suffix(codes: dict[str, RejectReason]) -> str:
    """Return a suffix for the key, because faces of images that could not be read are black this time and may not be next time."""
    unread = sorted(sample_id for sample_id, code in codes.items() if code in FAILURES_TO_READ)
    return "-" + hashlib.sha256("\n".join(unread).encode()).hexdigest()[:8] if unread else ""


def _write_rejections(file: Path, rejections: dict[int, str]) -> None:
    write_json(file, {str(row): rejections[row] for row in sorted(rejections)})


def _digest_suffix(rejections: dict[int, str], rows: Iterable[int]) -> bytes:
    """Return the rejections of a block, which its digest covers in addition to its pixels."""
    reasons = {row: rejections[row] for row in rows if row in rejections}
    return json.dumps(reasons).encode() if reasons else b""


def _prepare_faces(reader: Reader, spec: AlignmentSpec, detector: Detector | None, tasks: Sequence[_Task]) -> _Prepared:
    """Prepare faces, and bodies if the spec has them.

    Returns:
        (n, S, S, C) uint8, and per sample `code: reason` if there is neither face nor body, else an empty string.
    """
    faces = np.zeros((len(tasks), spec.size, spec.size, spec.channels), dtype=np.uint8)
    reasons = []
    for row, (path, landmarks, body, box, annotated) in enumerate(tasks):
        try:
            is_whole = spec.letterbox or (annotated is not None and annotated.whole)
            image = open_image(reader.image_bytes(reader.whole_image(path) if is_whole else path))
            body_pixels = None
            if body is not None:
                body_image = open_image(reader.image_bytes(body.path)) if body.path else image
                body_pixels = (
                    prepare_masked_body(body_image, body, spec.size)
                    if spec.mask_bodies
                    else prepare_body(body_image, body.box, spec.size)
                )
            if body_pixels is not None:
                faces[row, ..., 3:] = body_pixels
            # For face+body models a missing face is allowed if a body crop exists; having neither is an error.
            with suppress(ImageRejectedError) if body_pixels is not None else nullcontext():
                if annotated is not None:
                    faces[row, ..., :3] = crop_face_box(image, spec, annotated, detector)
                elif spec.letterbox or not reader.shows_face(path):
                    faces[row, ..., :3] = prepare_boxed_face(image, box, spec.size)
                else:
                    faces[row, ..., :3] = align_or_crop(image, spec, landmarks, detector)
            reasons.append("")
        except ImageRejectedError as rejection:
            reasons.append(f"{rejection.reason}: {rejection}")
        except OSError as error:
            reasons.append(f"{RejectReason.UNREADABLE}: cannot be read: {error.strerror or error}")
        except UserError:  # a missing package is not a property of the image
            raise
        except AgebenchError as error:
            raise AgebenchError(f"{path}: {error}") from error
    return faces, reasons


def _key(reader: Reader, samples: Samples, spec: AlignmentSpec) -> str:
    """Return the digest of everything that determines the pixels."""
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
        digest.update(json.dumps(face_boxes(samples)).encode())
    if spec.fit:
        digest.update(json.dumps(annotated_faces(samples, spec.mode), default=list).encode())
    return digest.hexdigest()[:16]
