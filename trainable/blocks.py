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
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trainable.budget import Budget
from trainable.lock import take_lock
from trainable.shelf import Shelf
from trainable.whole import written_whole

_ABOUT, _LEDGER, _USE, _GONE = "about.json", "ledger", "use.lock", ".gone"

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
        self.folder, self._bytes, self._since = folder, budget, since
        self._budget = Budget(budget, folder / _LEDGER, self._make_room)

    @contextmanager
    def open(self, key: str, about: Callable[[], Mapping[str, Any]]) -> Iterator[Shelf | None]:
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
                shelf = Shelf(self.folder / key, self._budget)
            yield shelf

    def _prepare(self, key: str, about: Callable[[], Mapping[str, Any]], stack: contextlib.ExitStack) -> None:
        folder = self.folder / key
        for _ in range(_TRIES):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                # "+", since NFS shares no lock on a file that cannot be read.
                stream = stack.enter_context(open(folder / _USE, "a+"))  # noqa: SIM115
            except FileNotFoundError:
                continue  # it was removed between these lines
            fcntl.flock(stream, fcntl.LOCK_SH)
            if _still_at(stream, folder / _USE):
                break
        else:
            raise OSError(f"{folder / _USE} cannot be kept open")
        if not (folder / _ABOUT).exists():
            with written_whole(folder / _ABOUT) as draft:
                draft.write_text(json.dumps(about()))
        os.utime(folder / _ABOUT)

    def problem(self) -> OSError | None:
        """What keeps the folder from being used; None where nothing does."""
        probe = f"probe-{uuid.uuid4().hex}"
        try:
            with contextlib.ExitStack() as stack:
                self._prepare(probe, dict, stack)
        except OSError as error:
            return error
        finally:
            shutil.rmtree(self.folder / probe, ignore_errors=True)
        return None

    def views(self) -> list[StoredView]:
        """All views, the least recently used first."""
        found = []
        for folder in self.folder.glob("*/"):
            if folder.suffix != _GONE:
                about = folder / _ABOUT
                with contextlib.suppress(OSError):  # it was removed just now, or is not ours to read
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

    def _make_room(self, size: int) -> int:
        """Remove what nobody uses until ``size`` bytes fit, or nothing is left to remove; the bytes that remain."""
        for partial in self.folder.glob("*/*.part"):
            with contextlib.suppress(OSError), open(partial, "a") as stream:
                if take_lock(stream):
                    partial.unlink()
        left = self.sweep()
        views = self.views()
        total = left + sum(view.bytes for view in views)
        for view in views:
            if total + size <= self._bytes:
                break
            if view.used < self._since and self.remove(view):
                total -= view.bytes
        return total


def _still_at(stream: IO[Any], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _bytes_in(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for file in os.scandir(folder):
            if file.name.endswith((".safetensors", ".part")):
                with contextlib.suppress(OSError):
                    total += file.stat().st_size
    return total
