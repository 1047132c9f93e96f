"""Where a network looked: Grad-CAM (Selvaraju et al., *ICCV* 2017), drawn over what it saw."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import fx
from torch.nn import functional

from trainable.backbone import Backbone
from trainable.errors import InputError
from trainable.stages import Stage

_OPAQUE = 0.6
"""The share of colour in the overlay where the class has most of its evidence."""

_MOST_CLASS_TOKENS = 8
"""Of a transformer, registers included."""


def explain(backbone: Backbone, view: torch.Tensor, label: int) -> torch.Tensor:
    """How much each place of an image speaks for a class: float32 ``[H, W]`` in 0–1, on the CPU.

    It is computed at the last place in the network where there still is a map of the image, on the device where the
    backbone's model is.

    Args:
        view: what the network sees, uint8 ``[3, H, W]`` (see `trainable.views.plain_view`).

    Raises:
        InputError: the backbone has no such place.
    """
    for stage in backbone.stages:
        stage.eval()
    device = next(backbone.model.parameters()).device
    size = (view.shape[1], view.shape[2])
    x = backbone.preprocessing.normalise(view[None].to(device))
    depth, x = _last_map(backbone, x, size)
    with torch.enable_grad():
        place = x = x.requires_grad_()
        # The next stage may end in a pooling, as ResNet's last block does, and still have a later map inside.
        inside = _Watch(backbone.stages[depth], size)
        x = inside.run(x)
        if inside.seen is not None:
            place = inside.seen
        for stage in backbone.stages[depth + 1 :]:
            x = stage(x)
        (slope,) = torch.autograd.grad(x[0, label], place)
    activations, slopes = _map(place, size), _map(slope, size)
    assert activations is not None
    assert slopes is not None
    importance = (slopes.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    importance = functional.interpolate(importance.detach().float().cpu(), size, mode="bilinear")[0, 0]
    return importance / importance.max().clamp(min=torch.finfo(torch.float32).tiny)


def draw_overlay(view: torch.Tensor, importance: torch.Tensor) -> NDArray[np.uint8]:
    """The image, uint8 ``[3, H, W]``, with colour where ``importance`` ``[H, W]`` is high: uint8 ``[H, W, 3]``."""
    share = importance.numpy()
    colours = colormaps["turbo"](share)[..., :3] * 255
    opaque = _OPAQUE * share[..., None]
    return np.rint(view.permute(1, 2, 0).numpy() * (1 - opaque) + colours * opaque).astype(np.uint8)


def _last_map(backbone: Backbone, x: torch.Tensor, size: tuple[int, int]) -> tuple[int, torch.Tensor]:
    """How many stages to run for the last output that is a map, and that output."""
    found = None
    with torch.no_grad():
        for depth, stage in enumerate(backbone.stages[:-1], 1):
            x = stage(x)
            if _map(x, size) is not None:
                found = depth, x
    if found is None:
        raise InputError(
            f"an explanation needs a network with a stage that gives a map of the image, [B, C, H, W], or a square of "
            f"tokens, [B, N, C]; {backbone.name} has none"
        )
    return found


def _map(x: Any, size: tuple[int, int]) -> torch.Tensor | None:
    """An activation as a map ``[B, C, H, W]`` of an image of ``size`` (H, W); None where it is none.

    A map has the proportions of the image, give or take what rounding at each halving adds. Tokens ``[B, N, C]`` are
    one if they are a square, with a few class tokens in front.
    """
    if x.ndim == 4:
        for channels_first in (x, x.permute(0, 3, 1, 2)):  # Swin Transformers have the channels last
            height, width = channels_first.shape[2:]
            if min(height, width) > 1 and abs(height - width * size[0] / size[1]) < 1:
                return channels_first
    if x.ndim == 3 and size[0] == size[1]:
        side = math.isqrt(x.shape[1])
        if side > 1 and x.shape[1] - side**2 <= _MOST_CLASS_TOKENS:
            return x[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
    return None


class _Watch(fx.Interpreter):
    """Runs a stage, and keeps the last map that any operation in it gave."""

    def __init__(self, stage: Stage, size: tuple[int, int]) -> None:
        super().__init__(stage.inference_graph)
        self.size = size
        self.seen: torch.Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        # Tokens are left out: behind a transformer's last attention only its class token still matters.
        if n.op != "placeholder" and isinstance(value, torch.Tensor) and value.ndim == 4:
            self.seen = value if _map(value, self.size) is not None else self.seen
        return value
