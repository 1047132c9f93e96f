"""A trial's whole state in one file, written atomically."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Write ``state`` (tensors, numbers, text, and dicts and lists of them); a crash leaves the old file or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    with open(partial, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """The state in ``file``; None where there is none, or where it is damaged: then the trial begins anew."""
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return state
