"""Locks of the operating system: they go with the process that holds them, so a crash leaves none behind."""

import fcntl
from typing import IO, Any


def take_lock(stream: IO[Any]) -> bool:
    """Lock an open file until it is closed, without waiting; False where another process holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
