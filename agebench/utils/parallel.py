"""Parallel map over many images with worker processes."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from agebench.errors import AgebenchError
from agebench.utils.terminal import wrap_streams

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this many items, starting processes takes longer than the work.
MIN_ITEMS_FOR_POOL = 600
CHUNK_SIZE = 64


def parallel_map(
    function: Callable[[Sequence[Item]], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    chunk: int = CHUNK_SIZE,
    min_items: int | None = None,
    prefetch: int = 4,
) -> Iterator[Result]:
    """Apply a function to chunks of items, in worker processes if there are enough items.

    The function and the items are pickled. If they need the main module, which workers do not import, the work is done in
    this process. Workers end with this process, even if it is killed. Of a stream, only the items that decide about worker
    processes, and then `prefetch` chunks per worker, are held at a time. Results are yielded as soon as they are ready, even
    if fewer than `prefetch` chunks per worker are in flight.

    Args:
        function: maps a chunk of items to a result.
        items: the items.
        workers: number of processes; None for one per core.
        chunk: maximum number of items per call.
        min_items: number of items from which processes are used; None for `MIN_ITEMS_FOR_POOL`.
        prefetch: chunks in flight per worker.

    Yields:
        The results, in the order of the items.

    Raises:
        AgebenchError: a worker process was killed.
    """
    items, workers = iter(items), workers or available_cores()
    min_items = MIN_ITEMS_FOR_POOL if min_items is None else min_items
    first = list(islice(items, max(min_items, workers * chunk))) if workers > 1 else []
    workers = min(workers, -(-len(first) // chunk))
    chunks = _chunks(chain(first, items), chunk)
    if workers <= 1 or len(first) < min_items or _needs_main(function, first[:1]):
        yield from map(function, chunks)
        return
    del first
    with ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_start_worker) as pool:
        try:
            yield from _bounded_map(pool, function, chunks, max_in_flight=prefetch * workers)
        except BrokenProcessPool:
            raise AgebenchError(
                "a worker process was killed, most often because memory ran out; allow more memory, or fewer workers "
                "(`--workers 1`, where the command has it)"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunks(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounded_map(
    pool: Executor,
    function: Callable[[Sequence[Item]], Result],
    chunks: Iterable[Sequence[Item]],
    *,
    max_in_flight: int,
) -> Iterator[Result]:
    """Yield results in order with at most `max_in_flight` chunks in flight, which bounds memory for a slow consumer.

    Ready results are yielded at once, because the next chunk of a camera arrives later.
    """
    futures: deque[Future[Result]] = deque()
    for chunk in chunks:
        futures.append(pool.submit(function, chunk))
        while futures and (len(futures) >= max_in_flight or futures[0].done()):
            yield futures.popleft().result()
    for future in futures:
        yield future.result()


def _needs_main(*content: object) -> bool:
    """Return whether objects refer to the main module, or cannot be pickled."""
    try:
        return b"__main__" in pickle.dumps(content)
    except (pickle.PicklingError, TypeError, AttributeError):  # raised for lambdas, locks and local classes
        return True


class _Worker(SpawnProcess):
    """A process that does not import the main module: a script without a `__main__` guard would run again in it."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_main():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Worker


# Two threads that start workers at once must not restore each other's replacement.
_STARTING = threading.RLock()


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes without the main module: `multiprocessing` has no parameter for it. Other threads are not affected."""
    with _STARTING:
        original, thread_id = spawn.get_preparation_data, threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            content: dict[str, Any] = original(name)
            if threading.get_ident() == thread_id:
                content.pop("init_main_from_path", None)
                content.pop("init_main_from_name", None)
            return content

        spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = original


def _start_worker() -> None:
    wrap_streams()
    # The parent handles Ctrl-C. A thread ends the worker with its parent, because a killed parent cannot stop its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
