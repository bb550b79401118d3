"""The web page computes what agebench computes: alignment in Node, the whole page in a browser."""

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser import chromium_browser
from PIL import Image

from agebench.cli import main
from agebench.data.faces.alignment import AlignmentSpec, align_face, align_or_crop
from agebench.data.readers.synth import SynthReader
from agebench.errors import AgebenchError, UserError
from agebench.estimators.released import released_dir
from agebench.export.web import page as web_page
from agebench.export.web import runtime
from agebench.inference.predictor import Predictor
from agebench.leaderboard.verify import read_valid_records
from agebench.reports.formatting import format_ci
from agebench.runs.estimators import load_estimator

RESULTS = Path(__file__).parents[2] / "reports" / "results"
ASSETS = Path(web_page.__file__).parent / "assets"
ALIGN = """
import { readFileSync, writeFileSync } from "node:fs";
import { alignFace, cropFace } from "./alignment.js";
import { reduceAndResize } from "./pixels.js";
for (const each of JSON.parse(readFileSync(process.argv[2]))) {
  const image = { width: each.width, height: each.height, data: new Uint8ClampedArray(readFileSync(each.pixels)) };
  const face = each.reduced
    ? reduceAndResize(image, ...each.reduced)
    : each.points ? alignFace(image, each.input, each.points) : cropFace(image, each.input);
  writeFileSync(each.output, face.data);
}
"""
# Framing of faces: crop scale, offset, visible region.
FRAMINGS = [(1.0, 0.0, 0.0), (1.22, 0.12, 1.0), (1.5, 0.0, 0.0), (0.9, -0.05, 0.8)]


def photograph(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-40, 41, (height, width, 3))
    return Image.fromarray((np.asarray(smooth).astype(int) + noise).clip(0, 255).astype(np.uint8))


def run_in_node(cases: list[dict[str, Any]], images: list[Image.Image], folder: Path) -> list[np.ndarray]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine")
    shutil.copytree(ASSETS, folder / "page")
    (folder / "page" / "package.json").write_text('{"type": "module"}')
    (folder / "page" / "cases.js").write_text(ALIGN)
    for index, (case, image) in enumerate(zip(cases, images, strict=True)):
        pixels = folder / f"{index}.raw"
        pixels.write_bytes(image.convert("RGBA").tobytes())
        case |= {
            "width": image.width,
            "height": image.height,
            "pixels": str(pixels),
            "output": str(folder / f"{index}.out"),
        }
    (folder / "cases.json").write_text(json.dumps(cases))
    words = [node, str(folder / "page" / "cases.js"), str(folder / "cases.json")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.fromfile(case["output"], np.uint8).reshape(-1, 4)[:, :3] for case in cases]


def page_input(spec: AlignmentSpec) -> dict[str, Any]:
    template = (spec.template() / spec.size).tolist()
    settings = {"size": spec.size, "crop_scale": spec.crop_scale, "offset": spec.offset, "visible": spec.visible}
    return settings | {"template": template}


