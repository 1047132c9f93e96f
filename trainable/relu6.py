"""ReLU6 that needs less memory while it is trained.

In place, PyTorch's keeps a copy of what it overwrites, for the backward pass. But that asks only where the input lay
between 0 and 6, and the output, which the next layer keeps anyway, tells the same.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def share_outputs_of_relu6(model: nn.Module) -> None:
    """Change the model's ReLU6 that work in place; their outputs and gradients stay the same, bit for bit.

    Nothing may overwrite the output: where a dropout would, the model is left alone.
    """
    if any(isinstance(module, _DropoutNd) and module.inplace for module in model.modules()):
        return
    for module in model.modules():
        if type(module) is nn.ReLU6 and module.inplace:
            module.__class__ = SharedReLU6


class SharedReLU6(nn.ReLU6):
    """Works in place, and keeps its output alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _ReLU6.apply(x) if torch.is_grad_enabled() and x.requires_grad else super().forward(x)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x.clamp_(0, 6)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        of_x: torch.Tensor = torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)
        return of_x
