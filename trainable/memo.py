"""The memo: what the frozen stages give for each view of each image, computed once and shared by all trials.

python -m trainable.memo
"""

import functools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from trainable.blocks import BlockStore
from trainable.frozen import CANONICAL_BATCH, FrozenPass
from trainable.images import Record
from trainable.resident import Resident
from trainable.settings import MemoSettings
from trainable.shelf import Shelf
from trainable.threads import map_on_threads

_PATIENCE_S = 120
"""How long a trial waits for blocks that others hold: such a process may be stopped, and the trial can do without."""


class Memo:
    """The activations behind ``depth`` frozen stages, in blocks of `CANONICAL_BATCH` images, one file a block and kept
    depth. Without room, or without ``settings``, the same code computes them anew and gives the same bits.
    """

    def __init__(self, frozen: FrozenPass, depth: int, settings: MemoSettings | None) -> None:
        self._frozen, self._depth = frozen, depth
        self._kept = [kept for kept in sorted(settings.kept if settings else ()) if kept <= depth]
        self._shelved = max(self._kept, default=0)
        """The deepest kept depth that is no deeper than this trial's."""
        self._store = BlockStore(settings.folder, settings.budget, settings.since) if settings and self._kept else None
        self._resident = _resident(frozen.device)

    def activations(
        self, records: Sequence[Record], view: int | None, order: Sequence[int] | None = None
    ) -> Iterator[torch.Tensor]:
        """The activations of ``records`` in ``order`` (None: as they are), float32, ``[≤ CANONICAL_BATCH, …]`` each.

        Args:
            view: the number of the augmented view; None: the plain view that validation sees.
        """
        order = range(len(records)) if order is None else order
        if self._store is None:
            yield from self._in_order(records, view, order, [])
            return
        key = self._frozen.key(records, view)
        whole = self._resident.get((key, self._shelved))
        if whole is None:
            with self._store.open(key, lambda: self._about(records, view)) as shelf:
                blocks = self._blocks(shelf, records, view) if shelf else []
                whole = self._resident.put((key, self._shelved), blocks)
                if whole is None:
                    yield from self._in_order(records, view, order, blocks)
                    return
        for rows in torch.tensor(order).to(whole.device).split(CANONICAL_BATCH):
            yield self._going_on(whole[rows])

    def _in_order(
        self,
        records: Sequence[Record],
        view: int | None,
        order: Sequence[int],
        blocks: Sequence[torch.Tensor | None],
    ) -> Iterator[torch.Tensor]:
        stored = [block for block in blocks if block is not None]
        if stored and len(stored) == len(blocks) and order == range(len(records)):
            rows_at_hand: Iterator[torch.Tensor] = iter(stored)
        else:
            rows_at_hand = self._stacked(records, view, order, blocks)
        yield from map(self._going_on, rows_at_hand)

    def _going_on(self, rows: torch.Tensor) -> torch.Tensor:
        """From rows as they are shelved to what the trial trains on."""
        return self._frozen.run(unpacked(rows), self._shelved, self._depth).float()

    def _stacked(
        self, records: Sequence[Record], view: int | None, order: Sequence[int], blocks: Sequence[torch.Tensor | None]
    ) -> Iterator[torch.Tensor]:
        """Rows as they are shelved, from the blocks where there are any, else computed live."""
        missing = [i for i in order if not blocks or blocks[i // CANONICAL_BATCH] is None]
        live = self._live_rows(records, view, missing)
        for start in range(0, len(order), CANONICAL_BATCH):
            rows = []
            for i in order[start : start + CANONICAL_BATCH]:
                block = blocks[i // CANONICAL_BATCH] if blocks else None
                rows.append(next(live) if block is None else block[i % CANONICAL_BATCH])
            yield torch.stack(rows)

    def _live_rows(self, records: Sequence[Record], view: int | None, places: Sequence[int]) -> Iterator[torch.Tensor]:
        """Rows of the given places, computed a batch at a time: memory does not grow with their number."""
        if not places:
            return
        # One thread is at work on the network meanwhile; and more workers than further batches have nothing to do.
        workers = min(torch.get_num_threads(), math.ceil(len(places) / CANONICAL_BATCH)) - 1
        loader = DataLoader(
            _Views(self._frozen, records, view),
            batch_size=CANONICAL_BATCH,
            sampler=places,
            num_workers=workers,
            generator=torch.Generator(),  # else it would draw from the random numbers of the trial's dropout
        )
        for views in loader:
            yield from packed(self._frozen.run(views, 0, self._shelved) if self._shelved else views).cpu()

    def _blocks(self, shelf: Shelf, records: Sequence[Record], view: int | None) -> list[torch.Tensor | None]:
        """All blocks of a view on this trial's shelf, computed where nobody has; None where there is no room."""
        groups = [records[i : i + CANONICAL_BATCH] for i in range(0, len(records), CANONICAL_BATCH)]
        blocks: list[torch.Tensor | None] = [None] * len(groups)
        missing, provided = list(range(len(groups))), set()
        progress = time.monotonic()
        while missing:
            left = []
            for i in missing:
                if not shelf.has(self._shelved, i):
                    with shelf.claim(i) as mine:
                        if mine:
                            blocks[i], stored = self._provide(shelf, i, groups[i], view)
                            if not stored:
                                return blocks
                            provided.add(i)
                blocks[i] = shelf.load(self._shelved, i)
                if blocks[i] is None and i in provided:  # it is stored in vain
                    return blocks
                if blocks[i] is None:  # another process is at work on it, or it was damaged
                    left.append(i)
            if left != missing:
                progress = time.monotonic()
            elif time.monotonic() - progress > _PATIENCE_S:
                return blocks
            else:
                time.sleep(0.01)
            missing = left
        return blocks

    def _provide(
        self, shelf: Shelf, block: int, records: Sequence[Record], view: int | None
    ) -> tuple[torch.Tensor | None, bool]:
        """Go on from the deepest kept depth that is stored, storing each kept depth on the way.

        Returns:
            The block of this trial's depth (None: another process has just stored it), and whether it is stored:
            there may be no room.
        """
        if shelf.has(self._shelved, block):
            return None, True
        depth, x = self._deepest_stored(shelf, block)
        stored = x is not None
        if x is None:
            x = torch.stack(map_on_threads(lambda record: self._frozen.view(record, view), records))
            stored = 0 not in self._kept or shelf.save(0, block, packed(x))
        for stop in (kept_depth for kept_depth in self._kept if kept_depth > depth):
            x = self._frozen.run(x, depth, stop)
            stored = shelf.save(stop, block, packed(x).cpu())
            depth = stop
        return packed(x).cpu(), stored

    def _deepest_stored(self, shelf: Shelf, block: int) -> tuple[int, torch.Tensor | None]:
        for depth in reversed(self._kept):
            x = shelf.load(depth, block)
            if x is not None:
                return depth, unpacked(x)
        return 0, None

    def _about(self, records: Sequence[Record], view: int | None) -> dict[str, Any]:
        return {
            "data": os.path.commonpath([record.path.parent for record in records]),
            "images": len(records),
            "backbone": self._frozen.backbone.name,
            "precision": str(self._frozen.dtype).removeprefix("torch."),
            "view": view,
        }


@functools.cache
def _resident(device: torch.device) -> Resident:
    """Of this process: the trials that it runs one after another share it."""
    return Resident(device)


class _Views(Dataset[torch.Tensor]):
    """One view of each of the images, uint8 ``[3, H, W]``."""

    def __init__(self, frozen: FrozenPass, records: Sequence[Record], view: int | None) -> None:
        self._frozen, self._records, self._view = frozen, records, view

    def __getitem__(self, place: int) -> torch.Tensor:
        return self._frozen.view(self._records[place], self._view)


def packed(x: torch.Tensor) -> torch.Tensor:
    """Channels-last as a plain array: ``[B, C, H, W]`` becomes ``[B, H, W, C]``."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous()


def unpacked(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `packed`."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


if __name__ == "__main__":
    from trainable.inventory import main

    sys.exit(main())
