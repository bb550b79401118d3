"""Connect to a Ray cluster, and map a function over items with Ray Data: a lost worker or host costs no result."""

import contextlib
import importlib.util
import inspect
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agebench.errors import AgebenchError, UserError
from agebench.utils.parallel import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# How often work whose worker process or host was lost is repeated elsewhere.
RETRIES = 3
CONNECT_TIMEOUT_S = 5.0
HEALTH_CHECK_TIMEOUT_S = 60.0  # the check imports Ray, which takes 10 s on a busy host


class RayCluster:
    """A connection to a Ray cluster, with the number of tasks that fit on it at once. Close it, or use it in a `with` block.

    Args:
        address: `host:port` of the cluster, `ray://host:port`, or `auto` (the cluster that this machine is part of); None: a
            temporary cluster of this machine alone.
        jobs: the largest number of tasks at once; None: the capacity of the cluster.
        cpus: CPU cores of each task; None: all of a host, shared by `jobs`.
        gpus: GPUs of each task; a fraction shares a GPU.

    Attributes:
        cpus: CPU cores of each task.
        gpus: GPUs of each task.
        slots: number of tasks at once.

    Raises:
        UserError: Ray is not installed, the address cannot be reached, or no host of the cluster is large enough.
    """

    def __init__(
        self, address: str | None = None, *, jobs: int | None = None, cpus: int | None = None, gpus: float = 0
    ) -> None:
        for option, value in (("--jobs", jobs), ("--cpus", cpus)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give 1 or more")
        _connect(address)
        import ray

        try:
            hosts = [host["Resources"] for host in ray.nodes() if host["Alive"]]  # type: ignore[no-untyped-call]
            cores = min(int(host.get("CPU", 0)) for host in hosts if host.get("CPU"))
            self.cpus, self.gpus = cpus or max(1, cores // (jobs or 1)), gpus
            capacity = sum(_capacity(host, self.cpus, gpus) for host in hosts)
            if not capacity:
                largest = max(hosts, key=lambda host: (host.get("GPU", 0), host.get("CPU", 0)))
                raise UserError(
                    f"--cpus {self.cpus} --gpus {gpus:g}: no host of the Ray cluster has that much; the largest has "
                    f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
                )
        except BaseException:
            ray.shutdown()
            raise
        self.slots = min(jobs or capacity, capacity)
        self._jobs: list[Generator[tuple[int, Any], None, None]] = []

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the jobs that are not finished and disconnect; a temporary cluster ends."""
        import ray

        for job in self._jobs:  # Ray Data would connect again to end them
            job.close()
        ray.shutdown()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, ordered: bool = True
    ) -> Iterator[tuple[int, Result]]:
        """Apply a function to items in actors of a Ray Data job; each item is one block.

        The function is sent to each actor once, so that a model that it opens at its first call stays open. It and the
        items are pickled. An item whose worker process or host is lost is repeated up to `RETRIES` times.

        Args:
            function: maps an item to a result that can be pickled.
            items: the items; all are held in memory, pickled.
            ordered: whether the results have the order of the items; otherwise each is yielded as soon as it is ready.

        Returns:
            Position of each item, and its result, as an iterator.

        Raises:
            Exception: the function raised it; while iterating.
            AgebenchError: an item was lost more than `RETRIES` times, or the cluster has ended.
        """
        payloads = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        job = self._map(pickle.dumps(function), payloads, ordered)
        self._jobs.append(job)
        return job

    def _map(self, function: bytes, payloads: list[bytes], ordered: bool) -> Generator[tuple[int, Any], None, None]:
        """Map a pickled function over pickled items; see `map`."""
        if not payloads:
            return
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # agebench has its own
        context.print_on_execution_start = False
        context.execution_options.preserve_order = ordered
        for name in ("ray.data", "ray.data._internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised
        warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
        # batch_size: Ray Data requires it with GPUs. One task in flight for each actor: a large item waits for no other.
        results = ray.data.from_items(
            [{"position": position, "item": payload} for position, payload in enumerate(payloads)],
            override_num_blocks=len(payloads),
        ).map_batches(
            _MappedFunction,
            fn_constructor_args=(function, os.getcwd()),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(self.slots, len(payloads)), max_tasks_in_flight_per_actor=1),
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            **_retry_options(ray.data.Dataset.map_batches),
        )
        del payloads
        yield from _outcomes(results)


def _retry_options(map_batches: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters that limit retries: by default Ray Data repeats lost work without end.

    Args:
        map_batches: the method of this version of Ray; Ray 2.64 has no such parameter.
    """
    if "ray_remote_args_fn" not in inspect.signature(map_batches).parameters:
        return {}
    return {"ray_remote_args_fn": lambda: {"max_restarts": -1, "max_task_retries": RETRIES}}


class _MappedFunction:
    """The actor of `RayCluster.map`: exceptions of the function are results, because Ray would wrap them."""

    def __init__(self, function: bytes, folder: str) -> None:
        with contextlib.suppress(OSError):  # a host without the folder, which can do without if all paths are absolute
            os.chdir(folder)  # relative paths in items are those of the driver
        self._pickled = function
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, batch: Any) -> Any:
        """Apply the function to the one item of a batch.

        Args:
            batch: a table with one row: position, and the pickled item.
        """
        import pyarrow as pa

        try:
            # Not in __init__: the error of a missing package would be taken for that of a host.
            self._function = self._function or pickle.loads(self._pickled)
            outcome = _Outcome(self._function(pickle.loads(batch["item"][0].as_py())))
        except Exception as error:
            outcome = _Outcome(error=error, trace=traceback.format_exc())
        return pa.table({"position": batch["position"], "outcome": pa.array([outcome.dumps()], pa.large_binary())})


@dataclass(frozen=True)
class _Outcome:
    """The result of one call, or its exception.

    Attributes:
        result: the result; None after an exception.
        error: the exception; None after a result.
        trace: the traceback of the exception.
    """

    result: Any = None
    error: Exception | None = None
    trace: str = ""

    def dumps(self) -> bytes:
        """Pickle the outcome; an exception that cannot be pickled is replaced by its text."""
        try:
            content = pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)
            if self.error is not None:
                pickle.loads(content)  # an exception with its own parameters may only fail here
            return content
        except Exception:
            if self.error is None:
                raise
            return pickle.dumps(
                _Outcome(error=AgebenchError(f"{type(self.error).__name__}: {self.error}"), trace=self.trace)
            )


