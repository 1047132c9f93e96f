"""What a run tells its user, on the screen and in its ``run.log``."""

from datetime import datetime
from pathlib import Path


class Journal:
    """Prints lines, and keeps them with their times in a file as soon as there is one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._early: list[str] = []

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep lines without printing them."""
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S.%f}"[:-3]
        self._early += [f"{now}  {line}\n" for line in text.splitlines()]
        if self._file is not None:
            with open(self._file, "a", encoding="utf-8", errors="surrogateescape") as stream:
                stream.writelines(self._early)
            self._early = []

    def open(self, file: Path) -> None:
        """From now on, and for what was said so far, the lines go to this file."""
        self._file = file
