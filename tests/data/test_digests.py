import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.data.audit.thumbnails import compute_thumbnails
from agebench.data.digests import add_digests
from agebench.data.readers import Reader
from agebench.data.samples import Samples, validate_samples
from agebench.errors import AgebenchError


class Flat(Reader):
    """A folder of images whose ages are their positions."""

    reads = 0

    def read(self) -> Samples:
        paths = sorted(path.name for path in self.root.iterdir())
        return validate_samples(pd.DataFrame({"sample_id": paths, "path": paths, "age": np.arange(len(paths)) % 100.0}))

    def image_bytes(self, path: str) -> bytes:
        Flat.reads += 1
        return super().image_bytes(path)


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        (tmp_path / f"{number:02d}.png").write_bytes(picture(number))
    (tmp_path / "20.png").write_bytes(picture(3))  # a copy, byte by byte
    (tmp_path / "21.bmp").write_bytes(picture(4, "BMP"))  # the same pixels in another format
    return tmp_path


def test_copies_share_a_digest(folder: Path) -> None:
    table = add_digests(Flat(folder), Flat(folder).read(), name="flat").table.set_index("sample_id")
    assert table.loc["20.png", "bytes_digest"] == table.loc["03.png", "bytes_digest"]
    assert table.loc["21.bmp", "bytes_digest"] != table.loc["04.png", "bytes_digest"]
    assert table.loc["21.bmp", "pixels_digest"] == table.loc["04.png", "pixels_digest"]
    assert table["bytes_digest"].nunique() == 21


def test_an_unreadable_image_is_put_aside_with_its_reason(folder: Path) -> None:
    (folder / "05.png").write_bytes(b"<html>not found</html>")
    (folder / "06.png").write_bytes(picture(6)[:-30])
    samples = add_digests(Flat(folder), Flat(folder).read(), name="flat")
    reasons = samples.rejected.set_index("sample_id")["reason"]
    assert len(samples) == 20
    assert "not an image" in reasons["05.png"]
    assert "damaged" in reasons["06.png"]


def test_a_copy_that_is_mostly_damaged_stops(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number:02d}.png").write_bytes(b"")
    with pytest.raises(AgebenchError, match=r"flat: 5 of 22 images cannot be read, the first is 00\.png"):
        add_digests(Flat(folder), Flat(folder).read(), name="flat")


def test_only_what_changed_is_read_again(folder: Path) -> None:
    add_digests(Flat(folder), Flat(folder).read(), name="flat")
    (folder / "07.png").write_bytes(picture(70) + b" ")
    Flat.reads = 0
    samples = add_digests(Flat(folder), Flat(folder).read(), name="flat")
    assert Flat.reads == 1
    assert samples.table["bytes_digest"].nunique() == 21


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the next read of each of these images fail, and later ones succeed."""
    left, read = set(names), Flat.image_bytes

    def image_bytes(self: Flat, path: str) -> bytes:
        if path in left:
            left.remove(path)
            raise PermissionError(13, "Permission denied")
        return read(self, path)

    monkeypatch.setattr(Flat, "image_bytes", image_bytes)


def test_an_image_that_could_not_be_read_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "06.png").write_bytes(picture(6)[:-30])
    forbid(monkeypatch, "05.png")
    samples = add_digests(Flat(folder), Flat(folder).read(), name="flat")
    reasons = samples.rejected.set_index("sample_id")["reason"]
    assert reasons["05.png"] == "cannot be read: Permission denied"
    Flat.reads = 0
    samples = add_digests(Flat(folder), Flat(folder).read(), name="flat")
    assert samples.rejected["sample_id"].tolist() == ["06.png"]  # damaged, which reading it again does not change
    assert Flat.reads == 1
    add_digests(Flat(folder), Flat(folder).read(), name="flat")
    assert Flat.reads == 1


def test_a_folder_that_could_not_be_read_is_not_called_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, *(f"{number:02d}.png" for number in range(5)))
    with pytest.raises(AgebenchError, match=r"Permission denied\. The next call tries them again"):
        add_digests(Flat(folder), Flat(folder).read(), name="flat")
    assert len(add_digests(Flat(folder), Flat(folder).read(), name="flat")) == 22


def test_a_thumbnail_of_an_image_that_could_not_be_read_is_made_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "05.png")
    paths = ["04.png", "05.png"]
    assert compute_thumbnails(Flat(folder), paths, name="flat").quality["width"].tolist() == [8, 0]
    Flat.reads = 0
    found = compute_thumbnails(Flat(folder), paths, name="flat")
    assert found.quality["width"].tolist() == [8, 8]
    assert found.thumbnails[1].any()
    assert Flat.reads == 1
