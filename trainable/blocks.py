"""Blocks of activations in a folder: within a budget, shared by all processes of a machine, and never trusted blindly.

The folder holds a folder a view (of all images of a split), and that a file a block and depth. A block is written
under another name and renamed, so a crash leaves no half of one; it is read with its checksum, so a damaged one is
noticed, dropped and computed again. Claims on blocks and views are locks of the operating system, which go with the
process that holds them. Where there is no room, or the folder cannot be used for whatever reason, nothing is stored:
that costs time, and changes nothing else.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch

from trainable.lock import take_lock

_ABOUT, _LEDGER, _USE, _GONE = "about.json", "ledger", "use.lock", ".gone"

_PATIENCE_S = 5
"""Seconds before a process that was refused looks for room again: looking means to look at every file."""

_TRIES = 10
"""How often a view's folder may be removed just when it is opened."""


@dataclass(frozen=True)
class StoredView:
    """What lies in the folder of one view."""

    folder: Path
    about: Mapping[str, Any]
    """What it was made of, in words; {} where that is unreadable."""
    bytes: int
    used: float
    """When it was used last, in seconds since 1970."""


class BlockStore:
    """A folder of views.

    Args:
        budget: bytes that all its blocks may take together.
        since: when the search began, in seconds since 1970. What was used since is not removed to make room: the
            searches that run now would only compute it again.
    """

    def __init__(self, folder: Path, budget: int, since: float) -> None:
        self.folder, self._budget, self._since = folder, budget, since
        self._refused = -math.inf

    @contextmanager
    def open(self, key: str, about: Callable[[], Mapping[str, Any]]) -> Iterator["Shelf | None"]:
        """Use the view ``key``, which is not removed meanwhile; None where the folder cannot be used.

        Args:
            about: what it is made of, in words; asked for only where the view is new.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._prepare(key, about, stack)
            except OSError:
                shelf = None
            else:
                shelf = Shelf(self, self.folder / key)
            yield shelf

    def _prepare(self, key: str, about: Callable[[], Mapping[str, Any]], stack: contextlib.ExitStack) -> None:
        folder = self.folder / key
        for _ in range(_TRIES):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stream = stack.enter_context(open(folder / _USE, "a"))  # noqa: SIM115
            except FileNotFoundError:
                continue  # it was removed between these lines
            fcntl.flock(stream, fcntl.LOCK_SH)
            if _still_at(stream, folder / _USE):
                break
        else:
            raise OSError(f"{folder / _USE} cannot be kept open")
        if not (folder / _ABOUT).exists():
            _write_whole(folder / _ABOUT, json.dumps(about()))
        os.utime(folder / _ABOUT)

    def views(self) -> list[StoredView]:
        """All views, the least recently used first."""
        found = []
        for folder in self.folder.glob("*/"):
            if folder.suffix != _GONE:
                about = folder / _ABOUT
                with contextlib.suppress(FileNotFoundError):
                    used = (about if about.exists() else folder).stat().st_mtime
                    found.append(StoredView(folder, _read_json(about), _bytes_in(folder), used))
        return sorted(found, key=lambda view: view.used)

    def remove(self, view: StoredView) -> bool:
        """Remove a view; False where a process uses it, or where it cannot be removed."""
        use, gone = view.folder / _USE, view.folder.with_name(f"{view.folder.name}.{uuid.uuid4().hex}{_GONE}")
        try:
            with open(use, "a") as stream:
                if not take_lock(stream) or not _still_at(stream, use):
                    return False
                view.folder.rename(gone)  # at once: who opens the view now begins a new one
        except FileNotFoundError:
            return True
        except OSError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return not gone.exists()

    def sweep(self) -> int:
        """Go on with removals that were cut off; the bytes that remain of them."""
        leftovers = list(self.folder.glob(f"*{_GONE}"))
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)
        return sum(_bytes_in(folder) for folder in leftovers)

    def reserve(self, file: Path, size: int) -> IO[bytes] | None:
        """A new file of ``size`` bytes that counts towards the budget from now on; None where there is no room."""
        if time.monotonic() - self._refused < _PATIENCE_S:
            return None
        try:
            with self._ledger() as ledger:
                total = _read_total(ledger)
                if total is None or total + size > self._budget:
                    total = self._make_room(size)  # the ledger does not know what was removed by others
                if total + size <= self._budget:
                    # Written first: after a crash between these lines it says too much, and everything is counted.
                    _write_total(ledger, total + size)
                    return _allocated(file, size)
        except OSError:
            pass  # what cannot be written has no room
        self._refused = time.monotonic()
        return None

    def land(self, partial: Path, file: Path) -> None:
        """Give a block that is written whole its name, while nobody counts: it would be missed under either name."""
        with self._ledger():
            os.replace(partial, file)

    @contextmanager
    def _ledger(self) -> Iterator[IO[bytes]]:
        """The file that says how many bytes all blocks take, locked."""
        with open(self.folder / _LEDGER, "a+b") as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            yield ledger

    def _make_room(self, size: int) -> int:
        """Remove what nobody uses until ``size`` bytes fit, or nothing is left to remove; the bytes that remain."""
        for partial in self.folder.glob("*/*.part"):
            with contextlib.suppress(FileNotFoundError), open(partial, "a") as stream:
                if take_lock(stream):
                    partial.unlink()
        left = self.sweep()
        views = self.views()
        total = left + sum(view.bytes for view in views)
        for view in views:
            if total + size <= self._budget:
                break
            if view.used < self._since and self.remove(view):
                total -= view.bytes
        return total


class Shelf:
    """The blocks of one view that is in use."""

    def __init__(self, store: BlockStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def has(self, depth: int, block: int) -> bool:
        return self._file(depth, block).exists()

    def load(self, depth: int, block: int) -> torch.Tensor | None:
        """A stored block, mapped into memory; None where there is none, or where it was damaged: then it is removed."""
        file = self._file(depth, block)
        try:
            with safetensors.safe_open(file, "pt") as stream:
                x = stream.get_tensor("x")
                sound = (stream.metadata() or {}).get("checksum") == _checksum(x)
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError):
            sound = False
        if not sound:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            return None
        return x

    def save(self, depth: int, block: int, x: torch.Tensor) -> bool:
        """Store a block; False where there is no room."""
        data = safetensors.torch.save({"x": x}, {"checksum": _checksum(x)})
        file = self._file(depth, block)
        partial = file.with_name(f"{file.name}.{os.getpid()}.part")
        stream = self._store.reserve(partial, len(data))
        if stream is None:
            return False
        try:
            with stream:
                stream.write(data)
                stream.flush()
                self._store.land(partial, file)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            return False
        return True

    @contextmanager
    def claim(self, block: int) -> Iterator[bool]:
        """Hold a block to compute it, or give False where another process does."""
        try:
            stream = open(self._folder / f"{block}.lock", "a")  # noqa: SIM115  (below)
        except OSError:
            yield True  # where not even a lock has room, everyone computes for himself
            return
        with stream:
            yield take_lock(stream)

    def _file(self, depth: int, block: int) -> Path:
        return self._folder / f"{depth}-{block}.safetensors"


def _checksum(x: torch.Tensor) -> str:
    """Of numbers, shape and kind: the file's header could be damaged too."""
    return f"{zlib.crc32(x.flatten().view(torch.uint8).numpy().data):08x} {x.dtype} {tuple(x.shape)}"


def _still_at(stream: IO[Any], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _write_whole(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}.draft")
    partial.write_text(text)
    os.replace(partial, file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _bytes_in(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for file in os.scandir(folder):
            if file.name.endswith((".safetensors", ".part")):
                with contextlib.suppress(FileNotFoundError):
                    total += file.stat().st_size
    return total


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
    ledger.truncate(0)
    ledger.write(b"%d %08x" % (total, zlib.crc32(b"%d" % total)))
    ledger.flush()


def _read_total(ledger: IO[bytes]) -> int | None:
    """None where the ledger is new, or damaged."""
    ledger.seek(0)
    found = re.fullmatch(rb"([0-9]{1,18}) ([0-9a-f]{8})", ledger.read())
    return int(found[1]) if found and int(found[2], 16) == zlib.crc32(found[1]) else None
