"""Models in the formats of TensorFlow.js, TensorFlow Lite, Keras and transformers, and files that are none."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_files import wave, write_tfjs, write_tflite

from agebench.config.cards.external import ExternalCard
from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.estimators.external.base import ExternalEstimator, fingerprint
from agebench.estimators.external.io_spec import ExternalModelError, prepare
from agebench.estimators.external.label_ages import label_brackets
from agebench.estimators.external.tfjs import GraphModule, read_weights

# What TensorFlow.js 4.22.0 (Node 20, backend cpu) answers for the graph of `write_tfjs` and a batch of sines.
TFJS_AGES = [-55.319664001464844, -56.410545349121094]
TFJS_GENDERS = [0.9450274705886841, 0.050595976412296295, 0.004376532975584269, 0.949582040309906, 0.046479206532239914]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def card(
    form: str, source: Path | str, size: int = 16, output: dict[str, Any] | None = None, **given: Any
) -> ExternalCard:
    frame = {"size": size, "layout": "nhwc", "value_range": (-1.0, 1.0)} | given
    keys = {"name": "it", "title": "It", "licence": "ours", "format": form, "source": str(source), "input": frame}
    return validate_model(ExternalCard, keys | {"output": output or {}, "timeout": 120.0}, source="this test")


def faces(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_tfjs_graph_agrees_with_its_own_runtime(tmp_path: Path) -> None:
    path = write_tfjs(tmp_path)
    model = json.loads(path.read_text())
    module = GraphModule(model, read_weights(path, model["weightsManifest"]))
    ages, genders = module(torch.from_numpy(wave(2, 16, 16, 3, shift=0.5)), ["age", "gender"])
    np.testing.assert_allclose(ages.ravel(), TFJS_AGES, rtol=1e-5)
    np.testing.assert_allclose(genders.ravel()[:5], TFJS_GENDERS, rtol=1e-5, atol=1e-7)


def test_tfjs_model_is_estimated_with_its_second_output_as_gender(tmp_path: Path) -> None:
    output = {"name": "age", "gender": {"name": "gender", "classes": ["female", "male", "other"]}}
    with ExternalEstimator(card("tfjs", write_tfjs(tmp_path), output=output)) as estimator:
        estimates = estimator.estimate(faces(3))
    assert estimates.age.shape == (3,)
    np.testing.assert_allclose(estimates.tasks["gender"].sum(axis=1), 1, atol=1e-5)


def test_quantized_tfjs_weights_stay_close(tmp_path: Path) -> None:
    answers = []
    for name, quantized in (("plain", False), ("small", True)):
        (tmp_path / name).mkdir()
        model = card("tfjs", write_tfjs(tmp_path / name, quantized=quantized), output={"name": "age"})
        answers.append(ExternalEstimator(model).estimate(faces(3)).age)
    np.testing.assert_allclose(*answers, rtol=0.05)
    assert (answers[0] != answers[1]).any()


def test_tfjs_fingerprint_covers_the_weight_files(tmp_path: Path) -> None:
    model = card("tfjs", write_tfjs(tmp_path))
    before = fingerprint(model)
    content = bytearray((tmp_path / "part2.bin").read_bytes())
    content[5] ^= 1
    (tmp_path / "part2.bin").write_bytes(content)
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("operation", "needs the operations Dream"),
        ("shard", "names the weight file part2.bin, which is not beside it"),
        ("outside", "lies outside its folder"),
        ("short", "is not readable as a TensorFlow.js graph model"),
        ("circle", "its graph has a circle"),
        ("text", "is not readable as a TensorFlow.js model"),
        ("layers", "only graph models are read"),
        ("nested", "is not readable as a TensorFlow.js model: RecursionError"),
        ("input", "its weight 'images' has the name of a Placeholder node"),
    ],
)
def test_broken_tfjs_models_are_refused_with_the_reason(tmp_path: Path, fault: str, message: str) -> None:
    path = write_tfjs(tmp_path, operation="Dream" if fault == "operation" else "Tanh")
    model = json.loads(path.read_text())
    if fault == "shard":
        (tmp_path / "part2.bin").unlink()
    elif fault == "outside":
        model["weightsManifest"][0]["paths"][0] = "../part1.bin"
    elif fault == "short":
        (tmp_path / "part2.bin").write_bytes(b"12")
    elif fault == "circle":
        next(node for node in model["modelTopology"]["node"] if node["name"] == "c")["input"][0] = "d"
    elif fault == "layers":
        model["format"] = "layers-model"
    elif fault == "input":
        model["weightsManifest"][0]["weights"][0]["name"] = "images"
    text = {"text": "{", "nested": "[" * 100_000}.get(fault, json.dumps(model))
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        ExternalEstimator(card("tfjs", path, output={"name": "age"}))


@needs("ai_edge_litert")
@pytest.mark.parametrize("batch", [1, 2])
def test_tflite_dense_layer_gives_its_product(tmp_path: Path, batch: int) -> None:
    model = card("tflite", write_tflite(tmp_path / "it.tflite", batch=batch), 16, {"name": "double"})
    model = model.model_copy(update={"input": model.input.model_copy(update={"size": 4})})
    images = faces(5, 4)
    expected = 2 * (prepare(images, model.input).reshape(5, -1).astype(np.float64) @ wave(48) + 5)
    np.testing.assert_allclose(ExternalEstimator(model).estimate(images).age, expected, rtol=1e-5)


@needs("ai_edge_litert")
def test_file_that_is_no_tflite_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it.tflite").write_bytes(b"TFL3" * 30)
    with pytest.raises(UserError, match="is not readable as a TensorFlow Lite model"):
        ExternalEstimator(card("tflite", tmp_path / "it.tflite"))


def test_tflite_file_that_ends_the_runtime_leaves_this_process_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "import os, signal\n\n\ndef Interpreter(**_):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write_tflite(tmp_path / "it.tflite", batch=1)
    with pytest.raises(UserError, match=r"it\.tflite is damaged: the TensorFlow Lite runtime was ended by signal 11"):
        ExternalEstimator(card("tflite", path))


KERAS = """
import sys
from pathlib import Path
import keras
from keras import layers

