"""Jobs of SLURM, which submitit executes on this machine here."""

from pathlib import Path

import pytest

from agebench.errors import UserError
from agebench.suites import slurm_executor
from agebench.suites.slurm_executor import ResumableRun, SlurmExecutor, parse_options
from agebench.suites.worker import RunOutcome, RunRequest

REQUEST = RunRequest("few", "", "runs/few", (), 1, "")


def test_parse_options_takes_the_forms_of_sbatch() -> None:
    assert parse_options(["partition=gpu", "--mail-type=END"]) == {"partition": "gpu", "mail_type": "END"}


@pytest.mark.parametrize("text", ["partition", "=gpu", "partition="])
def test_parse_options_names_the_form(text: str) -> None:
    with pytest.raises(UserError, match="write NAME=VALUE"):
        parse_options([text])


def test_slurm_executor_refuses_a_machine_without_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no `sbatch` here; start the suite on a login node"):
        SlurmExecutor(tmp_path)


def test_slurm_executor_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'agebench\[slurm\]'"):
        SlurmExecutor(tmp_path)


def test_slurm_executor_refuses_half_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--gpus 0\.5: SLURM gives whole GPUs"):
        SlurmExecutor(tmp_path, gpus=0.5)


def test_slurm_executor_returns_the_outcome_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    outcome = RunOutcome(0, "done", 1.5)
    monkeypatch.setattr(slurm_executor, "execute_run", lambda request: outcome if request == REQUEST else None)
    options = {"partition": "gpu", "time": "60"}
    with SlurmExecutor(tmp_path, jobs=2, cpus=3, options=options, cluster="debug") as executor:
        assert (executor.slots, executor.threads) == (2, 3)
        assert executor.submit(REQUEST).result(timeout=60) == outcome


def test_a_preempted_job_is_queued_again_with_the_same_run() -> None:
    pytest.importorskip("submitit")
    again = ResumableRun().checkpoint(REQUEST)
    assert isinstance(again.function, ResumableRun)
    assert again.args == (REQUEST,)
