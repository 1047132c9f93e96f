"""How much the blocks of a memo may take: counted by all processes of a machine together."""

import fcntl
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import IO

_PATIENCE_S = 5
"""Seconds before a process that was refused looks for room again: looking means to look at every file."""


class Budget:
    """The bytes that all blocks may take together, and the ledger, a file that says how many they do.

    Args:
        bytes: what they may take.
        ledger: the file; it is locked while someone counts.
        make_room: removes what nobody uses until that many more bytes fit, or nothing is left to remove, and says how
            many bytes remain.
    """

    def __init__(self, bytes: int, ledger: Path, make_room: Callable[[int], int]) -> None:
        self._bytes, self._ledger, self._make_room = bytes, ledger, make_room
        self._refused = -inf

    def reserve(self, file: Path, size: int) -> IO[bytes] | None:
        """A new file of ``size`` bytes that counts towards the budget from now on; None where there is no room."""
        if time.monotonic() - self._refused < _PATIENCE_S:
            return None
        try:
            with self._locked() as ledger:
                total = _read_total(ledger)
                if total is None or total + size > self._bytes:
                    total = self._make_room(size)  # the ledger does not know what was removed by others
                if total + size <= self._bytes:
                    # Written first: after a crash between these lines it says too much, and everything is counted.
                    _write_total(ledger, total + size)
                    return _allocated(file, size)
        except OSError:
            pass  # what cannot be written has no room
        self._refused = time.monotonic()
        return None

    def land(self, partial: Path, file: Path) -> None:
        """Give a block that is written whole its name, while nobody counts: it would be missed under either name."""
        with self._locked():
            os.replace(partial, file)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        with open(os.open(self._ledger, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            yield ledger


def _allocated(file: Path, size: int) -> IO[bytes]:
    """A new file that has its bytes on the disk, locked: one that nobody holds was left behind by a crash."""
    stream = open(file, "wb")  # noqa: SIM115  (the caller closes it)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError:
        stream.close()
        file.unlink()
        raise
    return stream


def _write_total(ledger: IO[bytes], total: int) -> None:
    """Over what is there, and cut behind it: to cut the file first takes milliseconds on some file systems."""
    ledger.seek(0)
    ledger.write(b"%d %08x" % (total, zlib.crc32(b"%d" % total)))
    ledger.truncate()
    ledger.flush()


def _read_total(ledger: IO[bytes]) -> int | None:
    """None where the ledger is new, or damaged."""
    ledger.seek(0)
    found = re.fullmatch(rb"([0-9]{1,18}) ([0-9a-f]{8})", ledger.read())
    return int(found[1]) if found and int(found[2], 16) == zlib.crc32(found[1]) else None
