"""Whole views of activations kept in a GPU's memory, where copying them there again for every epoch would be felt."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch

_SHARE = 1 / 16
"""Of the GPU's memory, for each process: several trials may share a GPU, and training needs most of it."""


class Resident:
    """Views on the GPU; where there is no room for another, the least recently used go."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._views: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._all_room = self._room = _room_on(device)

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The view ``[N, …]``, or None where it is not here."""
        if key in self._views:
            self._views.move_to_end(key)
        return self._views.get(key)

    def put(self, key: Hashable, blocks: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """Keep the view that ``blocks`` make up and give it ``[N, …]``; None where blocks are missing, the view is
        larger than all the room there is, or the device is no GPU."""
        present = [block for block in blocks if block is not None]
        size = sum(block.nbytes for block in present)
        if not present or len(present) < len(blocks) or size > self._all_room:
            return None
        while size > self._room:
            _, gone = self._views.popitem(last=False)
            self._room += gone.nbytes
        counts = [len(block) for block in present]
        whole = torch.empty((sum(counts), *present[0].shape[1:]), dtype=present[0].dtype, device=self._device)
        for place, block in zip(whole.split(counts), present, strict=True):
            # By way of pinned memory, from which a GPU copies at full speed.
            place.copy_(block.pin_memory() if self._device.type == "cuda" else block)
        self._views[key] = whole
        self._room -= size
        return whole


def _room_on(device: torch.device) -> int:
    """Bytes that views may take there: none on a CPU, which reads the memo's files where they are."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory * _SHARE)
