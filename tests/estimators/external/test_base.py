"""Models of every kind, made here, called as their cards say; and every way in which one can be wrong."""

import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from agebench.config.cards.external import ExternalCard, ExternalInput
from agebench.config.toml_io import validate_model
from agebench.errors import AgebenchError, UserError
from agebench.estimators.external.base import ExternalEstimator, estimate, fingerprint
from agebench.estimators.external.decoding import parse_output
from agebench.estimators.external.io_spec import ExternalModelError, prepare, select_output
from agebench.estimators.external.model_files import reason

SIZE = 32


class Redness(nn.Module):
    """Says 100 times the mean of the first channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0].mean(dim=(1, 2))[:, None] * 100


def card(**keys: Any) -> ExternalCard:
    base = {"name": "it", "title": "It", "licence": "ours", "input": {"size": SIZE}, "batch_size": 4, "timeout": 60.0}
    return validate_model(ExternalCard, base | keys, source="this test")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE, 3), dtype=np.uint8)


def ask(model: ExternalCard, faces: np.ndarray) -> np.ndarray:
    return estimate(model, faces, np.arange(len(faces))).age


def redness(faces: np.ndarray) -> np.ndarray:
    return faces[..., 0].mean(axis=(1, 2)) / 2.55


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("files"), Redness().eval()
    example = torch.zeros(4, 3, SIZE, SIZE)
    torch.jit.script(model).save(folder / "model.ts")
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: batch},)), folder / "model.pt2")
    write_onnx(folder / "model.onnx")
    return {
        "torchscript": folder / "model.ts",
        "torch-export": folder / "model.pt2",
        "onnx": folder / "model.onnx",
    }


def write_onnx(path: Path) -> None:
    """Redness, and beside it an output that is something else."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Slice", ["images", "zero", "one", "one"], ["red"]),
        helper.make_node("ReduceMean", ["red", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "hundred"], ["age"]),
        helper.make_node("Neg", ["age"], ["other"]),
    ]
    constants = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
        for name, values in (("zero", [0]), ("one", [1]), ("axes", [2, 3]))
    ]
    constants.append(helper.make_tensor("hundred", kind, [1], [100.0]))
    graph = helper.make_graph(
        nodes,
        "redness",
        [helper.make_tensor_value_info("images", kind, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, kind, ["n", 1]) for name in ("age", "other")],
        constants,
    )
    # The slice is of axis 1; its axes are the fourth input.
    graph.node[0].input[3] = "one"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("form", ["torchscript", "torch-export", "onnx"])
def test_a_file_is_called(form: str, files: dict[str, Path], faces: np.ndarray) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    output = {"name": "age"} if form == "onnx" else {}
    found = ask(card(format=form, source=str(files[form]), output=output), faces)
    np.testing.assert_allclose(found, redness(faces), atol=1e-3)


def test_an_output_that_is_not_there_and_one_that_is_not_named(files: dict[str, Path], faces: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ExternalModelError, match=r"outputs: 0 = age, 1 = other; output.name = 'years' is none of them"):
        ask(card(format="onnx", source=str(files["onnx"]), output={"name": "years"}), faces)
    with pytest.raises(ExternalModelError, match=r"outputs: 0 = age, 1 = other; the card must name the one to read"):
        ask(card(format="onnx", source=str(files["onnx"])), faces)


@pytest.mark.parametrize("form", ["torchscript", "torch-export", "onnx"])
def test_a_file_that_is_missing_or_something_else(form: str, tmp_path: Path, faces: np.ndarray) -> None:
    with pytest.raises(UserError, match="no such file"):
        ask(card(format=form, source=str(tmp_path / "none")), faces)
    (tmp_path / "text").write_text("no model")
    with pytest.raises(UserError, match="not readable as"):
        ask(card(format=form, source=str(tmp_path / "text")), faces)
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n")
    with pytest.raises(UserError, match="Git LFS pointer"):
        ask(card(format=form, source=str(tmp_path / "pointer")), faces)
    with pytest.raises(UserError, match="package no_such_thing is not installed: pip install no-such-thing"):
        ask(card(format=form, source="no_such_thing:model.onnx"), faces)
    with pytest.raises(UserError, match="package json holds no file"):
        ask(card(format=form, source="json:model.onnx"), faces)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("form", ["torchscript", "torch-export", "onnx"])
