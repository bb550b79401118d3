import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agebench.config.cards.model import Architecture
from agebench.errors import AgebenchError, UserError
from agebench.estimators.base import AgeEstimates
from agebench.estimators.exported import loading
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import INPUT_SIDE_RANGE, read_card
from agebench.estimators.exported.loading import open_exported
from agebench.export import writer
from agebench.export.accuracy_check import AccuracyCheckFailed
from agebench.export.benchmark import measure_speed
from agebench.export.card import RunFacts, build_card
from agebench.export.formats.torch_export import example_sides
from agebench.export.writer import ExportVariant, write_export
from agebench.metrics.schema import MetricsFile
from agebench.models import heads
from agebench.models.age_model import AgeModel, create_model
from agebench.registry.catalog import load_catalog
from agebench.training.augmentation import normalize

pytestmark = pytest.mark.slow  # three exporters, some of which take seconds a file

SIZE = 32
FACES = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
METRICS = MetricsFile.from_json(
    {"train": "synth", "tests": {"synth": {"n": 9, "overall": {"mae": {"value": 5.0, "low": 4.0, "high": 6.0}}}}}
)
FORMATS = ("torchscript", "onnx", "pt2")


def model_of(head: str) -> tuple[AgeModel, Architecture]:
    torch.manual_seed(0)
    card = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=SIZE, head=head)
    model = create_model(card).eval()
    model.head.init_from_ages(torch.tensor([10.0, 30.0, 80.0]))
    return model, card


def write_file(folder: Path, kind: str, head: str = "regression", precision: str = "fp32", **options: Any) -> Path:
    model, architecture = model_of(head)
    card = build_card(model, architecture, load_catalog([]).datasets.get("synth"), RunFacts(seed=0), METRICS)
    variant = ExportVariant(kind, precision)
    path = folder / variant.file
    write_export(model, architecture, card, path, examples=FACES, variant=variant, **options)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file a format, of a head that has a standard deviation and a distribution; nothing may warn while it is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {kind: write_file(tmp_path_factory.mktemp(kind), kind, "mean-variance") for kind in FORMATS}


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, files: dict[str, Path]) -> Path:
    return files[request.param]


def expected(head: str, faces: np.ndarray = FACES) -> Any:
    model, card = model_of(head)
    with torch.inference_mode():
        return model.predict(normalize(torch.from_numpy(faces), card.mean, card.std))


