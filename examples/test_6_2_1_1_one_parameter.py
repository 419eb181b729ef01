"""Section 6.2.1.1: one parameter is an object: a value, a gradient, and more about both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

#: A test that reads values needs a device that holds some: any but meta.
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])


@pytest.mark.params
def test_a_bias_is_a_parameter_and_its_value_is_a_tensor(net, assert_shapes):
    bias = net[2].bias

    assert type(bias) is nn.Parameter
    assert type(bias.data) is torch.Tensor
    assert_shapes(bias.data, (1,))


@pytest.mark.params
def test_a_parameter_knows_more_than_its_value(net):
    bias = net[2].bias

    assert bias.requires_grad
    assert bias.is_leaf
    assert not bias.data.requires_grad


@reads_values
def test_the_value_has_to_be_asked_for(net, assert_finite):
    bias = net[2].bias

    assert_finite(net, "2.bias")
    assert isinstance(bias.data.item(), float)
    with pytest.raises(RuntimeError, match="requires grad"):
        bias.cpu().numpy()


@pytest.mark.params
def test_before_any_backward_pass_there_is_no_gradient(net, assert_grads_none):
    assert net[2].weight.grad is None
    assert_grads_none(net)


@pytest.mark.params
def test_after_one_the_gradient_lives_in_the_same_object(net, batch, assert_shapes):
    weight = net[2].weight

    net(batch).sum().backward()

    assert net[2].weight is weight
    assert_shapes(weight.grad, tuple(weight.shape))


@reads_values
def test_a_gradient_can_be_taken_back_to_its_initial_state(net, batch, assert_grads_none):
    net(batch).sum().backward()
    assert net[2].bias.grad.item() == len(batch)

    net.zero_grad()

    assert_grads_none(net)
