import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from agebench.config.cards.model import Augment
from agebench.training.augmentation import Augmenter
from agebench.training.image_quality import draw_quality, gaussian_blur, jpeg

STILL = {"flip": 0, "rotate": 0, "brightness": 0, "saturation": 0, "hue": 0}


def photographs(size: int = 40) -> Tensor:
    """Return smooth random images (3, 3, S, S), 0 to 255."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    smooth = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2))) for image in noise]
    return torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("size", [40, 37])
@pytest.mark.parametrize("quality", [25, 50, 90])
def test_jpeg_agrees_with_the_codec(size: int, quality: int) -> None:
    images = photographs(size)
    expected = []
    for image in images.permute(0, 2, 3, 1).byte().numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
        expected.append(np.asarray(Image.open(buffer)))
    codec = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).float()
    difference = (jpeg(images, torch.full((3,), float(quality))) - codec).abs()
    loss = (images - codec).abs().mean()
    # The codec computes in integers, which moves values by about half a gray level.
    assert difference.mean() < 0.4 + 0.1 * loss


def test_blur_agrees_with_torchvision() -> None:
    images, sigma = photographs(), torch.tensor([0.4, 1.0, 1.5])
    blurred = gaussian_blur(images, sigma)
    inside = slice(5, -5)  # torchvision reflects the edges
    for row, std in enumerate(sigma.tolist()):
        expected = reference.gaussian_blur(images[row], [11, 11], [std, std])
        torch.testing.assert_close(blurred[row, :, inside, inside], expected[:, inside, inside], rtol=1e-3, atol=1e-2)


def test_draws_have_the_stated_shares_and_ranges() -> None:
    draw = draw_quality(20_000, 1.5, 0.3, torch.Generator().manual_seed(0))
    assert (draw.sigma > 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert 1.45 < draw.sigma.max() <= 1.5
    assert (draw.quality > 0).float().mean() == pytest.approx(0.3, abs=0.02)
    drawn = draw.quality[draw.quality > 0]
    assert (drawn.min() >= 30, drawn.max() <= 95) == (True, True)


@pytest.mark.parametrize("changes", [{"blur": 1.5}, {"jpeg": 1.0}])
def test_augmentation_changes_images_as_drawn(changes: dict[str, float]) -> None:
    images = photographs().permute(0, 2, 3, 1).byte()
    augment = Augmenter(Augment(**STILL, **changes), (0.0,) * 3, (1.0,) * 3)
    first, second = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(first, second)
    plain = Augmenter(Augment(**STILL), (0.0,) * 3, (1.0,) * 3)(images, torch.Generator().manual_seed(1))
    changed = (first - plain).abs().amax(dim=(1, 2, 3)) > 1e-4
    draw = draw_quality(3, changes.get("blur", 0), changes.get("jpeg", 0), torch.Generator().manual_seed(1))
    visible = (draw.sigma > 0.3) | (draw.quality > 0)  # a narrower kernel changes nothing
    assert changed.tolist() == visible.tolist()
    assert visible.any()
    shards = [augment(images[row : row + 1], torch.Generator().manual_seed(1), (row, 3)) for row in range(3)]
    torch.testing.assert_close(torch.cat(shards), first)
