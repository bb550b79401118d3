"""The C library's memory allocator."""

import ctypes
import os
from functools import cache

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# One above every activation, and the largest that a glibc with a bound on it accepts (half of HEAP_MAX_SIZE on 64-bit machines).
_THRESHOLDS = (1 << 30, 32 << 20)
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next allocation, and return whether it does.

    glibc returns freed blocks of many megabytes to the system, which clears them before they are used again. A network on a
    CPU frees and allocates its activations in every step, so that this takes up to half of its time. Results do not change;
    the process keeps its peak memory until it ends, except for blocks above a gigabyte. Nothing happens with another C
    library, or where the user has set the allocator by environment variables.
    """
    if any(os.environ.get(name) for name in _SET_BY_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _THRESHOLDS) and bool(mallopt(_TRIM_THRESHOLD, -1))
