"""What a user sees while the search runs: one line that renews itself, or plain lines where there is no terminal."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from search.plan import describe_values
from trainable.settings import across_folds, best_epoch

_SILENCE_S = 20
"""Where there is no terminal, a line is printed at least so often."""

_TELLING = 5
"""Trials that have to end before the time to go is estimated from them."""


class Progress:
    """Counts trials and prints how the search goes.

    Args:
        total: trials to run, or None where only time or a target ends the search.
        metric: the name of what is optimised.
        epochs: of each trial that runs to its end; with folds, of all of them together.
        note: told the lines that stay.
        folds: of each trial; None: there are none.
    """

    def __init__(
        self,
        total: int,
        metric: str,
        epochs: int,
        done: Mapping[str, int],
        stream: TextIO = sys.stdout,
        note: Callable[[str], None] = lambda text: None,
        folds: int | None = None,
    ) -> None:
        self._total, self._metric, self._epochs, self._folds = total, metric, epochs, folds
        self._stream, self._note = stream, note
        self._counts = {"complete": 0, "pruned": 0, "failed": 0, **done}
        self._finished_before = sum(self._counts.values())
        self._values: dict[int, Mapping[str, Any]] = {}
        self._history: dict[int, list[Mapping[str, Any]]] = {}
        self._best: tuple[float, int] | None = None
        self._began = self._said = time.monotonic()
        self._renews = stream.isatty()

    def __call__(self, event: str, number: int, details: Mapping[str, Any]) -> None:
        """Take note of an event of `search.executor.Execution`."""
        if event == "started":
            self._values[number] = details
        elif event == "epoch":
            self._remember(number, details)
            fold = f"fold {details['fold']} of {self._folds} " if self._folds else ""
            self._note(
                f"trial {number:>3} {fold}epoch {details['epoch']:>4}  {self._metric} {details[self._metric]:.4f}"
            )
        else:
            self._counts[event] += 1
            self._say(f"trial {number:>3} {event:<8} {self._outcome(event, number, details)}")
            self._values.pop(number, None)
        if self._renews:
            self._renew()
        elif event not in ("started", "epoch") or time.monotonic() - self._said > _SILENCE_S:
            self._say(self.line())

    def note_best(self, value: float, number: int) -> None:
        """The best complete trial so far."""
        self._best = (value, number)

    def line(self) -> str:
        """The state of the search in one line."""
        counts = self._counts
        parts = [
            f"{sum(counts.values())}/{self._total} trials ({len(self._values)} running, {counts['pruned']} pruned"
            + (f", {counts['failed']} failed)" if counts["failed"] else ")")
        ]
        if self._best is not None:
            parts.append(f"best {self._metric} {self._best[0]:.4f} (trial {self._best[1]})")
        elapsed = time.monotonic() - self._began
        parts.append(f"{format_seconds(elapsed)} elapsed")
        if (left := self._left(elapsed)) is not None:
            parts.append(f"about {format_seconds(left)} to go")
        return ", ".join(parts)

    def _left(self, elapsed: float) -> float | None:
        """Seconds to go: at the pace so far; or, when the last trials are running, as their own epochs say."""
        ended = sum(self._counts.values())
        finished = ended - self._finished_before
        if finished <= _TELLING:  # the first ones, the recipes, take longer than most
            return None
        pace = elapsed / finished * (self._total - ended)
        if ended + len(self._values) < self._total:
            return pace
        own = [
            (self._epochs - len(epochs)) * sum(epoch["epoch_time_s"] for epoch in epochs) / len(epochs)
            if (epochs := self._history.get(number))
            else pace
            for number in self._values
        ]
        return max(own, default=pace)

    def _remember(self, number: int, epoch: Mapping[str, Any]) -> None:
        """A trial that goes on from its checkpoint tells its epochs again."""
        history, place = self._history.setdefault(number, []), (epoch.get("fold"), epoch["epoch"])
        if place not in [(known.get("fold"), known["epoch"]) for known in history]:
            history.append(epoch)

    def close(self) -> None:
        """Leave the renewed line behind."""
        if self._renews:
            self._stream.write("\n")

    def _outcome(self, event: str, number: int, details: Mapping[str, Any]) -> str:
        configuration = describe_values(self._values.get(number, {}))
        if event == "failed":
            return f"{details['reason']} ({configuration})"
        history = self._history.get(number)
        if not history:
            return f"no epoch ({configuration})"
        curve = across_folds(history)
        best = curve[best_epoch(history, self._metric) - 1]
        reached = f"{self._metric} {best[self._metric]:.4f} in epoch {best['epoch']} of {curve[-1]['epoch']}"
        folds = f", fold {history[-1]['fold']} of {self._folds}" if self._folds else ""
        return f"{reached}{folds} ({configuration})"

    def _say(self, text: str) -> None:
        self._stream.write(("\r\033[K" if self._renews else "") + text + "\n")
        self._stream.flush()
        self._said = time.monotonic()
        self._note(text)

    def _renew(self) -> None:
        width = shutil.get_terminal_size().columns
        self._stream.write("\r\033[K" + self.line()[: width - 1])
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """``75`` as ``1m15s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
