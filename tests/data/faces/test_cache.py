import io
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.data.digests import add_digests
from agebench.data.faces import cache
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.cache import FaceCache, load_or_build_face_cache
from agebench.data.readers import Reader
from agebench.data.samples import Samples, validate_samples
from agebench.utils.paths import cache_home

SPEC = AlignmentSpec("none", 16)
COUNT = 200


class Greys(Reader):
    """Images made from their numbers; number 13 is refused when its face is prepared."""

    needs_files = False

    def read(self) -> Samples:
        names = [f"{number}" for number in range(COUNT)]
        return validate_samples(pd.DataFrame({"sample_id": names, "path": names, "age": 30.0}))

    def version_token(self, path: str) -> str:
        return "always"

    def image_bytes(self, path: str) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (int(path),) * 3).save(file, "PNG")
        return file.getvalue()


class Dying(Greys):
    """Stops, as a killed process does, after some images."""

    def __init__(self, root: Path | None, left: int = 100) -> None:
        super().__init__(root)
        self.left = left

    def image_bytes(self, path: str) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().image_bytes(path)


class Counting(Greys):
    """Remembers what it was asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []

    def image_bytes(self, path: str) -> bytes:
        self.asked.append(path)
        return super().image_bytes(path)


class Refusing(Counting):
    """Has one image that may not be read."""

    def image_bytes(self, path: str) -> bytes:
        if path == "70":
            raise PermissionError(13, "Permission denied")
        return super().image_bytes(path)


def build(reader: Reader, samples: Samples) -> FaceCache:
    return load_or_build_face_cache(reader, samples, SPEC, name="greys", workers=1)


@pytest.fixture
def samples() -> Samples:
    reader = Greys(None)
    return add_digests(reader, reader.read(), name="greys")


def right(faces: FaceCache) -> bool:
    return bool((faces.pixels[:, 8, 8, 0] == np.arange(COUNT)).all()) and faces.pixels.shape == (COUNT, 16, 16, 3)


def test_faces_are_made_once(samples: Samples) -> None:
    assert right(build(Greys(None), samples))
    again = Counting(None)
    assert right(build(again, samples))
    assert again.asked == []


def test_rows_follow_the_samples(samples: Samples) -> None:
    faces = build(Greys(None), samples)
    chosen = Samples(samples.table.iloc[[150, 3, 77]].reset_index(drop=True))
    assert faces.pixels[faces.rows(chosen)][:, 0, 0, 0].tolist() == [150, 3, 77]


def test_an_interrupted_build_continues(samples: Samples) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(Dying(None), samples)
    rest = Counting(None)
    assert right(build(rest, samples))
    assert 0 < len(rest.asked) < COUNT


def test_another_spec_or_another_image_makes_another_cache(samples: Samples) -> None:
    build(Greys(None), samples)
    for spec, changed in (
        (AlignmentSpec("none", 16, 1.2), samples),
        (SPEC, Samples(samples.table.assign(bytes_digest=samples.table["bytes_digest"].str.replace("a", "b")))),
    ):
        reader = Counting(None)
        load_or_build_face_cache(reader, changed, spec, name="greys", workers=1)
        assert len(reader.asked) == COUNT


def test_a_refused_face_is_remembered_with_its_reason(samples: Samples) -> None:
    for _ in range(2):
        faces = load_or_build_face_cache(
            Greys(None), samples, AlignmentSpec("landmarks", 16, 1.0, (0, 1, 2)), name="greys", workers=1
        )
        kept = faces.drop_rejected(samples)
        assert len(kept) == 0
        assert len(kept.rejected) == COUNT
        assert "landmark" in kept.rejected["reason"].iloc[0]


def _build_in_process(samples: Samples) -> bool:
    return right(load_or_build_face_cache(Greys(None), samples, SPEC, name="greys", workers=1))


def test_two_processes_build_one_cache(samples: Samples) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_build_in_process, [samples, samples]) == [True, True]
    assert right(build(Counting(None), samples))


def test_processes_and_one_process_make_the_same(
    samples: Samples, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = np.array(build(Greys(None), samples).pixels)
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("agebench.utils.parallel.MIN_ITEMS_FOR_POOL", 0)
    together = load_or_build_face_cache(Greys(None), samples, SPEC, name="greys", workers=2)
    assert (alone == together.pixels).all()
    digests = np.fromfile(next(tmp_path.glob("faces/*/faces.u8.sha256")), np.uint8).reshape(-1, 32)
    assert len(digests) == -(-COUNT // cache.BLOCK)
    assert digests.any(axis=1).all()


def cache_file(name: str) -> Path:
    return next((cache_home() / "faces").glob(f"*/{name}"))


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x55
    file.write_bytes(content)


BLOCKS_OF_PIXELS = {
    "random": (lambda: cache_file("faces.u8").write_bytes(np.random.default_rng(0).bytes(COUNT * 768)), COUNT),
    "one byte": (lambda: flip(cache_file("faces.u8"), 70 * 768), 64),
    "cut short": (lambda: os.truncate(cache_file("faces.u8"), 130 * 768), COUNT - 128),
    "too long": (lambda: os.truncate(cache_file("faces.u8"), COUNT * 768 + 5), 0),
    "empty": (lambda: os.truncate(cache_file("faces.u8"), 0), COUNT),
    "digest": (lambda: flip(cache_file("faces.u8.sha256"), 40), 64),
    "no digests": (lambda: cache_file("faces.u8.sha256").unlink(), COUNT),
    "digests cut short": (lambda: os.truncate(cache_file("faces.u8.sha256"), 70), 72),
}


@pytest.mark.parametrize("kind", BLOCKS_OF_PIXELS)
def test_cache_prepares_damaged_faces_again(samples: Samples, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    damage, count = BLOCKS_OF_PIXELS[kind]
    build(Greys(None), samples)
    damage()
    reader = Counting(None)
    assert right(build(reader, samples))
    assert len(reader.asked) == count
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (count > 0)
    assert not count or ("faces.u8" in lines[0] and f"{count} faces of greys are prepared again" in lines[0])
    assert right(build(Dying(None, 0), samples))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"x": "y"}', b'{"3": "not a face"}'])
def test_cache_survives_damaged_refusals(samples: Samples, content: bytes) -> None:
    spec = AlignmentSpec("landmarks", 16, 1.0, (0, 1, 2))
    refused = load_or_build_face_cache(Greys(None), samples, spec, name="greys", workers=1).rejected
    cache_file("refused.json").write_bytes(content)
    assert load_or_build_face_cache(Greys(None), samples, spec, name="greys", workers=1).rejected == refused
    assert len(json.loads(cache_file("refused.json").read_text())) == COUNT


def test_cache_rejects_an_added_refusal(samples: Samples) -> None:
    build(Greys(None), samples)
    cache_file("refused.json").write_text('{"3": "not a face"}')
    assert build(Greys(None), samples).rejected == {}


def test_killed_build_reports_no_damage(samples: Samples, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(Dying(None), samples)
    build(Greys(None), samples)
    assert capsys.readouterr().err == ""


def test_an_image_that_could_not_be_read_is_tried_again(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    first = build(Refusing(None), samples)
    assert first.rejected == {"70": "cannot be read: Permission denied"}
    assert not first.pixels[70].any()
    key = first.key
    again = Counting(None)
    second = build(again, samples)
    assert right(second)
    assert second.rejected == {}
    assert second.key != key  # else features of the black face would be taken for those of the image
    assert again.asked == [f"{number}" for number in range(64, 128)]
    finished = Counting(None)
    assert build(finished, samples).key == second.key
    assert finished.asked == []
    assert caplog.records == []
