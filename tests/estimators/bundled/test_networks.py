"""Bundled networks: shapes and padding as in TensorFlow, weights read as their files state, decoding rules as in the packages."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from agebench.errors import AgebenchError, UserError
from agebench.estimators.bundled import face_api, fairface, other_runtimes, vgg_face, wide_resnet
from agebench.estimators.bundled.human import decode_faceres


def tensorflow_same(image: np.ndarray, size: int, stride: int) -> list[list[np.ndarray]]:
    """Windows of TensorFlow's `same` by its definition: positions outside the image are NaN."""
    length = image.shape[0]
    outputs = -(-length // stride)
    total = max(0, (outputs - 1) * stride + size - length)
    padded = np.full((length + total, length + total), np.nan)
    padded[total // 2 : total // 2 + length, total // 2 : total // 2 + length] = image
    starts = range(0, outputs * stride, stride)
    return [[padded[y : y + size, x : x + size] for x in starts] for y in starts]


@pytest.mark.parametrize(("length", "size", "stride"), [(112, 3, 2), (7, 3, 2), (8, 1, 2), (14, 3, 1)])
def test_face_api_pads_as_tensorflow(length: int, size: int, stride: int) -> None:
    image = np.random.default_rng(0).normal(size=(length, length)).astype(np.float32)
    expected = np.array([[np.nanmax(window) for window in row] for row in tensorflow_same(image, size, stride)])
    padded = face_api._pad_same(torch.from_numpy(image)[None, None], size, stride, -torch.inf)
    np.testing.assert_allclose(functional.max_pool2d(padded, size, stride)[0, 0].numpy(), expected, rtol=1e-6)


def random_face_api_weights(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"entry_flow/conv_in/filters": (3, 3, 3, 32), "entry_flow/conv_in/bias": (32,)}

    def separable(name: str, n_in: int, n_out: int) -> None:
        shapes[f"{name}/depthwise_filter"] = (3, 3, n_in, 1)
        shapes[f"{name}/pointwise_filter"] = (1, 1, n_in, n_out)
        shapes[f"{name}/bias"] = (n_out,)

    reductions = {"entry_flow/reduction_block_0": (32, 64), "entry_flow/reduction_block_1": (64, 128)}
    for name, (n_in, n_out) in (reductions | {"exit_flow/reduction_block": (128, 256)}).items():
        separable(f"{name}/separable_conv0", n_in, n_out)
        separable(f"{name}/separable_conv1", n_out, n_out)
        shapes |= {f"{name}/expansion_conv/filters": (1, 1, n_in, n_out), f"{name}/expansion_conv/bias": (n_out,)}
    for number in (0, 1):
        for layer in range(3):
            separable(f"middle_flow/main_block_{number}/separable_conv{layer}", 128, 128)
    separable("exit_flow/separable_conv", 256, 512)
    shapes |= {"fc/age/weights": (512, 1), "fc/age/bias": (1,), "fc/gender/weights": (512, 2), "fc/gender/bias": (2,)}
    return {name: generator.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def write_manifest(folder: Path, weights: dict[str, np.ndarray], *, cut: int = 0) -> Path:
    """Write weights as uint8 with scale and minimum, or as float32 where an array is one-dimensional."""
    entries, content = [], b""
    for name, values in weights.items():
        entry: dict[str, object] = {"name": name, "shape": list(values.shape), "dtype": "float32"}
        if values.ndim > 1:
            low, scale = float(values.min()), float(np.ptp(values)) / 255
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": low}
            content += np.rint((values - low) / scale).astype(np.uint8).tobytes()
        else:
            content += values.tobytes()
        entries.append(entry)
    (folder / "age_gender_model.bin").write_bytes(content[: len(content) - cut])
    manifest = folder / "age_gender_model-weights_manifest.json"
    manifest.write_text(json.dumps([{"paths": ["age_gender_model-shard1"], "weights": entries}]))
    return manifest


def test_face_api_reads_quantized_weights_and_gives_age_and_gender(tmp_path: Path) -> None:
    weights = random_face_api_weights()
    restored = face_api.read_weights(write_manifest(tmp_path, weights))
    for name, values in weights.items():
        np.testing.assert_allclose(restored[name], values, atol=np.ptp(values) / 255)
    faces = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3, 112, 112)).astype(np.float32))
    with torch.inference_mode():
        ages, genders = face_api.TinyXception(restored)(faces)
        alone, _ = face_api.TinyXception(restored)(faces[1:2])
    assert ages.shape == (3,)
    assert len(set(ages.tolist())) == 3
    np.testing.assert_allclose(ages[1:2].numpy(), alone.numpy(), rtol=1e-4)
    assert genders.shape == (3, 2)
    np.testing.assert_allclose(genders.sum(1).numpy(), 1, rtol=1e-5)


