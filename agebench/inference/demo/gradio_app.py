"""The page of the demonstration, in gradio: local, without its telemetry, its sharing and its cache of images."""

import base64
import binascii
import functools
import importlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from agebench.data.readers.synth import SynthReader
from agebench.errors import AgebenchError, UserError
from agebench.inference.demo.formatting import IN_DOMAIN, OUT_OF_DOMAIN
from agebench.inference.demo.request_guard import LOOPBACK, MAX_IMAGE_BYTES, ONLY_UPLOADS, Guard, Uploads
from agebench.inference.demo.session import DemoSession, FrameRate
from agebench.inference.face_extraction import AlignMode

ALIGN_MODES: dict[str, AlignMode] = {
    "photograph: find the faces": "detect",
    "one face, framed like the training faces": "none",
}
UPLOAD_TTL_S = 60.0  # age at which an uploaded image is deleted
_SWEEP_S = 15.0
_IDLE_S = 600  # idle time after which a visitor's last image and its results are dropped
_MAX_VISITORS = 32  # visitors with stored results; those that were idle longest are dropped first
_FRAME_S = 0.05  # time between camera frames; a frame waits until the previous frame is done
_CAMERA_SIZE = {"width": {"ideal": 640}, "height": {"ideal": 480}}  # of a camera, pixels; more pixels only take longer
_EXAMPLES = 4
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}  # options of all events
_CSS = """
img.faces { max-height: 480px; max-width: 100%; }
img.heatmap { max-width: 100%; }
#answer td { white-space: nowrap; }
#answer td:first-child { white-space: normal; }
footer { display: none !important; }
"""


@contextmanager
def serve(
    demo: DemoSession, *, host: str = "127.0.0.1", port: int | None = None, framing: AlignMode = "detect"
) -> Iterator[str]:
    """Serve the page until the block ends; yield its address.

    Args:
        demo: the open model.
        host: the address to bind to; other machines can reach the page unless it is a loopback address.
        port: the port; None: the first free port from 7860 on.
        framing: the initial choice of the visitor: `detect` for photographs, `none` for framed faces.

    Raises:
        UserError: gradio is not installed, or the port is taken.
    """
    _check_address(host, port)
    with _upload_folder() as folder, _gradio_environment(str(folder)):
        gradio = _gradio()
        uploads, examples = Uploads(folder), _examples(folder / "examples")
        page = _page(gradio, demo, examples, framing, IN_DOMAIN if host in LOOPBACK else OUT_OF_DOMAIN, uploads)
        _only_uploads(gradio, page)
        uploads.permanent = frozenset(path for path in folder.rglob("*") if path.is_file())
        guard = importlib.import_module("starlette.middleware").Middleware(
            Guard, uploads=uploads, functions=page.fns, host=host
        )
        stop = threading.Event()
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                inbrowser=False,
                prevent_thread_lock=True,
                max_file_size=MAX_IMAGE_BYTES,
                app_kwargs={"middleware": [guard]},
                state_session_capacity=_MAX_VISITORS,
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=_CSS,
            )
        except OSError as error:
            raise _address_error(host, port, "no port is free") from error
        sweeper = threading.Thread(target=_sweep_repeatedly, args=(folder, uploads.permanent, page, stop), daemon=True)
        sweeper.start()
        try:
            yield address
        finally:
            stop.set()
            page.close(verbose=False)
            sweeper.join()


