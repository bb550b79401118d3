"""Checks of every request to the demonstration page, before gradio sees it."""

import ipaddress
import json
import os
import re
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_IMAGE_BYTES = 32_000_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ONLY_UPLOADS = "only images that were uploaded here are processed"
_OTHER_BYTES = 1 << 20  # of a request besides its image
_API = "/gradio_api"
# The routes that the page's script uses. Everything else under _API is answered with 404, because gradio also has routes that
# fetch addresses, write recordings to disk or store a visitor's session.
_READ = re.compile(
    r"/(info|app_id|startup-events|theme\.css|user|token|login_check|queue/(data|status)|heartbeat/[^/]+|upload_progress)/?"
)
_WRITE = re.compile(r"/(upload|cancel|reset|stream/[^/]+/close)/?")
_CALL = re.compile(r"/((run|api)/[^/]+|queue/join|stream/[^/]+)/?")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Uploads:
    """The folder that visitors' images are uploaded to.

    Args:
        folder: nothing outside of it is read or removed.

    Attributes:
        permanent: files of the page itself, which are never removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.permanent: frozenset[Path] = frozenset()

    def holds(self, name: object) -> bool:
        """Return whether an absolute path lies in the folder, leads through no link, and is a regular file or missing."""
        if not isinstance(name, str) or not os.path.isabs(name):
            return False
        try:
            path = Path(os.path.abspath(name))
            inside = path.resolve() == path and path.is_relative_to(self.folder) and path != self.folder
            return inside and (not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode))
        except (OSError, ValueError):  # a name that is too long, or with a NUL in it
            return False

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where it is missing or too large.

        Raises:
            PermissionError: the path is not in the folder.
        """
        if not self.holds(name):
            raise PermissionError(ONLY_UPLOADS)
        try:
            with open(os.open(name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
                content = file.read(MAX_IMAGE_BYTES + 1)
        except OSError:
            return None
        return content if len(content) <= MAX_IMAGE_BYTES else None

    def remove(self, name: str) -> None:
        """Delete a visitor's file; anything else stays."""
        path = Path(os.path.abspath(name))
        if self.holds(name) and path not in self.permanent:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Refusal(Exception):
    """Refusal of a request.

    Attributes:
        status: the HTTP status.
        reason: a sentence for the sender.
    """

    status: int
    reason: str


class Guard:
    """ASGI middleware that passes on only requests as the page's own script sends them.

    Args:
        app: gradio's application.
        uploads: the folder of the visitors' images.
        functions: gradio's functions by number; each has `inputs`.
        host: the address that the page is bound to.
    """

    def __init__(self, app: App, uploads: Uploads, functions: Mapping[int, Any], host: str) -> None:
        self._app, self._uploads, self._functions, self._host = app, uploads, functions, host

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Check a request and pass it on, or answer it with the refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            receive = await self._checked(scope, receive)
        except Refusal as refusal:
            await _answer(send, refusal)
            return
        await self._app(scope, receive, send)

    async def _checked(self, scope: Message, receive: Receive) -> Receive:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not is_own_host(host, self._host):
            raise Refusal(403, f"this page is served under its own address only, not as '{host}'")
        writes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        origin = headers.get("origin")
        if writes and origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refusal(403, "requests from other pages are not answered")
        path = scope["path"]
        if not path.startswith(_API):
            if writes:
                raise Refusal(404, "no such page")
            return receive
        return await self._checked_api(scope, path.removeprefix(_API), headers.get("content-length", ""), receive)

    async def _checked_api(self, scope: Message, path: str, size: str, receive: Receive) -> Receive:
        if scope["method"] == "OPTIONS":
            return receive
        if scope["method"] != "POST":
            if path.startswith("/file="):
                if not self._uploads.holds(path.removeprefix("/file=")):
                    raise Refusal(403, ONLY_UPLOADS)
            elif not _READ.fullmatch(path):
                raise Refusal(404, "no such page")
            return receive
        is_call = bool(_CALL.fullmatch(path))
        if not is_call and not _WRITE.fullmatch(path):
            raise Refusal(404, "no such page")
        limit = MAX_IMAGE_BYTES * (4 if is_call else 3) // 3 + _OTHER_BYTES
        if not re.fullmatch(r"[0-9]{1,18}", size):
            raise Refusal(411, "a request states its length")
        if int(size) > limit:
            raise Refusal(413, f"an image has {MAX_IMAGE_BYTES:,} bytes at most")
        receive = _limited(receive, limit)
        if not is_call:
            return receive
        content = await _body(receive)
        self._check_call(content, stream=path.startswith("/stream/"))
        return _replay(content, receive)

    def _check_call(self, content: bytes, *, stream: bool) -> None:
        try:
            call = json.loads(content)
        except (ValueError, RecursionError):
            raise Refusal(400, "not readable as JSON") from None
        if not isinstance(call, dict) or not isinstance(call.get("data"), list):
            raise Refusal(400, "a call holds a list of data")
        if call.get("batched") or call.get("simple_format"):
            raise Refusal(400, "one call at a time")
        number = call.get("fn_index")
        if type(number) is int and number in self._functions:
            self._check_inputs(self._functions[number].inputs, call["data"])
        elif not (stream and number is None):
            raise Refusal(404, "no such function")
        self._check_files(call)

    def _check_inputs(self, fields: Sequence[Any], data: list[Any]) -> None:
        if len(data) != len(fields):
            raise Refusal(400, f"{len(fields)} values are expected, not {len(data)}")
        for field, value in zip(fields, data, strict=True):
            kind = field.get_block_name()
            if kind == "image" and value is not None:
                self._check_image(value)
            if kind == "radio" and value not in [choice for _, choice in field.choices]:
                raise Refusal(400, "not one of the choices")
            if kind == "dataset" and not (type(value) is int and 0 <= value < len(field.samples)):
                raise Refusal(400, "no such example")

    def _check_image(self, value: object) -> None:
        if not isinstance(value, dict):
            raise Refusal(400, ONLY_UPLOADS)
        url = value.get("url")
        if isinstance(url, str) and url.startswith("data:"):
            if len(url) * 3 // 4 > MAX_IMAGE_BYTES:
                raise Refusal(413, f"an image has {MAX_IMAGE_BYTES:,} bytes at most")
            if value.get("path") in (None, ""):
                return
        if not self._uploads.holds(value.get("path")):
            raise Refusal(400, ONLY_UPLOADS)

    def _check_files(self, call: dict[str, Any]) -> None:
        """Refuse a call in which a file name, at any depth, is not that of an upload."""
        waiting: list[Any] = [call]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if value.get("path") not in (None, "") and not self._uploads.holds(value["path"]):
                    raise Refusal(400, ONLY_UPLOADS)
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value


def is_own_host(header: str, bound: str) -> bool:
    """Return whether a Host header names this server; a foreign name that resolves to it is an attack (DNS rebinding).

    A server on loopback has the names of loopback only. A server on a network has every IP address (the script of a foreign
    page cannot use an address as its name), and the names of this machine.

    Args:
        header: the value of the Host header.
        bound: the address that the server is bound to.
    """
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?", header.lower())
    name = (match[1] or match[2]).rstrip(".") if match else ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        own = {"localhost"}
        if bound not in LOOPBACK:
            own |= {bound.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
            own |= {f"{socket.gethostname().lower()}.local"}
        return name in own
    return address.is_loopback or bound not in LOOPBACK


async def _body(receive: Receive) -> bytes:
    content, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, "the request was interrupted")
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(content)


def _limited(receive: Receive, limit: int) -> Receive:
    """Limit `receive` to `limit` bytes; a longer request counts as disconnected."""
    size = 0

    async def count() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if size > limit else message

    return count


def _replay(content: bytes, receive: Receive) -> Receive:
    """Return a `receive` that repeats the body that was read already, then continues."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return replay


async def _answer(send: Send, refusal: Refusal) -> None:
    content = json.dumps({"detail": refusal.reason, "error": refusal.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
