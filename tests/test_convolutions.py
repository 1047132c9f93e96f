"""Faster convolutions: the same numbers, gradients and tensors."""

import copy
import itertools

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from trainable import convolutions
from trainable.convolutions import Depthwise5x5Conv2d, SamePadConv2d, WideConv2d, speed_up_convolutions

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


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("height, width", [(2, 2), (8, 8), (7, 7), (8, 13), (4, 30)])
def test_same_padding_gives_the_same_gradients(kernel, batch, height, width, monkeypatch) -> None:
    monkeypatch.setattr(convolutions, "_CACHED", 1500)  # one, two or all images at a time
    torch.manual_seed(0)
    plain = Conv2dSame(8, 8, kernel, 2, groups=8, bias=False).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    quick.__class__ = SamePadConv2d
    x = torch.randn(batch, 8, height, width, requires_grad=True)
    expected_y, y = plain(x), quick(x)
    assert torch.equal(y, expected_y)
    factors = torch.randn_like(y)  # else a gradient would be the same turned round
    expected = torch.autograd.grad((expected_y * factors).sum(), (x, plain.weight))
    found = torch.autograd.grad((y * factors).sum(), (x, quick.weight))
    torch.testing.assert_close(found, expected)
    (of_weight,) = torch.autograd.grad((quick(x.detach()) * factors).sum(), quick.weight)
    assert torch.equal(of_weight, found[1])
    quick.requires_grad_(False)
    (of_x,) = torch.autograd.grad((quick(x) * factors).sum(), x)
    torch.testing.assert_close(of_x, expected[0])


@pytest.mark.parametrize(
    "changed", [{"stride": 3}, {"dilation": 2}, {"bias": True}, {"groups": 4}, {"out": 16}], ids=str
)
def test_other_convolutions_of_same_padding_have_the_same_gradients(changed) -> None:
    torch.manual_seed(0)
    options = {"out": 8, "stride": 2, "groups": 8, "bias": False, **changed}
    plain = Conv2dSame(8, options.pop("out"), 3, **options).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    quick.__class__ = SamePadConv2d
    x = torch.randn(2, 8, 8, 8, requires_grad=True)
    expected = torch.autograd.grad(plain(x).square().sum(), (x, plain.weight))
    found = torch.autograd.grad(quick(x).square().sum(), (x, quick.weight))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("trained", [False, True])
def test_outputs_of_same_padding_lie_in_memory_as_before(trained) -> None:
    """On this the speed of the BatchNorm after it rests, and its roundings."""
    plain = Conv2dSame(8, 8, 3, 2, groups=8, bias=False).to(memory_format=torch.channels_last).requires_grad_(trained)
    quick = copy.deepcopy(plain)
    quick.__class__ = SamePadConv2d
    x = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last)
    assert quick(x).stride() == plain(x).stride()
    assert torch.equal(quick(x).relu_(), plain(x).relu_())


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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("height, width", [(7, 7), (4, 9), (1, 1)])
def test_gradients_of_a_wide_convolution_of_one_pixel(height, width, bias, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)
    plain = nn.Conv2d(256, 256, 1, bias=bias).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    assert type(quick) is WideConv2d
    x = torch.randn(5, 256, height, width).to(memory_format=torch.channels_last).requires_grad_()
    expected_y, y = plain(x), quick(x)
    torch.testing.assert_close(y, expected_y, rtol=1e-4, atol=1e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    factors = torch.randn_like(y)
    expected = torch.autograd.grad((expected_y * factors).sum(), (x, *plain.parameters()))
    found = torch.autograd.grad((y * factors).sum(), (x, *quick.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_wide_convolution_that_is_not_trained_keeps_its_bits(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = nn.Conv2d(256, 256, 1, dilation=2, bias=False).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    x = torch.randn(5, 256, 7, 7).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(quick(x), plain(x))
    assert torch.equal(quick.requires_grad_(False)(x.requires_grad_()), plain(x))


@pytest.mark.parametrize(
    "changed",
    [{"stride": 2}, {"in_channels": 512, "groups": 2}, {"padding": 1}, {"out_channels": 255}],
    ids=str,
)
def test_other_convolutions_of_one_pixel_stay_convolutions(changed) -> None:
    module = nn.Conv2d(**{"in_channels": 256, "out_channels": 256, "kernel_size": 1, **changed})
    speed_up_convolutions(module)
    assert type(module) is nn.Conv2d


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("height, width", [(7, 7), (4, 9), (1, 2)])
def test_gradients_of_a_depthwise_convolution_of_5x5_pixels(batch, height, width, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    assert type(quick) is Depthwise5x5Conv2d
    x = torch.randn(batch, 8, height, width, requires_grad=True)
    factors = torch.randn(batch, 8, height, width)  # else a gradient would be the same turned round
    expected = torch.autograd.grad((plain(x) * factors).sum(), (x, plain.weight))
    found = torch.autograd.grad((quick(x) * factors).sum(), (x, quick.weight))
    assert torch.equal(quick(x), plain(x))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "changed",
    [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"bias": True}, {"groups": 4}, {"padding_mode": "reflect"}],
    ids=str,
)
def test_other_convolutions_of_5x5_pixels_are_left_alone(changed) -> None:
    module = nn.Conv2d(8, 8, 5, **{"padding": 2, "groups": 8, "bias": False, **changed})
    speed_up_convolutions(module)
    assert type(module) is nn.Conv2d


def test_a_whole_network_keeps_its_tensors_and_its_logits(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    quick = copy.deepcopy(plain)
    speed_up_convolutions(quick)
    kinds = [type(module) for module in quick.modules()]
    assert kinds.count(SamePadConv2d) == 5
    assert kinds.count(Depthwise5x5Conv2d) == 7
    assert plain.state_dict().keys() == quick.state_dict().keys()
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(quick(x), plain(x), rtol=1e-4, atol=1e-5)
