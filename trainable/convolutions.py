"""Convolutions that compute what they did before, faster on a CPU.

*"Same" padding.* timm's `Conv2dSame`, of networks that come from TensorFlow, pads its input, one row and column more at
the end than at the beginning, into a new tensor, and convolves that. A convolution can pad only alike on both sides;
but padded by a stride more at the beginning, it gives the same outputs behind one row and column to drop. For depthwise
convolutions, which lose most by the copy, these are the same to the last bit; others are left alone where the padding
is uneven, or the convolution dilated. The outputs that are kept are copied, for little: where rows do not follow each
other in memory, PyTorch's BatchNorm rounds otherwise and takes several times as long.

*1×1 convolutions of small batches.* With one thread and fewer than 16 images PyTorch does not ask oneDNN for them but
multiplies matrices itself, which takes up to half of the time of training (``use_mkldnn`` in
aten/src/ATen/native/Convolution.cpp). It asks for those that are dilated, and a kernel of one pixel can be dilated
without a change.

*1×1 convolutions of many channels.* While they are trained they are matrix products, which are left to BLAS: its
gradients take a fifth less time than oneDNN's where a layer has 100,000 weights or more, and as long where it has
50,000 (measured on AMD EPYC 7003). Below that, and in evaluation mode, oneDNN is as fast or faster.

*Gradients of 5×5 depthwise convolutions.* oneDNN has a quick kernel for the weights' gradient of a 3×3 depthwise
convolution and none for 5×5, where that gradient takes ten times as long as the convolution. So it is put together from
four 3×3 ones: the upper or lower, left or right nine weights see the same images, with the outputs moved by two pixels.

*And of those with stride 2, padded unevenly.* The quick kernel pads by 1 at most. For 3×3 pixels the images are padded
after all, but few at a time. For 5×5, every other weight sees every other pixel: each quarter of the pixels meets nine,
six or four of the weights, with padding 1 and stride 1.
"""

import itertools
import math
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

_WIDE = 2**16
"""Weights from which on a 1×1 convolution is trained as a matrix product."""

_CHUNK = 4
"""Images whose gradient is computed at a time, so that they stay in the processor's cache."""

_CACHED = 2**20
"""Values of images taken at a time for the same reason, where layers differ more in size."""


def speed_up_convolutions(model: nn.Module) -> None:
    """Change the model's convolutions in place; names and shapes of its tensors stay as they are."""
    for module in model.modules():
        if type(module) is Conv2dSame:
            module.__class__ = SamePadConv2d
        elif isinstance(module, nn.Conv2d) and not torch.cuda.is_available():
            if module.kernel_size == (1, 1):
                if type(module) is nn.Conv2d and _is_plain_and_wide(module):
                    module.__class__ = WideConv2d
                module.dilation = (2, 2)
            elif type(module) is nn.Conv2d and _is_plain_depthwise_5x5(module):
                module.__class__ = Depthwise5x5Conv2d


class SamePadConv2d(Conv2dSame):
    """`Conv2dSame`, bit for bit, with the padding inside the convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, C', ⌈H / stride⌉, ⌈W / stride⌉]``."""
        sides = [self._side(axis, size) for axis, size in enumerate(x.shape[-2:])]
        uneven = any(skipped for _, skipped, _ in sides)
        if max(self.dilation) > 1 or (uneven and self.groups < self.in_channels):
            return super().forward(x)
        if torch.is_grad_enabled() and self.weight.requires_grad and self._is_plain_halving(x):
            return _DepthwiseHalving.apply(x, self.weight)
        padding = [before + skipped * stride for (before, skipped, _), stride in zip(sides, self.stride, strict=True)]
        y = functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        for axis, (_, skipped, length) in enumerate(sides, 2):
            y = y.narrow(axis, skipped, length)
        return y.clone() if uneven else y

    def _is_plain_halving(self, x: torch.Tensor) -> bool:
        height, width = x.shape[-2:]
        even = height % 2 == width % 2 == 0  # odd ones are padded alike on both sides
        depthwise = self.groups == self.in_channels == self.out_channels
        known = self.kernel_size in ((3, 3), (5, 5)) and self.stride == (2, 2)
        return x.is_cpu and even and depthwise and known and self.bias is None

    def _side(self, axis: int, size: int) -> tuple[int, int, int]:
        """Zeros in front along one axis, outputs to skip, and outputs to keep."""
        stride = self.stride[axis]
        length = math.ceil(size / stride)
        reach = (int(self.kernel_size[axis]) - 1) * self.dilation[axis] + 1
        total = max((length - 1) * stride + reach - size, 0)
        before = total // 2
        return before, int(total > 2 * before), length


