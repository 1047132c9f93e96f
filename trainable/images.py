"""A data set: found, checked before anything is spent on it, and split."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainable.decode import check_images, read_image, read_same_image
from trainable.errors import InputError
from trainable.listing import Listing
from trainable.preflight import bullets, inspect
from trainable.splits import Shares, apportion, assign_splits, deal_folds
from trainable.whole import written_whole

__all__ = ["ImageSet", "Record", "find_images", "read_image", "read_same_image"]

_COLUMNS = ["split", "class", "path", "digest"]


@dataclass(frozen=True)
class Record:
    """One image."""

    path: Path
    label: int
    split: str
    """train, val or test."""
    digest: str
    """Hexadecimal, of the decoded RGB pixels and their shape (not of the file's bytes)."""


@dataclass(frozen=True)
class ImageSet:
    """The images that a search works on."""

    source: str
    """Where they come from, in words."""
    classes: tuple[str, ...]
    """Sorted; a label is a place in it."""
    records: tuple[Record, ...]
    """Sorted by (split, label, digest): an order that does not depend on names or on the file system."""
    notes: tuple[str, ...] = ()
    """What the user should be told: files left out, how it was split, sources that could not be had and why."""

    def __repr__(self) -> str:
        return f"ImageSet({self})"

    def __str__(self) -> str:
        counts = Counter(record.split for record in self.records)
        sizes = ", ".join(f"{split} {counts[split]:,}" for split in ("train", "val", "test") if split in counts)
        return f"{self.source}: {', '.join(self.classes)}; {sizes}"

    def split(self, name: str) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.split == name)

    def only(self, *splits: str) -> "ImageSet":
        """Without the other splits."""
        return replace(self, records=tuple(record for record in self.records if record.split in splits))

    def pooled(self) -> "ImageSet":
        """With the validation images among the training images; none validates then."""
        learned = tuple(replace(record, split="train") for record in self.split("val"))
        return replace(self, records=(*self.split("train"), *learned, *self.split("test")))

    def validating(self, folds: int | None) -> "tuple[Record, ...]":
        """The images that a trial is judged by; with folds, each training image validates in one of them."""
        return self.split("val" if folds is None else "train")

    def cross_validated(self) -> "ImageSet":
        """With every training image validating, too: with folds, each is judged by a model that did not see it."""
        judged = tuple(replace(record, split="val") for record in self.split("train"))
        return replace(self, records=(*self.split("train"), *judged, *self.split("test")))

    def folds(self, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
        """The training images dealt into folds for cross-validation: of each fold, the places in ``split("train")``.

        Raises InputError where a class has fewer different images than there are folds.
        """
        records = self.split("train")
        different = Counter(record.label for record in {record.digest: record for record in reversed(records)}.values())
        few = min(range(len(self.classes)), key=lambda label: different[label])
        if different[few] < count:
            raise InputError(
                f"data.folds must be at most the number of different images of the smallest class, {different[few]} "
                f"({self.classes[few]}), so that every fold has one; got {count}"
            )
        dealt = deal_folds([r.label for r in records], [r.digest for r in records], count, seed)
        return tuple(tuple(place for place, fold in enumerate(dealt) if fold == number) for number in range(count))

    @property
    def digest(self) -> str:
        """Of everything that decides results, so not of paths."""
        rows = [(record.label, record.split, record.digest) for record in self.records]
        return hashlib.sha256(repr((self.classes, rows)).encode()).hexdigest()

    def save(self, file: Path) -> None:
        """Writes a table with the columns split, class, path, digest; the file is whole or not there."""
        with (
            written_whole(file) as draft,
            open(draft, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
        ):
            table = csv.writer(stream)
            table.writerow(_COLUMNS)
            for record in self.records:
                table.writerow([record.split, self.classes[record.label], record.path, record.digest])

    @classmethod
    def load(cls, file: Path, *more: Path) -> "ImageSet":
        """Reads the table back, or several tables as one. Raises InputError where one of them or an image has gone."""
        rows = [row for each in (file, *more) for row in _read_table(each)]
        classes = tuple(sorted({row["class"] for row in rows}))
        labels = {name: label for label, name in enumerate(classes)}
        records = tuple(Record(Path(row["path"]), labels[row["class"]], row["split"], row["digest"]) for row in rows)
        if gone := [record.path for record in records if not record.path.is_file()]:
            named = [*gone[:10], *([f"and {len(gone) - 10:,} more"] if len(gone) > 10 else [])]
            raise InputError(bullets(f"images named in {file} have gone; put them back, or start a new run", named))
        return cls(str(file), classes, records)


def _read_table(file: Path) -> list[dict[str, str]]:
    try:
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as stream:
            table = csv.DictReader(stream)
            rows = list(table)
    except OSError as error:
        raise InputError(f"{file}, the table of the data set, cannot be read: {error.strerror}") from error
    if table.fieldnames != _COLUMNS:
        raise InputError(f"{file} must have the columns {', '.join(_COLUMNS)}, not {table.fieldnames}")
    return rows


def find_images(
    listing: Listing,
    *,
    limit: int | None,
    test: float | None,
    val: float | None,
    seed: int,
    skip_unreadable: bool,
    progress: Callable[[str], None],
) -> ImageSet:
    """Decodes every image of a source once to check it, and splits what has no split.

    Args:
        listing: the source's files, from :func:`trainable.sources.find_source`.
        limit: at most so many images in all, in proportion over each split's classes; the same ones every time.
        test: the fraction of the training images to seal as a test split; None: the source's own test split, if any.
        val: the fraction of the training images set aside for validation, where the source has no val split; None: no
            image validates, and those of a val split join the training images.
        seed: decides what is set aside for validation; never what is in test.
        skip_unreadable: leave out the images that cannot be decoded, instead of stopping.
        progress: told in plain words what goes on.

    Raises InputError that names all problems at once, each with its files.
    """
    _check_arguments(limit, test, val)
    if val is None:
        listing = _pooled(listing)
    digests, unreadable = check_images([file.path for file in listing.files], progress)
    given = {split for split, _ in listing.folders}
    shares = Shares(test=listing.test or (None if "test" in given else test), val=None if "val" in given else val)
    files = assign_splits(
        [file for file in listing.files if file.path in digests], digests, shares, seed=seed, exact=listing.exact
    )
    notes = inspect(listing, files, digests, unreadable, shares, skip_unreadable=skip_unreadable)
    if test and shares.test != test:
        notes.append(f"data.test = {test:g} is not used: this source has a test split of its own")
    classes = tuple(sorted({file.class_name for file in files}))
    records = [
        Record(file.path, classes.index(file.class_name), file.split or "train", digests[file.path]) for file in files
    ]
    records.sort(key=lambda record: (record.split, record.label, record.digest, str(record.path)))
    return ImageSet(listing.source, classes, _subset(records, limit), (*listing.notes, *notes))


def _pooled(listing: Listing) -> Listing:
    """Without a val split: its images are training images."""
    if not any(file.split == "val" for file in listing.files):
        return listing
    files = tuple(replace(file, split="train") if file.split == "val" else file for file in listing.files)
    folders = {place: folder for place, folder in listing.folders.items() if place[0] != "val"}
    note = "the images of val/ join those of train/"
    return replace(listing, files=files, folders=folders, notes=(*listing.notes, note))


def _check_arguments(limit: int | None, test: float | None, val: float | None) -> None:
    for key, fraction in (("data.test", test), ("data.val", val)):
        if fraction is not None and not 0 < fraction < 1:
            raise InputError(f"{key} must lie between 0 and 1 (a fraction of the training images), not {fraction}")
    if limit is not None and limit < 1:
        raise InputError(f"data.limit must be a number of images, at least 1, or null for all; not {limit}")


def _subset(records: Sequence[Record], limit: int | None) -> tuple[Record, ...]:
    """The first images by digest of each split and class, as many as is its share."""
    if limit is None:
        return tuple(records)
    sizes = Counter((record.split, record.label) for record in records)
    if limit < len(sizes):
        raise InputError(
            f"data.limit must be at least {len(sizes)}, one image of each class in each split, not {limit}"
        )
    left = apportion(sizes, limit)
    kept = []
    for record in records:  # sorted by digest within a split and class
        if left[record.split, record.label]:
            left[record.split, record.label] -= 1
            kept.append(record)
    return tuple(kept)
