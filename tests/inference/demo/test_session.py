"""The demonstration: what it says, what it keeps, and the page itself in a real browser with a camera that is a file."""

import contextlib
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import chromium_browser
from PIL import Image

import agebench
from agebench.cli import demo as command
from agebench.cli import main
from agebench.data.readers.synth import SynthReader
from agebench.errors import UserError
from agebench.inference.demo import gradio_app
from agebench.inference.demo.formatting import IN_DOMAIN, age_band
from agebench.inference.demo.session import DemoSession, FrameRate
from agebench.inference.predictor import FacePrediction
from agebench.metrics.schema import EstimateError, MetricValue

pytestmark = pytest.mark.usefixtures("with_few")


@pytest.fixture(scope="module")
def demo(small_run: Path) -> Iterator[DemoSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_REGISTRY", str(small_run.parent / "registry"))
        with agebench.load(small_run, device="cpu") as predictor:
            yield DemoSession(predictor, level=0.9)


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A drawn face, framed like the training faces."""
    reader = SynthReader(None, count=4, size=224)
    return reader.image_bytes(reader.read().table["path"].iloc[0])


def free_port() -> int:
    """A port below those that the system gives to other tests' servers, which ask for any."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in range(20_000 + 100 * worker, 20_100 + 100 * worker):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def face(age: float, error: str = "") -> FacePrediction:
    return FacePrediction("#0", 0, None, age, math.nan, age - 8, age + 8, error)


def test_an_answer_is_an_age_an_interval_and_the_errors_of_such_answers(demo: DemoSession, picture: bytes) -> None:
    shown, said = demo.predict(picture, "none")
    assert shown.startswith('<img class="faces"')
    age = re.match(r"### (\d+) years, between (\d+) and (\d+) \(90 % interval\)", said)
    assert age is not None
    assert int(age[2]) < int(age[1]) < int(age[3])
    assert f"few (held-out part), estimated {age_band(int(age[1]))}" in said
    assert "few (held-out part), all" in said


def test_the_95_percent_error_is_that_of_faces_that_are_taken_for_this_age(
    demo: DemoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    mae = MetricValue(value=4.0, ci_low=3.0, ci_high=5.0)
    p95 = MetricValue(value=9.0, ci_low=8.0, ci_high=9.9)
    errors = {name: {"25-34": EstimateError(n=n, mae=mae, p95_ae=p95)} for name, n in (("a", 40), ("b", 7))}
    monkeypatch.setattr(demo.words, "_errors", errors)
    said = demo.words.answer([face(31.0)])
    other = demo.words.answer([face(80.0)])
    assert "(estimated age 25-34) the 95 % error is 9.0 years on a." in said
    assert "Caution: b has only 7 faces with an estimated age of 25-34" in said
    assert said.count("4.0 [3.0, 5.0]") == 1
    assert "Caution: a has only 0 faces with an estimated age of 65+" in other


@pytest.mark.parametrize(
    ("age", "band"), [(-1.0, "0-12"), (0.0, "0-12"), (12.4, "0-12"), (12.6, "13-17"), (99.0, "65+")]
)
def test_bands_are_those_of_the_figures(age: float, band: str) -> None:
    assert age_band(age) == band


def test_every_face_is_answered(demo: DemoSession) -> None:
    said = demo.words.answer([face(31.0), face(60.0)])
    assert "Face 1: 31 years" in said
    assert "Face 2: 60 years" in said
    assert demo.words.answer([face(31.0)] * 20).count("###") == 12


def test_a_face_without_an_age_hides_no_other(demo: DemoSession) -> None:
    lost = face(math.nan, "the model returned no estimate")
    for faces, place in (([face(31.0), lost], 2), ([lost, face(31.0)], 1)):
        said = demo.words.answer(faces)
        assert f"### Face {place}: no age\n\nthe model returned no estimate." in said
        assert f"Face {3 - place}: 31 years" in said
        assert "31 years" in demo.words.live(faces, "10 frames/s")
    assert demo.words.answer([lost]).startswith("### No age")


def test_a_model_at_an_address_has_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    card = 'name = "far"\nkind = "external"\ntitle = "Far"\nformat = "http"\nlicence = "unknown"\n'
    card += 'source = "https://example.org/ages"\n[http]\nbudget = 5\nage = "age"\nbody = { image = "${image}" }\n'
    (tmp_path / "models" / "far.toml").write_text(card)
    assert main(["demo", "far", "--registry", str(tmp_path)]) == 2
    assert "'far' is asked over HTTP" in capsys.readouterr().err
    (tmp_path / "models" / "far.toml").write_text(card.replace("budget = 5", "budget = -5"))
    assert main(["demo", "far", "--registry", str(tmp_path)]) == 2
    assert "model 'far' is broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"a text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\nbad"]
)
def test_what_is_no_picture_has_no_age_and_a_reason(demo: DemoSession, content: bytes) -> None:
    shown, said = demo.predict(content, "detect")
    assert shown == ""
    assert said.startswith("### No age\n\n")
    assert len(said) > 20


def test_no_face_is_said(demo: DemoSession) -> None:
    pytest.importorskip("dlib")
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), (90, 120, 90)).save(buffer, "PNG")
    assert "no face found" in demo.predict(buffer.getvalue(), "detect")[1]
    assert "no face found" in demo.attribute(buffer.getvalue(), "detect")[1]


