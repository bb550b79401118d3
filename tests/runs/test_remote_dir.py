"""Runs at a URL: they go on elsewhere, two do not meet, and what could not be sent is not lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from factories import few_card
from safetensors.numpy import save_file

from agebench.cli import main
from agebench.errors import AgebenchError
from agebench.runs import remote_dir
from agebench.runs.remote_dir import RemoteDir, RemoteMirror, run_folder
from agebench.runs.run_dir import RunDir, epochs_done
from agebench.utils.integrity import checkpoint_metadata
from agebench.utils.io import atomic_write, write_text

URL = "memory://bucket/runs/one"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote_dir, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(remote_dir, "LEASE_S", 0.3)
    yield
    fsspec.filesystem("memory").store.clear()


def wait_for(name: str) -> bytes:
    """Wait until a file is at the URL; return its content."""
    # fsspec's memory shows a file that is still being written as an empty one.
    while not (content := RemoteDir(URL).read(name)):
        time.sleep(0.01)
    return content


def test_a_run_goes_on_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(URL) as folder:  # noqa: PT012
        folder.write_json("checkpoints/last.safetensors", {"epoch": 1})
        while RemoteDir(URL).read("checkpoints/last.safetensors") is None:  # sent while the run works
            time.sleep(0.01)
        raise KeyboardInterrupt
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "elsewhere"))
    with run_folder(URL) as folder:
        assert folder.started()
        folder.write_json("manifest.json", {"finished": True})
    assert json.loads(RemoteDir(URL).read("manifest.json") or b"") == {"finished": True}
    assert set(RemoteDir(URL).names()) == {"checkpoints/last.safetensors", "manifest.json"}
    mirror = RemoteMirror("memory://bucket/runs")
    assert (mirror.folder / "one" / "manifest.json").exists()
    assert not (mirror.folder / "one" / "checkpoints").exists()


@pytest.mark.slow
def test_a_run_at_a_url_prints_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = (tmp_path / "bucket" / "run").as_uri()
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(few_card(60, seed=2))
    words = [
        *(
            "run",
            "--train",
            "few",
            "--test",
            "few",
            "--model",
            "tiny",
            "--epochs",
            "1",
            "--set",
            "evaluate.resamples=100",
        ),
        *("--registry", str(tmp_path / "cards"), "--out", url),
    ]
    for _ in range(2):  # the second time, it is finished
        assert main(words) == 0
        output = capsys.readouterr().out
        assert "MAE (years)" in output
        assert f"report: {url}/report.md" in output
    assert RemoteDir(url).read("report.md")
    assert RemoteDir(url).read("checkpoints/best.safetensors")
    assert not list(Path(os.environ["AGEBENCH_CACHE"]).rglob("scratch/**/best.safetensors"))


def test_inputs_of_a_run_are_sent_first_and_its_finish_last() -> None:
    with run_folder(URL) as folder:
        folder.write_json("manifest.json", {"finished": False})
        sent = wait_for("manifest.json")
        assert json.loads(sent) == {"finished": False}
        folder.write_json("manifest.json", {"finished": True})
        time.sleep(0.1)
        assert RemoteDir(URL).read("manifest.json") == sent
    assert json.loads(RemoteDir(URL).read("manifest.json") or b"") == {"finished": True}


def test_a_living_holder_keeps_others_out_and_a_dead_one_does_not() -> None:
    RemoteDir(URL).write(remote_dir.LOCK_LEASE_S, json.dumps({"owner": "far:1:1", "beat": 0}))
    with run_folder(URL):  # it does not move: its holder is dead
        pass
    with run_folder(URL), pytest.raises(AgebenchError, match="another process is working on this run"), run_folder(URL):
        pass


def test_what_could_not_be_sent_is_sent_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError("quota exceeded")

    memory = type(fsspec.filesystem("memory"))
    refused = pytest.raises(AgebenchError, match="cannot be written: quota exceeded")
    with monkeypatch.context() as patched, refused, run_folder(URL) as folder:
        patched.setattr(memory, "put_file", full)
        folder.write_json("history.json", [1, 2])
    with run_folder(URL) as folder:
        assert json.loads((folder.path / "history.json").read_text()) == [1, 2]
    assert RemoteDir(URL).names() == ["history.json"]


@pytest.mark.parametrize("error", [FileNotFoundError("deleted"), OSError("quota exceeded")])
def test_a_file_that_cannot_be_sent_stops_neither_the_others_nor_the_lease(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, refused = RemoteDir.send, threading.Event()

    def refuse(remote: RemoteDir, folder: Path, names: Iterable[str]) -> None:
        chosen = list(names)
        if "config.toml" in chosen and not refused.is_set():
            refused.set()
            raise error
        send(remote, folder, chosen)

    monkeypatch.setattr(RemoteDir, "send", refuse)
    with run_folder(URL) as folder:
        write_text(folder.path / "config.toml", "seed = 1")
        refused.wait()
        folder.write_json("manifest.json", {"finished": False})
        wait_for("manifest.json")
        assert wait_for("config.toml") == b"seed = 1"
        lease = RemoteDir(URL).read(remote_dir.LOCK_LEASE_S)
        while wait_for(remote_dir.LOCK_LEASE_S) == lease:
            time.sleep(0.01)


def test_a_listing_that_fails_does_not_stop_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    listing, failed = remote_dir._files, threading.Event()

    def fail_once(folder: Path) -> dict[str, tuple[int, int]]:
        if threading.current_thread() is not threading.main_thread() and not failed.is_set():
            failed.set()
            raise FileNotFoundError("a folder was deleted")
        return listing(folder)

    monkeypatch.setattr(remote_dir, "_files", fail_once)
    with run_folder(URL) as folder:
        failed.wait()
        folder.write_json("manifest.json", {"finished": False})
        assert json.loads(wait_for("manifest.json")) == {"finished": False}


def test_fetched_files_are_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_folder(URL) as folder:
        folder.write_json("checkpoints/last.safetensors", {"epoch": 1})
    sent: list[str] = []
    send = RemoteDir.send

    def record(remote: RemoteDir, folder: Path, names: Iterable[str]) -> None:
        chosen = list(names)
        sent.extend(chosen)
        send(remote, folder, chosen)

    monkeypatch.setattr(RemoteDir, "send", record)
    with run_folder(URL) as folder:
        folder.write_json("manifest.json", {"finished": False})
        wait_for("manifest.json")
    assert sent == ["manifest.json"]


def write_checkpoint(file: Path, metadata: dict[str, object]) -> None:
    with atomic_write(file) as temporary:
        save_file({}, temporary, metadata={"agebench": json.dumps(metadata)})


def write_epochs(folder: Path, count: int) -> None:
    """Write the checkpoints of a training of which each epoch is the best so far, in the order of training."""
    write_checkpoint(folder / "best.safetensors", {"epoch": count})
    history = [{"epoch": epoch} for epoch in range(1, count + 1)]
    write_checkpoint(folder / "last.safetensors", {"history": history})


def test_a_host_that_dies_leaves_no_best_of_an_earlier_epoch_than_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/far/one"
    there = tmp_path / "far" / "one" / "checkpoints"
    send, pairs, scratch = RemoteDir.send, [], Path()

    def train_meanwhile(remote: RemoteDir, folder: Path, names: Iterable[str]) -> None:
        for name in names:
            send(remote, folder, [name])
            if (there / "last.safetensors").exists():
                best = (there / "best.safetensors").exists() and checkpoint_metadata(there / "best.safetensors")[
                    "epoch"
                ]
                pairs.append((int(best), epochs_done(there)))
            if len(pairs) < 4:
                write_epochs(scratch / "checkpoints", len(pairs) + 2)

    monkeypatch.setattr(RemoteDir, "send", train_meanwhile)
    with run_folder(url) as folder:
        scratch = folder.path
        write_epochs(folder.checkpoints, 1)
        while len(pairs) < 4:
            time.sleep(0.01)
    assert all(last is not None and best >= last for best, last in pairs)
    assert pairs[-1] == (5, 5)


def test_a_fold_at_the_url_that_has_its_end_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    send, sent, refused = RemoteDir.send, [], threading.Event()

    def record(remote: RemoteDir, folder: Path, names: Iterable[str]) -> None:
        for name in names:
            if name == "folds/1/validation.parquet" and not refused.is_set():
                refused.set()
                raise AgebenchError("the network is away")
            send(remote, folder, [name])
            sent.append(name)

    monkeypatch.setattr(RemoteDir, "send", record)
    with run_folder(URL) as folder:
        fold = folder.fold(0, 2)
        write_epochs(fold.checkpoints, 2)
        wait_for("folds/1/checkpoints/last.safetensors")
        fold.write_table("predictions/few.parquet", pd.DataFrame({"age": [1.0]}))
        fold.write_table("validation.parquet", pd.DataFrame({"age": [2.0]}))
        fold.mark_fold_done("1", [{"epoch": 1}])
        write_epochs(folder.fold(1, 2).checkpoints, 1)
        wait_for("folds/1/fold.json")
        wait_for("folds/2/checkpoints/last.safetensors")
        there = set(RemoteDir(URL).names())
    assert "folds/1/checkpoints/last.safetensors" not in there
    first = [name for name in sent if name.startswith("folds/1/")]
    assert first[:2] == ["folds/1/checkpoints/best.safetensors", "folds/1/checkpoints/last.safetensors"]
    assert first[2:] == ["folds/1/predictions/few.parquet", "folds/1/validation.parquet", "folds/1/fold.json"]


def write_work(folder: RunDir, place: str, finished: bool, folds: int, epochs: int) -> None:
    """Write the files that show how much of a run is done, and one that names the place."""
    folder.write_json("history.json", place)
    folder.write_json("manifest.json", {"finished": finished})
    for number in range(folds):
        folder.fold(number, 9).mark_fold_done(str(number + 1), [{"epoch": 1}])
    write_epochs((folder.fold(folds, 9) if folds else folder).checkpoints, epochs)


# Finished, folds, epochs of the fold in training.
@pytest.mark.parametrize(
    ("here", "there", "kept"),
    [
        ((False, 0, 2), (False, 0, 1), "here"),
        ((False, 0, 1), (False, 0, 2), "there"),
        ((False, 1, 1), (False, 0, 9), "here"),
        ((False, 1, 9), (False, 2, 1), "there"),
        ((True, 0, 2), (False, 0, 2), "here"),
        ((False, 0, 3), (True, 0, 2), "there"),
        ((True, 0, 2), (True, 0, 2), "there"),
        ((False, 0, 1), (False, 0, 1), "here"),
    ],
)
def test_unsent_files_replace_no_run_that_another_host_has_done_more_of(
    here: tuple[bool, int, int],
    there: tuple[bool, int, int],
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*arguments: object) -> None:
        raise AgebenchError("the network is away")

    with monkeypatch.context() as patched:
        patched.setattr(RemoteDir, "send", away)
        with pytest.raises(AgebenchError, match="away"), run_folder(URL) as folder:
            write_work(folder, "here", *here)
    with monkeypatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", str(tmp_path / "elsewhere"))
        with run_folder(URL) as folder:
            write_work(folder, "there", *there)
    with caplog.at_level("INFO"), run_folder(URL) as folder:
        assert json.loads((folder.path / "history.json").read_text()) == kept
        assert folder.manifest()["finished"] == (here if kept == "here" else there)[0]
    assert json.loads(RemoteDir(URL).read("history.json") or b"") == kept
    expected = {"here": [] if here == there else ["replace those there"], "there": ["kept as it is there"]}[kept]
    assert len(caplog.messages) == len(expected)
    assert all(part in message for part, message in zip(expected, caplog.messages, strict=True))


KILLED = """
import os, signal, sys
from pathlib import Path
from agebench.errors import AgebenchError
from agebench.runs.remote_dir import RemoteDir, run_folder

def away(*arguments):
    raise AgebenchError("the network is away")

with run_folder(sys.argv[1]) as folder:
    RemoteDir.send = away
    folder.write_json("history.json", [1, 2])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_could_not_send_is_sent_by_the_next_call(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/far/one"
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    with run_folder(url) as folder:
        assert json.loads((folder.path / "history.json").read_text()) == [1, 2]
    assert RemoteDir(url).names() == ["history.json"]


def test_on_a_disk_a_file_appears_whole(tmp_path: Path) -> None:
    with run_folder(f"file://{tmp_path}/far/one") as folder:
        folder.write_json("metrics.json", {})
    assert [path.name for path in (tmp_path / "far" / "one").iterdir()] == ["metrics.json"]


def test_no_name_leads_out_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "find", lambda self, root: [f"{root}/../../evil", f"{root}/good"])
    assert RemoteDir(URL).names() == ["good"]