def test_page_replaces_no_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        web_page.write_page(tmp_path, None, None, (), None)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_an_interrupted_page_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> bytes:
        raise KeyboardInterrupt

    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    monkeypatch.setattr(runtime, "write_runtime", lambda folder, archive: folder.mkdir(parents=True))
    monkeypatch.setattr(web_page, "example_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        web_page.write_page(tmp_path / "page", SimpleNamespace(path=model), None, (), None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [model]


def test_the_page_aligns_faces_as_agebench_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, cases, expected = [], [], []
    for index, (side, tilt) in enumerate([(40, 0.3), (90, -0.2), (300, 0.1), (500, 0.0), (600, 2.5), (1500, -0.4)]):
        image = photograph(640, 480, index)
        framing = FRAMINGS[index % len(FRAMINGS)]
        spec = AlignmentSpec("landmarks", 112, framing[0], (0, 1, 2), offset=framing[1], visible=framing[2])
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        points = (spec.template() / spec.size - 0.5) @ turn.T * side + [300, 200] + rng.normal(0, side / 60, (3, 2))
        images.append(image)
        cases.append({"input": page_input(spec), "points": points.tolist()})
        expected.append(align_face(image, spec, points))
    for face, wanted in zip(run_in_node(cases, images, tmp_path), expected, strict=True):
        difference = np.abs(face.reshape(wanted.shape).astype(int) - wanted)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3  # rounding of sums in another order


def test_the_page_crops_framed_faces_as_agebench_does(tmp_path: Path) -> None:
    images, cases, expected = [], [], []
    for index, ((width, height), framing) in enumerate(
        zip([(200, 200), (448, 448), (90, 61), (33, 700)], FRAMINGS, strict=True)
    ):
        image = photograph(width, height, index)
        spec = AlignmentSpec("none", 112, framing[0], offset=framing[1], visible=framing[2])
        images.append(image)
        cases.append({"input": page_input(spec)})
        expected.append(align_or_crop(image, spec))
    for face, wanted in zip(run_in_node(cases, images, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(face.reshape(wanted.shape), wanted)


def test_the_page_reduces_photographs_as_pillow_does(tmp_path: Path) -> None:
    images = [photograph(*size, 0) for size in [(1500, 1000), (416, 300), (2031, 777)]]
    sizes = [(416, 277), (208, 150), (416, 159)]
    cases: list[dict[str, Any]] = [{"reduced": size} for size in sizes]
    for face, image, size in zip(run_in_node(cases, images, tmp_path), images, sizes, strict=True):
        wanted = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))
        np.testing.assert_array_equal(face.reshape(wanted.shape), wanted)


def test_another_archive_than_the_known_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / runtime.ARCHIVE
    archive.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"not the archive of onnxruntime-web .*`npm pack onnxruntime-web@"):
        runtime.write_runtime(tmp_path / "runtime", archive)
    assert not (tmp_path / "runtime").exists()


def test_without_npm_the_error_names_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"there is no npm.*--web-runtime onnxruntime-web-.*\.tgz"):
        runtime.write_runtime(tmp_path / "runtime")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return runtime.fetch_archive(tmp_path_factory.mktemp("npm"))
    except AgebenchError as error:
        pytest.skip(f"no npm package of onnxruntime-web: {error}")