def test_a_map_is_shown_and_explained(demo: DemoSession, picture: bytes) -> None:
    pytest.importorskip("captum")
    shown, words = demo.attribute(picture, "none")
    assert 'class="heatmap"' in shown
    assert "years" in words


def test_of_a_file_there_are_answers_figures_and_a_map(small_run: Path, picture: bytes) -> None:
    with agebench.load(small_run / "export" / "model.ts", trusted=True, device="cpu") as predictor:
        of_file = DemoSession(predictor, level=0.9)
        assert "95 % interval" not in of_file.predict(picture, "none")[1]
        assert "(90 % interval)" in of_file.predict(picture, "none")[1]
        assert "few (held-out part), all" in of_file.predict(picture, "none")[1]
        pytest.importorskip("captum")
        shown, words = of_file.attribute(picture, "none")
        assert 'class="heatmap"' in shown
        assert "years" in words


def test_figures_say_for_whom_it_is_worse_and_names_do_no_harm(
    demo: DemoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(word in demo.words.figures() for word in ("| gender", "| race", "| age_band", "The interval."))
    monkeypatch.setitem(demo.words._tests, "<script>x", demo.words._tests["few"])
    assert "<script>" not in demo.words.figures()


def test_frames_are_counted(demo: DemoSession, picture: bytes) -> None:
    rate = FrameRate()
    for _ in range(3):
        said = demo.predict_frame(picture, "none", rate)[1]
    assert rate.frames == 3
    assert re.search(r"[\d.]+ frames/s, frame 3, \d+ ms of work here", said)


def test_what_visitors_left_is_deleted(tmp_path: Path) -> None:
    ours, old, new = (tmp_path / name for name in ("ours.png", "old.png", "new.png"))
    for path in (ours, old, new):
        path.touch()
    for path in (ours, old):
        os.utime(path, (0, time.time() - gradio_app.UPLOAD_TTL_S - 5))
    gradio_app._sweep(tmp_path, {ours})
    assert ours.exists()
    assert new.exists()
    assert not old.exists()


class Caller:
    """What asks the page's functions by requests of its own, without a browser."""

    def __init__(self, demo: DemoSession, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("gradio")
        made, make = list[Any](), gradio_app._page
        monkeypatch.setattr(gradio_app, "_page", lambda *how: made.append(make(*how)) or made[0])
        self.context = gradio_app.serve(demo, framing="none")
        self.address = self.context.__enter__().rstrip("/") + "/gradio_api"
        self.page = made[0]

    def upload(self, content: bytes) -> str:
        found = httpx.post(f"{self.address}/upload", files={"files": ("face.png", content)})
        return str(found.json()[0])

    def answer(self, visitor: str, path: str, changed: str, words: Any = None) -> tuple[bool, str]:
        """Whether it went well, and the text or the error; `changed` is the field whose change asks."""
        (field,) = (number for number, block in self.page.blocks.items() if block.elem_id == changed)
        (number,) = (of for of, function in self.page.fns.items() if (field, "change") in function.targets)
        data = [
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            words or next(words for words, meant in gradio_app.ALIGN_MODES.items() if meant == "none"),
            None,
        ]
        asked = {"data": data, "fn_index": number, "session_hash": visitor}
        joined = httpx.post(f"{self.address}/queue/join", json=asked)
        if joined.status_code == 400:
            return False, str(joined.json()["detail"])
        joined.raise_for_status()
        lines = httpx.get(f"{self.address}/queue/data", params={"session_hash": visitor}, timeout=30).text.splitlines()
        messages = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        done = next(one for one in messages if one["msg"] == "process_completed")
        return done["success"], done["output"]["data"][1] if done["success"] else str(done["output"]["error"])


@pytest.fixture
def caller(demo: DemoSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    made = Caller(demo, monkeypatch)
    yield made
    made.context.__exit__(None, None, None)


def test_a_visitor_is_answered_remembered_and_forgotten(
    caller: Caller, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = caller.upload(picture)
    assert "years, between" in caller.answer("a", path, "picture")[1]
    Path(path).unlink()  # as the sweep does
    for _ in range(2):  # what is remembered of the first is there for the second
        assert "years, between" in caller.answer("a", path, "framing")[1]
    assert "choose it again" in caller.answer("b", path, "framing")[1]

    fetched = list[str]()
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda url, **_: fetched.append(url))
    abroad = "https://example.com/a.png"
    assert caller.answer("a", abroad, "picture") == (False, "only images that were uploaded here are processed")
    assert not caller.answer("a", path, "picture", {"path": abroad, "meta": {"_type": "gradio.FileData"}})[0]
    assert fetched == []

    holder = caller.page.state_holder
    assert holder.capacity <= 100
    gradio_app._forget(caller.page)
    assert {"a", "b"} <= holder.session_data.keys()
    holder.time_last_used["a"] -= timedelta(seconds=gradio_app._IDLE_S + 1)
    holder["b"].is_closed = True
    gradio_app._forget(caller.page)
    for kept in (holder.session_data, holder.time_last_used, caller.page._queue.pending_messages_per_session):
        assert not {"a", "b"} & kept.keys()


@pytest.mark.parametrize(
    "words",
    [
        ["--host", ""],
        ["--detector", "none"],
        ["--port", "0"],
        ["--detect-size", "-1"],
        ["--port", "99999"],
        ["--coverage", "1.5"],
    ],
)
def test_bad_options(words: list[str], small_run: Path) -> None:
    assert main(["demo", str(small_run), *words]) == 2


def camera(file: Path, picture: bytes) -> None:
    """A film as the browser takes it for a camera: JPEG after JPEG, of a face that moves."""
    drawn = Image.open(io.BytesIO(picture)).resize((420, 420))
    film = io.BytesIO()
    for step in range(10):
        frame = Image.new("RGB", (640, 480), (90, 110, 130))
        frame.paste(drawn, (90 + 4 * step, 30))
        frame.save(film, "JPEG", quality=90)
    file.write_bytes(film.getvalue())


class Visitor:
    """A browser with that camera, and all that its page asked of other machines."""

    def __init__(self, film: Path) -> None:
        fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        self._stack = ExitStack()
        browser = self._stack.enter_context(chromium_browser([*fake, f"--use-file-for-fake-video-capture={film}"]))
        self.page = browser.new_context(permissions=["camera"]).new_page()
        self.page.set_default_timeout(20_000)
        self.abroad: list[str] = []
        self.counted = ""
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.abroad.append(request.url)

    def text(self, place: str, wanted: str) -> str:
        """What stands there, when it is there."""
        found = self.page.locator(place).filter(has_text=re.compile(wanted))
        found.wait_for()
        return str(found.inner_text())

    def close(self) -> None:
        self._stack.close()


@pytest.mark.slow
def test_the_page_in_a_browser(
    demo: DemoSession,
    small_run: Path,
    picture: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through the command: an upload, a map, what is no picture, the camera; then everything is gone, and the port taken."""
    pytest.importorskip("gradio")
    camera(tmp_path / "film.mjpeg", picture)
    (tmp_path / "face.png").write_bytes(picture)
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    visitor = Visitor(tmp_path / "film.mjpeg")
    port = free_port()
    monkeypatch.setattr(command, "_wait", lambda: visit(visitor, tmp_path, port))
    try:
        assert main(["demo", str(small_run), "--align", "none", "--port", str(port), "--json"]) == 0
    finally:
        visitor.close()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UserError, match=f"--port {port}"):
        gradio_app.serve(demo, port=port).__enter__()
    with capsys.disabled():
        print(f"\nthe camera in the browser: {visitor.counted}")
    assert visitor.abroad == []
    assert json.loads(capsys.readouterr().out) == {"address": f"http://127.0.0.1:{port}/"}
    assert list((tmp_path / "temporary").iterdir()) == []


def visit(visitor: Visitor, files: Path, port: int) -> None:
    page = visitor.page
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=1)  # it listens at 127.0.0.1 alone
    page.goto(f"http://127.0.0.1:{port}/")
    assert "nothing leaves the machine" in visitor.text("#privacy", "Nothing is recorded")
    upload = page.locator("#picture input[type=file]")
    upload.set_input_files(files / "face.png")
    assert "90 % interval" in visitor.text("#answer", r"\d+ years, between")
    page.locator("#explain").click()
    page.locator("#map img").wait_for()
    page.reload()
    upload.set_input_files(files / "text.png")
    assert "not an image" in visitor.text("#answer", "No age")
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#camera button", has_text="Record").click()
    said = visitor.text("#live", r"years[\s\S]*frames/s, frame ([5-9]|\d\d)")
    visitor.counted = said.splitlines()[-1]
    page.locator("#seen img").wait_for()
    frames = [path for path in files.rglob("agebench-demo-*/*/*") if "examples" not in str(path)]
    assert len(frames) < 5  # what the camera sent is not kept


def test_the_note_promises_what_is_done() -> None:
    assert "about a minute" in IN_DOMAIN
    assert "about ten minutes" in IN_DOMAIN
    assert gradio_app.UPLOAD_TTL_S + gradio_app._SWEEP_S <= 80
    assert gradio_app._IDLE_S == 600
