"""Work on many images with all cores."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

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
    worth: int | None = None,
    ahead: int = 4,
) -> Iterator[Result]:
    """`function` of each run of up to `chunk` items, in order; over `workers` processes (default: one a core) where it pays.

    It pays from `worth` items on (default: 600). `function` and the items are pickled; where they need the main module, which
    workers do not import, the work is done in this process. Workers end with this process, however it ends. Of a stream of
    items few are held at a time: those that decide whether it pays, then `ahead` chunks a worker.
    A result that is ready comes when one more chunk is under way: it does not wait for `ahead` chunks to be.
    """
    items, workers = iter(items), workers or available_cores()
    worth = MIN_ITEMS_FOR_POOL if worth is None else worth
    first = list(islice(items, max(worth, workers * chunk))) if workers > 1 else []
    workers = min(workers, -(-len(first) // chunk))
    chunks = _chunks(chain(first, items), chunk)
    if workers <= 1 or len(first) < worth or _needs_main(function, first[:1]):
        yield from map(function, chunks)
        return
    del first
    with ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_start_worker) as pool:
        try:
            yield from _bounded(pool, function, chunks, ahead=ahead * workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunks(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounded(
    pool: Executor,
    function: Callable[[Sequence[Item]], Result],
    chunks: Iterable[Sequence[Item]],
    *,
    ahead: int,
) -> Iterator[Result]:
    """Results in order with at most `ahead` chunks under way, so that a slow reader of the results doesn't fill memory.

    Those that are ready come at once: a camera's next chunk takes its time.
    """
    waiting: deque[Future[Result]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(function, chunk))
        while waiting and (len(waiting) >= ahead or waiting[0].done()):
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _needs_main(*content: object) -> bool:
    """Whether the content refers to the main module, or cannot be pickled at all."""
    try:
        return b"__main__" in pickle.dumps(content)
    except (
        pickle.PicklingError,
        TypeError,
        AttributeError,
    ):  # the three that pickle raises for lambdas, locks, local classes
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
        prepare, own = spawn.get_preparation_data, threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            content: dict[str, Any] = prepare(name)
            if threading.get_ident() == own:
                content.pop("init_main_from_path", None)
                content.pop("init_main_from_name", None)
            return content

        spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare


def _start_worker() -> None:
    wrap_streams()
    # Ctrl-C is the parent's to handle; and a parent that was killed cannot tell its workers to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
