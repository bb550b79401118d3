"""Shards of images as inputs of `agebench predict`: read in one pass, whatever is wrong with them, and continued after a stop."""

import gzip
import importlib.util
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import face_files, write_tar

from agebench.cli import main
from agebench.errors import ImageRejectedError, UserError
from agebench.inference import shards
from agebench.inference.input_sources import expand_inputs
from agebench.inference.part_files import check_inputs
from agebench.inference.shards import read_shard, shard_chunks

pytestmark = pytest.mark.usefixtures("with_few")


@pytest.fixture(scope="module")
def faces() -> dict[str, bytes]:
    """Name -> generated face, encoded."""
    return face_files(6)


@pytest.fixture
def shard(tmp_path: Path, faces: dict[str, bytes]) -> Path:
    """A tar of faces and their labels, as WebDataset writes it."""
    members = {name: content for key in faces for name, content in ((key, faces[key]), (f"{key[:-4]}.json", b"{}"))}
    return write_tar(tmp_path / "a.tar", members)


def names(path: Path) -> list[str]:
    return [image.name.removeprefix(f"{path}/") for image in read_shard(str(path))]


def reasons(path: Path) -> dict[str, str]:
    """Name -> reason of the images that cannot be read."""
    return {
        image.name.removeprefix(f"{path}/"): str(image.content)
        for image in read_shard(str(path))
        if isinstance(image.content, ImageRejectedError)
    }


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"])
def test_read_shard_yields_the_images_of_a_tar(tmp_path: Path, faces: dict[str, bytes], suffix: str) -> None:
    path = write_tar(tmp_path / f"a{suffix}", {**faces, "._0.png": b"", "labels.csv": b"age", "deep/er/x.JPG": b"x"})
    contents = {image.name.removeprefix(f"{path}/"): image.content for image in read_shard(str(path))}
    assert contents == {**faces, "deep/er/x.JPG": b"x"}


def parquet(path: Path, faces: dict[str, bytes], kind: str) -> Path:
    contents = [*faces.values(), None]
    cells = [content and {"bytes": content, "path": "x.png"} for content in contents] if kind == "struct" else contents
    types = {"struct": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "large": pa.large_binary()}
    column = pa.array(cells, types.get(kind, pa.binary()))
    table = pa.table({"age": list(range(len(contents))), "image": column, "mask": pa.array(contents, pa.binary())})
    pq.write_table(table if kind != "only" else table.drop(["mask"]), path, row_group_size=4)
    return path


@pytest.mark.parametrize("kind", ["struct", "binary", "large", "only"])
def test_read_shard_yields_the_rows_of_a_parquet_file(tmp_path: Path, faces: dict[str, bytes], kind: str) -> None:
    images = list(read_shard(str(parquet(tmp_path / "a.parquet", faces, kind))))
    assert [image.content for image in images[:-1]] == list(faces.values())
    assert [image.name.rpartition("/")[2] for image in images] == [str(row) for row in range(len(faces) + 1)]
    assert reasons(tmp_path / "a.parquet") == {"6": "a row without the bytes of an image"}


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"age": [1]}, "no column of encoded images among age"),
        ({"a": [b"1"], "b": [b"1"]}, "several columns of images"),
    ],
)
def test_parquet_without_one_column_of_images_names_its_columns(
    tmp_path: Path, columns: dict[str, list[object]], problem: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet: {problem}"):
        list(read_shard(str(tmp_path / "a.parquet")))


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def garbage(content: bytes) -> bytes:
    """Replace the header of the third member."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        start = tar.getmembers()[4].offset
    return content[:start] + random.Random(0).randbytes(512) + content[start + 512 :]


@pytest.mark.parametrize("damage", [cut(0.5), lambda content: content[:-10240], garbage])
def test_damaged_tar_yields_its_images_then_the_reason(shard: Path, damage: Callable[[bytes], bytes]) -> None:
    content = damage(shard.read_bytes())
    shard.write_bytes(content)
    *images, last = read_shard(str(shard))
    assert [image.name for image in images] == [f"{shard}/{number}.png" for number in range(len(images))]
    assert len(images) > 1
    assert last.name == str(shard)
    assert f"cut short or damaged after {len(images)} images" in str(last.content)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.parquet"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 99, b"PAR1" * 300])
def test_file_that_is_no_shard_is_one_image_with_the_reason(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (image,) = read_shard(str(tmp_path / name))
    assert image.name == str(tmp_path / name)
    assert isinstance(image.content, ImageRejectedError)


def test_damage_at_any_byte_is_reported_or_harmless(tmp_path: Path, faces: dict[str, bytes]) -> None:
    whole = write_tar(tmp_path / "a.tar", dict(list(faces.items())[:2])).read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(8):
            content[rng.randrange(min(1024, len(content)))] = rng.randrange(256)
        (tmp_path / "b.tar").write_bytes(content)
        assert list(read_shard(str(tmp_path / "b.tar")))


def test_links_and_too_large_members_are_not_read(
    tmp_path: Path, faces: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 100_000)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, target in (("a.png", tarfile.SYMTYPE, "/etc/passwd"), ("b.png", tarfile.LNKTYPE, "a.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
        for name, content in {"c.png": bytes(100_001), "d.png": faces["0.png"]}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    link = "a link or a special file, not an image"
    assert reasons(path) == {"a.png": link, "b.png": link, "c.png": "larger than the 0 MB allowed"}
    assert names(path)[-1] == "d.png"


def test_long_header_of_a_compressed_tar_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x" * 2_000_000 + ".png"))
    (image,) = read_shard(str(path))
    assert "a header of 2,000,005 bytes" in str(image.content)


def test_archive_of_several_compressed_streams_is_read_whole(
    shard: Path, faces: dict[str, bytes], tmp_path: Path
) -> None:
    content = shard.read_bytes()
    path = tmp_path / "b.tar.gz"
    path.write_bytes(gzip.compress(content[:1024]) + gzip.compress(content[1024:]))
    assert names(path) == list(faces)


def test_member_beyond_the_end_of_the_file_ends_the_shard(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.txt")
    member.size = 10**17
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    (image,) = read_shard(str(path))
    assert "unexpected end of data" in str(image.content)


def test_header_of_digits_is_read_at_once(tmp_path: Path, faces: dict[str, bytes]) -> None:
    """`tarfile` before Python 3.11.10 takes quadratic time for it."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("0.png")
        member.pax_headers = {"comment": "1" * 900_000}
        member.size = len(faces["0.png"])
        tar.addfile(member, io.BytesIO(faces["0.png"]))
    assert [image.content for image in read_shard(str(path))] == [faces["0.png"]]


def test_name_without_end_is_cut(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"x" * 10_000 + ".png": b"x"})
    (image,) = read_shard(str(path))
    assert len(image.name) < len(str(path)) + 110
    assert "a name of 10,004 characters" in str(image.content)


