"""How every command ends: its exit code, and what it says where something is wrong."""

import os
import sys
from collections.abc import Callable

from trainable.collector import collect_rarely
from trainable.errors import InputError


def guard(command: Callable[[], int], debug: bool) -> int:
    """Run a command; a user's mistake becomes one message and exit code 2, with a traceback only under ``debug``."""
    collect_rarely()
    try:
        return command()
    except InputError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as by "| head"; what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