def _check_address(host: str, port: int | None) -> None:
    """Refuse an address that no page can be served at; gradio would try a hundred ports and print a line for each."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host or None, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as server:
            if os.name == "posix":
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except (OSError, UnicodeError) as error:
        raise _address_error(host, port, getattr(error, "strerror", None) or str(error)) from error


def _address_error(host: str, port: int | None, reason: str) -> UserError:
    return UserError(f"--host {host} --port {port or 'from 7860'}: the page cannot be served there: {reason}")


@contextmanager
def _upload_folder() -> Iterator[Path]:
    """Create a folder that only this user can read, and delete it with its content at the end."""
    try:
        kept = tempfile.TemporaryDirectory(prefix="agebench-demo-")
    except OSError as error:
        raise AgebenchError(
            f"no folder for uploaded images can be created ({error.strerror or error}); set TMPDIR to another folder"
        ) from error
    with kept as name:
        yield Path(name).resolve()


@contextmanager
def _gradio_environment(kept: str) -> Iterator[None]:
    """Set gradio's environment variables for the block: no telemetry, and the folder of uploads."""
    variables = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": kept}
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _gradio() -> Any:
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise UserError(
            "the demonstration needs gradio, which is not installed: pip install 'agebench[demo]'"
        ) from error


def _page(
    gradio: Any, demo: DemoSession, examples: list[Path], framing: AlignMode, privacy: str, uploads: Uploads
) -> Any:
    """Build the page: a tab for images, a tab for the camera, and the model's metrics."""
    chosen = next(words for words, mode in ALIGN_MODES.items() if mode == framing)
    with gradio.Blocks(title="agebench demo", analytics_enabled=False) as page:
        gradio.Markdown(f"# {demo.words.title()}")
        gradio.Markdown(
            "An estimate is not a person's age. Each is shown with the error of such estimates on test sets."
        )
        gradio.Markdown(privacy, elem_id="privacy")
        kind = gradio.Radio(list(ALIGN_MODES), value=chosen, label="The image is a", elem_id="framing")
        with gradio.Tab("Image"), gradio.Row():
            _image_tab(gradio, demo, examples, uploads, kind)
        with gradio.Tab("Camera"), gradio.Row():
            _camera_tab(gradio, demo, uploads, kind)
        with gradio.Accordion("Metrics of this model, overall and by group", open=False):
            gradio.Markdown(demo.words.figures(), elem_id="figures")
    return page


def _image_tab(gradio: Any, demo: DemoSession, examples: list[Path], uploads: Uploads, kind: Any) -> None:
    """Add the fields of an uploaded image, its results and its attribution map; `kind` is the field of its framing."""

    def answer(content: bytes | None, words: str, remembered: Any) -> tuple[str, str, str, str, Any]:
        if content == b"" and remembered:  # the upload was deleted already, and the visitor changed the framing
            content = remembered[0]
        drawn, text = demo.predict(content, ALIGN_MODES[words])
        return drawn, text, "", "", (content, ALIGN_MODES[words]) if content else None

    def explain(remembered: Any) -> tuple[str, str]:
        return demo.attribute(*(remembered or (None, "detect")))

    with gradio.Column():
        image = _image_field(
            gradio, uploads, sources=["upload", "clipboard"], label="Image", height=360, elem_id="picture"
        )
        gradio.Examples(
            [[str(path), list(ALIGN_MODES)[1]] for path in examples],
            [image, kind],
            label="Examples: synthetic faces of no real person; predictions of most models for them mean little",
        )
    with gradio.Column():
        drawn, text = gradio.HTML(elem_id="shown"), gradio.Markdown(elem_id="answer")
        button = gradio.Button("Which regions determine the age?", elem_id="explain")
        heatmap, meaning = gradio.HTML(elem_id="map"), gradio.Markdown(elem_id="meaning")
    remembered = gradio.State(None, time_to_live=_IDLE_S)
    for event in (image.change, kind.change):
        event(answer, [image, kind, remembered], [drawn, text, heatmap, meaning, remembered], **_PRIVATE)
    button.click(explain, [remembered], [heatmap, meaning], **_PRIVATE)


