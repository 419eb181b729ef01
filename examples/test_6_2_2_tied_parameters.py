"""Section 6.2.2: one layer used twice is one set of parameters, and what that means."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

reads_values = pytest.mark.params(devices=["cpu", "accelerator"])


@pytest.fixture
def tied_net(batch):
    """Seven layers; the third and the fifth are one and the same layer."""
    shared = nn.LazyLinear(8)
    net = nn.Sequential(
        nn.LazyLinear(8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.LazyLinear(1)
    )
    with torch.no_grad():
        net(batch)  # a lazy layer has parameters to look at only after this
    return net


@pytest.fixture
def untied_net(tied_net):
    """The same values, but the fifth layer has its own copy of them."""
    net = copy.deepcopy(tied_net)
    net[4] = copy.deepcopy(net[2])
    return net


@pytest.mark.params
def test_the_two_layers_are_tied(tied_net, assert_tied):
    assert_tied(tied_net, "2.weight", "4.weight")
    assert_tied(tied_net, "2.bias", "4.bias")


@pytest.mark.params
def test_it_is_one_parameter_and_not_two_equal_ones(tied_net, untied_net, assert_tied):
    assert_tied(tied_net[2].weight, tied_net[4].weight)
    with pytest.raises(AssertionError):
        assert_tied(untied_net[2].weight, untied_net[4].weight)


@reads_values
def test_the_first_rows_are_equal_and_stay_so_after_a_write(tied_net):
    first, second = tied_net[2].weight, tied_net[4].weight
    assert torch.equal(first.data[0], second.data[0])

    first.data[0, 0] = 100

    assert second.data[0, 0] == 100
    assert torch.equal(first.data[0], second.data[0])


@reads_values
def test_equal_values_part_at_the_first_write(untied_net):
    first, second = untied_net[2].weight, untied_net[4].weight
    assert torch.equal(first.data[0], second.data[0])

    first.data[0, 0] = 100

    assert not torch.equal(first.data[0], second.data[0])


@pytest.mark.params
def test_every_path_to_the_shared_layer_is_a_name_of_its_parameters(tied_net, assert_shapes):
    assert_shapes(tied_net[2], {"weight": (8, 8), "bias": (8,)})
    assert_shapes(tied_net, {"4": (8, ...)}, partial=True)


# The open question: why do the gradients of the second and the third hidden layer add up?
# Because the loss depends on the shared weight once for each use. Its derivative is the sum of
# the derivatives through each use, and backpropagation accumulates them in the one `.grad`.


@reads_values
def test_a_weight_used_twice_collects_a_gradient_from_each_use():
    weight = nn.Parameter(torch.tensor(3.0))
    x = torch.tensor(5.0)

    (weight * (weight * x)).backward()

    # The outer use sees weight * x = 15 pass by, the inner one x times the outer weight: 15.
    assert weight.grad.item() == 15.0 + 15.0


@reads_values
def test_the_network_s_shared_gradients_add_up(tied_net, batch, assert_tied_grads_sum):
    assert_tied_grads_sum(tied_net, lambda net: net(batch).sum())


@reads_values
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_the_shared_gradient_is_the_sum_of_what_each_use_contributes(
    tied_net, untied_net, batch, assert_grads_none, name
):
    assert_grads_none(tied_net)
    assert_grads_none(untied_net)

    tied_net(batch).sum().backward()
    untied_net(batch).sum().backward()

    second = untied_net[2].get_parameter(name).grad
    third = untied_net[4].get_parameter(name).grad
    assert second.any()  # both uses contribute: a sum with nothing would prove nothing
    assert third.any()
    torch.testing.assert_close(tied_net[2].get_parameter(name).grad, second + third)


@reads_values
def test_where_only_one_use_reaches_the_loss_only_that_one_contributes(tied_net, untied_net, batch):
    def through_the_fifth_layer_only(net):
        return net[3:](net[:3](batch).detach()).sum()

    through_the_fifth_layer_only(tied_net).backward()
    through_the_fifth_layer_only(untied_net).backward()

    assert untied_net[2].weight.grad is None
    assert untied_net[4].weight.grad.any()
    torch.testing.assert_close(tied_net[2].weight.grad, untied_net[4].weight.grad)