def check(file: ExportedFile, head: str) -> None:
    said, model = file.estimate(FACES), expected(head)
    for ours, theirs, rows in ((said.age, model.age, 1), (said.std, model.std, 1), (said.probs, model.probs, 2)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == np.float32
            assert ours.ndim == rows
            np.testing.assert_allclose(ours, theirs.float().numpy(), atol=2e-3)


def test_a_file_says_all_that_the_model_says(path: Path) -> None:
    check(open_exported(path, trusted=True), "mean-variance")


@pytest.mark.parametrize("kind", FORMATS)
def test_files_average_the_mirror_image(kind: str, tmp_path: Path) -> None:
    model, architecture = model_of("mean-variance")
    with torch.no_grad():
        model.head.linear.weight.mul_(30)
    model.flip_tta = True
    card = build_card(model, architecture, load_catalog([]).datasets.get("synth"), RunFacts(seed=0), METRICS)
    variant = ExportVariant(kind, "fp32")
    write_export(model, architecture, card, tmp_path / variant.file, examples=FACES, variant=variant)
    estimates = open_exported(tmp_path / variant.file, trusted=True).estimate(FACES)
    images = normalize(torch.from_numpy(FACES), architecture.mean, architecture.std)
    with torch.inference_mode():
        expected = model.predict(images)
        model.flip_tta = False
        plain = model.predict(images)
    np.testing.assert_allclose(estimates.age, expected.age.numpy(), atol=2e-3)
    np.testing.assert_allclose(estimates.std, expected.std.numpy(), atol=2e-3)
    assert (plain.age - expected.age).abs().max() > 0.01


@pytest.mark.parametrize("size", [32, 224, 1000, 1001, 1024])
def test_the_example_of_an_export_has_sides_that_a_file_takes(size: int) -> None:
    height, width = example_sides(size)
    assert INPUT_SIDE_RANGE[0] <= min(height, width) <= max(height, width) <= INPUT_SIDE_RANGE[1]
    assert len({size, height, width}) == 3


@pytest.mark.parametrize("head", heads.names())
def test_every_head_becomes_torchscript(head: str, tmp_path: Path) -> None:
    check(open_exported(write_file(tmp_path, "torchscript", head), trusted=True), head)


@pytest.mark.parametrize("head", ["regression", "quantile", "coral", "corn", "drf"])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_other_kinds_of_heads_become_onnx_and_pt2(head: str, kind: str, tmp_path: Path) -> None:
    check(open_exported(write_file(tmp_path, kind, head), trusted=True), head)


@pytest.mark.parametrize("shape", [(0, 64, 64, 3), (1, 200, 200, 3), (70, 32, 32, 3), (2, 48, 1024, 3)])
def test_any_documented_size_and_batch(path: Path, shape: tuple[int, ...]) -> None:
    faces = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    said = open_exported(path, trusted=True).estimate(faces)
    assert said.age.shape == said.std.shape == shape[:1]
    assert said.probs.shape == (shape[0], 101)
    assert np.isfinite(said.age).all()


def test_all_formats_resize_alike(files: dict[str, Path]) -> None:
    faces = np.random.default_rng(2).integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    ages = [open_exported(file, trusted=True).estimate(faces).age for file in files.values()]
    np.testing.assert_allclose(ages[1], ages[0], atol=5e-3)
    np.testing.assert_allclose(ages[2], ages[0], atol=5e-3)


def test_the_card_travels_inside(path: Path) -> None:
    card = open_exported(path, trusted=True).card
    assert card.model.backbone == "agebench.tiny"
    assert card.training.dataset == "synth"
    assert card.figures == METRICS
    assert card.checked is not None
    assert card.checked.max_difference_years <= writer.TOLERANCE
    assert card.format == {".ts": "torchscript", ".onnx": "onnx", ".pt2": "pt2"}[path.suffix]
    assert "uint8 RGB" in card.input.text
    assert card.output.ages == [0, 100]
    assert card.licence
    assert card.intended_use


MANUAL = (Path(__file__).parents[2] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
# What each format may import: nothing of ours, nothing beside torch or onnxruntime and numpy.
PICTURES = {
    "torch": "torch.zeros(2, 3, 100, 90, dtype=torch.uint8)",
    "onnxruntime": "numpy.zeros((2, 3, 100, 90), numpy.uint8)",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_it_runs_where_there_is_nothing_else(kind: str, files: dict[str, Path]) -> None:
    """By the manual's own line."""
    runtime, other = ("onnxruntime", "torch") if kind == "onnx" else ("torch", "onnxruntime")
    strangers = [
        "agebench",
        "timm",
        "torchvision",
        "pandas",
        "scipy",
        "PIL",
        "onnx",
        "onnxscript",
        "safetensors",
        other,
    ]
    line = next(line for line in MANUAL.splitlines() if line.startswith("age, std") and f'"{files[kind].name}"' in line)
    code = (
        f"import sys\nfor name in {strangers!r}: sys.modules[name] = None\n"
        f"import numpy, {runtime}\nimages = {PICTURES[runtime]}\n{line}\n"
        "print(tuple(age.shape), tuple(std.shape), tuple(probs.shape))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=files[kind].parent
    )
    assert done.stdout.strip() == "(2,) (2,) (2, 101)", done.stderr


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((1, 3, 64, 64), np.uint8), "uint8 RGB array"),
        (np.zeros((64, 64, 3), np.uint8), "shape"),
        (np.zeros((1, 8, 64, 3), np.uint8), "32 to 1024"),
        (np.zeros((1, 64, 1025, 3), np.uint8), "32 to 1024"),
        ([1, 2], "list"),
    ],
)
def test_other_inputs_are_refused(path: Path, images: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_exported(path, trusted=True).estimate(images)


def test_a_torchscript_file_refuses_by_itself(files: dict[str, Path]) -> None:
    with pytest.raises(torch.jit.Error, match="images must be"):
        torch.jit.load(str(files["torchscript"]))(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_programs_need_trust(kind: str, files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="can run code of its author"):
        open_exported(files[kind])


def test_onnx_needs_none(files: dict[str, Path]) -> None:
    assert len(open_exported(files["onnx"]).estimate(FACES)) == 6


def test_large_files_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_FILE_BYTES", 100)
    with pytest.raises(UserError, match="more than an exported model may have"):
        open_exported(path, trusted=True)


@pytest.mark.parametrize("suffix", [".ts", ".onnx", ".pt2"])
@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"PK\x03\x04 broken", b"\x08\x08\x3a\xff\xff\xff\xff\xff\x0f"]
)
def test_what_is_no_model_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"not (a )?readable|not a model that"):
        open_exported(file, trusted=True)


