"""The blocks of one view of a split's images: a file each, read with its checksum and written whole."""

import contextlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from trainable.budget import Budget
from trainable.lock import take_lock


class Shelf:
    """The blocks of one view that is in use."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder, self._budget = folder, budget

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
        stream = self._budget.reserve(partial, len(data))
        if stream is None:
            return False
        try:
            with stream:
                stream.write(data)
                stream.flush()
                self._budget.land(partial, file)
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
