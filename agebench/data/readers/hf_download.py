"""Download of datasets from the Hugging Face hub: one revision, stored as Arrow files that are read by index."""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agebench.data.image_io import open_image
from agebench.data.readers.base import is_within
from agebench.data.storage.archives import write_failure
from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.utils.io import write_json
from agebench.utils.progress import progress

SOURCE = "source.json"
_MAX_IMAGE_BYTES = 1 << 30
_COMMIT_LENGTH = 40


@dataclass(frozen=True)
class HubSource:
    """A dataset on the hub.

    Attributes:
        hub: id of the dataset, `owner/name`.
        config: configuration of the dataset; empty for the only one.
        revision: commit; empty for the newest, which is then recorded in `source.json`.
        splits: names of the splits; empty for all.
        streaming: whether images are read one by one and reduced to `side`, for datasets that do not fit on the disk.
        side: longer side of the stored images if `streaming`, pixels.
    """

    hub: str
    config: str = ""
    revision: str = ""
    splits: tuple[str, ...] = ()
    streaming: bool = False
    side: int = 512


def fetch_from_hub(target: Path, source: HubSource) -> None:
    """Download a dataset through the `datasets` library and its cache.

    Args:
        target: the folder to create; it contains `SPLIT/00000.arrow`, … and `source.json`.
        source: the dataset.

    Raises:
        UserError: the dataset, revision, configuration or split does not exist, or the dataset needs its own code.
        AgebenchError: the hub cannot be reached, offline mode is on and the dataset is not in the library's cache, a file is
            damaged, or the disk is full.
    """
    datasets = import_datasets()
    with _translate_errors(source):
        builder = datasets.load_dataset_builder(source.hub, source.config or None, revision=source.revision or None)
        revision = str(builder.hash or "")
        if len(source.revision) == _COMMIT_LENGTH and revision != source.revision:
            raise AgebenchError(
                f"hub dataset '{source.hub}': the library's cache holds revision {revision or 'unknown'}, "
                f"the card asks for {source.revision}; call this again with the network on"
            )
        if source.streaming:
            splits = builder.as_streaming_dataset()
        else:
            builder.download_and_prepare()
            splits = builder.as_dataset()
        missing = [split for split in source.splits if split not in splits]
        if missing:
            raise UserError(
                f"hub dataset '{source.hub}': no split '{missing[0]}', there are {', '.join(map(str, splits))}; "
                "options.splits on the card names them"
            )
        for split in source.splits or map(str, splits):
            _save_split(splits[split], target / split, source, split)
        write_json(target / SOURCE, asdict(source) | {"revision": revision or source.revision})


def hub_difference(root: Path, source: HubSource) -> str:
    """Describe the first difference between a copy's recorded source and another one, as a sentence fragment.

    Empty if they agree, or if no source is recorded, as in a folder that was imported. A branch or tag is not compared, because
    its commit is unknown without the hub.

    Args:
        root: the copy.
        source: the other source.
    """
    try:
        recorded = json.loads((root / SOURCE).read_text(encoding="utf-8"))
        found = {name: str(recorded.get(name) or "") for name in ("hub", "config", "revision")}
    except (OSError, ValueError, AttributeError):
        return ""
    for name, value in found.items():
        wanted = getattr(source, name)
        is_comparable = name != "revision" or len(wanted) == _COMMIT_LENGTH
        if value and wanted and is_comparable and value != wanted:
            return f"{root / SOURCE} has {name} {value}, the card asks for {wanted}"
    return ""


