"""Files that are whole or not there: readers never see half of one, and a crash leaves the old one as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Where to write what is to become ``file``, which it does at the end of the block; where that fails, it goes."""
    draft = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        yield draft
        os.replace(draft, file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