def test_a_short_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgebenchError, match=r"age_gender_model-weights_manifest\.json: its weights have"):
        face_api.read_weights(write_manifest(tmp_path, random_face_api_weights(), cut=4))


def random_layers() -> wide_resnet.Arrays:
    generator, layers = np.random.default_rng(0), {}
    shapes = [(3, 3, 3, 16)]
    for n_in, n_out, _ in wide_resnet._BLOCKS:
        shapes += [(3, 3, n_in, n_out), (3, 3, n_out, n_out)] + ([(1, 1, n_in, n_out)] if n_in != n_out else [])
    for number, shape in enumerate(shapes, 1):
        layers[f"conv2d_{number}"] = (generator.normal(0, 0.02, shape).astype(np.float32),)
    widths = [width for n_in, n_out, _ in wide_resnet._BLOCKS for width in (n_in, n_out)] + [512]
    for number, width in enumerate(widths, 1):
        arrays = [generator.uniform(0.5, 1.5, width).astype(np.float32) for _ in range(4)]
        layers[f"batch_normalization_{number}"] = tuple(arrays)
    layers["dense_2"] = (generator.normal(0, 0.001, (16 * 16 * 512, 101)).astype(np.float32),)
    return layers


def test_wide_resnet_gives_distributions_of_101_ages() -> None:
    network = wide_resnet.WideResNet(random_layers()).eval()
    faces = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (2, 3, 64, 64)).astype(np.float32))
    with torch.inference_mode():
        probabilities = network(faces).numpy()
    assert probabilities.shape == (2, 101)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_wide_resnet_pools_as_tensorflow_without_padding_in_the_mean() -> None:
    image = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    expected = np.array([[np.nanmean(window) for window in row] for row in tensorflow_same(image, 8, 1)])
    padding = wide_resnet._same(7)
    values = functional.avg_pool2d(functional.pad(torch.from_numpy(image)[None, None], padding), 8, 1)
    area = functional.avg_pool2d(functional.pad(torch.ones(1, 1, 16, 16), padding), 8, 1)
    np.testing.assert_allclose((values / area)[0, 0].numpy(), expected, atol=1e-6)


def test_human_decodes_faceres_by_the_likelier_neighbor() -> None:
    probabilities = np.zeros((4, 100))
    probabilities[0, [29, 30, 31]] = 0.1, 0.6, 0.3
    probabilities[1, [29, 30, 31]] = 0.3, 0.6, 0.1
    probabilities[2, [0, 1]] = 0.8, 0.2
    probabilities[3, [98, 99]] = 0.4, 0.6
    np.testing.assert_allclose(decode_faceres(probabilities), [33, 27, 2, 95])


def keras_file(path: Path, layers: dict[str, tuple[np.ndarray, ...]]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in [*layers, "flatten"]]
        file.create_group("flatten").attrs["weight_names"] = []
        for name, arrays in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{number}:0".encode() for number in range(len(arrays))]
            for number, array in enumerate(arrays):
                group[f"{name}/{number}:0"] = array


