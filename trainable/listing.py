"""What a folder of images holds, by its files' places and names; nothing is opened."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainable.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The files that are images: torchvision's list (``torchvision.datasets.folder.IMG_EXTENSIONS``)."""

SPLITS = ("train", "val", "test")

LAYOUT = "train/ and val/ (and test/, if there is one), each with a folder a class, or just a folder a class"

_MISNAMED = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class ImageFile:
    """One file that has an image's extension, and where it belongs."""

    path: Path
    class_name: str
    split: str | None = None
    """None: not given; to be decided by the image's content."""
    stratum: str = ""
    """Images of one class and stratum are split in the same proportion."""


@dataclass(frozen=True)
class Listing:
    """What a source holds, before any image is opened."""

    source: str
    """The source, in words."""
    files: tuple[ImageFile, ...]
    folders: Mapping[tuple[str | None, str], Path]
    """Where the images of each (split, class) must lie; the folder may be empty or missing."""
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    test: float | None = None
    """The fraction that this source seals by itself."""
    exact: bool = False
    """The source never changes, so it can be split into exact shares."""


def list_folder(root: Path) -> Listing:
    """Lists a folder of images, or of one folder that is such a folder. Raises InputError where it holds no classes."""
    top = _unwrap(root)
    folders = _subfolders(top)
    wrong = {name: right for name in folders if (right := _MISNAMED.get(name.lower(), name)) != name}
    wrong = {name: right for name, right in wrong.items() if _subfolders(folders[name])}
    if wrong:
        renames = ", ".join(f"{name}/ to {right}/" for name, right in wrong.items())
        raise InputError(f"the splits in {top} must be called train/, val/ and test/: rename {renames}")
    if "train" in folders and (_subfolders(folders["train"]) or set(folders) <= set(SPLITS)):
        return _list(str(root), top, {name: folders[name] for name in SPLITS if name in folders})
    if orphans := [name for name in ("val", "test") if name in folders and _subfolders(folders[name])]:
        raise InputError(f"{top} holds {orphans[0]}/ but no train/: a data folder must hold {LAYOUT}")
    return _list(str(root), top, {None: top})


def _list(source: str, top: Path, splits: Mapping[str | None, Path]) -> Listing:
    """``splits`` has the splits' folders, or only the top folder under None."""
    per_split = {split: _subfolders(folder) for split, folder in splits.items()}
    classes = sorted({name for folders in per_split.values() for name in folders})
    if not classes:
        raise InputError(f"{top} holds no class folders: a data folder must hold {LAYOUT}")
    problems = [
        f"{splits[split]} holds no class folders, so its images have no labels: sort them into {', '.join(classes)}, "
        f"or move the folder away"
        for split, folders in per_split.items()
        if not folders
    ]
    if len(classes) < 2:
        problems.append(f"there must be two classes at least, but {top} holds only {classes[0]!r}")
    files: list[ImageFile] = []
    strays = [] if None in splits else _loose(top, splits)
    for split, folders in per_split.items():
        strays += _loose(splits[split], folders)
        for name, folder in folders.items():
            images, others = _walk(folder)
            files += [ImageFile(path, name, split) for path in images]
            strays += others
    wanted = {(split, name): splits[split] / name for split, found in per_split.items() if found for name in classes}
    return Listing(source, tuple(files), wanted, tuple(_stray_notes(strays)), tuple(problems))


def _unwrap(root: Path) -> Path:
    """The folder itself, or the one that an archive wrapped it in."""
    top = root.expanduser().absolute()
    while len(inner := _subfolders(top)) == 1 and _subfolders(only := next(iter(inner.values()))):
        if only.name in SPLITS or any(_is_image(path.name) for path in _entries(top)):
            break
        top = only
    return top


def _subfolders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in _entries(folder) if path.is_dir() and not _is_hidden(path.name)}


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} must be a folder that can be read: {error.strerror}") from error


def _loose(folder: Path, used: Container[str | None]) -> list[Path]:
    """What lies beside the folders that are used."""
    return [path for path in _entries(folder) if path.name not in used]


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images in a class's folder, at any depth, and what is left out: other files, and hidden files and folders."""
    images: list[Path] = []
    others: list[Path] = []
    seen, waiting = {folder.resolve()}, [folder]
    while waiting:
        for path in _entries(waiting.pop()):
            if _is_hidden(path.name):
                others.append(path)
            elif not path.is_dir():
                (images if _is_image(path.name) else others).append(path)
            elif (real := path.resolve()) not in seen:  # a link may point back to a folder above it
                seen.add(real)
                waiting.append(path)
    return images, others


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    """Such as .DS_Store, ._photo.jpg, .ipynb_checkpoints."""
    return name.startswith(".") or name == "__MACOSX"


def _stray_notes(strays: list[Path]) -> list[str]:
    outside = {path for path in strays if _is_image(path.name) or (path.is_dir() and not _is_hidden(path.name))}
    kinds = {
        f"not an image (what is read: {' '.join(EXTENSIONS)})": sorted(set(strays) - outside),
        "outside of the folders used": sorted(outside),
    }
    return [f"left out, {kind}:\n{_lines(paths)}" for kind, paths in kinds.items() if paths]


def _lines(paths: list[Path], most: int = 50) -> str:
    more = [f"  and {len(paths) - most:,} more"] if len(paths) > most else []
    return "\n".join([f"  {path}" for path in paths[:most]] + more)
