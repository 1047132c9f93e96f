"""A trial's whole state in one file, written atomically."""

import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from trainable.whole import written_whole

logger = logging.getLogger(__name__)


def save_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Write ``state`` (tensors, numbers, text, and dicts and lists of them); a crash leaves the old file or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as draft, open(draft, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """The state in ``file``; None where there is none, or where it is damaged: then the trial begins anew."""
    try:
        with open(file, "rb") as stream:
            return _read(stream)
    except FileNotFoundError:
        return None


def _read(stream: BinaryIO) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes the reader says all kinds of things
        logger.warning("%s is damaged (%s: %s); the trial begins anew", stream.name, type(error).__name__, error)
        return None
    return state
