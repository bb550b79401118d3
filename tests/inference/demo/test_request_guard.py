"""Requests that were written by hand, to the demonstration's real server: nothing outside its folder is read or removed."""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from agebench.errors import UserError
from agebench.inference.demo import gradio_app
from agebench.inference.demo.request_guard import MAX_IMAGE_BYTES, Uploads, is_own_host

pytestmark = pytest.mark.slow
FRAMING = next(iter(gradio_app.ALIGN_MODES))
META = {"meta": {"_type": "gradio.FileData"}}


class Words:
    def title(self) -> str:
        return "A model"

    def figures(self) -> str:
        return "figures"


@dataclass
class Recorder:
    """A demonstration without a model, which keeps what it was shown."""

    words: Words = field(default_factory=Words)
    shown: list[bytes | None] = field(default_factory=list)

    def predict(self, picture: bytes | None, framing: str) -> tuple[str, str]:
        self.shown.append(picture)
        return "", f"{len(picture or b'')} bytes"

    def predict_frame(self, frame: bytes | None, framing: str, rate: object) -> tuple[str, str]:
        return self.predict(frame, framing)

    def attribute(self, picture: bytes | None, framing: str) -> tuple[str, str]:
        return self.predict(picture, framing)


@dataclass
class Server:
    recorder: Recorder
    address: str
    folder: Path
    functions: dict[int, Any]

    def post(self, path: str, **content: Any) -> httpx.Response:
        return httpx.post(f"{self.address}{path}", timeout=20, **content)

    def upload(self, content: bytes) -> str:
        return str(self.post("/gradio_api/upload", files={"files": ("face.png", content)}).json()[0])

    def call(self, number: object, data: list[Any], route: str = "run/predict") -> httpx.Response:
        asked = {"fn_index": number, "session_hash": "x", "data": data}
        return self.post(f"/gradio_api/{route}", json=asked)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("gradio")
    recorder, folders, pages = Recorder(), list[Path](), list[Any]()
    make_uploads, make_page = gradio_app.Uploads, gradio_app._page

    def uploads(folder: Path) -> Uploads:
        folders.append(folder)
        return make_uploads(folder)

    def page(*how: Any) -> Any:
        pages.append(make_page(*how))
        return pages[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradio_app, "Uploads", uploads)
        patch.setattr(gradio_app, "_page", page)
        with gradio_app.serve(recorder) as address:  # type: ignore[arg-type]
            yield Server(recorder, address.rstrip("/"), folders[0], pages[0].fns)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.png"
    path.write_bytes(b"secret")
    return path


