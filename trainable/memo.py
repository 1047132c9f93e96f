"""What the frozen stages give for each view of each image: computed once, and shared by the trials of a run.

The frozen stages run in evaluation mode and always in one batch shape, so that an image's activations depend on its
view alone: not on the trial, its batch size, or the image's neighbours. They are kept as blocks of `CANONICAL_BATCH`
images, one file a block and depth. Without room, or without a folder, the same code computes them again and again, and
gives the same bits.
"""

import fcntl
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch.nn import functional

from trainable.backbone import Backbone
from trainable.images import Record, read_image
from trainable.settings import TrainSettings
from trainable.views import augmented_view, plain_view

CANONICAL_BATCH = 32
"""Images in every batch that the frozen stages see; a shorter one is filled up with zeros."""

BUDGET_BYTES = 20 * 2**30
BUDGET_SHARE = 0.25
"""The memo takes at most so many bytes, and at most this share of what the disk has free."""

_BYTES = 4
"""Of a number in an activation (float32)."""

_KEPT_FLOPS = 0.1
"""Between two depths that are kept lies about this share of the backbone's FLOPs."""


@dataclass(frozen=True)
class FrozenPass:
    """The computation whose results are shared: from an image file to the activations behind ``depth`` stages."""

    backbone: Backbone
    train: TrainSettings
    seed: int
    device: torch.device

    def view(self, record: Record, number: int | None) -> torch.Tensor:
        """uint8 ``[3, H, W]``; None: the plain view that validation sees."""
        image, train = read_image(record.path), self.train
        if number is None:
            return plain_view(image, self.backbone.preprocessing)
        return augmented_view(
            image, record.digest, number, self.seed, train.augmentation, train.crop_scale, self.backbone.preprocessing
        )

    def run(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """From activations behind ``start`` stages (0: views) ``[B ≤ CANONICAL_BATCH, …]`` to those behind ``stop``,
        or, for ``stop`` 0, to the network's input."""
        count = len(x)
        x = functional.pad(x, (0, 0) * (x.ndim - 1) + (0, CANONICAL_BATCH - count)).to(self.device)
        with torch.no_grad():
            x = self.backbone.preprocessing.normalise(x) if start == 0 else _laid_out(x)
            for stage in self.backbone.stages[start:stop]:
                x = _laid_out(stage(x))
        return x[:count]

    def key(self, records: Sequence[Record], number: int | None) -> str:
        """A digest of all that decides the bits of one view of these images."""
        view = None if number is None else (number, self.seed, self.train.augmentation, self.train.crop_scale)
        parts = (
            self.backbone.name,
            self.backbone.digest,
            astuple(self.backbone.preprocessing),
            view,
            str(self.device),
            torch.get_num_threads(),
            [record.digest for record in records],
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class Memo:
    """The activations behind ``depth`` frozen stages.

    Args:
        folder: where blocks are kept; None: nowhere.
    """

    def __init__(self, frozen: FrozenPass, depth: int, folder: Path | None) -> None:
        self._frozen, self._depth, self._folder = frozen, depth, folder
        self._kept = kept_depths(frozen.backbone)
        self._budget = _Budget(folder) if folder is not None else None

    def activations(
        self, records: Sequence[Record], view: int | None, order: Sequence[int] | None = None
    ) -> Iterator[torch.Tensor]:
        """The activations of ``records`` in ``order`` (None: as they are), in blocks ``[≤ CANONICAL_BATCH, …]``.

        Args:
            view: the number of the augmented view; None: the plain view that validation sees.
        """
        order = range(len(records)) if order is None else order
        blocks = self._stored_blocks(records, view)
        for start in range(0, len(order), CANONICAL_BATCH):
            places = order[start : start + CANONICAL_BATCH]
            if blocks is None:
                x, known = torch.stack([self._frozen.view(records[i], view) for i in places]), 0
            else:
                known = self._shelf
                x = _unpacked(torch.stack([blocks[i // CANONICAL_BATCH][i % CANONICAL_BATCH] for i in places]))
            yield self._frozen.run(x, known, self._depth)

    @property
    def _shelf(self) -> int:
        """The deepest kept depth that is no deeper than this trial's."""
        return max(depth for depth in self._kept if depth <= self._depth)

    def _stored_blocks(self, records: Sequence[Record], view: int | None) -> list[torch.Tensor] | None:
        """All blocks of a view on this trial's shelf, computed where nobody has; None where there is no room."""
        if self._folder is None or self._budget is None:
            return None
        folder = self._folder / self._frozen.key(records, view)
        groups = [records[i : i + CANONICAL_BATCH] for i in range(0, len(records), CANONICAL_BATCH)]
        missing = [i for i in range(len(groups)) if not _file(folder, self._shelf, i).exists()]
        while missing:
            busy = []
            for i in missing:
                if not self._budget.has_room():
                    return None
                if not self._provide(folder, i, groups[i], view):
                    busy.append(i)
            if len(busy) == len(missing):
                time.sleep(0.01)  # others are at work on all that is missing
            missing = busy
        blocks = [_load(_file(folder, self._shelf, i)) for i in range(len(groups))]
        sound = [block for block in blocks if block is not None]
        # A block that a power cut damaged is gone now, and is made again.
        return sound if len(sound) == len(blocks) else self._stored_blocks(records, view)

    def _provide(self, folder: Path, block: int, records: Sequence[Record], view: int | None) -> bool:
        """Compute a block unless another process is at it; whether it is there now."""
        if _file(folder, self._shelf, block).exists():
            return True
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{block}.lock") as mine:
            if mine and not _file(folder, self._shelf, block).exists():
                self._compute(folder, block, records, view)
            return mine

    def _compute(self, folder: Path, block: int, records: Sequence[Record], view: int | None) -> None:
        """Go on from the deepest kept depth that is stored, storing each kept depth on the way."""
        depth, x = self._deepest_stored(folder, block)
        if x is None:
            x = torch.stack([self._frozen.view(record, view) for record in records])
            self._store(x, folder, 0, block)
        for stop in (d for d in self._kept if depth < d <= self._shelf):
            x = self._frozen.run(x, depth, stop)
            self._store(x, folder, stop, block)
            depth = stop

    def _deepest_stored(self, folder: Path, block: int) -> tuple[int, torch.Tensor | None]:
        for depth in reversed([depth for depth in self._kept if depth <= self._shelf]):
            x = _load(_file(folder, depth, block))
            if x is not None:
                return depth, _unpacked(x)
        return 0, None

    def _store(self, x: torch.Tensor, folder: Path, depth: int, block: int) -> None:
        assert self._budget is not None
        file = _file(folder, depth, block)
        partial = file.with_name(f"{file.name}.{os.getpid()}.part")
        safetensors.torch.save_file({"x": _packed(x.cpu())}, partial)
        self._budget.spend(partial.stat().st_size)
        os.replace(partial, file)


def kept_depths(backbone: Backbone) -> tuple[int, ...]:
    """The depths worth storing: 0, the views themselves; the deepest; and between them one every `_KEPT_FLOPS`, but
    none whose activations take more room than the view does."""
    stages, view = backbone.stages, 3 * math.prod(backbone.preprocessing.image_size)
    total, since = sum(stage.flops for stage in stages), 0
    kept = [len(stages) - 1]
    for depth in range(len(stages) - 2, 0, -1):
        since += stages[depth].flops
        if since >= _KEPT_FLOPS * total and stages[depth - 1].elements * _BYTES <= view:
            kept.append(depth)
            since = 0
    return (0, *reversed(kept))


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    """One memory layout for all, whether computed or read: kernels, and so the last bits, depend on it."""
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


def _packed(x: torch.Tensor) -> torch.Tensor:
    """`_laid_out` as a plain array: ``[B, C, H, W]`` becomes ``[B, H, W, C]``."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous()


def _unpacked(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


class _Budget:
    """Keeps a folder below a number of bytes. Processes look at it together only now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._spent, self._looked = folder, 0, -1.0
        self._limit = 0.0

    def has_room(self) -> bool:
        now = time.monotonic()
        if self._looked < 0 or now - self._looked > 5:
            self._spent = sum(_size(file) for file in self._folder.glob("*/*.safetensors"))
            free = shutil.disk_usage(self._folder.parent).free
            self._limit = min(BUDGET_BYTES, (free + self._spent) * BUDGET_SHARE)
            self._looked = now
        return self._spent < self._limit

    def spend(self, size: int) -> None:
        self._spent += size


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _file(folder: Path, depth: int, block: int) -> Path:
    return folder / f"{depth}-{block}.safetensors"


def _load(file: Path) -> torch.Tensor | None:
    """A stored block; None where there is none, or where it was damaged: then it is removed."""
    try:
        return safetensors.torch.load_file(file)["x"]
    except FileNotFoundError:
        return None
    except safetensors.SafetensorError:
        file.unlink(missing_ok=True)
        return None


@contextmanager
def _lock(file: Path) -> Iterator[bool]:
    """Hold the file's lock, or give False where another process does; one that dies lets go by dying."""
    with open(file, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
