"""Where images come from: a folder, an archive, or a data set known by name."""

import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trainable.archive import unpack
from trainable.cache import cache_folder
from trainable.download import download, locked
from trainable.errors import InputError
from trainable.listing import ImageFile, Listing, list_folder

Progress = Callable[[str], None]


class Unavailable(InputError):
    """This source cannot be had on this machine; the next one in the list may."""


def find_source(sources: Sequence[str], progress: Progress) -> Listing:
    """Lists the first source that can be had; its notes begin with why those before it could not.

    A built-in name goes before a folder of that name, which is then given as "./elpv".

    Raises InputError where none can be had, or where the first that can holds no data set.
    """
    reasons: list[str] = []
    for name in sources:
        try:
            listing = _list_source(name, progress)
        except Unavailable as error:
            reasons.append(f"{name}: {error}")
            continue
        return replace(listing, notes=(*(f"cannot be had: {reason}" for reason in reasons), *listing.notes))
    if len(reasons) == 1:
        raise InputError(f"data.source cannot be had: {reasons[0]}")
    raise InputError("\n  - ".join(["data.source must name a source that can be had; none of these can:", *reasons]))


def hymenoptera(progress: Progress) -> Listing:
    """The ants and bees of PyTorch's transfer-learning tutorial: 244 training and 153 validation photographs.

    A copy named by $HYMENOPTERA_DATA (a folder or zip), else downloaded once into the cache. The archive's one stray
    file, ``train/ants/imageNotFound.gif``, is no photograph and is left out by its extension.
    """
    copy = os.environ.get("HYMENOPTERA_DATA")
    try:
        folder = _local(Path(copy).expanduser(), progress) if copy else _downloaded(progress)
        _check_hymenoptera(folder)
    except InputError as error:
        where = f"$HYMENOPTERA_DATA = {copy}: " if copy else ""
        hint = "" if copy else " ($HYMENOPTERA_DATA can name a copy, and $TRANSFER_SEARCH_CACHE another cache folder)"
        raise Unavailable(f"{where}{error}{hint}") from error
    listing = list_folder(folder)
    return replace(listing, source=f"hymenoptera (the tutorial's 397 photographs of ants and bees, in {folder})")


def elpv(_progress: Progress) -> Listing:
    """Photographs of solar cells, inside the package elpv-dataset: defective (probability at least 0.5) or functional.

    Split as in its papers: 75/25, stratified by class and cell type (mono, poly); the 25 % is the test split.
    """
    spec = importlib.util.find_spec("elpv_dataset")  # finds the package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("its images come inside a package that is not installed: pip install elpv-dataset")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    try:
        rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    except OSError as error:
        raise Unavailable(f"{folder} is not whole: pip install --force-reinstall elpv-dataset") from error
    files = tuple(
        ImageFile(folder / name, "defective" if float(probability) >= 0.5 else "functional", None, cell_type)
        for name, probability, cell_type in rows
    )
    version = importlib.metadata.version("elpv-dataset")
    source = (
        f"elpv ({len(files):,} photographs of solar cells, defective or functional, inside the package elpv-dataset "
        f"{version}; the images are under CC BY-NC-SA 4.0: not for commercial use)"
    )
    return Listing(source, files, {}, test=0.25, exact=True)


SOURCES: dict[str, Callable[[Progress], Listing]] = {"hymenoptera": hymenoptera, "elpv": elpv}
"""The data sets known by name."""


def _list_source(name: str, progress: Progress) -> Listing:
    if name in SOURCES:
        return SOURCES[name](progress)
    path = Path(name).expanduser()
    if not name.strip() or not path.exists():
        near = difflib.get_close_matches(name, SOURCES)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise Unavailable(
            f"no such folder, and no built-in source of this name.{meant} It must be a folder, a .zip, "
            f"or one of: {', '.join(SOURCES)}"
        )
    path = path.resolve()
    return replace(list_folder(_local(path, progress)), source=str(path))


def _local(path: Path, progress: Progress) -> Path:
    """The folder itself; an archive is unpacked into the cache, again whenever it has changed."""
    if path.is_dir():
        return path
    if path.suffix.lower() != ".zip" or not path.is_file():
        raise InputError(f"{path} must be a folder of images, or a .zip of one")
    state = path.stat()
    version = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_folder() / "unpacked" / f"{path.stem}-{version}"
    with locked(folder, progress):
        if not folder.is_dir():
            progress(f"unpacking {path} into {folder}")
            unpack(path, folder)
    return folder


def _downloaded(progress: Progress) -> Path:
    url = os.environ.get("HYMENOPTERA_URL", "https://download.pytorch.org/tutorial/hymenoptera_data.zip")
    folder, archive = cache_folder() / "hymenoptera", cache_folder() / "hymenoptera_data.zip"
    with locked(folder, progress):
        if not folder.is_dir():
            download(url, archive, progress)
            try:
                unpack(archive, folder, _check_hymenoptera)
            finally:  # a wrong archive must not be taken for the right one next time
                archive.unlink(missing_ok=True)
    return folder


def _check_hymenoptera(folder: Path) -> None:
    want = {"train": 244, "val": 153}
    files = list_folder(folder).files
    have, classes = Counter(file.split for file in files), sorted({file.class_name for file in files})
    if have != want or classes != ["ants", "bees"]:
        found = ", ".join(f"{count} in {split}" for split, count in have.items()) or "none"
        raise InputError(
            f"{folder} must hold the classes ants and bees with 244 images in train and 153 in val, but holds "
            f"{', '.join(classes)} with {found}: delete it and get it anew"
        )
