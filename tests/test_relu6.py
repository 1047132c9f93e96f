"""ReLU6 that shares its output with the next layer: the same bits, and less memory."""

import copy

import torch
from torch import nn

from trainable.relu6 import SharedReLU6, share_outputs_of_relu6

NETWORK = nn.Sequential(nn.Linear(8, 8), nn.ReLU6(inplace=True), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 8))


def test_outputs_and_gradients_have_the_same_bits() -> None:
    quick = copy.deepcopy(NETWORK)
    share_outputs_of_relu6(quick)
    assert [type(module) for module in quick] == [nn.Linear, SharedReLU6, nn.Linear, nn.ReLU6, nn.Linear]
    torch.manual_seed(0)
    x = 20 * torch.randn(64, 8)
    assert {0.0, 6.0} < {*NETWORK[:2](x).flatten().tolist()}
    outputs = NETWORK(x), quick(x)
    assert torch.equal(*outputs)
    factors = torch.randn(64, 8)
    expected, found = (
        torch.autograd.grad((y * factors).sum(), network.parameters())
        for y, network in zip(outputs, (NETWORK, quick), strict=True)
    )
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_no_gradient_where_the_input_is_at_a_bound() -> None:
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0], requires_grad=True)
    for module in nn.ReLU6(inplace=True), SharedReLU6(inplace=True):
        (gradient,) = torch.autograd.grad(module(x.clone()).sum(), x)
        assert gradient.tolist() == [0, 0, 1, 0, 0]


def test_a_dropout_that_would_overwrite_the_output_keeps_it_away() -> None:
    network = nn.Sequential(nn.ReLU6(inplace=True), nn.Dropout(inplace=True))
    share_outputs_of_relu6(network)
    assert type(network[0]) is nn.ReLU6


def test_nothing_is_kept_beside_the_output() -> None:
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        y = SharedReLU6(inplace=True)(torch.randn(8, requires_grad=True).clone())
    assert kept == [y.data_ptr()]
