"""The exercises: names in a nested network, training with a shared layer, and what it saves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

reads_values = pytest.mark.params(devices=["cpu", "accelerator"])


class Block(nn.Module):
    """Two layers around an activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class NestedMLP(nn.Module):
    """Blocks inside a sequence inside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.blocks(x))


@pytest.mark.params
def test_a_nested_name_is_the_path_to_the_parameter(assert_shapes):
    net = NestedMLP()

    assert [name for name, _ in net.named_parameters()] == [
        "blocks.0.up.weight",
        "blocks.0.up.bias",
        "blocks.0.down.weight",
        "blocks.0.down.bias",
        "blocks.1.up.weight",
        "blocks.1.up.bias",
        "blocks.1.down.weight",
        "blocks.1.down.bias",
        "head.weight",
        "head.bias",
    ]
    assert net.get_parameter("blocks.1.down.weight") is net.blocks[1].down.weight
    assert_shapes(
        net,
        {
            "blocks.*.up.weight": ("wide", "d"),
            "blocks.*.up.bias": ("wide",),
            "blocks.*.down.weight": ("d", "wide"),
            "blocks.*.down.bias": ("d",),
            "head.weight": (1, "d"),
            "head.bias": (1,),
        },
    )


@pytest.fixture
def sharing_net():
    """A network whose third and fifth layer are one."""
    shared = nn.Linear(8, 8)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(8, 1)
    )


@reads_values
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_tie_holds_after_every_step_of_training(
    sharing_net,
    assert_tied,
    assert_tied_grads_sum,
    assert_updated,
    assert_finite,
    assert_grads_none,
    assert_grads_present,
    optimizer,
):
    stepper = optimizer(sharing_net.parameters(), lr=0.01)
    x = torch.rand(16, 4)
    y = x.sum(dim=1, keepdim=True)
    losses = []

    def loss_of(net):
        return nn.functional.mse_loss(net(x), y)

    for _ in range(20):
        stepper.zero_grad()
        assert_grads_none(sharing_net)
        assert_tied_grads_sum(sharing_net, loss_of)
        with assert_updated(sharing_net):  # the shared layer among them, because of its gradient
            loss = loss_of(sharing_net)
            loss.backward()
            assert_grads_present(sharing_net)
            stepper.step()
        losses.append(loss.item())

        assert_finite(sharing_net)
        assert_tied(sharing_net, "2", "4")

    assert losses[-1] < losses[0]


@reads_values
def test_one_step_moves_the_shared_layer_once(sharing_net):
    weight = sharing_net[2].weight
    sharing_net(torch.rand(16, 4)).sum().backward()
    expected = weight.detach() - 0.5 * weight.grad

    torch.optim.SGD(sharing_net.parameters(), lr=0.5).step()

    torch.testing.assert_close(sharing_net[4].weight.detach(), expected)


@pytest.mark.params
def test_unique_and_total_counts_differ_by_the_shared_layer(sharing_net):
    def count(parameters):
        return sum(parameter.numel() for parameter in parameters)

    unique = count(sharing_net.parameters())
    total = count(p for _, p in sharing_net.named_parameters(remove_duplicate=False))

    assert total - unique == count(sharing_net[2].parameters()) == 8 * 8 + 8
    assert unique == (4 * 8 + 8) + (8 * 8 + 8) + (8 * 1 + 1)


# Why share? The network is as deep as one with a layer more and has the parameters of one with
# a layer less: less to hold, to save and to learn from the same data.


@pytest.mark.params
def test_depth_can_grow_while_the_parameters_do_not():
    def deep(uses):
        shared = nn.Linear(8, 8)
        layers = [layer for _ in range(uses) for layer in (shared, nn.Tanh())]
        return nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 1))

    counts = {uses: sum(p.numel() for p in deep(uses).parameters()) for uses in (1, 2, 10)}

    assert counts == {1: 121, 2: 121, 10: 121}
