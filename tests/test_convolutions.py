"""Faster convolutions: the same numbers, gradients and tensors."""

import copy
import itertools

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from trainable.convolutions import SamePadConv2d, speed_up_convolutions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", [7, 8, 15, 56, 113])
@pytest.mark.parametrize("groups", [1, 8])
def test_same_padding_gives_the_same_bits(size, groups) -> None:
    torch.manual_seed(0)
    for kernel, stride, dilation in itertools.product((1, 3, 5, 7), (1, 2, 3), (1, 2)):
        plain = Conv2dSame(8, 8, kernel, stride, dilation=dilation, groups=groups).to(memory_format=torch.channels_last)
        quick = copy.deepcopy(plain)
        quick.__class__ = SamePadConv2d
        x = torch.randn(3, 8, size, size).to(memory_format=torch.channels_last)
        assert torch.equal(plain(x), quick(x)), (kernel, stride, dilation)


@pytest.mark.parametrize("batch", [4, 32])
@pytest.mark.parametrize("stride, groups, bias", [(1, 1, False), (2, 1, True), (1, 4, True)])
def test_a_kernel_of_one_pixel_can_be_dilated(batch, stride, groups, bias, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # it is done on CPUs alone
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, 1, stride, groups=groups, bias=bias)
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    assert quick.dilation == (2, 2)
    x = torch.randn(batch, 8, 9, 9, requires_grad=True)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    (found,) = torch.autograd.grad(quick(x).square().sum(), x)
    torch.testing.assert_close(quick(x), plain(x))
    torch.testing.assert_close(found, expected)


def test_a_whole_network_keeps_its_tensors_and_its_logits() -> None:
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    kinds = [type(module) for module in quick.modules()]
    assert kinds.count(SamePadConv2d) == 5
    assert plain.state_dict().keys() == quick.state_dict().keys()
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(quick(x), plain(x), rtol=1e-4, atol=1e-5)