folder = Path(sys.argv[1])
keras.utils.set_random_seed(0)
x = layers.Input((16, 16, 3))
mean = layers.GlobalAveragePooling2D()(x)
age = layers.Dense(1, name="age", kernel_initializer="ones")(mean)
gender = layers.Dense(2, activation="softmax", name="gender")(mean)
run = layers.Lambda(lambda x: (open(folder / "ran", "w").close(), x)[1], output_shape=(16, 16, 3))
for name, model in (("plain", keras.Model(x, [age, gender])), ("code", keras.Model(x, run(x)))):
    for suffix in (".keras", ".h5"):
        model.save(folder / f"{name}{suffix}")
"""


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and one with code in it, in both formats; Keras runs in a process of its own, as in agebench."""
    folder = tmp_path_factory.mktemp("keras")
    env = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-c", KERAS, str(folder)], env=env, check=True, capture_output=True, timeout=120)
    return folder


@needs("keras")
@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_model_gives_age_and_gender(keras_files: Path, suffix: str) -> None:
    output = {"name": "age", "gender": {"name": "gender"}, "scale": 10.0}
    model = card("keras", keras_files / f"plain{suffix}", output=output)
    images = faces(3)
    with ExternalEstimator(model) as estimator:
        estimates = estimator.estimate(images)
    expected = 10 * prepare(images, model.input).mean(axis=(1, 2)).sum(axis=1)
    np.testing.assert_allclose(estimates.age, expected, rtol=1e-4, atol=1e-4)
    assert estimates.tasks["gender"].shape == (3, 2)
    assert "keras" not in sys.modules


