"""Python's garbage collector of cycles, told to look less often."""

import atexit
import gc

_YOUNG = 100_000
"""New objects after which it looks for cycles among them; Python's own number is 700."""


def collect_rarely() -> None:
    """For a process of our own. torch, timm and Ray Tune are half a million objects that live as long as it does: to
    look through them took a third of the time of importing them, and most of the time of exiting."""
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
