"""Section 6.2.1: layers are reached by their index, and their parameters through their state."""

from __future__ import annotations

import pytest
from torch import nn

pytestmark = pytest.mark.params


def test_a_sequential_is_indexed_like_a_list(net):
    assert isinstance(net[0], nn.Linear)
    assert isinstance(net[1], nn.ReLU)
    assert isinstance(net[2], nn.Linear)
    assert net[-1] is net[2]


def test_the_second_linear_layer_holds_a_weight_and_a_bias(net, assert_shapes):
    state = net[2].state_dict()

    assert list(state) == ["weight", "bias"]
    assert_shapes(state, {"weight": (1, 8), "bias": (1,)})


def test_an_activation_holds_nothing(net):
    assert net[1].state_dict() == {}


@pytest.mark.params(devices=["cpu", "accelerator"])
def test_a_layer_and_its_state_are_the_same_memory(net):
    for name, value in net[2].state_dict().items():
        value.fill_(7)

        assert net[2].get_parameter(name).eq(7).all(), name