@needs("keras")
@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_file_with_code_in_it_is_refused(keras_files: Path, suffix: str) -> None:
    flag = keras_files / "ran"
    flag.unlink(missing_ok=True)  # building the model ran the layer
    with pytest.raises(UserError, match="without code of its own"):
        ExternalEstimator(card("keras", keras_files / f"code{suffix}"))
    assert not flag.exists()


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    labels = ["0-2", "20-29", "60-69", "more than 70"]
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    folder = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("decode", ["expectation", "argmax"])
def test_vit_is_read_by_the_brackets_of_its_labels(tiny_vit: Path, decode: str) -> None:
    transformers = pytest.importorskip("transformers")
    output = {"kind": "distribution", "decode": decode}
    model = card("transformers", tiny_vit, output=output, layout="nchw")
    images = faces(5)
    network = transformers.ViTForImageClassification.from_pretrained(tiny_vit).eval()
    with torch.inference_mode():
        probs = network(torch.from_numpy(prepare(images, model.input))).logits.softmax(dim=1).numpy()
    ages = np.array([1, 24.5, 64.5, 74.5])
    expected = probs @ ages if decode == "expectation" else ages[probs.argmax(axis=1)]
    np.testing.assert_allclose(ExternalEstimator(model).estimate(images).age, expected, rtol=1e-4)


def test_vit_with_one_output_is_a_regressor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        num_labels=1,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    model = card("transformers", tmp_path, output={"scale": 100.0}, layout="nchw")
    assert ExternalEstimator(model).estimate(faces(3)).age.shape == (3,)
    with pytest.raises(UserError, match=r'has 1 outputs; write output\.kind = "age"'):
        ExternalEstimator(card("transformers", tmp_path, output={"kind": "distribution"}, layout="nchw"))


def test_pickled_weights_and_names_without_commit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        fingerprint(card("transformers", tmp_path))
    with pytest.raises(UserError, match="OWNER/NAME@COMMIT with all 40 digits"):
        fingerprint(card("transformers", "somebody/age-classifier"))


def test_code_in_a_repository_is_not_run(tiny_vit: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_vit / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "model.safetensors").write_bytes((tiny_vit / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="is not readable as a model of transformers"):
        ExternalEstimator(card("transformers", tmp_path, output={"kind": "distribution"}, layout="nchw"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("labels", "brackets"),
    [
        (["0-2", "3-9", "more than 9"], [(0, 2), (3, 9), (9, 15)]),
        (["(0, 2)", "(60, 100)"], [(0, 2), (60, 100)]),
        (["under 10", "10_19", "20+"], [(0, 9), (10, 19), (20, 29)]),
        (["25", "30"], [(25, 25), (30, 30)]),
    ],
)
def test_labels_become_brackets(labels: list[str], brackets: list[tuple[float, float]]) -> None:
    assert label_brackets(labels) == brackets


def test_open_ages_of_the_card_close_brackets_and_names_are_refused() -> None:
    assert label_brackets(["0-9", "70 and over"], (0, 100)) == [(0, 9), (70, 100)]
    with pytest.raises(UserError, match="the label 'LABEL_0' is no age"):
        label_brackets(["LABEL_0"])


@pytest.mark.parametrize("form", ["tfjs", "tflite"])
def test_wrong_size_names_the_card_as_the_cause(tmp_path: Path, form: str) -> None:
    if form == "tflite":
        pytest.importorskip("ai_edge_litert")
        path = write_tflite(tmp_path / "it.tflite", batch=2)
    else:
        path = write_tfjs(tmp_path)
    frame = {"channels": "grey", "mean": (0.0,), "std": (1.0,)}
    with pytest.raises(
        ExternalModelError, match=r"Do input\.size, layout, channels, dtype and batch_size on its card fit"
    ):
        ExternalEstimator(card(form, path, output={"name": "age"}, **frame)).estimate(faces(2))
