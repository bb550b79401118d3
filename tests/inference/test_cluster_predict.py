"""Predictions and prepared faces of a real Ray cluster on this machine: those of `--executor local`, byte for byte."""

import os
import random
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import face_files, write_tar

from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.utils.ray_cluster import RayCluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.costly_setup, pytest.mark.usefixtures("with_few")]

N_SHARDS = 12


# Starts a cluster with one core, so that one task is at work at a time; it ends with its standard input.
CLUSTER = """
import sys
import ray

context = ray.init(
    address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", _node_ip_address="127.0.0.1"
)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """A cluster of another process, which `--ray-address auto` finds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AGEBENCH_CACHE": str(tmp_path_factory.mktemp("ray"))}
    environment["RAY_AUTH_MODE"] = "disabled"  # a token would have to be known before this process imports Ray
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as head:
        assert head.stdout is not None
        assert head.stdin is not None
        address = head.stdout.readline().strip()
        assert address, "the cluster did not start"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", address)
            yield psutil.Process(head.pid)
        head.stdin.close()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tars and a Parquet file; one tar has a broken image, another is cut short."""
    folder = tmp_path_factory.mktemp("shards")
    faces = list(face_files(40).values())
    paths = []
    for number in range(N_SHARDS):
        members = {f"{name}.png": face for name, face in enumerate(random.Random(number).sample(faces, 30))}
        if number == 3:
            members["4.png"] = b"no image"
        paths.append(write_tar(folder / f"{number:02}.tar", members))
    paths[5].write_bytes(paths[5].read_bytes()[:100_000])
    pq.write_table(pa.table({"image": pa.array(faces, pa.binary())}), folder / "z.parquet", row_group_size=10)
    return [*paths, folder / "z.parquet"]


RAY = ("--executor", "ray", "--ray-address", "auto")


def predict(run: Path, inputs: list[Path], out: str, *words: str) -> int:
    command = ["predict", str(run), *map(str, inputs), "--align", "none", "--out", out, *(words or ("--workers", "1"))]
    return main(command)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def local_parts(small_run: Path, shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of predictions that this machine writes."""
    out = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_REGISTRY", str(small_run.parent / "registry"))
        assert predict(small_run, shards, f"{out}/") == 0
    return contents(out)


def test_folder_equals_the_local_one_though_a_worker_is_killed(
    cluster: psutil.Process, small_run: Path, shards: list[Path], local_parts: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "ages"
    codes: list[int] = []
    n_finished = 0
    job = threading.Thread(target=lambda: codes.append(predict(small_run, shards, f"{out}/", *RAY)), daemon=True)
    job.start()
    while not n_finished and job.is_alive():
        time.sleep(0.02)
        n_finished = len(contents(out))
    (worker,) = (process for process in cluster.children(recursive=True) if "_MappedFunction" in _title(process))
    worker.kill()
    job.join()
    assert codes == [0]
    assert 0 < n_finished < len(shards) - 1
    assert contents(out) == local_parts


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.name().startswith("ray::") else ""
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return ""


def test_file_of_shards_and_images_equals_the_local_one(small_run: Path, shards: list[Path], tmp_path: Path) -> None:
    images = []
    for name, content in face_files(70).items():
        (tmp_path / name).write_bytes(content)
        images.append(tmp_path / name)
    inputs = [*images, *shards[3:6], images[0]]
    for executor, words in (("local", ()), ("ray", RAY)):
        assert predict(small_run, inputs, str(tmp_path / f"{executor}.csv"), *words) == 0
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_aligned_faces_equal_the_local_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for executor in ("local", "ray"):
        monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / executor))
        words = ["data", "align", "few", "--size", "48", "--out", str(tmp_path / f"report-{executor}")]
        assert main([*words, *(RAY if executor == "ray" else ())]) == 0
        folder = tmp_path / executor / "faces"
        files[executor] = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.name != "lock" and path.is_file()
        }
    assert files["ray"] == files["local"]
    assert any(path.name == "faces.u8" for path in files["ray"])


def test_error_of_a_task_is_that_of_this_machine(
    small_run: Path, shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "mask.parquet"
    pq.write_table(pa.table({"age": [1.0]}), missing)
    command = ["predict", str(small_run), str(missing), "--align", "none", "--out", str(tmp_path / "a.csv")]
    assert main([*command, *RAY]) == 2
    assert f"{missing}: no column of encoded images among age" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_item_that_ends_every_worker_is_an_error() -> None:
    with RayCluster("auto", cpus=1) as cluster, pytest.raises(AgebenchError, match="work was lost 4 times"):
        list(cluster.map(os._exit, [1]))


def test_more_than_the_cluster_has_is_refused() -> None:
    with pytest.raises(UserError, match="no host of the Ray cluster has that much"):
        RayCluster("auto", cpus=99)


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "large-collections.md"
# What the page names -> what this test has instead of a cluster of several hosts, GPUs and hours.
STAND_INS = {
    "--executor ray --ray-address head-node:6379": "--executor ray",
    "--executor ray": " ".join(RAY),
    "--gpus 0.125": "--gpus 0",
    "DATASET": "few",
    "--model efficientnet_lite0": "--model tiny --epochs 1 --set model.size=112 --set evaluate.resamples=100",
}


def page_commands() -> list[str]:
    """Return the commands of the manual's page, as this machine can run them."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("agebench ")]
    for phrase, stand_in in STAND_INS.items():
        lines = [line.replace(phrase, stand_in) for line in lines]
    return list(dict.fromkeys(lines))


def test_commands_of_the_manual_work(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(small_run)
    (tmp_path / "shards").mkdir()
    faces = face_files(4)
    for number in range(2):
        write_tar(tmp_path / "shards" / f"000{number}.tar", faces)
    pq.write_table(pa.table({"image": pa.array(list(faces.values()))}), tmp_path / "shards" / "0.parquet")
    assert len(page_commands()) > 5
    for line in page_commands():
        for folder in ("ages", "faces"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        words = shlex.split(line)[1:]
        assert main([*words, *(["--align", "none"] if words[0] == "predict" else [])]) == 0, line
        if "ages/" in words:
            assert sorted(contents(tmp_path / "ages")) == ["0000.tar.parquet", "0001.tar.parquet"]
