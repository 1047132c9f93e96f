"""Which image is trained on, validated on, or sealed: decided by what it shows, never by its name or place."""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from trainable.listing import ImageFile

Key = TypeVar("Key")


@dataclass(frozen=True)
class Shares:
    """What is set aside of the training images, as fractions; None: nothing, the source has that split (or none)."""

    test: float | None
    val: float | None


def assign_splits(
    files: Sequence[ImageFile],
    digests: Mapping[Path, str],
    shares: Shares,
    *,
    seed: int,
    exact: bool,
) -> list[ImageFile]:
    """The files, each with its split: "train", "val" or "test".

    Files of val or test stay there. Of the others, the share for test of each class (and stratum) is sealed, then
    of what is left the share for val is set aside.

    Each image has a number in 0-1, a hash of its digest, and goes to the split if that lies below the fraction. So
    an image's split depends on nothing but the image: adding, renaming or removing files moves no other image, and
    copies of one image stay together. The price is that a class's share is the fraction only on average (of 100
    images with 0.25, 25 ± 4). Every split gets at least one image of each class that has enough: where the hashes
    give none (or all), the image with the lowest (highest) number is taken, and only in such a class, usually one
    of a few images, may an addition move another one.

    ``exact``, for a data set that never changes: exactly the fraction of each class and stratum, by the same numbers.

    The seed moves images between train and val; what is in test is the same for every seed, so that a sealed image
    stays sealed.
    """
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file in files:
        if file.split in (None, "train"):
            groups[file.class_name, file.stratum].add(digests[file.path])
    chosen: dict[tuple[str, str, str], str] = {}
    for group, rest in groups.items():
        sealed = _pick(rest, shares.test, "test", 1 if shares.val is None else 2, exact)
        held = _pick(rest - sealed, shares.val, f"val {seed}", 1, exact)
        chosen |= {(*group, digest): "test" for digest in sealed} | {(*group, digest): "val" for digest in held}
    return [
        replace(file, split=chosen.get((file.class_name, file.stratum, digests[file.path]), "train"))
        if file.split in (None, "train")
        else file
        for file in files
    ]


def deal_folds(labels: Sequence[int], digests: Sequence[str], count: int, seed: int) -> tuple[int, ...]:
    """The fold of each image, from 0, for cross-validation.

    The images are dealt out class by class, in an order that a hash of their digests and the seed decides: folds differ
    by at most one image of each class, and by at most one in all. Copies of one image are dealt as one.
    """
    label_of = dict(zip(reversed(digests), reversed(labels), strict=True))  # of copies, the first one's
    deck = sorted(label_of, key=lambda digest: (label_of[digest], _number(f"fold {seed}", digest), digest))
    fold_of = {digest: place % count for place, digest in enumerate(deck)}
    return tuple(fold_of[digest] for digest in digests)


def apportion(sizes: Mapping[Key, int], total: int) -> dict[Key, int]:
    """How many of each group to keep so that ``total`` are kept: at least one each, otherwise in proportion.

    The Sainte-Laguë method (each next one goes to the group with the highest size / (2 kept + 1)): a larger total
    never takes anything from a group, so a smaller subset lies within a larger one. ``total`` must be at least the
    number of groups; ties go to the group that comes first.
    """
    kept = dict.fromkeys(sizes, 1)
    queue = [(-size / 3, place, key) for place, (key, size) in enumerate(sizes.items()) if size > 1]
    heapq.heapify(queue)
    for _ in range(min(total, sum(sizes.values())) - len(sizes)):
        _, place, key = heapq.heappop(queue)
        kept[key] += 1
        if kept[key] < sizes[key]:
            heapq.heappush(queue, (-sizes[key] / (2 * kept[key] + 1), place, key))
    return kept


def _pick(digests: set[str], fraction: float | None, salt: str, leave: int, exact: bool) -> set[str]:
    """The digests that go to a split: at least one, and not the last ``leave``."""
    if fraction is None:
        return set()
    numbers = sorted((_number(salt, digest), digest) for digest in digests)
    count = round(fraction * len(numbers)) if exact else sum(number < fraction for number, _ in numbers)
    count = max(0, min(max(1, count), len(numbers) - leave))
    return {digest for _, digest in numbers[:count]}


def _number(salt: str, digest: str) -> float:
    """A number in [0, 1) that is as good as random, and always the same."""
    return int.from_bytes(hashlib.sha256(f"{salt} {digest}".encode()).digest()[:6], "big") / 2**48
