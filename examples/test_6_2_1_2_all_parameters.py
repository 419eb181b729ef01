"""Section 6.2.1.2: all parameters at once, from a flat network and from a tree of modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

reads_values = pytest.mark.params(devices=["cpu", "accelerator"])

SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (1, 8), "2.bias": (1,)}


@pytest.mark.params
def test_these_names_and_shapes_and_no_others(net, assert_shapes):
    assert_shapes(net, SHAPES)


@pytest.mark.params
def test_they_come_in_the_order_of_the_layers(net):
    assert [(name, tuple(p.shape)) for name, p in net.named_parameters()] == list(SHAPES.items())


@pytest.mark.params
def test_sizes_that_belong_together_can_be_given_a_name(net, assert_shapes):
    assert_shapes(
        net,
        {
            "0.weight": ("hidden", "features"),
            "0.bias": ("hidden",),
            "2.weight": ("out", "hidden"),
            "2.bias": ("out",),
        },
    )


@reads_values
def test_every_value_is_finite(net, assert_finite):
    assert_finite(net)


@reads_values
def test_the_values_are_those_of_the_layers(net):
    of_the_layers = {
        "0.weight": net[0].weight.data,
        "0.bias": net[0].bias.data,
        "2.weight": net[2].weight.data,
        "2.bias": net[2].bias.data,
    }

    of_the_net = {name: parameter.data for name, parameter in net.named_parameters()}

    assert of_the_net.keys() == of_the_layers.keys()
    for name, value in of_the_net.items():
        assert torch.equal(value, of_the_layers[name]), name


@reads_values
def test_the_values_are_all_that_the_network_computes_with(net, batch):
    value = dict(net.named_parameters())

    hidden = torch.relu(batch @ value["0.weight"].T + value["0.bias"])
    by_hand = hidden @ value["2.weight"].T + value["2.bias"]

    torch.testing.assert_close(by_hand, net(batch))


@pytest.mark.params
def test_nested_modules_are_walked_as_a_tree(assert_shapes):
    tree = nn.Sequential(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3))),
        nn.Linear(3, 1),
    )

    assert_shapes(
        tree,
        {
            "0.0.weight": (8, 4),
            "0.0.bias": (8,),
            "0.2.0.weight": (3, 8),
            "0.2.0.bias": (3,),
            "1.weight": (1, 3),
            "1.bias": (1,),
        },
    )


@pytest.mark.params
def test_a_pattern_names_a_whole_branch_of_the_tree(assert_shapes):
    tree = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8)), nn.Linear(8, 1))

    assert_shapes(tree, {"0.*.weight": (8, None), "0.*.bias": (8,)}, partial=True)
