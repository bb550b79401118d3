import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from agebench.config.cards.model import Augment
from agebench.training.augmentation import (
    MAX_FACTOR_CHANGE,
    OPERATIONS,
    PHOTOMETRIC,
    Augmenter,
    OperationDraw,
    apply_photometric,
    normalize,
    rand_augment,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOTHING = {"flip": 0, "rotate": 0, "scale": 0, "shift": 0, "brightness": 0, "saturation": 0, "hue": 0, "grey": 0}
# Mild colours: nothing is cut at 0 or 255, so that formulas can be compared.
IMAGES = torch.randint(80, 140, (11, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def augmented(seed: int = 0, images: torch.Tensor = IMAGES, **changes: float) -> torch.Tensor:
    """Pixels 0 to 1, (B, 3, S, S)."""
    augment = Augmenter(Augment(**(NOTHING | changes)), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return augment(images, torch.Generator().manual_seed(seed))


def plain(images: torch.Tensor = IMAGES) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def test_normalising_is_the_textbooks() -> None:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    found = normalize(IMAGES, MEAN, STD)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, (plain() - mean) / std)


def test_no_magnitude_no_change() -> None:
    augment = Augmenter(Augment(**NOTHING), MEAN, STD)
    assert (augment(IMAGES, torch.Generator().manual_seed(0)) == normalize(IMAGES, MEAN, STD)).all()


def test_the_generator_decides() -> None:
    full = Augment().model_dump()
    assert (augmented(1, **full) == augmented(1, **full)).all()
    assert (augmented(1, **full) != augmented(2, **full)).any()


def test_the_result_is_laid_out_for_convolutions() -> None:
    assert augmented(**Augment().model_dump()).is_contiguous(memory_format=torch.channels_last)


def test_flips_are_flips() -> None:
    found = augmented(flip=0.5)
    mirrored = [bool(torch.allclose(found[row], plain()[row].flip(-1), atol=1e-4)) for row in range(len(IMAGES))]
    kept = [bool(torch.allclose(found[row], plain()[row], atol=1e-4)) for row in range(len(IMAGES))]
    assert [a or b for a, b in zip(mirrored, kept, strict=True)] == [True] * len(IMAGES)
    assert any(mirrored)
    assert any(kept)
    torch.testing.assert_close(augmented(flip=1.0), plain().flip(-1), atol=1e-4, rtol=0)


def test_rotation_turns_about_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agebench.training.augmentation._either_way",
        lambda count, magnitude, generator: torch.full((count,), magnitude),
    )
    turned = augmented(rotate=90)
    expected = plain().rot90(1, (2, 3))
    other = plain().rot90(-1, (2, 3))
    assert min(float((turned - way).abs().max()) for way in (expected, other)) < 1e-3
    moved = augmented(shift=0.25)  # a quarter of 24 pixels
    torch.testing.assert_close(moved[:, :, :18, :18], plain()[:, :, 6:, 6:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("magnitude", [0.1, 0.3])
def test_brightness_and_saturation_are_torchvisions(monkeypatch: pytest.MonkeyPatch, magnitude: float) -> None:
    monkeypatch.setattr(
        "agebench.training.augmentation._either_way", lambda count, size, generator: torch.full((count,), size)
    )
    bright = reference.adjust_brightness(plain(), 1 + magnitude)
    torch.testing.assert_close(augmented(brightness=magnitude), bright, atol=1e-3, rtol=0)
    vivid = reference.adjust_saturation(plain(), 1 + magnitude)
    torch.testing.assert_close(augmented(saturation=magnitude), vivid, atol=2e-3, rtol=0)


def test_grey_has_no_colour_and_the_same_luma() -> None:
    grey = augmented(grey=1.0)
    assert float((grey.amax(1) - grey.amin(1)).max()) < 1e-3
    torch.testing.assert_close(grey[:, :1], reference.rgb_to_grayscale(plain()), atol=2e-3, rtol=0)


def test_hue_turns_colours_and_keeps_luma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "agebench.training.augmentation._either_way", lambda count, size, generator: torch.full((count,), size)
    )
    turned = augmented(hue=0.25)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close((turned * luma).sum(1), (plain() * luma).sum(1), atol=2e-3, rtol=0)
    assert float((turned - plain()).abs().max()) > 0.05


def test_values_stay_in_range() -> None:
    loud = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8)
    found = augmented(images=loud, **(Augment().model_dump() | {"brightness": 1.0, "saturation": 1.0, "hue": 0.5}))
    assert float(found.min()) >= -1e-4
    assert float(found.max()) <= 1 + 1e-4


def test_erasing_fills_boxes_with_the_mean_color() -> None:
    erased = Augmenter(Augment(**(NOTHING | {"erase": 1.0})), MEAN, STD)
    images = IMAGES.repeat(20, 1, 1, 1)
    result = erased(images, torch.Generator().manual_seed(0))
    is_erased = (result == 0).all(1)
    assert (result == normalize(images, MEAN, STD)).logical_or(is_erased[:, None]).all()
    areas = is_erased.float().mean((1, 2))
    assert float(areas.min()) > 0
    assert 0.1 < float(areas.mean()) < 0.25
    rows, columns = is_erased.any(2).sum(1), is_erased.any(1).sum(1)
    assert (rows * columns == is_erased.sum((1, 2))).all()  # boxes
    half = Augmenter(Augment(**(NOTHING | {"erase": 0.5})), MEAN, STD)(images, torch.Generator().manual_seed(0))
    assert 0.35 < float((half == 0).all(1).any(2).any(1).float().mean()) < 0.65


@pytest.mark.parametrize("level", [0.2, 1.0])
@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_rand_augment_operations_are_torchvisions(name: str, level: float) -> None:
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images[3] = 7
    for sign in (-1, 1):
        factor = 1 + sign * MAX_FACTOR_CHANGE * level
        expected = {
            "brightness": lambda x, f=factor: reference.adjust_brightness(x, f),
            "contrast": lambda x, f=factor: reference.adjust_contrast(x, f),
            "color": lambda x, f=factor: reference.adjust_saturation(x, f),
            "sharpness": lambda x, f=factor: reference.adjust_sharpness(x, f),
            "posterize": lambda x: reference.posterize((x * 255).round().byte(), 8 - round(4 * level)) / 255,
            "solarize": lambda x: reference.solarize((x * 255).round().byte(), 256 * (1 - level)) / 255,
            "autocontrast": reference.autocontrast,
        }[name](images.double() / 255)  # integers would be rounded in between
        result = apply_photometric(images.float(), name, level, torch.full((4,), float(sign)))
        torch.testing.assert_close(result.double(), expected.double() * 255, atol=0.05, rtol=0)


def test_rand_augment_changes_images_by_two_operations() -> None:
    images = IMAGES.permute(0, 3, 1, 2).float()
    indices = torch.tensor([OPERATIONS.index("brightness"), OPERATIONS.index("translate_x")]).repeat(len(images), 1)
    draw = OperationDraw(indices, torch.ones(len(images), 2))
    result = rand_augment(images, draw, 5.0)
    shift = 0.45 / 2 * 24
    expected = reference.affine(
        (images * 1.45).clamp(0, 255), 0.0, [-shift, 0.0], 1.0, [0.0, 0.0], reference.InterpolationMode.BILINEAR
    )
    torch.testing.assert_close(result[..., :18], expected[..., :18], atol=0.01, rtol=1e-4)
    six = torch.cat([images, images], dim=1)
    torch.testing.assert_close(rand_augment(six, draw, 5.0)[:, :3], rand_augment(six, draw, 5.0)[:, 3:])


@pytest.mark.parametrize("changes", [{"rand_augment": 6.0}, {"erase": 0.7}, {"rand_augment": 6.0, "erase": 0.7}])
def test_new_changes_are_drawn_for_the_whole_batch(changes: dict[str, float]) -> None:
    augment = Augmenter(Augment(**(NOTHING | {"rotate": 15.0} | changes)), MEAN, STD)
    images = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    whole = augment(images, torch.Generator().manual_seed(3))
    shards = [augment(images[4 * k : 4 * k + 4], torch.Generator().manual_seed(3), (k, 2)) for k in (0, 1)]
    torch.testing.assert_close(torch.cat(shards), whole, atol=1e-5, rtol=0)
    assert (whole != augment(images, torch.Generator().manual_seed(4))).any()


def test_old_draws_do_not_depend_on_the_new_changes() -> None:
    geometry = {"rotate": 15.0, "flip": 0.5}
    erased = augmented(5, **geometry, erase=0.5)
    assert ((erased == augmented(5, **geometry)) | (erased == 0)).all()