def test_a_pickle_in_the_place_of_a_model_is_not_run(form: str, tmp_path: Path, faces: np.ndarray) -> None:
    mark = tmp_path / "it ran"
    (tmp_path / "plain").write_bytes(pickle.dumps(Hostile(mark)))
    torch.save(Hostile(mark), tmp_path / "zipped")
    for name in ("plain", "zipped"):
        with pytest.raises(UserError, match="not readable as"):
            ask(card(format=form, source=str(tmp_path / name)), faces)
    assert not mark.exists()


def test_a_size_that_does_not_fit_is_explained(files: dict[str, Path]) -> None:
    pytest.importorskip("onnxruntime")
    model = card(format="onnx", source=str(files["onnx"]), input={"size": 48}, output={"name": "age"})
    expected = r"refuses a batch of the shape \(4, 3, 48, 48\).*Got: 48 Expected: 32.*input.size"
    with pytest.raises(ExternalModelError, match=expected):
        ask(model, np.zeros((4, 48, 48, 3), dtype=np.uint8))


CALLABLE = """
import os, sys, time
import numpy as np
def redness(batch):
    print("a callable may print")
    return batch[:, 0].mean(axis=(1, 2)) * 100
def listed(batch):
    return [float(face[0].mean()) * 100 for face in batch]
def few(batch):
    return redness(batch)[:-1]
def nothing(batch):
    return np.full(len(batch), np.nan)
def hangs(batch):
    os.fork()  # a child that holds the pipe
    time.sleep(600)
def raises(batch):
    raise KeyError("weights")
def dies(batch):
    os._exit(3)
def wide(batch):
    return np.zeros((len(batch), 7))
def words(batch):
    return ["young"] * len(batch)
constant = 7
calls = 0
def count(batch, fail):
    global calls
    calls += 1
    if not batch.any():
        fail()
    return np.full(len(batch), calls)
def picky(batch):
    return count(batch, lambda: [][0])
def mortal(batch):
    return count(batch, lambda: os._exit(3))
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("code") / "theirs.py"
    file.write_text(CALLABLE)
    return file


@pytest.mark.parametrize("function", ["redness", "listed"])
def test_a_callable_in_a_file_is_called(function: str, module: Path, faces: np.ndarray) -> None:
    found = ask(card(format="callable", source=f"{module}:{function}"), faces)
    np.testing.assert_allclose(found, redness(faces), atol=1e-3)


def test_a_callable_in_a_package_is_called(faces: np.ndarray, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(module.parent))
    found = ask(card(format="callable", source="theirs:redness"), faces)
    np.testing.assert_allclose(found, redness(faces), atol=1e-3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("few", "gives 3 rows for 4 faces"),
        ("nothing", "NaN or infinity for 4 of 4 faces"),
        ("hangs", "did not return within 2 s"),
        ("raises", r"KeyError: 'weights' \(theirs.py, line"),
        ("dies", "ended with exit code 3"),
        ("wide", r"7 numbers a face \(shape \(4, 7\)\).*output.column = N, from 0 to 6"),
        ("words", "could not convert string to float"),
        ("constant", "constant is int, not a function"),
        ("no_such", "has no attribute 'no_such'"),
    ],
)
def test_a_callable_that_breaks_its_contract(function: str, message: str, module: Path, faces: np.ndarray) -> None:
    timeout = 2.0 if function == "hangs" else 60.0
    with pytest.raises(ExternalModelError, match=message):
        ask(card(format="callable", source=f"{module}:{function}", timeout=timeout), faces)


@pytest.mark.parametrize(
    ("function", "message", "calls"), [("picky", "IndexError", 2), ("mortal", "ended with exit code 3", 1)]
)
def test_failed_call_ends_no_later_one(function: str, message: str, calls: int, module: Path) -> None:
    """The process of an exception goes on; where it ended, the next call has a new one, which counts its calls anew."""
    dark, bright = np.zeros((1, SIZE, SIZE, 3), np.uint8), np.ones((1, SIZE, SIZE, 3), np.uint8)
    with ExternalEstimator(card(format="callable", source=f"{module}:{function}")) as estimator:
        with pytest.raises(ExternalModelError, match=message):
            estimator.estimate(dark)
        assert estimator.estimate(bright).age.tolist() == [calls]
    with pytest.raises(ExternalModelError, match="model 'it' is closed; open it again"):
        estimator.estimate(bright)


def test_a_callable_in_no_module(faces: np.ndarray) -> None:
    with pytest.raises(ExternalModelError, match="No module named 'no_such_module'"):
        ask(card(format="callable", source="no_such_module:predict"), faces)


SCRIPT = """
import csv, sys, time
import numpy as np
from PIL import Image
how, source, target = sys.argv[1:]
paths = [row["path"] for row in csv.DictReader(open(source))]
ages = {path: np.asarray(Image.open(path))[..., 0].mean() / 2.55 for path in paths}
if how == "fails": sys.exit("no weights found")
if how == "hangs": time.sleep(600)
if how == "silent": sys.exit()
if how == "few": paths.pop(3)
if how == "nan": ages[paths[2]] = "nan"
if how == "reversed": paths.reverse()
with open(target, "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "years" if how == "misnamed" else "age"])
    table.writerows([[path, ages[path]] for path in paths])
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("a script") / "estimate.py"
    file.write_text(SCRIPT)
    return file


def command(script: Path, how: str, timeout: float = 60.0) -> ExternalCard:
    line = f"'{sys.executable}' '{{here}}/estimate.py' {how} {{input}} {{output}}"
    return card(format="command", source=line, timeout=timeout).located(script.parent)


@pytest.mark.parametrize("how", ["right", "reversed"])
def test_a_command_is_asked(how: str, script: Path, faces: np.ndarray) -> None:
    np.testing.assert_allclose(ask(command(script, how), faces), redness(faces), atol=1e-3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("fails", "exit code 1: no weights found"),
        ("hangs", "did not end within 1 s"),
        ("silent", "wrote no {output}"),
        ("few", "answers for 10 of 11 images, the first without an answer is 000003.png"),
        ("nan", "age of 000002.png is 'nan'"),
        ("misnamed", "no column age; there are: path, years"),
    ],
)
def test_a_command_that_breaks_its_contract(how: str, message: str, script: Path, faces: np.ndarray) -> None:
    with pytest.raises(ExternalModelError, match=message):
        ask(command(script, how, 1.0 if how == "hangs" else 60.0), faces)