class WideConv2d(nn.Conv2d):
    """A 1×1 convolution that is a matrix product while it is trained; the same but for rounding."""

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if torch.is_grad_enabled() and weight.requires_grad:
            return functional.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        return super()._conv_forward(x, weight, bias)


def _is_plain_and_wide(module: nn.Conv2d) -> bool:
    geometry = module.stride, module.padding, module.groups
    return geometry == ((1, 1), (0, 0), 1) and module.weight.numel() >= _WIDE


class Depthwise5x5Conv2d(nn.Conv2d):
    """A depthwise convolution of 5×5 pixels, stride 1 and padding 2, whose gradients are the same but for rounding."""

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if torch.is_grad_enabled() and weight.requires_grad:
            return _Depthwise5x5.apply(x, weight)
        return super()._conv_forward(x, weight, bias)


def _is_plain_depthwise_5x5(module: nn.Conv2d) -> bool:
    geometry = module.kernel_size, module.stride, module.padding, module.dilation, module.padding_mode
    depthwise = module.groups == module.in_channels == module.out_channels
    return depthwise and module.bias is None and geometry == ((5, 5), (1, 1), (2, 2), (1, 1), "zeros")


class _Depthwise5x5(torch.autograd.Function):
    """``[B, C, H, W]`` and weights ``[C, 1, 5, 5]`` to ``[B, C, H, W]``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, padding=2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:  # with stride 1, a convolution with the weights turned round
            of_x = functional.conv2d(gradient, weight.flip(2, 3), padding=2, groups=len(weight))
        corners = weight.new_zeros(2, 2, len(weight), 1, 3, 3)
        for images, outputs in zip(x.split(_CHUNK), gradient.split(_CHUNK), strict=True):
            padded = functional.pad(images, (1, 1, 1, 1))
            for lower, right in itertools.product((0, 1), (0, 1)):
                moved = functional.pad(outputs, (2 * right, 2 - 2 * right, 2 * lower, 2 - 2 * lower))
                corners[lower, right] += conv2d_weight(padded, corners.shape[2:], moved, padding=1, groups=len(weight))
        of_weight = torch.empty_like(weight)
        for lower, right in itertools.product((0, 1), (0, 1)):  # they agree where they overlap
            of_weight[:, :, 2 * lower : 2 * lower + 3, 2 * right : 2 * right + 3] = corners[lower, right]
        return of_x, of_weight


class _DepthwiseHalving(torch.autograd.Function):
    """``[B, C, H, W]``, H and W even, and weights ``[C, 1, 3, 3]`` or ``[C, 1, 5, 5]`` to ``[B, C, H / 2, W / 2]``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        padding = (weight.shape[-1] + 1) // 2
        return functional.conv2d(x, weight, stride=2, padding=padding, groups=len(weight))[:, :, 1:, 1:].clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:
            padding, with_skipped = (weight.shape[-1] + 1) // 2, functional.pad(gradient, (1, 0, 1, 0))
            of_x = functional.conv_transpose2d(with_skipped, weight, None, 2, padding, 1, len(weight))
        of_weight = torch.zeros_like(weight)
        of_some = _of_3x3 if weight.shape[-1] == 3 else _of_5x5
        few = max(1, _CACHED // math.prod(x.shape[1:]))
        for images, outputs in zip(x.split(few), gradient.split(few), strict=True):
            of_some(images, outputs, of_weight)
        return of_x, of_weight


def _of_3x3(images: torch.Tensor, outputs: torch.Tensor, of_weight: torch.Tensor) -> None:
    padded = functional.pad(images, (0, 1, 0, 1))
    of_weight += conv2d_weight(padded, of_weight.shape, outputs, stride=2, groups=len(of_weight))


def _of_5x5(images: torch.Tensor, outputs: torch.Tensor, of_weight: torch.Tensor) -> None:
    shape = len(of_weight), 1, 3, 3
    for down, right in itertools.product((0, 1), (0, 1)):  # the first of every other row and column of weights
        quarter = images[:, :, 1 - down :: 2, 1 - right :: 2]
        nine = conv2d_weight(quarter, shape, outputs, padding=1, groups=len(of_weight))
        of_weight[:, :, down::2, right::2] += nine[:, :, down:, right:]
