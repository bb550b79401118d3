import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.data.augment import normalise
from agebench.errors import AgebenchError
from agebench.export import torchscript
from agebench.export.torchscript import export_torchscript
from agebench.models.age_model import AgeModel, create_model
from agebench.registry.cards import Architecture

CARD = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=64)
FACES = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
METRICS = {"schema": 1, "train": "synth", "tests": {}}


@pytest.fixture
def model() -> AgeModel:
    torch.manual_seed(0)
    made = create_model(CARD).eval()
    made.head.prepare(torch.tensor([10.0, 30.0, 80.0]))
    return made


def test_the_file_says_what_the_model_says(model: AgeModel, tmp_path: Path) -> None:
    path = tmp_path / "export" / "model.ts"
    assert export_torchscript(model, CARD, METRICS, FACES, path) < 1e-3
    loaded = torch.jit.load(str(path))
    expected = model.predict(normalise(torch.from_numpy(FACES), CARD.mean, CARD.std)).age
    assert loaded(torch.from_numpy(FACES).permute(0, 3, 1, 2)).tolist() == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 3, 200, 200), (3, 3, 64, 64), (2, 3, 48, 80)])
def test_any_documented_size_and_batch(model: AgeModel, tmp_path: Path, shape: tuple[int, ...]) -> None:
    export_torchscript(model, CARD, METRICS, FACES, tmp_path / "model.ts")
    ages = torch.jit.load(str(tmp_path / "model.ts"))(torch.randint(0, 256, shape, dtype=torch.uint8))
    assert ages.shape == shape[:1]
    assert torch.isfinite(ages).all()


def test_card_figures_and_contract_travel_inside(model: AgeModel, tmp_path: Path) -> None:
    export_torchscript(model, CARD, METRICS, FACES, tmp_path / "model.ts")
    extra = {"card.json": "", "metrics.json": "", "contract.txt": ""}
    torch.jit.load(str(tmp_path / "model.ts"), _extra_files=extra)
    assert json.loads(extra["card.json"])["backbone"] == "agebench.tiny"
    assert json.loads(extra["metrics.json"]) == METRICS
    assert "uint8" in str(extra["contract.txt"])


def test_it_runs_where_there_is_only_torch(model: AgeModel, tmp_path: Path) -> None:
    export_torchscript(model, CARD, METRICS, FACES, tmp_path / "model.ts")
    code = (
        "import sys; sys.modules['agebench'] = sys.modules['timm'] = sys.modules['torchvision'] = None\n"
        "import torch\n"
        f"print(torch.jit.load({str(tmp_path / 'model.ts')!r})(torch.zeros(2, 3, 100, 100, dtype=torch.uint8)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "torch.Size([2])", done.stderr


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 64, 64),
        torch.zeros(1, 1, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_inputs_are_refused(model: AgeModel, tmp_path: Path, images: torch.Tensor) -> None:
    export_torchscript(model, CARD, METRICS, FACES, tmp_path / "model.ts")
    loaded = torch.jit.load(str(tmp_path / "model.ts"))
    with pytest.raises(torch.jit.Error, match="images must be"):
        loaded(images)


def test_an_export_that_differs_is_not_kept(model: AgeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchscript, "TOLERANCE", -1.0)
    with pytest.raises(AgebenchError, match="differs from the trained one"):
        export_torchscript(model, CARD, METRICS, FACES, tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []
