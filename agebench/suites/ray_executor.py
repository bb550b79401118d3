"""Execute runs on a Ray cluster: an existing one, or a temporary one on this machine."""

import contextlib
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from agebench.suites.worker import RunOutcome, RunRequest, execute_run
from agebench.utils.ray_cluster import RETRIES, RayCluster


class RayExecutor:
    """Tasks of a Ray cluster, each with its CPU cores and GPUs. A run whose host was lost is resumed from its last epoch.

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
        self._cluster = RayCluster(address, jobs=jobs, cpus=cpus, gpus=gpus)
        self.slots, self.threads = self._cluster.slots, self._cluster.cpus
        import ray

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
        self._cluster.close()

    def submit(self, request: RunRequest) -> "Future[RunOutcome]":
        """Start a run as soon as the cluster has capacity.

        Args:
            request: the run.
        """
        reference = self._task.remote(request)
        self._references.append(reference)
        future: Future[RunOutcome] = reference.future()
        return future
