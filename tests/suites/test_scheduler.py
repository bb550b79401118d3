"""What is done stays, a killed run stands alone, a budget ends a suite; with an executor that only pretends."""

import json
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from agebench.cli import main
from agebench.config.cards.suite import SuiteCard
from agebench.registry.catalog import load_catalog
from agebench.suites import scheduler
from agebench.suites.matrix import Job, plan_jobs, spent_seconds
from agebench.suites.scheduler import run_jobs
from agebench.suites.worker import RunOutcome, RunRequest
from agebench.utils import ray_cluster


class Pretender:
    """Finishes a run in no time, or is killed in it."""

    slots, threads = 3, 1

    def __init__(self, killed: str = "", seconds: float = 1.0) -> None:
        self.killed, self.seconds, self.asked = killed, seconds, []

    def submit(self, work: RunRequest) -> "Future[RunOutcome]":
        self.asked.append(work.name)
        folder = Path(work.out)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(work.config)
        (folder / "checkpoints" / "last.safetensors").touch()
        done: Future[RunOutcome] = Future()
        if work.name == self.killed:
            done.set_result(RunOutcome(-9, "epoch 1/2\n", self.seconds))
            return done
        manifest = {"finished": True, "timings": {"total_s": self.seconds}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        done.set_result(RunOutcome(0, "", self.seconds))
        return done


def twelve(runs: Path) -> list[Job]:
    card = SuiteCard(
        name="twelve", title="T", train=("synth",), test=("synth",), models=("tiny",), seeds=tuple(range(12))
    )
    return plan_jobs(card, load_catalog(), runs)


def test_a_killed_run_of_twelve_leaves_eleven_and_can_go_on(tmp_path: Path) -> None:
    jobs = twelve(tmp_path)
    found = run_jobs(jobs, Pretender(jobs[4].folder.name), registry=[], on_finish=lambda job, state: None)
    assert sorted(found.values()) == ["done"] * 11 + ["failed"]
    assert jobs[4].reason() == "killed by signal 9: epoch 1/2"
    again = Pretender()
    run_jobs(jobs, again, registry=[], on_finish=lambda job, state: None)
    assert again.asked == [jobs[4].folder.name]
    assert {job.state() for job in jobs} == {"done"}


def test_a_budget_begins_no_more_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    jobs = twelve(tmp_path)
    found = run_jobs(jobs, Pretender(seconds=60), registry=[], on_finish=lambda job, state: None, budget_s=240)
    assert 4 <= len(found) <= 6  # those at work when it was spent go on to their end
    more = run_jobs(jobs, Pretender(seconds=60), registry=[], on_finish=lambda job, state: None, budget_s=240)
    assert set(more) == set(found)
    run_jobs(jobs, Pretender(seconds=60), registry=[], on_finish=lambda job, state: None)
    assert {job.state() for job in jobs} == {"done"}


def test_failed_attempts_are_of_the_budget(tmp_path: Path) -> None:
    jobs = twelve(tmp_path)
    alone = jobs[:1]
    for place in (1, 2, 3):
        killer = Pretender(alone[0].folder.name, seconds=60)
        assert run_jobs(alone, killer, registry=[], on_finish=lambda job, state: None, budget_s=180)
        assert spent_seconds(jobs) == 60 * place
    found = run_jobs(alone, Pretender(), registry=[], on_finish=lambda job, state: None, budget_s=180)
    assert found == {}
    run_jobs(alone, Pretender(seconds=60), registry=[], on_finish=lambda job, state: None)
    assert spent_seconds(jobs) == 240  # with the attempt that succeeded


def test_time_in_a_queue_is_not_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=count(step=1000).__next__))
    jobs = twelve(tmp_path)
    found = run_jobs(jobs, Pretender(seconds=60), registry=[], on_finish=lambda job, state: None, budget_s=240)
    assert list(found.values()) == ["done"] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs 0: give 1 or more"),
        (["--budget", "-1"], "--budget -1: give a number, 0.001 or more"),
        (["--gpus", "1"], "--gpus is for --executor ray and --executor slurm"),
        (["--ray-address", "host:1"], "--ray-address is for --executor ray"),
        (["--slurm", "partition=gpu"], "--slurm is for --executor slurm"),
        (["--executor", "ray", "--ray-address", "nonsense"], "write host:port"),
        (["--executor", "ray", "--ray-address", "127.0.0.1:1"], "cannot connect"),
        (["--runs", "nofs://here/runs"], "Protocol not known: nofs"),
    ],
)
def test_what_cannot_be_meant_is_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "run", "smoke", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    assert main(["suite", "run", "smoke", "--executor", "ray"]) == 2
    assert "pip install 'agebench[ray]'" in capsys.readouterr().err


def test_ten_thousand_runs_are_asked_about_before_they_are_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suites").mkdir()
    card = 'name = "vast"\ntitle = "V"\ntrain = ["synth"]\ntest = ["synth"]\nmodels = ["tiny"]\n'
    (tmp_path / "suites" / "vast.toml").write_text(f"{card}seeds = {list(range(10_000))}\n")
    assert main(["suite", "run", "vast", "--registry", str(tmp_path)]) == 2
    assert "has 10,000 runs; add --yes" in capsys.readouterr().err
