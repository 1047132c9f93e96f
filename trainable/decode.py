"""One image file decoded, and many of them checked."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainable.errors import InputError

if TYPE_CHECKING:
    import torch

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What is read, whatever a file's extension says. Not EPS and its like, for which Pillow starts other programs."""


def read_image(path: Path) -> "torch.Tensor":
    """Reads one image as RGB, uint8 [3, H, W], turned upright as its EXIF orientation says.

    Transparency is laid over white; of an animation the first frame is read; 16-bit values keep their upper 8 bits;
    floating-point values must lie in 0–1 or 0–255. Raises InputError for a file that cannot be decoded completely.
    """
    import torch  # a data set is checked without it, before it is imported

    try:
        pixels = _decode(path)
    except InputError as error:
        raise InputError(f"{path} cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_same_image(path: Path, digest: str) -> "torch.Tensor":
    """`read_image` of an image that was checked before. Raises InputError where it is another one now."""
    image = read_image(path)
    if _digest(image.permute(1, 2, 0).numpy()) != digest:
        raise InputError(f"{path} must be the image that it was when the search began; put it back, or start a new run")
    return image


def check_images(paths: Sequence[Path], progress: Callable[[str], None]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Decodes every image once, completely.

    Returns the digests of those that can be decoded (of the pixels and the shape, so that a renamed or losslessly
    re-saved copy has the same one), and the reasons why the others cannot.
    """
    digests: dict[Path, str] = {}
    unreadable: dict[Path, str] = {}
    said = time.monotonic()
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # Pillow and hashlib release the GIL
    try:
        for path, (digest, reason) in zip(paths, pool.map(_check, paths), strict=True):
            (digests if digest else unreadable)[path] = digest or reason
            done = len(digests) + len(unreadable)
            if done == len(paths) or time.monotonic() - said > 1:
                said = time.monotonic()
                progress(f"checked {done:,} of {len(paths):,} images")
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for thousands of images
    return digests, unreadable


def _check(path: Path) -> tuple[str, str]:
    """The image's digest and "", or "" and the reason why it cannot be decoded."""
    try:
        pixels = _decode(path)
    except InputError as error:
        return "", str(error)
    return _digest(pixels), ""


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _decode(path: Path) -> NDArray[np.uint8]:
    """RGB pixels, [H, W, 3]; InputError with the bare reason otherwise."""
    if not path.is_file():  # a pipe would block for ever
        raise InputError("a broken link" if path.is_symlink() else "not a file" if path.exists() else "no such file")
    if not path.stat().st_size:
        raise InputError("the file is empty (0 bytes)")
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_bombs(image)
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"no image of a kind that is read ({', '.join(FORMATS)})") from error
    except Exception as error:  # on broken files Pillow's readers raise nearly anything: struct.error, KeyError, ...
        raise InputError(str(error) or type(error).__name__) from error


def _refuse_bombs(image: Image.Image) -> None:
    """Pillow only warns between one and two times its limit, and goes on."""
    most = Image.MAX_IMAGE_PIXELS
    if most and image.width * image.height > most:
        raise InputError(f"{image.width} x {image.height} pixels are more than {most:,}, Pillow's limit: scale it down")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _gray(_from_16_bit(np.asarray(image)))
    if image.mode == "F":
        return _gray(_from_float(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return np.array(image.convert("RGB"))


def _gray(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[:, :, None], 3, axis=2)


def _from_16_bit(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The upper 8 bits, as Pillow itself reads 16-bit colour. It opens some 16-bit files in its 32-bit mode "I"."""
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"values from {values.min()} to {values.max()} are no 16-bit gray: save it with 8 or 16 bits")
    return (values >> 8).astype(np.uint8)


def _from_float(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # written so that NaN is refused too
        raise InputError(f"floating-point values must lie in 0 to 1 or 0 to 255, not {low:g} to {high:g}")
    return np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
