"""Runs on a Ray cluster: an existing one, or one on this machine for the while."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
from concurrent.futures import Future
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from agebench.errors import UserError
from agebench.suites.worker import RunOutcome, RunRequest, execute_run
from agebench.utils.parallel import available_cores

# Hosts get lost; a run that was lost goes on from its last epoch somewhere else, this often.
RETRIES = 3
ANSWER_WITHIN_S = 5.0
HEALTHY_WITHIN_S = 20.0


class RayExecutor:
    """Tasks of a Ray cluster, each with its cores and GPUs.

    Args:
        address: `host:port` of the cluster, `ray://host:port`, or `auto` (the one that this machine is part of); None: a
            cluster of this machine alone, for the while.
        jobs: runs at once at most; None: as many as the cluster has room for.
        cpus: cores for each; None: all of a host, shared by `jobs`.
        gpus: GPUs for each; a fraction shares one.

    Raises:
        UserError: ray is not installed, nobody answers at the address, or no host of the cluster is large enough.
    """

    def __init__(
        self, address: str | None = None, jobs: int | None = None, cpus: int | None = None, gpus: float = 0
    ) -> None:
        for option, value in (("--jobs", jobs), ("--cpus", cpus)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give 1 or more")
        _connect(address)
        import ray

        try:
            hosts = [host["Resources"] for host in ray.nodes() if host["Alive"]]  # type: ignore[no-untyped-call]
            cores = min(int(host.get("CPU", 0)) for host in hosts if host.get("CPU"))
            self.threads = cpus or max(1, cores // (jobs or 1))
            room = sum(_room(host, self.threads, gpus) for host in hosts)
            if not room:
                largest = max(hosts, key=lambda host: (host.get("GPU", 0), host.get("CPU", 0)))
                raise UserError(
                    f"--cpus {self.threads} --gpus {gpus:g}: no host of the Ray cluster has that much; the largest has "
                    f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
                )
        except BaseException:
            ray.shutdown()
            raise
        self.slots = min(jobs or room, room)
        # A fresh worker for each run: what one leaves in memory, the next does not find.
        task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_retries=RETRIES, max_calls=1)
        self._task: Any = task(execute_run)
        self._at_work: list[Any] = []

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for work in self._at_work:
            with contextlib.suppress(Exception):  # it has ended, or its host has
                ray.cancel(work, force=True)
        ray.shutdown()

    def submit(self, work: RunRequest) -> "Future[RunOutcome]":
        """Start it as soon as the cluster has room."""
        reference = self._task.remote(work)
        self._at_work.append(reference)
        future: Future[RunOutcome] = reference.future()
        return future


def _connect(address: str | None) -> None:
    """Join the cluster, or start one; a wrong address is told in seconds, where Ray itself would try for longer."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--executor ray: Ray is not installed: pip install 'agebench[ray]'")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; spares its warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if address and address != "auto":
        _answers(address)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            # "local": not a cluster that RAY_ADDRESS or another user of this machine offers.
            ray.init(address="local", num_cpus=available_cores(), include_dashboard=False, **quiet)
    except Exception as error:  # ConnectionError, RuntimeError (another version), and what gRPC raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f"--ray-address {address}" if address else "--executor ray"
        raise UserError(f"{at}: no Ray cluster can be used there: {reason}") from error


def _answers(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
        if not host or not port:
            raise ValueError
    except ValueError:
        raise UserError(f"--ray-address {address}: write host:port, ray://host:port or auto") from None
    try:
        socket.create_connection((host, port), timeout=ANSWER_WITHIN_S).close()
        if parts.scheme != "ray":  # Ray's client knows a timeout of its own, the rest of Ray tries for minutes
            words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", f"{host}:{port}"]
            subprocess.run(words, capture_output=True, timeout=HEALTHY_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"--ray-address {address}: something answers there, but as no Ray cluster does") from None
    except OSError as error:
        raise UserError(
            f"--ray-address {address}: nobody answers there ({error.strerror or error}). Start a cluster with `ray start --head`, "
            "or leave the option out for one on this machine"
        ) from error


def _room(host: dict[str, float], cpus: int, gpus: float) -> int:
    """How many runs of this need one host takes at once."""
    by_cpu = int(host.get("CPU", 0)) // cpus
    return min(by_cpu, int(host.get("GPU", 0) / gpus)) if gpus else by_cpu
