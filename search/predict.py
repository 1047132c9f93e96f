"""Classify new images with a finished model.

python -m search.predict results/RUN holiday.jpg photos/ --csv predictions.csv
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from search.guard import guard
from trainable.errors import InputError

if TYPE_CHECKING:
    from trainable.bundle import Bundle, Prediction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 where images were left out since they cannot be read, or 2 for a mistake
    of the user's (see also `guard`)."""
    parser = argparse.ArgumentParser(
        prog="python -m search.predict",
        description="Classify images with a finished model; the data set it was trained on is not needed.",
        epilog="Exit code: 0 all images were classified; 1 some were skipped, since they cannot be read (each is named "
        "on stderr, with the reason); 2 a mistake in the arguments or the model. Results are written as they come, and "
        "after Ctrl-C what was done is in the files.",
    )
    parser.add_argument("model", metavar="RUN|BUNDLE", type=Path, help="the folder of a run, or of a model bundle")
    parser.add_argument("images", metavar="IMAGE|FOLDER", type=Path, nargs="+", help="folders are searched through")
    parser.add_argument("--top", metavar="K", type=int, default=1, help="print the K most probable classes (1)")
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="write a table: path, class, confidence, a column a class"
    )
    parser.add_argument(
        "--jsonl", metavar="FILE", type=Path, help="write an object an image: path, class, confidence, probabilities"
    )
    parser.add_argument(
        "--explain", metavar="FOLDER", type=Path, help="save pictures that show where the network looked (Grad-CAM)"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="images classified at once (32)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    return guard(lambda: _predict(options), options.debug)


def _predict(options: argparse.Namespace) -> int:
    for name in ("top", "batch_size"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(options, name)}")
    if options.csv and options.csv == options.jsonl:
        raise InputError(f"--csv and --jsonl must name two files; both are {options.csv}")
    folder = bundle_folder(options.model)
    files = list(find_files(options.images))
    from search.outlets import csv_file, json_lines_file, terminal
    from trainable.allocator import keep_freed_memory
    from trainable.bundle import load_bundle

    keep_freed_memory()
    bundle = load_bundle(folder)
    skipped = 0

    def skip(_file: Path, error: InputError) -> None:
        nonlocal skipped
        skipped += 1
        print(f"skipped: {error}".encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)

    with ExitStack() as stack:
        outlets = [terminal(bundle.classes, options.top)]
        for file, opened in ((options.csv, csv_file), (options.jsonl, json_lines_file)):
            if file is not None:
                outlets.append(stack.enter_context(opened(file, bundle.classes)))
        for prediction in bundle.predict(files, options.batch_size, skip):
            explanation = _explain(bundle, prediction, options.explain) if options.explain is not None else None
            for write in outlets:
                write(prediction, explanation)
    if skipped == len(files):
        print(f"error: none of the {len(files):,} images given can be read, so none was classified", file=sys.stderr)
    elif skipped:
        print(f"{skipped:,} of {len(files):,} images were skipped: they cannot be read", file=sys.stderr)
    return 1 if skipped else 0


def bundle_folder(model: Path) -> Path:
    """The model's own folder, given it or its run's.

    Raises:
        InputError: there is no such folder.
    """
    folder = model / "best" if (model / "best").is_dir() else model
    if not folder.is_dir():
        raise InputError(f"RUN|BUNDLE must be the folder of a run or of a model bundle; there is none at {folder}")
    return folder


def find_files(given: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and what lies in the folders with an image's extension.

    Raises:
        InputError: there is nothing, or a folder holds no image.
    """
    from trainable.listing import EXTENSIONS

    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise InputError(
                    f"a folder to classify must hold images ({', '.join(sorted(EXTENSIONS))}); {path} holds none"
                )
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise InputError(f"IMAGE|FOLDER must exist; there is nothing at {path}")


def _explain(bundle: "Bundle", prediction: "Prediction", folder: Path) -> Path:
    """Save the overlay, under a name that no other image's has."""
    import hashlib
    import os

    from PIL import Image

    from trainable.explain import draw_overlay, explain
    from trainable.images import read_image
    from trainable.views import plain_view

    view = plain_view(read_image(prediction.path), bundle.backbone.preprocessing)
    overlay = draw_overlay(view, explain(bundle.backbone, view, prediction.label))
    digest = hashlib.sha256(os.fsencode(prediction.path.absolute())).hexdigest()[:12]
    file = folder / f"{prediction.path.stem[:50]}-{digest}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(overlay).save(file)
    except OSError as error:
        raise InputError(f"--explain must name a folder that can be written to; got {folder}: {error}") from error
    return file


if __name__ == "__main__":
    sys.exit(main())
