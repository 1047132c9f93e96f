"""Photographs that are nearly the same in two splits, such as two shots of one scene: they make scores look better."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from trainable.backbone import Backbone
from trainable.frozen import CANONICAL_BATCH, FrozenPass
from trainable.images import Record
from trainable.settings import TrainSettings
from trainable.threads import map_on_threads

_LEAST, _MOST, _DEVIATIONS = 0.85, 0.996, 4.0
"""Cosine similarities at which an image and its nearest one in another part are called nearly the same: never below the
first, always above the second, and between them so many median absolute deviations above the median of all. Measured
with EfficientNet-Lite0: of the ants and bees, nearest neighbours reach 0.81, and copies cropped by 5 % lie at 0.92 or
above, nine times in ten; of 2,624 solar cells, neighbours in one module reach 0.995, and only copies stand out that
were saved again as good JPEG files."""


@dataclass(frozen=True)
class NearDuplicate:
    """An image, and one of another split or fold that is nearly the same."""

    image: Record
    other: Record
    similarity: float
    """Cosine of their features, at most 1."""


def near_duplicates(parts: Sequence[tuple[Record, ...]], backbone: Backbone) -> list[NearDuplicate]:
    """The images that have a near duplicate in an earlier part, by the pretrained network's features; the most similar
    first. The backbone is reset.

    Args:
        parts: images that judge what was learnt from others: the splits (train, val, test), or the folds.
    """
    backbone.reset(backbone.depth("all"), 0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone.to(device)
    frozen = FrozenPass(backbone, TrainSettings(precision="fp32"), 0, device)
    first, *others = [part for part in parts if part]
    earlier, earlier_features = first, _features(frozen, first)
    pairs: list[NearDuplicate] = []
    for records in others:
        features = _features(frozen, records)
        pairs += _nearest(records, features, earlier, earlier_features)
        earlier, earlier_features = (*earlier, *records), torch.cat([earlier_features, features])
    if not pairs:
        return []
    similarity = torch.tensor([pair.similarity for pair in pairs])
    median = similarity.median()
    unusual = (median + _DEVIATIONS * (similarity - median).abs().median()).item()
    bound = min(max(_LEAST, unusual), _MOST)
    return sorted((pair for pair in pairs if pair.similarity > bound), key=lambda pair: -pair.similarity)


def _features(frozen: FrozenPass, records: tuple[Record, ...]) -> torch.Tensor:
    """What the head sees of each image's plain view, as unit vectors ``[N, features]``."""
    return torch.cat(list(_blocks(frozen, records)))


def _blocks(frozen: FrozenPass, records: tuple[Record, ...]) -> Iterator[torch.Tensor]:
    depth = frozen.backbone.depth("all")
    for start in range(0, len(records), CANONICAL_BATCH):
        views = map_on_threads(lambda record: frozen.view(record, None), records[start : start + CANONICAL_BATCH])
        x = frozen.run(torch.stack(views), 0, depth).float()
        yield functional.normalize(x.flatten(2).mean(2) if x.ndim == 4 else x.flatten(1), dim=1).cpu()


def _nearest(
    records: tuple[Record, ...], features: torch.Tensor, others: tuple[Record, ...], other_features: torch.Tensor
) -> Iterator[NearDuplicate]:
    """Each image with the nearest of the others, a block at a time: memory does not grow with the product."""
    for start in range(0, len(records), 1024):
        best, place = (features[start : start + 1024] @ other_features.T).max(1)
        for record, similarity, i in zip(records[start:], best.tolist(), place.tolist(), strict=False):
            yield NearDuplicate(record, others[i], similarity)
