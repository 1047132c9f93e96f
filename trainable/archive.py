"""A zip archive unpacked: all of it, or nothing."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from trainable.errors import InputError


def unpack(archive: Path, folder: Path, check: Callable[[Path], None] = lambda folder: None) -> None:
    """Unpacks a zip archive into a new folder, which is there only when everything is.

    Call it within :func:`trainable.download.locked` of the folder. What is unpacked lies in ``<folder>.unpacking``
    until ``check``, which raises InputError where it is not what was wanted, has seen it.
    """
    draft = Path(f"{folder}.unpacking")
    try:
        if draft.exists():  # of a process that was killed
            shutil.rmtree(draft)
        _extract(archive, draft)
        check(draft)
        os.rename(draft, folder)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} must be a whole zip archive, but is not: {error}") from error
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            path = PurePosixPath(entry.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"{archive} must not write outside of its folder, but holds {entry.filename!r}")
            if entry.flag_bits & 1:
                raise InputError(f"{archive} must not be encrypted, but {entry.filename!r} in it is")
        folder.mkdir(parents=True)
        bundle.extractall(folder)  # checks every file's CRC