def test_chunks_of_large_images_are_small(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(chunk.names) for chunk in shard_chunks(str(shard), 4)] == [4, 2]
    monkeypatch.setattr(shards, "MAX_CHUNK_BYTES", 1)
    assert [len(chunk.names) for chunk in shard_chunks(str(shard), 4)] == [1] * 6


def predict(run: Path, *words: str | Path, code: int = 0) -> None:
    assert main(["predict", str(run), *map(str, words), "--align", "none", "--workers", "1"]) == code


def test_predict_of_a_shard_equals_that_of_its_files(
    small_run: Path, tmp_path: Path, shard: Path, faces: dict[str, bytes]
) -> None:
    for name, content in faces.items():
        (tmp_path / name).write_bytes(content)
    predict(small_run, *(tmp_path / name for name in faces), "--out", tmp_path / "files.parquet")
    predict(small_run, shard, parquet(tmp_path / "a.parquet", faces, "struct"), "--out", tmp_path / "shards.parquet")
    files, rows = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("files", "shards"))
    assert rows["input"].tolist()[:7] == [*(f"{shard}/{name}" for name in faces), f"{tmp_path}/a.parquet/0"]
    for part in (rows[:6], rows[6:12]):
        pd.testing.assert_frame_equal(part.drop(columns="input").reset_index(drop=True), files.drop(columns="input"))
    assert rows["error"].iloc[12] == "a row without the bytes of an image"


def test_folder_output_continues_where_it_stopped(
    small_run: Path, tmp_path: Path, shard: Path, faces: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tar(tmp_path / "b.tar", faces)
    out = f"{tmp_path / 'ages'}/"
    predict(small_run, shard, "--out", out)
    first = tmp_path / "ages" / "a.tar.parquet"
    written = first.stat().st_mtime_ns
    predict(small_run, shard, other, "--out", out)
    assert "6 faces in 6 images; finished before: 1 shard" in capsys.readouterr().err
    assert first.stat().st_mtime_ns == written
    table = pd.read_parquet(tmp_path / "ages")
    assert table["input"].tolist() == [f"{path}/{name}" for path in (shard, other) for name in faces]
    predict(small_run, shard, other, "--out", out)
    assert "0 faces in 0 images; finished before: 2 shards" in capsys.readouterr().err


def test_folder_output_repeats_damaged_and_replaced_shards(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    out = f"{tmp_path / 'ages'}/"
    for _ in range(2):
        predict(small_run, shard, "--out", out)
        assert f"1 without an age, the first {shard}: the shard is cut short" in capsys.readouterr().err
    shard.write_bytes(whole)
    predict(small_run, shard, "--out", out)
    assert "6 faces in 6 images" in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "ages")) == 6


