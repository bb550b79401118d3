import io

import numpy as np
import pytest
import torch
from PIL import Image

from agebench.analysis.attribution.methods import select_methods
from agebench.analysis.attribution.sanity_checks import pool_to_cells, rank_correlation
from agebench.analysis.robustness import operators
from agebench.analysis.robustness.corruptions import (
    CORRUPTIONS,
    Corruption,
    CorruptionContext,
    hflip_variants,
    to_float_images,
    to_uint8,
)
from agebench.analysis.robustness.report import pick_example_face
from agebench.config.cards.model import Architecture
from agebench.data.faces.regions import region_boxes, region_mask
from agebench.errors import UserError
from agebench.estimators.trained import TrainedEstimator
from agebench.models.age_model import create_model
from agebench.training.dataloader import FaceDataset

SIZE = 48


def faces(count: int = 3, size: int = SIZE) -> torch.Tensor:
    """(count, size, size, 3) uint8, smooth as photographs are."""
    small = 255 * torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return to_uint8(torch.nn.functional.interpolate(small, (size, size), mode="bicubic"))


def scene(count: int = 3) -> CorruptionContext:
    generator = torch.Generator().manual_seed(1)
    return CorruptionContext(1.0, torch.rand(count, generator=generator), generator)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_every_corruption_grows(corruption: Corruption) -> None:
    original = faces()
    images = to_float_images(original)
    changed = [to_uint8(corruption.change(images, strength, scene())) for strength in corruption.severities]
    away = [(one.float() - original.float()).abs().mean().item() for one in changed]
    assert len(away) == 5
    assert away[0] > 0
    assert away == sorted(away)
    assert (to_uint8(images) == original).all()  # the batch itself is left alone
    assert all(one.shape == original.shape and one.dtype == torch.uint8 for one in changed)


@pytest.mark.parametrize("quality", [90, 40, 8])
@pytest.mark.parametrize("size", [64, 50])
def test_jpeg_is_libjpegs(quality: int, size: int) -> None:
    picture = faces(1, size)
    file = io.BytesIO()
    Image.fromarray(picture[0].numpy()).save(file, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(file)).astype(float)
    ours = to_uint8(operators.jpeg_approximation(to_float_images(picture), quality))[0].numpy().astype(float)
    lost = np.abs(picture[0].numpy() - theirs).mean()
    assert np.abs(ours - theirs).mean() < max(1.5, 0.3 * lost)


def test_linear_maps_keep_a_plain_image() -> None:
    for matrix in (
        operators.gaussian_matrix(SIZE, 0.3),
        operators.gaussian_matrix(SIZE, 3),
        operators.motion_blur_matrix(SIZE, 7),
        operators.downscale_matrix(SIZE, 0.2),
    ):
        assert matrix.sum(dim=1).tolist() == pytest.approx([1.0] * SIZE, abs=1e-5)


def test_the_mirror_of_the_mirror() -> None:
    images = to_float_images(faces())
    assert torch.equal(hflip_variants(hflip_variants(images)[0])[0], images)


def test_regions_follow_the_coverage() -> None:
    whole, wide = (region_mask(region_boxes("eyes", coverage), 100) for coverage in (1.0, 2.0))
    assert whole.sum() == pytest.approx(4 * float(wide.sum()), rel=0.01)
    assert region_mask(region_boxes("corners", 1.0), 100).sum() == pytest.approx(4 * 400, rel=0.01)
    half = region_mask(region_boxes("corners", 1.0), 100, grow=0.5)
    assert half[0, 0] == 1
    assert half[15, 15] == 0  # corners shrink into themselves


def test_rank_correlation_of_maps() -> None:
    maps = np.random.default_rng(0).normal(size=(4, SIZE, SIZE)).astype(np.float32)
    assert rank_correlation(maps, 3 * maps).tolist() == pytest.approx([1.0] * 4)
    assert rank_correlation(maps, np.zeros_like(maps)).tolist() == [0.0] * 4
    assert pool_to_cells(maps).shape == (4, 8, 8)


@pytest.mark.parametrize(
    ("head", "options", "target", "smooth"),
    [
        ("regression", {}, "age", True),
        ("classification", {"decode": "median"}, "expectation", True),
        ("or-cnn", {}, "age", False),
    ],
)
def test_what_a_head_lets_be_explained(head: str, options: dict[str, str], target: str, smooth: bool) -> None:
    pytest.importorskip("captum")
    card = Architecture(name="t", title="T", backbone="agebench.tiny", head=head, head_options=options, size=64)
    model = create_model(card)
    model.head.init_from_ages(torch.linspace(1, 80, 50))
    trained = TrainedEstimator(model.eval(), card, torch.device("cpu"))
    data = FaceDataset(faces(4, 64).numpy(), np.arange(4), np.full(4, 30, np.float32))
    explained, can, notes = select_methods(trained, data, [])
    assert (explained.target, explained.smooth) == (target, smooth)
    assert can == (["grad-cam", "integrated-gradients", "occlusion"] if smooth else ["occlusion"])
    assert bool(notes) == (target != "age" or not smooth)
    if not smooth:
        with pytest.raises(UserError, match=r"decodes a piecewise constant age.*occlusion"):
            select_methods(trained, data, ["grad-cam"])


def test_a_large_batch_is_asked_in_parts_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Architecture(name="t", title="T", backbone="agebench.tiny", head="regression", size=64)
    trained = TrainedEstimator(create_model(card).eval(), card, torch.device("cpu"))
    asked = faces(7, 64)
    whole = trained.ages(asked)
    sizes: list[int] = []
    trained.model.register_forward_hook(lambda _model, given, _answer: sizes.append(len(given[0])))
    monkeypatch.setattr("agebench.estimators.trained.CPU_BATCH_SIZE", 3)
    torch.testing.assert_close(trained.ages(asked), whole)
    assert sizes == [3, 3, 1]


def test_the_face_that_is_shown_has_colour() -> None:
    pixels = np.full((40, 8, 8, 3), 90, np.uint8)
    pixels[7, ..., 0] = 200
    pixels[39, ..., 0] = 255  # more colour, but far from 30 years
    ages = np.array([31.0] * 10 + [60.0] * 30, np.float32)
    assert pick_example_face(FaceDataset(pixels, np.arange(40), ages)) == 7
