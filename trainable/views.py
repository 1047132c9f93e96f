"""Deterministic views: an image as the network sees it, a function of (seed, view number, image) and of nothing else.

Random numbers come from a counter-based generator (Philox; Salmon, Moraes, Dror, Shaw, *SC* 2011) keyed by the seed
and the image's digest and started at the view number: never from a worker, a batch, or what ran before.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional


@dataclass(frozen=True)
class Preprocessing:
    """What a weight set expects of its images."""

    image_size: tuple[int, int]
    """(H, W) in pixels."""
    resize: tuple[int, ...]
    """What an image is resized to before the centre crop: (shorter side,) or (H, W), in pixels."""
    interpolation: str
    """bilinear, bicubic or nearest."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Mean and deviation a channel, of values in 0–1."""

    def normalise(self, views: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Turn views, uint8 ``[B, 3, H, W]``, into the network's input of the same shape."""
        x = views.to(torch.float32).div_(255)
        mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return x.sub_(mean).div_(std).to(dtype, memory_format=torch.channels_last)


def plain_view(image: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize and centre-crop: uint8 ``[3, h, w]`` to uint8 ``[3, H, W]``."""
    resized = functional.resize(image, list(preprocessing.resize), _mode(preprocessing), antialias=True)
    return functional.center_crop(resized, list(preprocessing.image_size))


def augmented_view(
    image: torch.Tensor,
    digest: str,
    view: int,
    seed: int,
    augmentation: str,
    crop_scale: float,
    preprocessing: Preprocessing,
) -> torch.Tensor:
    """The augmented view number ``view`` of an image: uint8 ``[3, h, w]`` to uint8 ``[3, H, W]``.

    Args:
        digest: the image's identity, in hexadecimal digits.
        augmentation: none, flip or crop (see `TrainSettings.augmentation`).
        crop_scale: the smallest share of the area that a crop shows.
    """
    counter = np.array([0, 0, view, seed % 2**64], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=int(digest[:16], 16), counter=counter))
    mirrored = augmentation != "none" and generator.random() < 0.5
    if augmentation == "crop":
        top, left, height, width = _random_crop(generator, image.shape[1], image.shape[2], crop_scale)
        shown = functional.resized_crop(
            image, top, left, height, width, list(preprocessing.image_size), _mode(preprocessing), antialias=True
        )
    else:
        shown = plain_view(image, preprocessing)
    return functional.horizontal_flip(shown) if mirrored else shown


def _mode(preprocessing: Preprocessing) -> InterpolationMode:
    return InterpolationMode(preprocessing.interpolation)


def _random_crop(generator: np.random.Generator, height: int, width: int, scale: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop with a share of the area in [scale, 1] and a ratio in [3/4, 4/3], as
    torchvision's ``RandomResizedCrop`` draws it (ten tries, then the largest centred crop of an allowed ratio)."""
    for _ in range(10):
        area = height * width * generator.uniform(scale, 1)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w