def _outcomes(results: Any) -> Generator[tuple[int, Any], None, None]:
    """Yield position and result of each outcome of a Ray Data job; the job ends with this generator."""
    import ray.data.exceptions

    tables = iter(results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    with contextlib.closing(tables):
        while True:
            try:
                table = next(tables, None)
            except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
                raise _lost(error) from error
            if table is None:
                return
            for position, content in zip(table["position"], table["outcome"], strict=True):
                outcome = pickle.loads(content.as_py())
                if outcome.error is not None:
                    outcome.error.add_note(outcome.trace)
                    raise outcome.error
                yield position.as_py(), outcome.result


def _lost(error: Exception) -> AgebenchError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return AgebenchError(
        f"--executor ray: work was lost {RETRIES + 1} times, because its worker or host ended; the most common cause is a "
        f"lack of memory, for which --cpus with a larger number leaves more to each task. Ray reports: {reason}"
    )


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--executor ray: Ray is not installed: pip install 'agebench[ray]'")


def _connect(address: str | None) -> None:
    """Join a cluster, or start one. A wrong address is reported in less than a minute; Ray would retry longer."""
    require_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; avoids its warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else a call after `close` starts another cluster
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # warnings about Ray Data's own actors
    import ray

    if address and address != "auto":
        _require_reachable(address)
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    # "local": not a cluster that RAY_ADDRESS or another user of this machine offers.
    local = {"address": "local", "num_cpus": available_cores(), "include_dashboard": False}
    try:
        with _without_native_output():
            ray.init(**({"address": address} if address else local), **options)
    except Exception as error:  # ConnectionError, RuntimeError (another version), and what gRPC raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        option = f"--ray-address {address}" if address else "--executor ray"
        hint = "; a cluster with authentication needs RAY_AUTH_MODE=token and its token here" if address else ""
        raise UserError(f"{option}: no Ray cluster can be used there: {reason}{hint}") from error


@contextlib.contextmanager
def _without_native_output() -> Iterator[None]:
    """Hide what libraries write to the standard error stream: Ray reports there that it read its level of logging."""
    with open(os.devnull, "wb") as nothing:
        original = os.dup(2)
        try:
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)


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
    """Return how many tasks fit on a host at once."""
    n_by_cpu = int(host.get("CPU", 0)) // cpus
    return min(n_by_cpu, int(host.get("GPU", 0) / gpus)) if gpus else n_by_cpu