def _camera_tab(gradio: Any, demo: DemoSession, uploads: Uploads, kind: Any) -> None:
    """Add the camera's field and its results; `kind` is the field of the frames' framing."""

    def live(frame: bytes | None, words: str, rate: FrameRate | None) -> tuple[str, str, FrameRate]:
        rate = rate or FrameRate()
        drawn, text = demo.predict_frame(frame, ALIGN_MODES[words], rate)
        return drawn, text, rate

    options = gradio.WebcamOptions(mirror=False, constraints={"video": _CAMERA_SIZE})
    camera = _image_field(
        gradio, uploads, sources=["webcam"], streaming=True, label="Camera", webcam_options=options, elem_id="camera"
    )
    with gradio.Column():
        drawn, text = gradio.HTML(elem_id="seen"), gradio.Markdown(elem_id="live")
    rate = gradio.State(None)
    camera.stream(
        live, [camera, kind, rate], [drawn, text, rate], stream_every=_FRAME_S, concurrency_limit=1, **_PRIVATE
    )


def _image_field(gradio: Any, uploads: Uploads, **options: Any) -> Any:
    """Create gradio's image field with the bytes of an image as its value; `load_image` decodes them.

    The method of one object is replaced, because gradio writes an interface file next to the module of a subclass.
    """
    field = gradio.Image(**options)

    def image_bytes(payload: Any) -> bytes | None:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            return _decode_data_url(payload.url)
        try:
            content = uploads.read(payload.path)
        except PermissionError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        if field.streaming:
            uploads.remove(payload.path)  # a frame is not shown again
        return content or b""

    field.preprocess = image_bytes
    return field


def _decode_data_url(url: str) -> bytes:
    """Return the image of a `data:` address; empty if it has none, or one that is too large."""
    encoded = url.partition(",")[2]
    with suppress(binascii.Error, ValueError):
        if len(encoded) * 3 // 4 <= MAX_IMAGE_BYTES:
            return base64.b64decode(encoded)
    return b""


def _examples(folder: Path) -> list[Path]:
    """Write a few synthetic faces of increasing age; return their paths."""
    reader = SynthReader(None, count=60, seed=7, size=224)
    folder.mkdir()
    table = reader.read().table.sort_values("age", ignore_index=True)
    paths = []
    for row in range(_EXAMPLES):
        sample = table.iloc[(2 * row + 1) * len(table) // (2 * _EXAMPLES)]
        path = folder / f"drawn-{row + 1}.png"
        path.write_bytes(reader.image_bytes(sample["path"]))
        paths.append(path)
    return paths


def _only_uploads(gradio: Any, page: Any) -> None:
    """Refuse addresses in place of file names: gradio would fetch the address of a handwritten request, in any field."""
    for block in page.blocks.values():
        fetch = getattr(block, "async_move_resource_to_block_cache", None)
        if fetch is not None:
            block.async_move_resource_to_block_cache = functools.partial(_move_upload, gradio, fetch)


async def _move_upload(gradio: Any, move: Any, source: Any) -> Any:
    if "://" in str(source):
        raise gradio.Error(ONLY_UPLOADS, print_exception=False)
    return await move(source)


def _sweep_repeatedly(folder: Path, permanent: Collection[Path], page: Any, stop: threading.Event) -> None:
    """Delete old uploads and idle visitors' results at intervals until `stop` is set."""
    while not stop.wait(_SWEEP_S):
        _sweep(folder, permanent)
        _forget(page)


def _sweep(folder: Path, permanent: Collection[Path]) -> None:
    """Delete uploads older than `UPLOAD_TTL_S`."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and path not in permanent and time.time() - path.stat().st_mtime > UPLOAD_TTL_S:
                path.unlink()


def _forget(page: Any) -> None:
    """Drop the results of visitors who have left or were idle too long: gradio never deletes their last values.

    Gradio has two stores: values by visitor, and messages that were not fetched.
    """
    holder, now = page.state_holder, datetime.now()
    for name, visitor in list(holder.session_data.items()):
        idle = (now - holder.time_last_used.get(name, now)).total_seconds()
        if visitor.is_closed or idle > _IDLE_S:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
            page._queue.pending_messages_per_session.pop(name, None)
