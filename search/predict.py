"""Classify new images with a finished model.

python -m search.predict results/RUN holiday.jpg photos/ --csv predictions.csv
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.guard import guard
from trainable.errors import InputError

if TYPE_CHECKING:
    from trainable.bundle import Prediction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m search.predict",
        description="Classify images with a finished model; the data set it was trained on is not needed.",
    )
    parser.add_argument("model", metavar="RUN|BUNDLE", type=Path, help="the folder of a run, or of a model bundle")
    parser.add_argument("images", metavar="IMAGE|FOLDER", type=Path, nargs="+", help="folders are searched through")
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="write a table: path, class, confidence, a column a class"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    return guard(lambda: _predict(options), options.debug)


def _predict(options: argparse.Namespace) -> int:
    folder = options.model / "best" if (options.model / "best").is_dir() else options.model
    if not folder.is_dir():
        raise InputError(f"RUN|BUNDLE must be the folder of a run or of a model bundle; there is none at {folder}")
    files = _find_files(options.images)
    from trainable.bundle import load_bundle

    bundle = load_bundle(folder)
    predictions = []
    for prediction in bundle.predict(files):
        print(f"{prediction.path}  {bundle.classes[prediction.label]}  {prediction.confidence:.3f}", flush=True)
        predictions.append(prediction)
    if options.csv is not None:
        _write_csv(options.csv, bundle.classes, predictions)
    return 0


def _find_files(given: Iterable[Path]) -> list[Path]:
    from trainable.listing import EXTENSIONS

    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise InputError(
                    f"a folder to classify must hold images ({', '.join(sorted(EXTENSIONS))}); {path} holds none"
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"IMAGE|FOLDER must exist; there is nothing at {path}")
    return files


def _write_csv(file: Path, classes: Sequence[str], predictions: Sequence["Prediction"]) -> None:
    try:
        with open(file, "w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["path", "class", "confidence", *classes])
            for prediction in predictions:
                table.writerow(
                    [
                        prediction.path,
                        classes[prediction.label],
                        f"{prediction.confidence:.6f}",
                        *(f"{p:.6f}" for p in prediction.probabilities),
                    ]
                )
    except OSError as error:
        raise InputError(f"--csv must name a file that can be written; got {file}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
