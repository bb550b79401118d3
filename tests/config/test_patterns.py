import signal
import threading

import pytest

from agebench.config import patterns
from agebench.config.patterns import bounded_matching, compile_pattern
from agebench.errors import UserError


@pytest.mark.parametrize(
    "looks",
    [
        "a+",
        "(?:ab)+",
        r"(?:\d{2}){3}",
        "(?:a|b)*",
        "(?:[+*]x)+",
        "(?:a+)?",
        r"(?:\+a)+",
        "(?:[]+]x)*",
        r"(?:[^\]+]x)*",
        "a++",
    ],
)
def test_compile_pattern_takes_simple_repeats(looks: str) -> None:
    assert compile_pattern(f"{{age}}{{:{looks}}}.jpg")


@pytest.mark.parametrize(
    "looks", ["(a+)+", "(?:a*)*", r"(?:\d+x?)*", "((a+)b?)*", r"(?:a{1,}){3}", "(?:(?:a|b+)c)+", "(?P<x>a*?)*?"]
)
def test_compile_pattern_refuses_repeated_repeats(looks: str) -> None:
    with pytest.raises(UserError, match="repeats a group that itself repeats"):
        compile_pattern(f"{{age}}{{:{looks}}}.jpg")


def test_bounded_matching_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LIMIT_S", 0.05)
    slow = compile_pattern("{age:(?:a|a)+}.jpg")
    before = signal.getsignal(signal.SIGALRM)
    with bounded_matching("pattern") as match:
        assert match(slow, "aaa.jpg")
        with pytest.raises(UserError, match=r"options\.pattern: comparing it with 'a+b' takes more than 0\.05 s"):
            match(slow, "a" * 60 + "b")
        assert match(slow, "aaa.jpg")
    assert signal.getsignal(signal.SIGALRM) == before


def test_bounded_matching_works_in_threads() -> None:
    fitting: list[object] = []

    def work() -> None:
        with bounded_matching("pattern") as match:
            fitting.append(match(compile_pattern("{age}.jpg"), "25.jpg"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert fitting[0] is not None
