"""Freed memory is kept where it is asked for, and the user's own settings stay."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
from agebench.utils.allocator import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
print(keep_freed_memory())
before = resident()
block = b"x" * 200_000_000
del block
print(resident() - before > 150_000_000)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
@pytest.mark.parametrize(("set_by_user", "kept"), [({}, "True"), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, "False")])
def test_freed_memory_is_kept_unless_the_user_has_set_the_allocator(set_by_user: dict[str, str], kept: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=own | set_by_user, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept, kept]