def attack(kind: str, secret: Path, folder: Path) -> dict[str, Any]:
    link = folder / "link.png"
    if kind == "symlink" and not link.is_symlink():
        link.symlink_to(secret)
    linked = folder / "linked"
    if kind == "folder link" and not linked.is_symlink():
        linked.symlink_to(secret.parent)
    attacks: dict[str, dict[str, Any]] = {
        "absolute": {"path": str(secret), **META},
        "relative": {"path": os.path.relpath(secret), **META},
        "dots": {"path": f"{folder}/../{os.path.relpath(secret, folder.parent)}", **META},
        "symlink": {"path": str(link), **META},
        "folder link": {"path": str(linked / secret.name), **META},
        "folder": {"path": str(folder / "examples"), **META},
        "device": {"path": "/dev/zero", **META},
        "no meta": {"path": str(secret)},
        "no meta, stream": {"path": str(secret), "is_stream": True},
        "data: as path": {"path": "data:image/png;base64,AAAA", **META},
        "too large data:": {"url": "data:image/png;base64," + "A" * (MAX_IMAGE_BYTES * 4 // 3 + 4), "path": None},
        "http:": {"path": "http://127.0.0.1:9/a.png", **META},
        "http:, no meta": {"path": "http://127.0.0.1:9/a.png"},
        "http: as url": {"path": None, "url": "http://127.0.0.1:9/a.png", **META},
        "nothing": {},
        "NUL": {"path": f"{folder}/a\0b", **META},
    }
    return attacks[kind]


KINDS = (
    "absolute",
    "relative",
    "dots",
    "symlink",
    "folder link",
    "folder",
    "device",
    "no meta",
    "no meta, stream",
    "data: as path",
    "too large data:",
    "http:",
    "http:, no meta",
    "http: as url",
    "nothing",
    "NUL",
)


@pytest.mark.parametrize("kind", KINDS)
def test_demo_refuses_files_of_others(
    kind: str, server: Server, secret: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every field of every function, by both ways to call it."""
    value = attack(kind, secret, server.folder)
    server.recorder.shown.clear()
    for number, function in server.functions.items():
        good = [
            {"image": None, "radio": FRAMING, "dataset": 0}.get(block.get_block_name()) for block in function.inputs
        ]
        for position in range(len(good)):
            if value.get("path") is None and function.inputs[position].get_block_name() == "state":
                continue  # gradio never reads what is sent for a state
            data = [*good[:position], value, *good[position + 1 :]]
            for route in ("run/predict", "api/predict", "queue/join"):
                if kind == "too large data:" and route != "run/predict":
                    continue
                answer = server.call(number, data, route)
                assert answer.status_code in (400, 413), (number, position, route, answer.text[:200])
    assert b"secret" not in server.recorder.shown
    assert secret.read_bytes() == b"secret"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["picture", "camera"])
def test_demo_looks_at_uploads(name: str, server: Server) -> None:
    (number, *_) = (n for n, function in server.functions.items() if function.inputs[0].elem_id == name)
    path = server.upload(b"a picture of mine")
    server.recorder.shown.clear()
    answer = server.call(number, [{"path": path, **META}, FRAMING, None])
    assert answer.status_code == 200, answer.text
    assert server.recorder.shown == [b"a picture of mine"]
    assert Path(path).exists() == (name == "picture")  # a camera's frame is removed at once
    encoded = base64.b64encode(b"in the page").decode()
    answer = server.call(number, [{"url": f"data:image/png;base64,{encoded}", **META}, FRAMING, None])
    assert answer.status_code == 200, answer.text
    assert server.recorder.shown[-1] == b"in the page"


def test_demo_keeps_its_examples(server: Server) -> None:
    example = next((server.folder / "examples").glob("*.png"))
    (number,) = (n for n, function in server.functions.items() if function.inputs[0].elem_id == "camera")
    for name in (str(example), f"{example.parent}/../examples/{example.name}"):
        server.call(number, [{"path": name, **META}, FRAMING, None])
    assert example.exists()


@pytest.mark.parametrize("number", [99, -1, None, "1", True, 1.0, [1]])
def test_demo_answers_an_unknown_function_with_404(
    number: object, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    for route in ("run/predict", "run/answer", "api/predict", "queue/join"):
        assert server.call(number, [None, FRAMING, None], route).status_code == 404
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"fn_index": 1}', b'{"fn_index": 1, "data": [null]}', b"[" * 100_000, b"\xff"]
)
def test_demo_refuses_a_malformed_call(content: bytes, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    headers = {"content-type": "application/json"}
    assert server.post("/gradio_api/run/predict", content=content, headers=headers).status_code == 400
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "8.8.8.8", "", "a b"])
def test_demo_refuses_a_foreign_host(host: str, server: Server) -> None:
    for path in ("/", "/config", "/gradio_api/info"):
        assert httpx.get(f"{server.address}{path}", headers={"host": host}).status_code in (400, 403)
    assert httpx.get(f"{server.address}/", headers={"host": "localhost:7860"}).status_code == 200


def test_demo_refuses_calls_from_other_pages(server: Server) -> None:
    asked = {"fn_index": 3, "session_hash": "x", "data": [None]}
    for origin in ("http://evil.example", "null"):
        answer = server.post("/gradio_api/run/predict", json=asked, headers={"origin": origin})
        assert answer.status_code == 403
    assert server.post("/gradio_api/run/predict", json=asked, headers={"origin": server.address}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://example.com/a.png",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/vibe-code",
        "/gradio_api/monitoring",
    ],
)
def test_demo_has_no_other_way_to_files(path: str, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert httpx.get(f"{server.address}{path}").status_code in (403, 404)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["process_recording", "component_server", "call/answer", "vibe-edit", "login"])
def test_demo_has_no_other_way_to_write(path: str, server: Server) -> None:
    assert server.post(f"/gradio_api/{path}", json={"data": []}).status_code == 404


def test_demo_refuses_uploads_beyond_its_limit(server: Server) -> None:
    before = {path for path in server.folder.rglob("*") if path.is_file()}
    for size in (MAX_IMAGE_BYTES + 1, MAX_IMAGE_BYTES + (2 << 20)):
        answer = server.post("/gradio_api/upload", files={"files": ("a.png", bytes(size))})
        assert answer.status_code == 413
    chunks = iter([b"--x\r\n", b"y"])
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert server.post("/gradio_api/upload", content=chunks, headers=headers).status_code == 411
    assert {path for path in server.folder.rglob("*") if path.is_file()} == before


def test_uploads_reads_and_removes_its_own_files_only(tmp_path: Path, secret: Path) -> None:
    """Also without the server's checks before it."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    uploads = Uploads(folder)
    (folder / "a.png").write_bytes(b"mine")
    (folder / "link.png").symlink_to(secret)
    os.mkfifo(folder / "pipe.png")
    assert uploads.read(str(folder / "a.png")) == b"mine"
    assert uploads.read(str(folder / "gone.png")) is None
    for name in (str(secret), str(folder / "link.png"), str(folder / "pipe.png"), "a.png", str(folder), "x" * 9999):
        uploads.remove(name)
        with pytest.raises(PermissionError):
            uploads.read(name)
    assert secret.exists()
    uploads.permanent = frozenset([folder / "a.png"])
    uploads.remove(str(folder / "a.png"))
    assert (folder / "a.png").exists()


@pytest.mark.parametrize("host", ["8.8.8.8", "nonsense.invalid", "x" * 300, "a..b"])
def test_served_refuses_an_address_in_one_line(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="the page cannot be served there") as raised:
        gradio_app.serve(Recorder(), host=host).__enter__()  # type: ignore[arg-type]
    assert len(str(raised.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_page_and_its_script_are_served(server: Server) -> None:
    assert httpx.get(f"{server.address}/").status_code == 200
    config = httpx.get(f"{server.address}/config").json()
    samples = next(one for one in config["components"] if one["type"] == "dataset")["props"]["samples"]
    assert httpx.get(f"{server.address}/gradio_api/file={samples[0][0]['path']}").status_code == 200
    assert json.loads(httpx.get(f"{server.address}/gradio_api/app_id").text)["app_id"]


@pytest.mark.parametrize(
    ("header", "bound", "own"),
    [
        ("127.0.0.1:7860", "127.0.0.1", True),
        ("[::1]:7860", "::1", True),
        ("LOCALHOST", "localhost", True),
        ("localhost.:80", "127.0.0.1", True),
        ("192.168.0.4:7860", "127.0.0.1", False),
        ("192.168.0.4:7860", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("faces.example:80", "faces.example", True),
        ("localhost@evil.example", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
    ],
)
def test_is_own_host(header: str, bound: str, own: bool) -> None:
    assert is_own_host(header, bound) == own
