import hashlib
import io
from email.message import Message
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request

import pytest

from agebench.data.storage import download as module
from agebench.data.storage.download import UnreachableError, download
from agebench.errors import AgebenchError, UserError

CONTENT = bytes(range(256)) * 40
URL = "https://example.org/some/faces%20v1.zip?raw=1"


class Answer(io.BytesIO):
    """What a web server says."""

    def __init__(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        super().__init__(body)
        self.status = status
        self.headers = Message()
        self.headers["Content-Length"] = str(len(body) if length is None else length)


class Server:
    """A web server's replies, and what it was asked."""

    def __init__(self, *, ranges: bool = True, cut: int | None = None) -> None:
        self.ranges, self.cut = ranges, cut
        self.asked: list[str | None] = []

    def __call__(self, request: Request, timeout: float) -> Answer:
        wanted = request.get_header("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(CONTENT):
            raise HTTPError(request.full_url, 416, "Range Not Satisfiable", Message(), None)
        rest = CONTENT[start:]
        cut, self.cut = self.cut, None
        return Answer(rest[:cut], 206 if start else 200, len(rest))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> "type[Server]":
    def start(**options: object) -> Server:
        server = Server(**options)  # type: ignore[arg-type]
        monkeypatch.setattr(module, "urlopen", server)
        return server

    return start  # type: ignore[return-value]


def test_a_download(tmp_path: Path, serve: "type[Server]") -> None:
    server = serve()
    file = download(URL, tmp_path / "new", sha256=hashlib.sha256(CONTENT).hexdigest())
    assert file == tmp_path / "new" / "faces v1.zip"
    assert file.read_bytes() == CONTENT
    assert [path.name for path in file.parent.iterdir()] == ["faces v1.zip"]
    assert download(URL, tmp_path / "new") == file
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_continues(tmp_path: Path, serve: "type[Server]", ranges: bool) -> None:
    server = serve(ranges=ranges, cut=1000)
    with pytest.raises(AgebenchError, match="broke off after 1000 of 10240 bytes; the same command continues"):
        download(URL, tmp_path)
    assert download(URL, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (TimeoutError("timed out"), "timed out"),
        (IncompleteRead(b"x"), "IncompleteRead"),
    ],
)
def test_a_lost_connection_is_named_and_the_download_continues(
    tmp_path: Path, serve: "type[Server]", monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    serve()
    with monkeypatch.context() as patched:
        chunks = iter([CONTENT[:1000]])

        def read(*_: object) -> bytes:
            for chunk in chunks:
                return chunk
            raise error

        patched.setattr(Answer, "read", read)
        with pytest.raises(AgebenchError, match=rf"{reason}.*; the same command continues") as raised:
            download(URL, tmp_path)
    assert str(raised.value).startswith(f"{URL}: broke off after 1000 bytes")
    assert download(URL, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("error", [TimeoutError("timed out"), RemoteDisconnected("no response"), BadStatusLine("x")])
def test_a_source_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unanswered(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "urlopen", unanswered)
    with pytest.raises(UnreachableError, match=r"cannot be reached: (timed out|no response|x)$"):
        download(URL, tmp_path)


def test_a_disk_that_is_full_is_not_taken_for_the_connection(
    tmp_path: Path, serve: "type[Server]", monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    serve()
    monkeypatch.setattr(Path, "open", lambda *_, **__: Full())
    with pytest.raises(AgebenchError, match="the disk is full"):
        download(URL, tmp_path)


def test_a_part_that_is_longer_than_the_file_starts_anew(tmp_path: Path, serve: "type[Server]") -> None:
    server = serve()
    (tmp_path / "faces v1.zip.part").write_bytes(b"x" * 20_000)
    assert download(URL, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=20000-", None]


def test_another_checksum(tmp_path: Path, serve: "type[Server]") -> None:
    serve()
    with pytest.raises(AgebenchError, match=r"its SHA-256 is .* the card specifies 00"):
        download(URL, tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(module, "urlopen", unreachable)
    with pytest.raises(AgebenchError, match="cannot be reached: Name or service not known"):
        download(URL, tmp_path)


@pytest.mark.parametrize("url", ["ftp://example.org/a.zip", "https://example.org/", "faces.zip"])
def test_an_address_of_no_file(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="not the address of a file"):
        download(url, tmp_path)


def test_a_file_address(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert download((tmp_path / "a.zip").as_uri(), tmp_path / "new").read_bytes() == CONTENT
    with pytest.raises(AgebenchError, match="cannot be reached"):
        download((tmp_path / "b.zip").as_uri(), tmp_path / "new")
