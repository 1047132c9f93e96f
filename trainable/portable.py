"""A whole classifier as one module, from decoded pixels to calibrated probabilities: what is exported.

Resizing is part of it. `torchvision.transforms.v2.functional.resize` cannot be: its uint8 kernels have no counterpart
elsewhere. But antialiased resizing is two matrix products, and done as in PyTorch's kernel (weights rounded to 16 bits,
sums shifted and clipped to uint8 after each of both; `_compute_index_ranges_int16_weights` in
aten/src/ATen/native/cpu/UpSampleKernel.cpp, which goes back to Pillow) they give its very pixels.
"""

import torch
from torch import nn

from trainable.backbone import Backbone
from trainable.errors import InputError
from trainable.views import Preprocessing

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""How far from its centre an interpolation's filter is not zero, in pixels of the smaller image."""


class PortableModel(nn.Module):
    """Decoded images to probabilities, without anything that an exported file could not hold.

    Raises:
        InputError: the backbone's preprocessing is none that can be a part of it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, temperature: float) -> None:
        super().__init__()
        _check(backbone)
        self.preprocessing = backbone.preprocessing
        self.model = backbone.model
        self.temperature = temperature
        for name, values in (("mean", self.preprocessing.mean), ("std", self.preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images of one size: uint8 ``[N, H, W, 3]``, RGB, to float32 ``[N, classes]``."""
        x = self.view(images).to(torch.float32) / 255
        return (self.model((x - self.mean) / self.std).float() / self.temperature).softmax(1)

    def view(self, images: torch.Tensor) -> torch.Tensor:
        """What `trainable.views.plain_view` gives, as whole numbers in float64: ``[N, 3, H, W]``."""
        size, resize = images.shape[1:3], self.preprocessing.resize
        resized = resize if len(resize) == 2 else [resize[0] * side // torch.sym_min(*size) for side in size]
        (rows, up), (columns, across) = (
            _weights(before, after, keep, self.preprocessing.interpolation)
            for before, after, keep in zip(size, resized, self.preprocessing.image_size, strict=True)
        )
        pixels = images.permute(0, 3, 1, 2).to(torch.float64)
        return _shift(rows @ _shift(pixels @ columns.T, across), up)


def _check(backbone: Backbone) -> None:
    given = backbone.preprocessing
    if given.interpolation not in _SUPPORT:
        raise InputError(
            f"a model can be exported if its images are resized {' or '.join(_SUPPORT)}; {backbone.name} resizes them "
            f"{given.interpolation}"
        )
    if any(kept > left for kept, left in zip(given.image_size, _smallest(given), strict=True)):
        raise InputError(
            f"a model can be exported if it crops no more than it resizes to; {backbone.name} resizes to "
            f"{' × '.join(map(str, given.resize))} and crops {' × '.join(map(str, given.image_size))}"
        )


def _smallest(preprocessing: Preprocessing) -> tuple[int, ...]:
    """(H, W) at least, after resizing."""
    return preprocessing.resize if len(preprocessing.resize) == 2 else preprocessing.resize * 2


def _weights(
    before: int, after: int | torch.SymInt, keep: int, interpolation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """One axis resized and its middle kept, as a matrix of whole numbers in float64.

    Returns:
        The matrix ``[keep, before]``, and what its rows add up to, a power of two (of which rounding makes a little
        more or less).
    """
    support = _SUPPORT[interpolation]
    old, new = (torch.full((), length, dtype=torch.float64) for length in (before, after))
    scale = old / new
    stretch = scale.clamp(min=1)
    centre = (torch.arange(after).double()[:, None] + 0.5) * scale
    place = torch.arange(before).double()[None]
    first = (centre - support * stretch + 0.5).clamp(min=0).floor()
    behind = (centre + support * stretch + 0.5).floor()
    weights = _filter((place - centre + 0.5).abs() / stretch, interpolation)
    weights = torch.where((place >= first) & (place < behind), weights, 0)
    weights = weights / weights.sum(1, keepdim=True)
    # As fine as 16-bit numbers with a sign allow.
    powers = torch.tensor([2.0**bits for bits in range(1, 23)], dtype=torch.float64)
    unit = 2.0 ** ((0.5 + weights.max() * powers).floor() < 2**15).sum()
    whole = (weights * unit).abs().add(0.5).floor() * weights.sign()
    spare = after - keep
    begin = (spare + spare // 2 % 2) // 2  # Python's round(spare / 2), as torchvision crops
    return whole[begin + torch.arange(keep)], unit


def _filter(x: torch.Tensor, interpolation: str) -> torch.Tensor:
    """The interpolation's kernel at distances ``x`` (Keys, *IEEE Trans. ASSP* 29, 1981, with a = -1/2, for bicubic)."""
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _shift(sums: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Weighted sums of bytes to bytes."""
    return ((sums + unit / 2) / unit).floor().clamp(0, 255)
