"""The page of the demonstration, in gradio: local, without its telemetry, its sharing and its cache of pictures."""

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
from agebench.inference.demo.request_guard import LOOPBACK, MAX_PICTURE_BYTES, ONLY_UPLOADS, Guard, Uploads
from agebench.inference.demo.session import DemoSession, FrameRate
from agebench.inference.face_extraction import AlignMode

ALIGN_MODES: dict[str, AlignMode] = {
    "photograph: find the faces": "detect",
    "one face, framed like the training faces": "none",
}
UPLOAD_TTL_S = 60.0  # seconds that an uploaded picture stays
_SWEEP = 15.0
_REMEMBERED = 600  # seconds that memory of an idle visitor stays: the last picture, for its map, and what was shown
_VISITORS = 32  # that are remembered; of more, those that were idle longest are forgotten
_EVERY = 0.05  # seconds between a camera's frames; each waits until the one before is done
_FRAME = {"width": {"ideal": 640}, "height": {"ideal": 480}}  # of a camera: more pixels only take longer
_EXAMPLES = 4
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
    """The page, until the block ends; yields its address.

    Args:
        demo: what it shows.
        host: the address to bind to; anything but loopback lets others in.
        port: None: the first free one from 7860 on.
        framing: what pictures are until the visitor says otherwise.

    Raises:
        UserError: gradio is not installed, or the port is taken.
    """
    _check_address(host, port)
    with _upload_folder() as folder, _told(str(folder)):
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
                max_file_size=MAX_PICTURE_BYTES,
                app_kwargs={"middleware": [guard]},
                state_session_capacity=_VISITORS,
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
        sweeper = threading.Thread(target=_swept, args=(folder, uploads.permanent, page, stop), daemon=True)
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
    """A folder for this call, deleted with all that is in it; only this user can look into it."""
    try:
        kept = tempfile.TemporaryDirectory(prefix="agebench-demo-")
    except OSError as error:
        raise AgebenchError(
            f"no folder for uploaded pictures can be made ({error.strerror or error}); TMPDIR names another place"
        ) from error
    with kept as name:
        yield Path(name).resolve()


@contextmanager
def _told(kept: str) -> Iterator[None]:
    """What gradio takes from the environment: no telemetry, and where it puts what is uploaded."""
    said = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": kept}
    before = {name: os.environ.get(name) for name in said}
    os.environ |= said
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
    chosen = next(words for words, meant in ALIGN_MODES.items() if meant == framing)

    def answer(picture: bytes | None, words: str, remembered: Any) -> tuple[str, str, str, str, Any]:
        if picture == b"" and remembered:  # its file is swept already, and the visitor said what it is
            picture = remembered[0]
        shown, said = demo.predict(picture, ALIGN_MODES[words])
        return shown, said, "", "", (picture, ALIGN_MODES[words]) if picture else None

    def explain(remembered: Any) -> tuple[str, str]:
        return demo.attribute(*(remembered or (None, "detect")))

    def live(frame: bytes | None, words: str, rate: FrameRate | None) -> tuple[str, str, FrameRate]:
        rate = rate or FrameRate()
        shown, said = demo.predict_frame(frame, ALIGN_MODES[words], rate)
        return shown, said, rate

    private = {"api_visibility": "private", "show_progress": "hidden"}
    with gradio.Blocks(title="agebench demo", analytics_enabled=False) as page:
        gradio.Markdown(f"# {demo.words.title()}")
        gradio.Markdown("An estimate is not a person's age. Beside each stands how far off such estimates were.")
        gradio.Markdown(privacy, elem_id="privacy")
        what = gradio.Radio(list(ALIGN_MODES), value=chosen, label="A picture is a", elem_id="framing")
        with gradio.Tab("Picture"), gradio.Row():
            with gradio.Column():
                picture = _picture_of(
                    gradio, uploads, sources=["upload", "clipboard"], label="Picture", height=360, elem_id="picture"
                )
                gradio.Examples(
                    [[str(path), list(ALIGN_MODES)[1]] for path in examples],
                    [picture, what],
                    label="Examples: drawn by a program, nobody's faces; what most models say of them means little",
                )
            with gradio.Column():
                shown, said = gradio.HTML(elem_id="shown"), gradio.Markdown(elem_id="answer")
                button = gradio.Button("Which places speak for age?", elem_id="explain")
                mapped, meaning = gradio.HTML(elem_id="map"), gradio.Markdown(elem_id="meaning")
        with gradio.Tab("Camera"), gradio.Row():
            small = gradio.WebcamOptions(mirror=False, constraints={"video": _FRAME})
            camera = _picture_of(
                gradio,
                uploads,
                sources=["webcam"],
                streaming=True,
                label="Camera",
                webcam_options=small,
                elem_id="camera",
            )
            with gradio.Column():
                seen, told = gradio.HTML(elem_id="seen"), gradio.Markdown(elem_id="live")
        with gradio.Accordion("This model's figures, and for whom it is worse", open=False):
            gradio.Markdown(demo.words.figures(), elem_id="figures")
        remembered = gradio.State(None, time_to_live=_REMEMBERED)
        rate = gradio.State(None)
        for event in (picture.change, what.change):
            event(answer, [picture, what, remembered], [shown, said, mapped, meaning, remembered], **private)
        button.click(explain, [remembered], [mapped, meaning], **private)
        camera.stream(
            live, [camera, what, rate], [seen, told, rate], stream_every=_EVERY, concurrency_limit=1, **private
        )
    return page


