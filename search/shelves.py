"""Which depths' activations are worth their bytes in the memo."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import Config, MemoConfig
from search.deep_first import as_likely
from search.space import Space
from trainable.backbone import Backbone
from trainable.blocks import BlockStore
from trainable.cache import cache_folder
from trainable.frozen import PRECISIONS
from trainable.images import ImageSet
from trainable.inventory import MEMO, format_bytes
from trainable.settings import TrainSettings

DEFAULT_BUDGET = 20 * 2**30
FREE_SHARE = 0.25
"""By default the memo takes at most so many bytes, and at most this share of what the disk has free."""

_FLOPS_PER_BYTE = 800
"""A depth is kept where it spares the trials, taken together, at least so many FLOPs for each byte that is written. On
the CPU that this was measured on, 160 are computed while a byte is written; most trials are stopped early, so that two
of five ask for an average view; and what takes room should pay twice."""

_TRIALS = 30
"""Trials that are reckoned with at most, where a search ends by something else than their number."""


@dataclass(frozen=True)
class Shelf:
    """A depth whose activations could be kept."""

    depth: int
    bytes: int
    """Of all images and views."""
    kept: bool
    reason: str


def memo_folder(memo: MemoConfig) -> Path:
    """Where the memo lies."""
    return Path(os.path.expanduser(memo.folder)).resolve() if memo.folder is not None else cache_folder() / MEMO


def memo_budget(memo: MemoConfig, notes: list[str]) -> int:
    """The bytes that it may take; a note is added where its folder cannot be used."""
    if not memo.enabled:
        return 0
    folder = memo_folder(memo)
    problem = BlockStore(folder, 0, 0).problem()
    if problem is not None:
        notes.append(f"the memo cannot be used, so every trial computes its frozen stages anew: {problem}")
        return 0
    return default_budget(folder) if memo.budget is None else memo.budget


def choose_for(
    config: Config, images: ImageSet, backbone: Backbone, space: Space, budget: int, backbones: int
) -> tuple[Shelf, ...]:
    """What is worth keeping for the trials of a search: see `choose_shelves`.

    Args:
        backbones: how many share the trials.
    """
    train, search = config.train, config.search
    depths = [
        depth
        for parameter in space.parameters
        if parameter.key == "freeze_depth" and backbone.name in parameter.when.get("backbone", (backbone.name,))
        for depth in as_likely(parameter, search)
    ] or [backbone.depth(train.freeze_depth)]
    # Those that validate have the plain view.
    count = len(images.split("train")) * _count_views(train, space) + len(images.validating(config.data.folds))
    ends_otherwise = search.time_budget is not None or search.target is not None
    trials = min(search.trials, _TRIALS) if ends_otherwise else search.trials
    uses = trials / backbones * train.epochs / _views(train)
    size = PRECISIONS[train.precision].itemsize
    return choose_shelves(backbone, depths, uses, count, size, budget)


def choose_shelves(
    backbone: Backbone, depths: Sequence[int], uses: float, images: int, element_size: int, budget: int
) -> tuple[Shelf, ...]:
    """Keep the deepest depth that trials use, then one after another what spares the most FLOPs a byte, as long as that
    is worth it; and the views, where a trial begins at them.

    Args:
        depths: those that trials may have, each as often as it is likely.
        uses: how often the trials together would ask for a view, if none was stopped early.
        images: all of them, each counted as often as it has views.
        element_size: bytes of a number in an activation.
        budget: bytes that all kept activations may take.

    Returns:
        The depths worth a thought, in the order in which they were thought of; the first is the views themselves.
    """
    flops, deepest = _flops_before(backbone), max(depths)
    total = sum(stage.flops for stage in backbone.stages)
    sizes = {d: backbone.stages[d - 1].elements * element_size * images for d in range(1, deepest + 1)}
    left, candidates = budget, set(sizes)
    found: list[Shelf] = []
    while candidates:
        kept = [shelf.depth for shelf in found if shelf.kept]
        gains = {depth: _gain(depth, kept, depths, flops) for depth in candidates}
        best = deepest if not found else max(gains, key=lambda depth: gains[depth] / sizes[depth])
        if found and gains[best] * total * uses * images < _FLOPS_PER_BYTE * sizes[best]:
            break
        fits = sizes[best] <= left
        reason = f"spares {gains[best]:.1%} of the FLOPs" if fits else _too_large(left)
        if best == deepest:
            reason = "the deepest" + ("" if fits else ", as far as there is room")
        found.append(Shelf(best, sizes[best], fits or best == deepest, reason))
        left = max(left - sizes[best], 0) if found[-1].kept else left
        candidates.remove(best)
    views = 3 * math.prod(backbone.preprocessing.image_size) * images
    needed = min(depths) < min((shelf.depth for shelf in found if shelf.kept), default=math.inf)
    reason = "no image is decoded or cropped twice" if views <= left else _too_large(left)
    reason = reason if needed else "no: every trial begins at a deeper one"
    return (Shelf(0, views, needed and views <= left, reason), *found)


def default_budget(folder: Path) -> int:
    """The bytes that a memo in ``folder`` may take where nothing else is said; those that it takes count as free, or it
    would have to shrink from one search to the next."""
    # os.path says that what it may not look at does not exist; pathlib raises.
    there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    taken = sum(view.bytes for view in BlockStore(folder, 0, 0).views())
    return min(DEFAULT_BUDGET, int((shutil.disk_usage(there).free + taken) * FREE_SHARE))


def _count_views(train: TrainSettings, space: Space) -> int:
    """Different views of a training image that the trials can have; without augmentation all are the plain one."""

    def values(key: str) -> set[Any]:
        searched = {value for p in space.parameters if p.key == key for value in p.domain.values() or ()}
        return searched or {getattr(train, key)}

    each = {"none": 0, "flip": 1, "crop": len(values("crop_scale"))}
    kinds = sum(each[augmentation] for augmentation in values("augmentation"))
    return kinds * (train.views or train.epochs) + ("none" in values("augmentation"))


def _views(train: TrainSettings) -> int:
    """Different views of a training image that a trial asks for, where the space has no other augmentation."""
    return 1 if train.augmentation == "none" else train.views or train.epochs


def _flops_before(backbone: Backbone) -> Mapping[int, float]:
    """The share of the FLOPs in front of each depth."""
    total = sum(stage.flops for stage in backbone.stages) or 1
    return {
        depth: sum(stage.flops for stage in backbone.stages[:depth]) / total for depth in range(len(backbone.stages))
    }


def _gain(depth: int, kept: Sequence[int], depths: Sequence[int], flops: Mapping[int, float]) -> float:
    """The share of the backbone's FLOPs that keeping ``depth`` spares, a trial and image on average."""
    spared = 0.0
    for wanted in depths:
        if depth <= wanted:
            before = max((k for k in kept if k <= wanted), default=0)
            spared += max(flops[depth] - flops[before], 0)
    return spared / len(depths)


def _too_large(left: int) -> str:
    return f"no: {format_bytes(left)} of the budget are left"