def test_a_program_that_is_not_there(faces: np.ndarray) -> None:
    with pytest.raises(ExternalModelError, match="no-such-program cannot be started"):
        ask(card(format="command", source="no-such-program {input} {output}"), faces)


@pytest.mark.parametrize(
    ("form", "source", "message"),
    [
        ("onnx", "none.onnx", "no such file"),
        ("callable", "no_such_module:f", "no module called no_such_module"),
        ("callable", "none.py:f", "no such file: none.py"),
        ("command", "no-such-program {input} {output}", "no such program: no-such-program"),
    ],
)
def test_what_is_missing_is_found_before_any_work(form: str, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fingerprint(card(format=form, source=source))


def test_what_a_model_takes_is_made_in_the_cards_order() -> None:
    face = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    face[..., 0], face[..., 2] = 255, 51
    rgb = prepare(face, ExternalInput(value_range=(-1, 1)))
    assert rgb.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(rgb[0, :, 0, 0], [1, -1, -0.6], atol=1e-6)
    bgr = prepare(face, ExternalInput(channels="bgr", layout="nhwc", mean=(0, 0, 0.5), std=(0.5,)))
    np.testing.assert_allclose(bgr[0, 0, 0], [0.4, 0, 1], atol=1e-6)
    grey = prepare(face, ExternalInput(channels="grey", dtype="uint8"))
    assert grey.dtype == np.uint8
    assert grey[0, 0, 0, 0] == round(255 * 0.299 + 51 * 0.114)


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 90))
def test_a_distribution_is_read_by_its_ages(logits: list[float], first: int) -> None:
    grid = [float(first), first + 1.0, first + 2.0]
    model = card(format="onnx", source="m", output={"kind": "distribution", "ages": grid, "logits": True})
    found = parse_output(np.array([logits]), 1, model)
    assert first <= found.age[0] <= first + 2
    assert found.probs is not None
    assert found.std is not None
    assert found.probs.shape == (1, first + 3)
    np.testing.assert_allclose(found.probs.sum(), 1)
    np.testing.assert_allclose(found.probs[0] @ np.arange(first + 3), found.age[0], atol=1e-6)
    assert 0 <= found.std[0] <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 3), 0.5), "no distribution.*output.logits = true"),
        (np.full((2, 4), 0.25), r"\(B, A\) = \(2, 3\)"),
        (np.full(2, 30.0), r"\(B, A\) = \(2, 3\)"),
    ],
)
def test_what_is_no_distribution_is_refused(values: np.ndarray, message: str) -> None:
    model = card(format="onnx", source="m", output={"kind": "distribution", "ages": [0, 40, 80]})
    with pytest.raises(ExternalModelError, match=message):
        parse_output(values, 2, model)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "pickle", "source": "m"}, "format = 'pickle'"),
        ({"format": "callable", "source": "module"}, "write a callable as package.module:function"),
        ({"format": "command", "source": "python it.py"}, "a command names {input} and {output}"),
        (
            {"format": "command", "source": "python 'it.py {input} {output}"},
            "No closing quotation|no closing quotation",
        ),
        ({"format": "onnx", "source": "m", "input": {"mean": [0.5, 0.5]}}, "mean has 2 numbers"),
        ({"format": "onnx", "source": "m", "input": {"std": [0.0]}}, "std must not be 0"),
        ({"format": "onnx", "source": "m", "output": {"column": -1}}, "output.column = -1"),
        ({"format": "onnx", "source": "m", "output": {"column": 1, "kind": "distribution"}}, "column is for kind"),
        (
            {"format": "command", "source": "it {input} {output}", "output": {"column": 1}},
            "a command has a column named age",
        ),
    ],
)
def test_a_card_that_cannot_be_meant(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(AgebenchError, match=message):
        card(**keys)


def test_sources_are_found_from_the_cards_folder(tmp_path: Path) -> None:
    assert card(format="onnx", source="m.onnx").located(tmp_path).source == str(tmp_path / "m.onnx")
    assert card(format="onnx", source="package:m.onnx").located(tmp_path).source == "package:m.onnx"
    assert card(format="callable", source="m.py:f").located(tmp_path).source == f"{tmp_path / 'm.py'}:f"
    assert card(format="callable", source="a.b:f").located(tmp_path).source == "a.b:f"


def test_an_output_column_is_read() -> None:
    values = np.array([[0.9, 0.1, 0.30], [0.2, 0.8, 0.55]])
    model = card(format="onnx", source="m", output={"column": 2, "scale": 100, "offset": 1})
    np.testing.assert_allclose(parse_output(values, 2, model).age, [31, 56])
    np.testing.assert_allclose(parse_output(values[:, None, :, None], 2, model).age, [31, 56])
    with pytest.raises(ExternalModelError, match=r"output\.column = 2 is none of 0 to 1"):
        parse_output(values[:, :2], 2, model)
    with pytest.raises(ExternalModelError, match=r"gives the shape \(2, 3, 2\)"):
        parse_output(np.zeros((2, 3, 2)), 2, model)


def test_several_numbers_are_never_guessed_to_be_a_distribution() -> None:
    values = np.array([[0.2, 0.5, 0.3]])
    with pytest.raises(ExternalModelError) as refused:
        parse_output(values, 1, card(format="onnx", source="m"))
    assert "distribution" not in str(refused.value)
    for logits in (False, True):
        model = card(format="onnx", source="m", output={"kind": "distribution", "logits": logits})
        with pytest.raises(ExternalModelError, match=r"must state what each of them stands for: output.ages"):
            parse_output(values, 1, model)


@pytest.mark.parametrize(("name", "sign"), [("age", 1), ("other", -1), ("0", 1), ("1", -1)])
def test_an_output_is_named_or_numbered(name: str, sign: int, files: dict[str, Path], faces: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    found = ask(card(format="onnx", source=str(files["onnx"]), output={"name": name}), faces)
    np.testing.assert_allclose(found, sign * redness(faces), atol=1e-3)


def test_an_output_number_may_be_an_integer() -> None:
    assert card(format="onnx", source="m", output={"name": 0}).output.name == "0"


@pytest.mark.parametrize("outputs", [{"a": 1, "b": 2}, (np.ones(2), np.full(2, 2))])
def test_pick_takes_a_number_of_any_outputs(outputs: Any) -> None:
    assert np.all(select_output(outputs, "1", "it") == 2)
    with pytest.raises(ExternalModelError, match="none of them"):
        select_output(outputs, "2", "it")
    with pytest.raises(ExternalModelError, match="the card must name the one to read"):
        select_output(outputs, "", "it")


def test_pick_refuses_a_name_where_there_are_none() -> None:
    assert select_output(np.ones(3), "0", "it").shape == (3,)
    with pytest.raises(ExternalModelError, match="a single output without a name"):
        select_output(np.ones(3), "age", "it")


def test_float16_is_what_the_model_takes(files: dict[str, Path], faces: np.ndarray) -> None:
    made = prepare(faces, ExternalInput(size=SIZE, dtype="float16", value_range=(0, 255), mean=(100.5,)))
    assert made.dtype == np.float16
    assert made.flags.c_contiguous
    assert made.max() == 154.5
    model = card(format="torchscript", source=str(files["torchscript"]), input={"size": SIZE, "dtype": "float16"})
    np.testing.assert_allclose(ask(model, faces), redness(faces), atol=0.2)


def test_a_torchscript_file_gives_no_warning(files: dict[str, Path], faces: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ages = ask(card(format="torchscript", source=str(files["torchscript"])), faces)
    assert len(ages) == len(faces)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Got invalid dimensions\n index: 1 Got: 3 Expected: 64\n Please fix the model.", "Got: 3 Expected: 64"),
        ("a failure\n" + "trace\n" * 200 + "RuntimeError: the cause", "a failure … RuntimeError: the cause"),
        ("", "no reason given"),
    ],
)
def test_reason_keeps_the_line_with_the_cause(text: str, shown: str) -> None:
    assert shown in reason(ValueError(text))


def test_torch_export_file_with_code_is_refused(files: dict[str, Path], faces: np.ndarray, tmp_path: Path) -> None:
    target, mark = tmp_path / "evil.pt2", tmp_path / "ran"
    code = f"__import__('pathlib').Path('{mark}').touch()"
    with zipfile.ZipFile(files["torch-export"]) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".json"):
                content = re.sub(rb'("expr_str":\s*")[^"]*"', lambda match: match[1] + code.encode() + b'"', content)
            copy.writestr(name, content)
    assert target.read_bytes().count(code.encode())
    with pytest.raises(UserError, match="could run code"):
        ask(card(format="torch-export", source=str(target)), faces)
    assert not mark.exists()