def test_folder_output_refuses_other_settings_and_foreign_files(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ages"
    predict(small_run, shard, "--out", f"{out}/")
    predict(small_run, shard, "--out", out, "--detect-size", "100", "--threshold", "18", code=2)
    message = capsys.readouterr().err
    assert f"{out / 'a.tar.parquet'}: was written with other settings (gate, detect_size, columns)" in message
    pq.write_table(pa.table({"x": [1]}), out / "a.tar.parquet")
    predict(small_run, shard, "--out", out, code=2)
    assert "was not written by `agebench predict`" in capsys.readouterr().err


def test_folder_output_refuses_another_model_at_the_same_path(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", f"{tmp_path / 'ages'}/"
    shutil.copytree(small_run, model)
    predict(model, shard, "--out", out)
    predict(model, shard, "--out", out)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | {"started": "2030-01-01T00:00:00+00:00"}))
    capsys.readouterr()
    predict(model, shard, "--out", out, code=2)
    assert "was written with other settings (model_sha256)" in capsys.readouterr().err


def test_folder_output_continues_after_whole_row_groups(small_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([None] * 10_000, pa.binary())}), path)
    for code in (1, 0):  # without a face; finished before
        predict(small_run, path, "--out", f"{tmp_path}/ages/", code=code)
    assert len(pd.read_parquet(tmp_path / "ages" / "a.parquet.parquet")) == 10_000


def test_folder_output_takes_no_other_shard_for_a_finished_one(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "a.tar"
    other.parent.mkdir()
    other.write_bytes(shard.read_bytes())
    predict(small_run, shard, "--out", f"{tmp_path}/ages/")
    predict(small_run, other, "--out", f"{tmp_path}/ages/", code=2)
    assert f"holds the predictions for {shard}" in capsys.readouterr().err


def test_folder_output_does_not_wait_for_a_pipe(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ages").mkdir()
    os.mkfifo(tmp_path / "ages" / "a.tar.parquet")
    predict(small_run, shard, "--out", f"{tmp_path}/ages/", code=2)
    assert "is in the way" in capsys.readouterr().err


def test_folder_output_refuses_images_and_equal_names(
    small_run: Path, tmp_path: Path, shard: Path, faces: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.png").write_bytes(faces["0.png"])
    (tmp_path / "more").mkdir()
    same_name = write_tar(tmp_path / "more" / "a.tar", faces)
    for words, message in (
        ([tmp_path / "0.png", "--out", f"{tmp_path}/ages/"], "0.png is no shard"),
        ([shard, same_name, "--out", f"{tmp_path}/ages/"], "shards of the same name"),
        ([shard, "--annotate-dir", tmp_path / "drawn"], "the images of a shard are not drawn"),
        ([tmp_path / "more"], "this folder holds no image"),
    ):
        predict(small_run, *words, code=2)
        assert message in capsys.readouterr().err


def test_output_file_does_not_replace_a_shard(
    small_run: Path, tmp_path: Path, faces: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = parquet(tmp_path / "a.parquet", faces, "only")
    content = path.read_bytes()
    predict(small_run, path, "--out", path, code=2)
    assert "is one of the shards" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_ray_refuses_videos_and_workers(
    small_run: Path, tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.mp4").write_bytes(b"")
    command = ["predict", str(small_run), str(shard), str(tmp_path / "film.mp4"), "--executor", "ray"]
    assert main(command) == 2
    assert (
        "film.mp4: a video is one sequence of frames; predict videos with --executor local" in capsys.readouterr().err
    )
    assert main([*command, "--workers", "2"]) == 2
    assert "--workers is for --executor local" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(
    small_run: Path, shard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["predict", str(small_run), str(shard), "--executor", "ray"]) == 2
    assert "Ray is not installed: pip install 'agebench[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--ray-address", "a:1"], ["--cpus", "2"], ["--gpus", "1"]])
def test_options_of_ray_need_the_executor(
    small_run: Path, shard: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    predict(small_run, shard, *option, code=2)
    assert f"{option[0]} is for --executor ray" in capsys.readouterr().err


def test_settings_of_a_part_are_in_its_metadata(small_run: Path, tmp_path: Path, shard: Path) -> None:
    predict(small_run, shard, "--out", f"{tmp_path}/ages/")
    metadata = pq.read_metadata(tmp_path / "ages" / "a.tar.parquet").metadata
    about = json.loads(metadata[b"agebench-shard"])
    assert about["shard"] == str(shard)
    assert about["bytes"] == shard.stat().st_size
    assert about["settings"]["model"] == str(small_run)


def test_a_table_without_images_is_found_before_work(tmp_path: Path, shard: Path) -> None:
    pq.write_table(pa.table({"label": [1, 2]}), tmp_path / "metadata.parquet")
    items = expand_inputs([str(shard), str(tmp_path / "metadata.parquet")], [])
    with pytest.raises(UserError, match=r"metadata\.parquet: no column of encoded images"):
        check_inputs(None, items, annotated=False)