@pytest.fixture(scope="module")
def site(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the released model, by the command."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("site") / "page"
    words = ["export", "agebench-base", "--web", str(folder), "--web-runtime", str(archive)]
    assert main(words) == 0
    (folder / "face_detector.onnx").write_bytes(b"of an earlier page")
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with chromium_browser() as browser:
        yield browser


class Visit:
    """The opened page; `requests` are method and address, `messages` what the console shows."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_context().new_page()
        self.page.set_default_timeout(60_000)
        self.messages: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append((request.method, request.url)))
        self.page.goto(address)
        self.wait("Ready.")

    def wait(self, text: str) -> None:
        self.page.get_by_role("status").filter(has_text=text).wait_for()

    def choose(self, file: Path, mode: str = "Find all faces") -> list[dict[str, str]]:
        """Open a photograph and return the data of its estimates."""
        self.page.locator("#status").evaluate("node => { node.textContent = ''; }")
        self.page.set_input_files("#file", str(file))
        self.page.wait_for_function(
            "() => /face|points|No estimate/i.test(document.getElementById('status').textContent)"
            " && !/Searching/.test(document.getElementById('status').textContent)"
        )
        if mode != "Find all faces":
            self.page.locator("#status").evaluate("node => { node.textContent = ''; }")
            self.page.get_by_label(mode).check()
            self.wait("estimated in")
        return [item.evaluate("node => ({...node.dataset})") for item in self.page.locator("#results li").all()]


@pytest.fixture(scope="module")
def visit(chromium: Any, address: str) -> Visit:
    return Visit(chromium, address)


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    with Predictor(load_estimator("agebench-base", device="cpu")) as opened:
        yield opened


@pytest.mark.slow
def test_the_page_estimates_what_predict_estimates(visit: Visit, predictor: Predictor, tmp_path: Path) -> None:
    reader = SynthReader(None, count=8, size=200)
    for index in range(8):
        path = tmp_path / f"{index}.png"
        path.write_bytes(reader.image_bytes(f"synth-{index}.png"))
        (shown,) = visit.choose(path, "The photograph is one cropped face")
        expected = predictor.predict([path], faces="none").iloc[0]
        for key in ("age", "low", "high"):
            assert float(shown[key]) == pytest.approx(expected[key], abs=0.1)


@pytest.mark.slow
def test_the_page_sends_nothing_and_logs_no_error(visit: Visit, address: str, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(SynthReader(None, count=1, size=200).image_bytes("synth-0.png"))
    visit.choose(path, "The photograph is one cropped face")
    assert {method for method, _ in visit.requests} == {"GET"}
    assert all(url.startswith((address, "blob:", "data:")) for _, url in visit.requests)
    assert visit.messages == []


@pytest.mark.slow
def test_marked_points_move_the_estimate(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(SynthReader(None, count=1, size=200).image_bytes("synth-0.png"))
    visit.choose(path)
    visit.page.get_by_label("Mark the eyes and the nose").check()
    visit.wait("Drag the three points")
    item = visit.page.locator("#results li")
    before = item.get_attribute("data-age")
    marker = visit.page.get_by_role("button", name="Base of the nose")
    for _ in range(5):
        marker.press("Shift+ArrowDown")
    visit.page.wait_for_function("age => document.querySelector('#results li').dataset.age !== age", arg=before)
    assert visit.page.locator(".marker").count() == 3


@pytest.mark.slow
def test_the_example_and_the_facts_are_shown(visit: Visit, predictor: Predictor) -> None:
    page = visit.page
    page.get_by_role("button", name="Show a drawn example").click()
    visit.wait("One face, estimated in")
    assert "research only" in page.locator("header").inner_text()
    assert "interval: " in page.locator("#results li").inner_text()
    table = page.locator("#tests").inner_text()
    described = json.loads((released_dir() / "agebench-base.json").read_text(encoding="utf-8"))
    (record,) = (
        each for each in read_valid_records(RESULTS).values() if each.config_sha256 == described["config_sha256"]
    )
    tests = record.metrics.tests
    assert f"FG-NET\t{format_ci(tests['fgnet'].metric('mae'))}\t" in table
    assert f"{format_ci(tests['fairface-val'].metric('range_mae'))} to the labeled range" in table
    coverage = [format_ci(share, digits=1, percent=True) for share in predictor.interval(0.9).coverage.values()]
    assert len(coverage) == 4
    assert all(share in table for share in coverage)
    assert "non-commercial research only" in page.locator("#card").inner_text()


@pytest.mark.slow
def test_a_file_that_is_no_image_is_named(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no image")
    visit.page.set_input_files("#file", str(path))
    visit.wait("cannot read that file as an image")


@pytest.mark.slow
def test_found_faces_have_the_ages_of_predict(
    visit: Visit, predictor: Predictor, test_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cv2")
    import zipfile

    with zipfile.ZipFile(test_data / "FGNET.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".jpg"))[::100]
        differences = []
        for name in names:
            path = tmp_path / Path(name).name
            path.write_bytes(archive.read(name))
            expected = predictor.predict([path])
            shown = visit.choose(path)
            if expected["error"].iloc[0]:
                assert shown == []
                continue
            assert len(shown) == len(expected)
            differences += [abs(float(item["age"]) - age) for item, age in zip(shown, expected["age"], strict=True)]
    assert len(differences) >= 8
    assert max(differences) < 0.1


@pytest.mark.slow
def test_a_run_and_its_files_become_pages(
    small_run: Path, with_few: None, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    written = {}
    for name, model in {
        "run": small_run,
        "script": small_run / "export" / "model.ts",
        "onnx": tmp_path / "run" / "model.onnx",
    }.items():
        words = ["export", str(model), "--web", str(tmp_path / name), "--web-runtime", str(archive), "--json"]
        assert main([*words, "--allow-code-execution"]) == 0
        written[name] = json.loads(capsys.readouterr().out)
        assert json.loads((tmp_path / name / "model.json").read_text()) == written[name]
    tests = written["run"]["tests"]
    assert [test["name"] for test in tests] == ["Generated faces (held-out part)"]
    assert tests[0]["mae"] == written["onnx"]["tests"][0]["mae"] == written["script"]["tests"][0]["mae"]
    assert written["run"]["interval"]["level"] == 0.9
    assert written["onnx"]["model"] == written["run"]["model"]


@pytest.mark.slow
def test_models_that_a_browser_cannot_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none"), "--web", str(tmp_path / "page")]) == 2
    assert "give a run's folder, an exported .onnx or .ts file, or agebench-base" in capsys.readouterr().err
