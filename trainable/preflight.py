"""What is wrong with a data set, all at once, before anything is spent on it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trainable.errors import InputError
from trainable.listing import ImageFile, Listing
from trainable.splits import Shares


def inspect(
    listing: Listing,
    files: Sequence[ImageFile],
    digests: Mapping[Path, str],
    unreadable: Mapping[Path, str],
    shares: Shares,
    *,
    skip_unreadable: bool,
) -> list[str]:
    """Raises one InputError with every problem and its files; returns what is only worth saying.

    ``files`` are those that can be decoded, each with its split; ``unreadable`` has the others, and why.
    """
    broken = [f"{path}: {reason}" for path, reason in sorted(unreadable.items())]
    shared, copies = _repeated(files, digests)
    problems = [*listing.problems, *_too_few(listing, files, digests, shares), *shared]
    if broken and not skip_unreadable:
        problems.append(bullets("cannot be decoded (--set data.skip_unreadable=true would leave them out)", broken))
    if problems:
        raise InputError(bullets(f"the images of {listing.source} cannot be used as they are", problems))
    notes = [bullets("left out, since they cannot be decoded", broken)] if broken else []
    for split, share in (("test (sealed)", shares.test), ("val", shares.val)):
        if share:
            notes.append(f"{split}: about {share:.3g} of each class's training images, set aside by their content")
    return [*notes, *copies]


def bullets(title: str, items: Iterable[object]) -> str:
    """A title with items below it, which may be such lists themselves."""
    return f"{title}:" + "".join("\n  - " + str(item).replace("\n", "\n    ") for item in items)


def _too_few(
    listing: Listing, files: Sequence[ImageFile], digests: Mapping[Path, str], shares: Shares
) -> Iterable[str]:
    """Classes that are empty or missing in a split, or have too few images to set some aside."""
    aside = [name for name, share in (("val", shares.val), ("test", shares.test)) if share]
    content = defaultdict(set)
    for file in files:
        content["train" if file.split in aside else file.split, file.class_name].add(digests[file.path])
    for (place, name), folder in listing.folders.items():
        split = place or "train"
        have, need = len(content[split, name]), 1 + len(aside) * (split == "train")
        if not have:
            state = "holds no image that can be read" if folder.is_dir() else "is missing"
            yield f"class {name!r} has no image in {split}: {folder} {state}"
        elif have < need:
            yield (
                f"class {name!r} must have at least {need} different images, to set some aside for "
                f"{' and '.join(aside)}, but has {have}: {folder}"
            )


def _repeated(files: Sequence[ImageFile], digests: Mapping[Path, str]) -> tuple[list[str], list[str]]:
    """The same image in two splits, which makes scores too good: a problem; and twice in one split: a note."""
    places: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        places[digests[file.path]].append(file)
    across, labels, within = [], [], []
    for copies in places.values():
        line = " = ".join(f"{copy.path} ({copy.split})" for copy in sorted(copies, key=lambda copy: copy.path))
        if len({copy.split for copy in copies}) > 1:
            across.append(line)
        elif len({copy.class_name for copy in copies}) > 1:
            labels.append(line)
        elif len(copies) > 1:
            within.append(line)
    problems = [bullets("the same image in two splits; keep one of each", across)] if across else []
    notes = [bullets("the same image in two classes, so one label is wrong", labels)] if labels else []
    return problems, notes + ([bullets("the same image more than once in one split", within)] if within else [])
