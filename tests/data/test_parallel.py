"""Work over processes: in order, few items at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from agebench.data.parallel import _bounded


class Pool(Executor):
    """Does its work when it is given, or never."""

    def __init__(self, *, quick: bool) -> None:
        self.quick, self.given = quick, list[Future[Any]]()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future = Future[Any]()
        self.given.append(future)
        if self.quick:
            future.set_result(function(*arguments, **named))
        return future


def counted(taken: list[int]) -> Iterator[list[int]]:
    for number in range(10):
        taken.append(number)
        yield [number]


def test_a_result_that_is_ready_waits_for_no_other() -> None:
    taken: list[int] = []
    results = _bounded(Pool(quick=True), sum, counted(taken), ahead=8)
    assert next(results) == 0
    assert taken == [0]
    assert list(results) == list(range(1, 10))


def test_a_slow_worker_is_given_no_more_than_it_should_hold() -> None:
    taken: list[int] = []
    pool = Pool(quick=False)

    def finished() -> Iterator[list[int]]:
        for chunk in counted(taken):
            yield chunk
            if len(pool.given) == 3:
                pool.given[0].set_result("first")
                pool.given[1].set_result("second")

    results = _bounded(pool, sum, finished(), ahead=4)
    assert [next(results), next(results)] == ["first", "second"]
    assert taken == [0, 1, 2, 3]