def test_a_damaged_file_is_refused(path: Path, tmp_path: Path) -> None:
    file = tmp_path / path.name
    file.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"not (a )?readable"):
        open_exported(file, trusted=True)


@pytest.mark.parametrize("name", ["model.png", "gone.onnx"])
def test_other_paths_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no such file|not an exported model"):
        open_exported(tmp_path / name)


def test_torchscript_of_others_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "model.ts"))
    with pytest.raises(UserError, match="holds no card"):
        open_exported(tmp_path / "model.ts", trusted=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "else"}, "not one of agebench's"),
        ({"input": {}}, r"'input\.planes' is missing.*'input\.size' is missing"),
        ({"input": []}, r"input = \[\]"),
        ({"output": {"ages": [0, 1e9], "std": False, "probs": False}}, r"output\.ages\.1 = 1000000000\.0"),
        ({"output": {"ages": [0, 200], "std": False, "probs": False}}, r"must be two ages from 0 to 199"),
        ({"output": None}, "output = None"),
    ],
)
def test_a_card_that_is_none_is_refused(changed: dict[str, Any], message: str, files: dict[str, Path]) -> None:
    card = open_exported(files["onnx"]).card.to_json() | changed
    with pytest.raises(UserError, match=message):
        read_card(files["onnx"], json.dumps(card))


def test_a_card_is_read_as_it_was_written(files: dict[str, Path]) -> None:
    card = open_exported(files["onnx"]).card
    assert read_card(files["onnx"], json.dumps(card.to_json())) == card
    assert card.figures.tests["synth"].overall["mae"].ci_low == 4.0  # `low` in schema 1


def test_a_card_that_does_not_fit_is_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, architecture = model_of("regression")
    card = build_card(model, architecture, load_catalog([]).datasets.get("synth"), RunFacts(), METRICS)
    card = card.model_copy(update={"output": card.output.model_copy(update={"probs": True})})
    with pytest.raises(UserError, match=r"does not fit its card.*\(1, 101\).*\(0, 0\)"):
        write_export(
            model, architecture, card, tmp_path / "model.ts", examples=FACES, variant=ExportVariant("torchscript")
        )
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TOLERANCE", -1.0)
    with pytest.raises(AgebenchError, match="differs from the trained one"):
        write_file(tmp_path, "torchscript")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions(kind: str, precision: str, tmp_path: Path) -> None:
    file = write_file(tmp_path, kind, precision=precision)
    assert file.name == f"model.{precision}{file.suffix}"
    said = open_exported(file, trusted=True).estimate(FACES)
    assert said.age.dtype == np.float32
    np.testing.assert_allclose(said.age, expected("regression").age.numpy(), atol=1.0)
    assert open_exported(file, trusted=True).card.precision == precision


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_of_onnx(precision: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write_file(tmp_path, "onnx", precision=precision, calibration=FACES)
    np.testing.assert_allclose(open_exported(file).estimate(FACES).age, expected("regression").age.numpy(), atol=3.0)
    assert capfd.readouterr() == ("", "")


def test_speed_is_measured(files: dict[str, Path]) -> None:
    found = measure_speed(open_exported(files["onnx"]), FACES, seconds=0.01)
    assert found["batch_1"].median_ms > 0
    assert found["batch_1"].p95_ms >= found["batch_1"].median_ms
    assert found["batch_64"].images_per_s > 0


@pytest.mark.parametrize(("exact", "kind"), [(True, AgebenchError), (False, AccuracyCheckFailed)])
def test_file_without_finite_ages_is_refused_and_others_are_kept(exact: bool, kind: type[AgebenchError]) -> None:
    class Overflowed:
        def estimate(self, faces: np.ndarray) -> AgeEstimates:
            return AgeEstimates(np.full(len(faces), np.nan, np.float32))

    with pytest.raises(AgebenchError, match="no numbers") as told:
        writer.compare(*model_of("regression"), FACES, Overflowed(), exact=exact)  # type: ignore[arg-type]
    assert told.type is kind
