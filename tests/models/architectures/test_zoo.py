"""The zoo's architectures as models like any other: tasks, exports, a run through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.cli import main
from agebench.errors import UserError
from agebench.export.card import RunFacts, build_card
from agebench.export.writer import ExportVariant, write_export
from agebench.metrics.schema import MetricsFile
from agebench.models.age_model import create_model
from agebench.models.architectures import mivolo, swinface
from agebench.registry.catalog import load_catalog

NAMES = ("mivolo-d1", "volo-d1", "swinface")
CARDS = {name: load_catalog().models.get(name).architecture for name in NAMES}


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of block, once: what is exported or trained is the same code, a third as long."""
    monkeypatch.setattr(mivolo, "DEPTHS", (1, 1, 1, 1))
    monkeypatch.setattr(swinface, "DEPTHS", (2, 1, 1, 1))  # the second is the first to shift its windows


def test_mivolos_age_is_not_rounded_under_autocast() -> None:
    answer = mivolo._TokenClassifierHead(8, 1)
    tokens = torch.randn(4, 5, 8)
    plain = answer(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(answer(tokens), plain)
        assert torch.equal(answer(tokens.bfloat16()), answer(tokens.bfloat16().float()))


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", ["volo-d1", "swinface"])
def test_a_task_trains_its_own_part_alone(name: str) -> None:
    """Gender has its place, anything else gets one; what nobody asks for stays frozen."""
    card = CARDS[name]
    model = create_model(card)
    untouched = sum(parameter.requires_grad for parameter in model.parameters())
    model.add_task("gender", ("female", "male"))
    with_gender = sum(parameter.requires_grad for parameter in model.parameters())
    model.add_task("race", ("a", "b", "c"))
    assert untouched < with_gender < sum(parameter.requires_grad for parameter in model.parameters())
    images, ages = torch.randn(2, card.channels, card.size, card.size), torch.tensor([20.0, 40.0])
    logits = model(images)
    assert logits.shape == (2, 1 + 2 + 3)
    losses = model.losses(logits, ages, {"gender": torch.tensor([0, 1]), "race": torch.tensor([2, -1])})
    sum(losses.values(), torch.zeros(())).backward()
    lost = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert lost == []


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("swinface", {"size": 128}, "accepts faces of 112 px, not of 128"),
        ("swinface", {"bodies": True}, "accepts faces alone"),
        ("volo-d1", {"size": 112}, "accepts images of 224 px, not of 112"),
        ("volo-d1", {"head": "coral"}, "which head 'coral' cannot use. Set head = \"normalised\""),
        ("volo-d1", {"backbone": "resnet18", "bodies": True}, "accepts faces alone. Set bodies = false, or"),
    ],
)
def test_what_a_network_does_not_take(name: str, changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(CARDS[name].model_copy(update=changed))


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", ["mivolo-d1", "swinface"])
def test_the_torchscript_file_says_what_the_model_says(name: str, tmp_path: Path) -> None:
    card = CARDS[name]
    torch.manual_seed(0)
    model = create_model(card)
    model.add_task("gender", ("female", "male"))
    faces = np.random.default_rng(0).integers(0, 256, (2, card.size, card.size, card.channels), dtype=np.uint8)
    path = tmp_path / "model.ts"
    about = build_card(model, card, load_catalog().datasets.get("synth"), RunFacts(), MetricsFile())
    written = write_export(model, card, about, path, examples=faces, variant=ExportVariant("torchscript"))
    assert written.checked.max_difference_years < 1e-3
    script = torch.jit.load(str(path))
    assert script(torch.zeros(1, card.channels, 300, 200, dtype=torch.uint8))[0].shape == (1,)
    with pytest.raises(torch.jit.Error, match="uint8 RGB"):
        script(torch.zeros(1, 4, card.size, card.size, dtype=torch.uint8))


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", ["mivolo-d1", "swinface"])
def test_onnx_says_it_too(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    card = CARDS[name]
    torch.manual_seed(0)
    model = create_model(card).eval()
    images, path = torch.randn(1, card.channels, card.size, card.size), str(tmp_path / "model.onnx")
    # The older exporter cannot translate VOLO's fold; opset 18 is the first that has it (as Col2Im).
    torch.onnx.export(model, (images,), path, dynamo=True, opset_version=18, input_names=["images"], verbose=False)
    found = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})[0]
    with torch.inference_mode():
        assert np.abs(found - model(images).numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_an_epoch_through_the_command(tmp_path: Path) -> None:
    """Generated faces, few of them; the age and gender of each are in the predictions."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "few.toml").write_text(
        'name = "few"\ntitle = "Few"\nreader = "synth"\nlicence = "CC0-1.0"\nfaces = "none"\ngroups = ["gender"]\n'
        "[options]\ncount = 24\nseed = 3\n"
    )
    words = [
        "run",
        "--train",
        "few",
        "--test",
        "few",
        "--model",
        "volo-d1",
        "--epochs",
        "1",
        "--registry",
        str(tmp_path),
    ]
    more = ["--set", "train.batch_size=4", "--set", "evaluate.resamples=100", "--out", str(tmp_path / "run")]
    assert main([*words, *more]) == 0
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]["few"]
    assert test["tasks"]["gender"]["n"] == test["n"]
    assert (tmp_path / "run" / "export" / "model.ts").exists()
