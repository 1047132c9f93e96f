"""Export a finished model to one file, and check that it says what the model says.

python -m search.export results/RUN --format onnx
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.guard import guard
from search.predict import bundle_folder, find_files
from trainable.errors import InputError

if TYPE_CHECKING:
    import torch

    from trainable.bundle import Bundle
    from trainable.export import Classifier

TOLERANCE = 1e-4
"""The largest difference in a probability that an exported file may have from the model."""

_SUFFIX = {"onnx": ".onnx", "torch_export": ".pt2"}

_PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torch_export": ()}

_MOST_CHECKED = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 where the exported file does not say what the model says, or 2 for a
    mistake of the user's (see also `guard`)."""
    parser = argparse.ArgumentParser(
        prog="python -m search.export",
        description="Export a finished model, preprocessing and calibration included, to one file that takes decoded "
        "images of any size and gives probabilities; and check it, on the run's validation images if they are there.",
        epilog=f"Exit code: 0 the file agrees with the model; 1 a probability differs by more than {TOLERANCE:g}, and "
        "no file is left; 2 a mistake in the arguments, or a model that cannot be exported.",
    )
    parser.add_argument("model", metavar="RUN|BUNDLE", type=Path, help="the folder of a run, or of a model bundle")
    parser.add_argument("--format", choices=_SUFFIX, required=True, help="for ONNX Runtime, or for PyTorch")
    parser.add_argument("--out", metavar="FILE", type=Path, help="(model.onnx or model.pt2 in the bundle's folder)")
    parser.add_argument(
        "--check", metavar="IMAGE|FOLDER", type=Path, nargs="+", help="images to compare on, instead of the run's"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    return guard(lambda: _export(options), options.debug)


def _export(options: argparse.Namespace) -> int:
    folder = bundle_folder(options.model)
    suffix = _SUFFIX[options.format]
    file = options.out or folder / f"model{suffix}"
    if file.suffix != suffix or file.is_dir() or not file.parent.is_dir():
        raise InputError(f"--out must name a file *{suffix} in a folder that exists; got {file}")
    if missing := [name for name in _PACKAGES[options.format] if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"--format {options.format} needs the extra onnx, and there is no {', '.join(missing)} here: "
            f"pip install {' '.join(missing)}"
        )
    given = list(find_files(options.check)) if options.check else None
    from trainable import export
    from trainable.bundle import load_bundle

    write, load = {
        "onnx": (export.write_onnx, export.open_onnx),
        "torch_export": (export.write_torch_export, export.open_torch_export),
    }[options.format]
    bundle = load_bundle(folder)
    draft = file.with_name(f".{file.stem}.{os.getpid()}{suffix}")
    try:
        write(bundle, draft)
        what, images = _images(options.model, given, bundle)
        difference = largest_difference(bundle, load(draft), images)
        print(f"the largest difference in probability from the model, on {what}: {difference:.1e}", flush=True)
        if not difference <= TOLERANCE:  # written so that NaN is refused too
            print(f"error: it must be {TOLERANCE:g} at most, so {file} was not written", file=sys.stderr)
            return 1
        os.replace(draft, file)
    except OSError as error:
        raise InputError(f"--out must name a file that can be written; got {file}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    print(f"exported {file}, {file.stat().st_size / 1e6:.1f} MB: uint8 images [batch, height, width, 3] in, ", end="")
    print(f"probabilities [batch, {len(bundle.classes)}] out", flush=True)
    return 0


def largest_difference(bundle: "Bundle", classify: "Classifier", images: Iterable["torch.Tensor"]) -> float:
    """The largest difference in a probability between a bundle and its exported file.

    Args:
        images: each uint8 ``[3, H, W]``; one by one, and the first of them in a batch of three, too.
    """
    import numpy as np
    import torch

    worst = [0.0]
    for number, image in enumerate(images):
        expected = bundle.calibrate(bundle.logits_of([image], torch.device("cpu"))).numpy()
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())[None]
        for batch in (1, 3) if number == 0 else (1,):
            worst.append(np.abs(classify(pixels.repeat(batch, axis=0)) - expected).max())
    return float(np.max(worst))  # NaN, if there is one


def _images(model: Path, given: Sequence[Path] | None, bundle: "Bundle") -> tuple[str, Iterator["torch.Tensor"]]:
    """What to compare on: in words, and the images."""
    from trainable.images import read_image

    kind, paths = "given images", given
    if paths is None:
        kind, paths = "validation images", _validation_images(model)
    if not paths:
        return "random images alone (--check names real ones)", _random_images(bundle.backbone.preprocessing.image_size)
    step = -(-len(paths) // _MOST_CHECKED)
    some = paths[::step]
    count = f"{len(some):,} of {len(paths):,}" if step > 1 else f"{len(paths):,}"
    return f"{count} {kind}", map(read_image, some)


def _validation_images(model: Path) -> list[Path]:
    """Those of the run; none where there is no run, or where some of its images have gone."""
    from trainable.images import ImageSet

    table = model / "images.csv"
    if not table.is_file():
        return []
    try:
        return [record.path for record in ImageSet.load(table).split("val")]
    except InputError as error:
        print(f"note: {error}", file=sys.stderr)
        return []


def _random_images(size: tuple[int, int]) -> Iterator["torch.Tensor"]:
    """Noise of several sizes around (H, W), and far from it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for height, width in ((1, 1), (2, 3), (1, 0.5), (0.2, 0.3), (1.3, 1.1)):
        shape = (3, round(size[0] * height), round(size[1] * width))
        yield torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


if __name__ == "__main__":
    sys.exit(main())
