"""What the frozen stages give for each view of each image.

For now computed anew whenever it is asked for. The frozen stages run in evaluation mode and always in one batch shape,
so that an image's activations depend on nothing but its view: not on the trial's batch size, nor on its neighbours.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from trainable.backbone import Backbone
from trainable.images import Record, read_image
from trainable.settings import TrainSettings
from trainable.views import augmented_view, plain_view

CANONICAL_BATCH = 32
"""Images in every batch that the frozen stages see; a shorter one is filled up with zeros."""


class Memo:
    """The frozen stages' activations of one trial's images."""

    def __init__(self, backbone: Backbone, depth: int, train: TrainSettings, seed: int, device: torch.device) -> None:
        self._backbone, self._depth, self._train, self._seed, self._device = backbone, depth, train, seed, device

    def activations(self, records: Sequence[Record], view: int | None) -> Iterator[torch.Tensor]:
        """The activations of ``records`` in their order, in blocks ``[≤ CANONICAL_BATCH, …]`` on the device.

        Args:
            view: the number of the augmented view; None: the plain view that validation sees.
        """
        for start in range(0, len(records), CANONICAL_BATCH):
            block = records[start : start + CANONICAL_BATCH]
            views = torch.stack([self._view(record, view) for record in block])
            yield self._frozen_pass(views)

    def _view(self, record: Record, view: int | None) -> torch.Tensor:
        image, train = read_image(record.path), self._train
        if view is None:
            return plain_view(image, self._backbone.preprocessing)
        return augmented_view(
            image, record.digest, view, self._seed, train.augmentation, train.crop_scale, self._backbone.preprocessing
        )

    def _frozen_pass(self, views: torch.Tensor) -> torch.Tensor:
        """uint8 ``[B, 3, H, W]`` to the activations ``[B, …]`` behind the frozen stages."""
        count = len(views)
        views = functional.pad(views, (0, 0, 0, 0, 0, 0, 0, CANONICAL_BATCH - count)).to(self._device)
        with torch.no_grad():
            x = self._backbone.preprocessing.normalise(views)
            for stage in self._backbone.stages[: self._depth]:
                x = stage(x)
        return x[:count]