def test_vgg_face_reads_a_keras_file_and_follows_its_layers(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = [(3, 3, 3, 4), (3, 3, 4, 4), (3, 3, 4, 6), (2, 2, 6, 5), (1, 1, 5, 7)]
    arrays = [(generator.normal(size=shape).astype(np.float32), np.zeros(shape[3], np.float32)) for shape in shapes]
    keras_file(tmp_path / "age.h5", {f"conv2d_{number}": pair for number, pair in enumerate(arrays)})
    layers = [pair for pair in wide_resnet.read_layers(tmp_path / "age.h5").values() if pair[0].ndim == 4]
    network = vgg_face.VggFace(layers, stages=(2, 1))
    faces = torch.from_numpy(generator.normal(size=(2, 3, 8, 8)).astype(np.float32))
    x = faces
    for number, (kernel, _) in enumerate(arrays):
        x = functional.conv2d(x, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), padding=1 if number < 3 else 0)
        x = functional.relu(x) if number < 4 else x
        x = functional.max_pool2d(x, 2) if number in (1, 2) else x
    with torch.inference_mode():
        np.testing.assert_allclose(network(faces).numpy(), x.flatten(1).softmax(1).numpy(), atol=1e-6)
    with pytest.raises(AgebenchError, match="it needs 6 inputs"):
        vgg_face.VggFace(layers[:1] + layers[2:3] + layers[4:])


def test_fairface_splits_the_columns_of_its_linear_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet34

    network = resnet34(num_classes=fairface.N_OUTPUTS).eval()
    torch.save(network.state_dict(), tmp_path / fairface.WEIGHTS)
    monkeypatch.setenv("AGEBENCH_PACKAGE_FOLDER", str(tmp_path))
    faces = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    estimates = fairface.estimate(faces)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(faces))
    np.testing.assert_allclose(estimates["age"], outputs[:, 9:].softmax(1).numpy(), rtol=1e-4)
    np.testing.assert_allclose(estimates["gender"], outputs[:, 7:9].softmax(1).numpy(), rtol=1e-4)


class _Output:
    def __init__(self, name: str) -> None:
        self.name = name

    def get_names(self) -> set[str]:
        return {self.name}


@pytest.mark.parametrize("age_output", ["age_conv3", "fc3_a"])
def test_openvino_is_called_face_by_face(age_output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(inputs: list[np.ndarray]) -> dict[_Output, np.ndarray]:
        assert inputs[0].shape == (1, 3, 62, 62)
        prob = np.array([[[[0.25]], [[0.75]]]])
        return {_Output("prob"): prob, _Output(age_output): np.full((1, 1, 1, 1), inputs[0].mean() / 100)}

    monkeypatch.setattr(other_runtimes, "_openvino_model", lambda: model)
    faces = np.stack([np.full((3, 62, 62), age, np.float32) for age in (20, 50)])
    estimates = other_runtimes.estimate_openvino(faces)
    np.testing.assert_allclose(estimates["age"], [0.2, 0.5], rtol=1e-6)
    assert estimates["gender"].tolist() == [[0.25, 0.75]] * 2


@pytest.mark.parametrize("module", ["openvino", "cv2"])
def test_missing_runtimes_are_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    estimate = other_runtimes.estimate_openvino if module == "openvino" else other_runtimes.estimate_dex
    with pytest.raises(UserError, match="pip install"):
        estimate(np.zeros((1, 3, 62, 62), np.float32))


def test_dex_probabilities_are_one_row_per_face(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        def setInput(self, faces: np.ndarray) -> None:
            self.count = len(faces)

        def forward(self) -> np.ndarray:
            return np.full((self.count, 101, 1, 1), 1 / 101)

    network = Network()
    monkeypatch.setattr(other_runtimes, "_dex_network", lambda: network)
    assert other_runtimes.estimate_dex(np.zeros((3, 3, 224, 224), np.float32)).shape == (3, 101)
