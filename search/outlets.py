"""Where predictions go while they are made: the terminal, a table, JSON Lines. A line an image, written at once."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from trainable.errors import InputError

if TYPE_CHECKING:
    from trainable.bundle import Prediction

Outlet = Callable[["Prediction", Path | None], None]
"""Takes a prediction, and where its explanation lies; None: it has none."""


def terminal(classes: Sequence[str], top: int) -> Outlet:
    """Path, then the ``top`` most probable classes, each with its probability."""

    def write(prediction: "Prediction", _explanation: Path | None) -> None:
        ranked = sorted(zip(prediction.probabilities, classes, strict=True), key=lambda pair: -pair[0])[:top]
        said = "  ".join([str(prediction.path), *(f"{name}  {probability:.3f}" for probability, name in ranked)])
        print(said.encode("utf-8", "replace").decode(), flush=True)  # a path may hold what is no text

    return write


@contextmanager
def csv_file(file: Path, classes: Sequence[str]) -> Iterator[Outlet]:
    """A table with the columns path, class, confidence, and one a class.

    Raises:
        InputError: the file cannot be written.
    """
    with _open(file, "--csv") as stream:
        table = csv.writer(stream)
        with _writing(file, "--csv"):
            table.writerow(["path", "class", "confidence", *classes])

        def write(prediction: "Prediction", _explanation: Path | None) -> None:
            numbers = [f"{p:.6f}" for p in (prediction.confidence, *prediction.probabilities)]
            with _writing(file, "--csv"):
                table.writerow([prediction.path, classes[prediction.label], *numbers])

        yield write


@contextmanager
def json_lines_file(file: Path, classes: Sequence[str]) -> Iterator[Outlet]:
    """An object an image: path, class, confidence, probabilities {class: p}, and explanation if there is one.

    Raises:
        InputError: the file cannot be written.
    """
    with _open(file, "--jsonl") as stream:

        def write(prediction: "Prediction", explanation: Path | None) -> None:
            row = {
                "path": str(prediction.path),
                "class": classes[prediction.label],
                "confidence": prediction.confidence,
                "probabilities": dict(zip(classes, prediction.probabilities, strict=True)),
                **({"explanation": str(explanation)} if explanation else {}),
            }
            with _writing(file, "--jsonl"):
                stream.write(json.dumps(row) + "\n")

        yield write


@contextmanager
def _open(file: Path, option: str) -> Iterator[TextIO]:
    with _writing(file, option):
        # A line is in the file as soon as it is written, whatever ends the command.
        stream = open(file, "w", buffering=1, newline="", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    try:
        yield stream
    finally:
        with _writing(file, option):  # what a full disk did not take is tried once more here
            stream.close()


@contextmanager
def _writing(file: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{option} must name a file that can be written; got {file}: {error.strerror}") from error
