"""Execute runs on a Ray cluster: an existing one, or a temporary one on this machine."""

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

# How often a run whose host was lost is resumed on another host, from its last epoch.
RETRIES = 3
CONNECT_TIMEOUT_S = 5.0
HEALTH_CHECK_TIMEOUT_S = 20.0


class RayExecutor:
    """Tasks of a Ray cluster, each with its CPU cores and GPUs.

    Args:
        address: `host:port` of the cluster, `ray://host:port`, or `auto` (the cluster that this machine is part of); None: a
            temporary cluster of this machine alone.
        jobs: the largest number of runs at once; None: the capacity of the cluster.
        cpus: CPU cores of each run; None: all of a host, shared by `jobs`.
        gpus: GPUs of each run; a fraction shares a GPU.

    Raises:
        UserError: Ray is not installed, the address cannot be reached, or no host of the cluster is large enough.
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
            capacity = sum(_capacity(host, self.threads, gpus) for host in hosts)
            if not capacity:
                largest = max(hosts, key=lambda host: (host.get("GPU", 0), host.get("CPU", 0)))
                raise UserError(
                    f"--cpus {self.threads} --gpus {gpus:g}: no host of the Ray cluster has that much; the largest has "
                    f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
                )
        except BaseException:
            ray.shutdown()
            raise
        self.slots = min(jobs or capacity, capacity)
        # A fresh worker process for each run: no memory is carried over.
        task = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_retries=RETRIES, max_calls=1)
        self._task: Any = task(execute_run)
        self._references: list[Any] = []

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for reference in self._references:
            with contextlib.suppress(Exception):  # the run or its host has ended
                ray.cancel(reference, force=True)
        ray.shutdown()

    def submit(self, request: RunRequest) -> "Future[RunOutcome]":
        """Start a run as soon as the cluster has capacity.

        Args:
            request: the run.
        """
        reference = self._task.remote(request)
        self._references.append(reference)
        future: Future[RunOutcome] = reference.future()
        return future


def _connect(address: str | None) -> None:
    """Join a cluster, or start one. A wrong address is reported within seconds; Ray itself would retry for minutes."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--executor ray: Ray is not installed: pip install 'agebench[ray]'")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; avoids its warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if address and address != "auto":
        _require_reachable(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **options)
        else:
            # "local": not a cluster that RAY_ADDRESS or another user of this machine offers.
            ray.init(address="local", num_cpus=available_cores(), include_dashboard=False, **options)
    except Exception as error:  # ConnectionError, RuntimeError (another version), and what gRPC raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        option = f"--ray-address {address}" if address else "--executor ray"
        raise UserError(f"{option}: no Ray cluster can be used there: {reason}") from error


def _require_reachable(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
        if not host or not port:
            raise ValueError
    except ValueError:
        raise UserError(f"--ray-address {address}: write host:port, ray://host:port or auto") from None
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
        if parts.scheme != "ray":  # Ray's client has its own timeout; the rest of Ray retries for minutes
            command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", f"{host}:{port}"]
            subprocess.run(command, capture_output=True, timeout=HEALTH_CHECK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"--ray-address {address}: something answers there, but as no Ray cluster does") from None
    except OSError as error:
        raise UserError(
            f"--ray-address {address}: cannot connect ({error.strerror or error}). Start a cluster with `ray start --head`, "
            "or leave the option out for one on this machine"
        ) from error


def _capacity(host: dict[str, float], cpus: int, gpus: float) -> int:
    """Return how many runs fit on a host at once."""
    n_by_cpu = int(host.get("CPU", 0)) // cpus
    return min(n_by_cpu, int(host.get("GPU", 0) / gpus)) if gpus else n_by_cpu
