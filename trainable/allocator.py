"""How this process gets its memory from the system."""

import ctypes
import functools
import sys

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

_KEPT_BYTES = 2**30


@functools.cache
def keep_freed_memory() -> None:
    """Let tensors reuse the memory of those before them.

    By default glibc maps every tensor above 32 MB anew and unmaps it when it is freed, so the kernel clears its pages
    each time: on two CPU cores that was two thirds of the time of a frozen pass. From now on freed memory,
    up to a gigabyte of it, stays with this process. Elsewhere than under glibc this does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
