import io
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agebench.data.storage import archives
from agebench.data.storage.archives import ExtractionLimits, extract
from agebench.errors import AgebenchError, UserError

NOISE = bytes(range(256)) * 64  # 16 KiB
Maker = Callable[[Path, dict[str, bytes]], Path]


def make_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def make_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def make(path: Path, content: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        return make_zip(path, content)
    return make_tar(path, content, {".tar": "w", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix])


def nothing_left(folder: Path) -> bool:
    return not list(folder.glob("out")) and not list(folder.glob(".out*"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_what_went_in_comes_out(tmp_path: Path, name: str) -> None:
    content = {"set/a.jpg": NOISE, "set/deep/er/b.jpg": b"b", "./c.txt": b"", "ü/é 1.jpg": b"x" * 512}
    assert extract(make(tmp_path / name, content), tmp_path / "out") == 4
    out = tmp_path / "out"
    found = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert found == {path.removeprefix("./"): data for path, data in content.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "out"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path, format: int) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"b.jpg": NOISE})
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as file:
        for name in ("PK-first.zip", "last.zip"):
            file.add(inner, name)
    assert zipfile.is_zipfile(tmp_path / "a.tar")
    assert extract(tmp_path / "a.tar", tmp_path / "out") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["PK-first.zip", "last.zip"]


def test_a_zip_behind_a_program_is_a_zip(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "a.zip", {"b.jpg": NOISE})
    (tmp_path / "self.zip").write_bytes(b"#!/bin/sh\n" * 100 + inner.read_bytes())
    assert extract(tmp_path / "self.zip", tmp_path / "out") == 1


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("names", [("20/a.jpg", "20/a.jpg"), ("20/a.jpg", "20//./a.jpg"), ("a", "a/b"), ("a/b", "a")])
def test_extract_refuses_two_members_of_one_name(kind: str, names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
            warnings.simplefilter("ignore")
            for number, name in enumerate(names):
                file.writestr(name, str(number))
    else:
        with tarfile.open(path, "w") as archived:
            for number, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.size = 1
                archived.addfile(member, io.BytesIO(b"%d" % number))
    with pytest.raises(UserError, match="is not unique in it"):
        extract(path, tmp_path / "out")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "d" * 300 + "/a.jpg", "/".join(["y" * 200] * 30)])
def test_extract_blames_a_name_that_is_too_long(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        extract(make(tmp_path / f"a.{kind}", {name: b"x"}), tmp_path / "out")
    message = str(raised.value)
    assert f"a.{kind}: '{name[:60]}…{name[-30:]}': a file cannot have this name here" in message
    assert "AGEBENCH_DATA" not in message
    assert nothing_left(tmp_path)


def test_folders_in_the_archive_are_made(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo("empty")
        member.type, member.mode = tarfile.DIRTYPE, 0
        file.addfile(member)
    assert extract(tmp_path / "a.tar", tmp_path / "out") == 0
    assert (tmp_path / "out" / "empty").is_dir()
    assert stat.S_IMODE((tmp_path / "out" / "empty").stat().st_mode) & 0o700 == 0o700


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "set/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg"]
)
@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_no_member_leads_out(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    source = make(folder / kind, {"good.jpg": b"1", name: b"2"})
    with pytest.raises(UserError, match="leads out of the archive; rejected") as raised:
        extract(source, folder / "out")
    assert str(source) in str(raised.value)
    assert nothing_left(folder)
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo("trick")
        member.type, member.linkname = kind, "/etc"
        file.addfile(member)
    with pytest.raises(UserError, match="'trick' is a link or a device; rejected"):
        extract(tmp_path / "a.tar", tmp_path / "out")
    assert nothing_left(tmp_path)


def test_links_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        member = zipfile.ZipInfo("trick")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc")
    with pytest.raises(UserError, match="'trick' is a link or a device; rejected"):
        extract(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_bomb_is_refused(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / name, {"zeros": bytes(1 << 20), "more": bytes(1 << 20)})
    with pytest.raises(UserError, match="rejected as a decompression bomb"):
        extract(source, tmp_path / "out", ExtractionLimits(ratio=10, free=1 << 16))
    with pytest.raises(UserError, match="more than 1048576; rejected"):
        extract(source, tmp_path / "out", ExtractionLimits(total=1 << 20))
    with pytest.raises(UserError, match="more than 1 members"):
        extract(source, tmp_path / "out", ExtractionLimits(members=1))
    assert nothing_left(tmp_path)
    assert extract(source, tmp_path / "out") == 2


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_header_is_not_read_beyond_its_limit(
    tmp_path: Path, kind: bytes, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MAX_HEADER", 1 << 10)
    with tarfile.open(tmp_path / "a.tar", mode) as file:  # type: ignore[call-overload]
        for name, data in (("a.jpg", b"1"), ("long", bytes(1 << 11)), ("b.jpg", b"2")):
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), kind if name == "long" else tarfile.REGTYPE
            file.addfile(member, io.BytesIO(data))
    with pytest.raises(UserError, match=r"a\.tar: .* more than 1024 bytes; rejected as a decompression bomb"):
        extract(tmp_path / "a.tar", tmp_path / "out")
    assert nothing_left(tmp_path)


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "a.zip", {"zeros": bytes(1 << 20)})
    told = source.read_bytes().replace((1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    source.write_bytes(told)
    with pytest.raises(UserError, match="cut short or damaged"):
        extract(source, tmp_path / "out")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_archive(tmp_path: Path, name: str, keep: float) -> None:
    whole = make(tmp_path / name, {f"set/{number}.jpg": bytes([number]) + NOISE for number in range(20)})
    data = whole.read_bytes()
    # A tar is padded with zeros at its end: cut before them.
    end = len(data.rstrip(b"\0")) if name.endswith(".tar") else len(data)
    whole.write_bytes(data[: int(end * keep)])
    with pytest.raises(UserError, match="cut short or damaged: download it again") as raised:
        extract(whole, tmp_path / "out")
    assert str(whole) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_tar_cut_between_two_members(tmp_path: Path, blocks: int) -> None:
    source = make_tar(tmp_path / "a.tar", {"a": bytes(512), "b": b"1" * 512})
    source.write_bytes(source.read_bytes()[: 2 * 512 + blocks * 512])
    with pytest.raises(UserError, match="cut short or damaged"):
        extract(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_damaged_archive(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / name, {"a.jpg": NOISE, "b.jpg": NOISE[::-1]})
    data = bytearray(source.read_bytes())
    for position in range(len(data) // 2, len(data) // 2 + 8):
        data[position] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(UserError, match="cut short or damaged"):
        extract(source, tmp_path / "out")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar.gz", b"\n<!DOCTYPE html><html>quota exceeded</html>", "a web page, not an archive"),
        ("a.zip", b"", "empty; download it again"),
        ("a.jpg", b"\xff\xd8\xff\xe0 no archive", "neither a tar"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        extract(tmp_path / name, tmp_path / "out")


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = make_zip(tmp_path / "a.zip", {"a.jpg": NOISE})
    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(AgebenchError, match="the disk is full") as raised:
        extract(source, tmp_path / "out")
    assert not isinstance(raised.value, UserError)
    assert nothing_left(tmp_path)
