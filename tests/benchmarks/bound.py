"""The least time that a list of trials can take on these cores: what must be computed, measured piece by piece.

decode + views + one frozen pass + Σ epochs × (open stages' training and validation), each on one thread, divided by the
number of cores. Nothing of Ray, of Python's start, of the study or of reading and writing is in it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainable.allocator import keep_freed_memory
from trainable.backbone import load_backbone
from trainable.epoch import predict, train_epoch
from trainable.frozen import CANONICAL_BATCH, FrozenPass
from trainable.images import ImageSet, read_image
from trainable.settings import TrainSettings

_SAMPLE = 64
"""Images on which the time of one is measured."""


def bound_seconds(images: ImageSet, trials: Sequence[dict[str, Any]], epochs: int, precision: str, cores: int) -> float:
    """Seconds for the trials (their settings under ``train:``) with ``tf_efficientnet_lite0``."""
    torch.set_num_threads(1)
    keep_freed_memory()
    backbone = load_backbone("tf_efficientnet_lite0", "pretrained", len(images.classes))
    frozen = FrozenPass(backbone, TrainSettings(precision=precision), 0, torch.device("cpu"))
    train, val = images.split("train"), images.split("val")
    sample = train[:_SAMPLE]
    backbone.reset(0, 0)
    decode = _seconds(lambda: [read_image(record.path) for record in sample]) / len(sample)
    [frozen.view(record, 0) for record in sample]  # keeps the decoded images
    view = _seconds(lambda: [frozen.view(record, 1) for record in sample]) / len(sample)
    views = torch.stack([frozen.view(record, 0) for record in sample[:CANONICAL_BATCH]])
    deepest = max(backbone.depth(trial["freeze_depth"]) for trial in trials)
    once = _seconds(lambda: frozen.run(views, 0, deepest)) / len(views) if deepest else 0.0
    passes = len(train) * epochs + len(val)
    total = (len(train) + len(val)) * decode + passes * (view + once)
    measured: dict[tuple[int, int], tuple[float, float]] = {}
    for trial in trials:
        key = backbone.depth(trial["freeze_depth"]), trial["batch_size"]
        if key not in measured:
            measured[key] = _open_stages(backbone, frozen, views, *key)
        a_training_image, a_validation_image = measured[key]
        total += epochs * (len(train) * a_training_image + len(val) * a_validation_image)
    return total / cores


def _open_stages(
    backbone: Any, frozen: FrozenPass, views: torch.Tensor, depth: int, batch_size: int
) -> tuple[float, float]:
    """Seconds that the stages behind ``depth`` take to train on an image, and to classify one."""
    backbone.reset(depth, 0)
    x = frozen.run(views, 0, depth).float()
    stages = backbone.stages[depth:]
    labels = torch.arange(len(x)) % 2
    optimizer = torch.optim.SGD([p for stage in stages for p in stage.parameters()], lr=1e-3, momentum=0.9)

    def train() -> None:
        for stage in stages:
            stage.train()
        train_epoch(stages, x.split(batch_size), labels, optimizer, 0.0)

    def classify() -> None:
        for stage in stages:
            stage.eval()
        predict(stages, [x])

    return _seconds(train) / len(x), _seconds(classify) / len(x)


def _seconds(work: Callable[[], object]) -> float:
    """The median of three, after one to warm up."""
    work()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[1]


def images_of(data: Path) -> ImageSet:
    """The data set in a folder with train/ and val/."""
    from trainable.images import find_images
    from trainable.sources import find_source

    return find_images(
        find_source([str(data)], print), limit=None, test=None, val=0.25, seed=0, skip_unreadable=False, progress=print
    )