def import_datasets() -> Any:
    """Import the `datasets` library, with progress bars only on a terminal."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _save_split(data: Any, folder: Path, source: HubSource, split: str) -> None:
    """Store a split as Arrow files: linked if they contain their images, else written with embedded or reduced images."""
    import datasets

    folder.mkdir(parents=True)
    if data.features is None:
        data = data._resolve_features()
    images = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    for name in images:
        data = data.cast_column(name, datasets.Image(decode=False))
    is_self_contained = not source.streaming and all(_is_embedded(data, name) for name in images)
    if is_self_contained:
        for i, file in enumerate(data.cache_files):
            _link(Path(file["filename"]), folder / f"{i:05d}.arrow")
        return
    total = data.num_rows if hasattr(data, "num_rows") else None
    rows = progress(data, total=total, label=f"{source.hub}: {split}", unit="img")
    _write_arrow(rows, data.features, images, folder / "00000.arrow", source)


def _is_embedded(data: Any, name: str) -> bool:
    """Return whether the table contains all images of a column."""
    import pyarrow.compute as pc

    column = data.data.column(name)
    return int(pc.struct_field(column, "bytes").null_count) == 0


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)  # the library's cache and the dataset share the bytes
    except OSError:
        shutil.copyfile(file, target)


def _write_arrow(
    rows: Iterable[dict[str, Any]], features: Any, images: list[str], file: Path, source: HubSource
) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(features=features, path=str(file), writer_batch_size=64) as writer:
        for row in rows:
            writer.write(row | {name: _embed_image(row[name], source) for name in images})
        writer.finalize()


def _embed_image(value: dict[str, Any] | None, source: HubSource) -> dict[str, Any] | None:
    """Add an image's bytes, reduced if the source is streamed; an image that cannot be read stays unchanged."""
    if value is None:
        return None
    encoded = value["bytes"]
    if encoded is None and value["path"] and _is_part_of_dataset(value["path"], source.hub):
        from datasets.utils.file_utils import xopen

        with xopen(value["path"], "rb") as file:
            encoded = file.read(_MAX_IMAGE_BYTES)
    if encoded is not None and source.streaming:
        encoded = downscale_jpeg(encoded, source.side)
    return {"bytes": encoded, "path": os.path.basename(value["path"]) if encoded and value["path"] else value["path"]}


def _is_part_of_dataset(path: str, hub: str) -> bool:
    """Return whether a path in the table is a file of the dataset rather than any file on this machine."""
    import datasets
    from huggingface_hub import constants

    if f"hf://datasets/{hub}@" in path:
        return True
    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME, constants.HF_HUB_CACHE)
    return any(is_within(os.path.realpath(cache), path) for cache in caches)


def downscale_jpeg(encoded: bytes, side: int) -> bytes:
    """Reduce an image to a JPEG.

    An image that is small enough, or cannot be decoded, stays unchanged.

    Args:
        encoded: content of the image file.
        side: maximum of width and height, pixels.
    """
    try:
        image = open_image(encoded)
    except ImageRejectedError:
        return encoded
    if max(image.size) <= side:
        return encoded
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=95)
    return content.getvalue()


@contextmanager
def _translate_errors(source: HubSource) -> Iterator[None]:
    """Convert the library's errors to errors that name the dataset and a solution."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    name = f"hub dataset '{source.hub}'" + (f" at {source.revision[:12]}" if source.revision else "")
    try:
        yield
    except AgebenchError:
        raise
    except (DatasetNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"{name}: not there: {_first_line(error)} "
            "A gated or private one needs `hf auth login` and its owners' consent."
        ) from error
    except DatasetGenerationError as error:
        raise AgebenchError(f"{name}: its files cannot be read: {_first_line(error.__cause__ or error)}") from error
    except ConnectionError as error:
        if constants.HF_HUB_OFFLINE:
            raise AgebenchError(
                f"{name}: offline mode is on (HF_HUB_OFFLINE), and the library's cache does not hold it; "
                "unset HF_HUB_OFFLINE, or `agebench data import` a copy that you have"
            ) from error
        raise AgebenchError(
            f"{name}: the hub cannot be reached: {_first_line(error)}; what was received is kept, the same command continues"
        ) from error
    except OSError as error:
        raise write_failure(Path(source.hub), error) from error
    except (
        ValueError,
        RuntimeError,
        KeyError,
    ) as error:  # an unknown configuration, a loading script, an unknown layout
        raise UserError(f"{name}: {_first_line(error)}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in (
            "httpx",
            "httpx2",
            "httpcore",
            "huggingface_hub",
            "fsspec",
            "aiohttp",
        ):
            raise
        raise AgebenchError(f"{name}: the hub cannot be reached: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_source(root: Path) -> dict[str, Any] | None:
    """Read the source that `fetch_from_hub` recorded.

    Args:
        root: the dataset's folder.

    Returns:
        The fields of `HubSource`; None for a folder that was not downloaded from the hub.

    Raises:
        UserError: the file is damaged.
    """
    file = root / SOURCE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) and "hub" in content else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: damaged: {error}; `agebench data download` downloads the dataset again") from error