def _picture_of(gradio: Any, uploads: Uploads, **how: Any) -> Any:
    """Gradio's image field, except that it gives a picture's bytes and does not open it: that is for `open_picture`.

    The method of one object is replaced: of a subclass gradio would write an interface file beside this one.
    """
    field = gradio.Image(**how)

    def picture_bytes(payload: Any) -> bytes | None:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            return _decoded(payload.url)
        try:
            content = uploads.read(payload.path)
        except PermissionError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        if field.streaming:
            uploads.remove(payload.path)  # a frame is not shown again
        return content or b""

    field.preprocess = picture_bytes
    return field


def _decoded(url: str) -> bytes:
    """The picture inside a `data:` address; empty where there is none, or too large a one."""
    encoded = url.partition(",")[2]
    with suppress(binascii.Error, ValueError):
        if len(encoded) * 3 // 4 <= MAX_PICTURE_BYTES:
            return base64.b64decode(encoded)
    return b""


def _examples(folder: Path) -> list[Path]:
    """Faces that were drawn from numbers."""
    reader, folder = SynthReader(None, count=60, seed=7, size=224), folder
    folder.mkdir()
    table = reader.read().table.sort_values("age", ignore_index=True)
    made = []
    for row in range(_EXAMPLES):
        place = table.iloc[(2 * row + 1) * len(table) // (2 * _EXAMPLES)]
        path = folder / f"drawn-{row + 1}.png"
        path.write_bytes(reader.image_bytes(place["path"]))
        made.append(path)
    return made


def _only_uploads(gradio: Any, page: Any) -> None:
    """A request that was written by hand can name an address where a file should stand: gradio would fetch it, for any field."""
    for block in page.blocks.values():
        fetch = getattr(block, "async_move_resource_to_block_cache", None)
        if fetch is not None:
            block.async_move_resource_to_block_cache = functools.partial(_uploaded, gradio, fetch)


async def _uploaded(gradio: Any, move: Any, place: Any) -> Any:
    if "://" in str(place):
        raise gradio.Error(ONLY_UPLOADS, print_exception=False)
    return await move(place)


def _swept(folder: Path, permanent: Collection[Path], page: Any, stop: threading.Event) -> None:
    """Again and again, until the end."""
    while not stop.wait(_SWEEP):
        _sweep(folder, permanent)
        _forget(page)


def _sweep(folder: Path, permanent: Collection[Path]) -> None:
    """Delete what visitors left, when it is old enough."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and path not in permanent and time.time() - path.stat().st_mtime > UPLOAD_TTL_S:
                path.unlink()


def _forget(page: Any) -> None:
    """Drop the memory of visitors who have gone, or were idle too long: gradio keeps each one's last values for ever.

    It holds them in two places: values by visitor, and messages that nobody fetched.
    """
    holder, now = page.state_holder, datetime.now()
    for name, visitor in list(holder.session_data.items()):
        idle = (now - holder.time_last_used.get(name, now)).total_seconds()
        if visitor.is_closed or idle > _REMEMBERED:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
            page._queue.pending_messages_per_session.pop(name, None)
