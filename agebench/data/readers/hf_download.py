"""Datasets on the Hugging Face hub, brought to this machine: one revision, as Arrow files that are read by index."""

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
_LARGE = 1 << 30


@dataclass(frozen=True)
class HubSource:
    """What to get.

    Attributes:
        hub: the dataset's id, `owner/name`.
        config: its configuration; empty: the only one.
        revision: the commit; empty: the newest, which is then written to `source.json` and stays.
        splits: which splits; empty: all.
        streaming: read the images one by one and keep them at most `side` pixels long, for sets that the disk cannot hold.
        side: pixels, see `streaming`.
    """

    hub: str
    config: str = ""
    revision: str = ""
    splits: tuple[str, ...] = ()
    streaming: bool = False
    side: int = 512


def fetch_from_hub(target: Path, source: HubSource) -> None:
    """`target/SPLIT/00000.arrow`, … and `target/source.json`, through the `datasets` library and its cache.

    Raises:
        UserError: no such dataset, revision, configuration or split, or one that needs its own code.
        AgebenchError: the hub cannot be reached, offline mode is on and the dataset is not in the library's cache, a file is
            damaged, or the disk is full.
    """
    datasets = import_datasets()
    with _explained(source):
        builder = datasets.load_dataset_builder(source.hub, source.config or None, revision=source.revision or None)
        found = str(builder.hash or "")
        if len(source.revision) == 40 and found != source.revision:
            raise AgebenchError(
                f"hub dataset '{source.hub}': the library's cache holds revision {found or 'unknown'}, "
                f"the card asks for {source.revision}; call this again with the network on"
            )
        if source.streaming:
            parts = builder.as_streaming_dataset()
        else:
            builder.download_and_prepare()
            parts = builder.as_dataset()
        missing = [split for split in source.splits if split not in parts]
        if missing:
            raise UserError(
                f"hub dataset '{source.hub}': no split '{missing[0]}', there are {', '.join(map(str, parts))}; "
                "options.splits on the card names them"
            )
        for split in source.splits or map(str, parts):
            _save(parts[split], target / split, source, split)
        write_json(target / SOURCE, asdict(source) | {"revision": found or source.revision})


def import_datasets() -> Any:
    """The `datasets` library, quiet where nobody watches."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _save(part: Any, folder: Path, source: HubSource, split: str) -> None:
    """One split as Arrow files: linked where they are whole, written anew where images are kept beside them or shrunk."""
    import datasets

    folder.mkdir(parents=True)
    if part.features is None:
        part = part._resolve_features()
    images = [name for name, feature in part.features.items() if isinstance(feature, datasets.Image)]
    for name in images:
        part = part.cast_column(name, datasets.Image(decode=False))
    whole = not source.streaming and all(_embedded(part, name) for name in images)
    if whole:
        for number, file in enumerate(part.cache_files):
            _link(Path(file["filename"]), folder / f"{number:05d}.arrow")
        return
    total = part.num_rows if hasattr(part, "num_rows") else None
    rows = progress(part, total=total, label=f"{source.hub}: {split}", unit="img")
    _write(rows, part.features, images, folder / "00000.arrow", source)


def _embedded(part: Any, name: str) -> bool:
    """Whether all of a column's images stand in the table itself."""
    import pyarrow.compute as pc

    column = part.data.column(name)
    return int(pc.struct_field(column, "bytes").null_count) == 0


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)  # the library's cache and the dataset share the bytes
    except OSError:
        shutil.copyfile(file, target)


def _write(rows: Iterable[dict[str, Any]], features: Any, images: list[str], file: Path, source: HubSource) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(features=features, path=str(file), writer_batch_size=64) as writer:
        for row in rows:
            writer.write(row | {name: _image(row[name], source) for name in images})
        writer.finalize()


def _image(value: dict[str, Any] | None, source: HubSource) -> dict[str, Any] | None:
    """The image with its bytes, shrunk where the source asks for it; one that cannot be had stays as it is."""
    if value is None:
        return None
    encoded = value["bytes"]
    if encoded is None and value["path"] and _trusted(value["path"], source.hub):
        from datasets.utils.file_utils import xopen

        with xopen(value["path"], "rb") as file:
            encoded = file.read(_LARGE)
    if encoded is not None and source.streaming:
        encoded = downscale_jpeg(encoded, source.side)
    return {"bytes": encoded, "path": os.path.basename(value["path"]) if encoded and value["path"] else value["path"]}


def _trusted(path: str, hub: str) -> bool:
    """Whether a path in the table leads into the dataset itself, and not to any file of this machine."""
    import datasets
    from huggingface_hub import constants

    if f"hf://datasets/{hub}@" in path:
        return True
    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME, constants.HF_HUB_CACHE)
    return any(is_within(os.path.realpath(cache), path) for cache in caches)


def downscale_jpeg(encoded: bytes, side: int) -> bytes:
    """The image as JPEG, at most `side` pixels long; as it is where it is no larger, or cannot be read."""
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
def _explained(source: HubSource) -> Iterator[None]:
    """The library's errors as sentences that name the dataset and the way out."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    about = f"hub dataset '{source.hub}'" + (f" at {source.revision[:12]}" if source.revision else "")
    try:
        yield
    except AgebenchError:
        raise
    except (DatasetNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"{about}: not there: {_first_line(error)} "
            "A gated or private one needs `hf auth login` and its owners' consent."
        ) from error
    except DatasetGenerationError as error:
        raise AgebenchError(f"{about}: its files cannot be read: {_first_line(error.__cause__ or error)}") from error
    except ConnectionError as error:
        if constants.HF_HUB_OFFLINE:
            raise AgebenchError(
                f"{about}: offline mode is on (HF_HUB_OFFLINE), and the library's cache does not hold it; "
                "unset HF_HUB_OFFLINE, or `agebench data add` a copy that you have"
            ) from error
        raise AgebenchError(
            f"{about}: the hub cannot be reached: {_first_line(error)}; what was received is kept, the same command continues"
        ) from error
    except OSError as error:
        raise write_failure(Path(source.hub), error) from error
    except (
        ValueError,
        RuntimeError,
        KeyError,
    ) as error:  # an unknown configuration, a loading script, a strange layout
        raise UserError(f"{about}: {_first_line(error)}") from error
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
        raise AgebenchError(f"{about}: the hub cannot be reached: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_source(root: Path) -> dict[str, Any] | None:
    """What `fetch_from_hub` wrote; None for another folder.

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
        raise UserError(f"{file}: damaged: {error}; `agebench data get` gets the dataset anew") from error
