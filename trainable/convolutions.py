"""Convolutions that compute what they did before, faster on a CPU.

*"Same" padding.* timm's `Conv2dSame`, of networks that come from TensorFlow, pads its input, one row and column more at
the end than at the beginning, into a new tensor, and convolves that. A convolution can pad only alike on both sides;
but padded by a stride more at the beginning, it gives the same outputs behind one row and column to drop. For depthwise
convolutions, which lose most by the copy, these are the same to the last bit; others are left alone where the padding
is uneven, or the convolution dilated.

*1×1 convolutions of small batches.* With one thread and fewer than 16 images PyTorch does not ask oneDNN for them but
multiplies matrices itself, which takes up to half of the time of training (``use_mkldnn`` in
aten/src/ATen/native/Convolution.cpp). It asks for those that are dilated, and a kernel of one pixel can be dilated
without a change.
"""

import math

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.nn import functional


def speed_up_convolutions(model: nn.Module) -> None:
    """Change the model's convolutions in place; names and shapes of its tensors stay as they are."""
    for module in model.modules():
        if type(module) is Conv2dSame:
            module.__class__ = SamePadConv2d
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and not torch.cuda.is_available():
            module.dilation = (2, 2)


class SamePadConv2d(Conv2dSame):
    """`Conv2dSame`, bit for bit, with the padding inside the convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, C', ⌈H / stride⌉, ⌈W / stride⌉]``."""
        sides = [self._side(axis, size) for axis, size in enumerate(x.shape[-2:])]
        uneven = any(skipped for _, skipped, _ in sides)
        if max(self.dilation) > 1 or (uneven and self.groups < self.in_channels):
            return super().forward(x)
        padding = [before + skipped * stride for (before, skipped, _), stride in zip(sides, self.stride, strict=True)]
        y = functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        for axis, (_, skipped, length) in enumerate(sides, 2):
            y = y.narrow(axis, skipped, length)
        return y

    def _side(self, axis: int, size: int) -> tuple[int, int, int]:
        """Zeros in front along one axis, outputs to skip, and outputs to keep."""
        stride = self.stride[axis]
        length = math.ceil(size / stride)
        reach = (int(self.kernel_size[axis]) - 1) * self.dilation[axis] + 1
        total = max((length - 1) * stride + reach - size, 0)
        before = total // 2
        return before, int(total > 2 * before), length
