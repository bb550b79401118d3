"""Work on many images with all cores."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from agebench.terminal import wrap_streams

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this many items, starting processes takes longer than the work.
WORTH_PROCESSES = 600
CHUNK = 64


def map_in_order(
    function: Callable[[Sequence[Item]], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    chunk: int = CHUNK,
    worth: int | None = None,
    ahead: int = 4,
) -> Iterator[Result]:
    """`function` of each run of up to `chunk` items, in order; over `workers` processes (default: one a core) where it pays.

    It pays from `worth` items on (default: 600). `function` and the items are pickled. Workers end with this process, however
    it ends. Of a stream of items few are held at a time: those that decide whether it pays, then `ahead` chunks a worker.
    A result that is ready comes when one more chunk is under way: it does not wait for `ahead` chunks to be.
    """
    items, workers = iter(items), workers or available_cores()
    worth = WORTH_PROCESSES if worth is None else worth
    first = list(islice(items, max(worth, workers * chunk))) if workers > 1 else []
    workers = min(workers, -(-len(first) // chunk))
    chunks = _chunks(chain(first, items), chunk)
    if workers <= 1 or len(first) < worth:
        yield from map(function, chunks)
        return
    del first
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
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