def write_onnx_with_weight_file(folder: Path, location: str, weight: Path | None = None) -> Path:
    """Write the mean of a face times a weight that is stored in another file."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "w"], ["age"]),
    ]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [3], [1, 2, 3])
    images = helper.make_tensor_value_info("images", kind, ["n", 3, SIZE, SIZE])
    ages = helper.make_tensor_value_info("age", kind, ["n"])
    graph = helper.make_graph(nodes, "weighted", [images], [ages], [axes, tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (weight or folder / location).write_bytes(np.float32(100).tobytes())
    return folder / "model.onnx"


def test_onnx_fingerprint_covers_its_weight_files(tmp_path: Path, faces: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    model = card(format="onnx", source=str(write_onnx_with_weight_file(tmp_path, "weights.bin")))
    np.testing.assert_allclose(ask(model, faces), faces.mean(axis=(1, 2, 3)) / 2.55, rtol=1e-4)
    before = fingerprint(model)
    (tmp_path / "weights.bin").write_bytes(np.float32(101).tobytes())
    assert fingerprint(model) != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"names the weight file weights\.bin, which is not beside it"):
        fingerprint(model)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "", "link"])
def test_onnx_weights_outside_of_its_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    model = card(format="onnx", source=str(write_onnx_with_weight_file(folder, location, tmp_path / "weights.bin")))
    for use in (fingerprint, lambda model: ask(model, np.zeros((1, SIZE, SIZE, 3), np.uint8))):
        with pytest.raises(UserError, match=r"keeps weights in .*, which is not in its folder"):
            use(model)


def test_torch_export_table_that_unpacks_to_gigabytes_is_not_read(
    faces: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agebench.estimators.external.model_files._MAX_TABLE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/models/model.json", b" " * (2 << 20))
    with pytest.raises(UserError, match=r"model\.json unpacks to 2,097,152 bytes"):
        ask(card(format="torch-export", source=str(tmp_path / "model.pt2")), faces)
