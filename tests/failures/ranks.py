"""Copies on several ranks, and tensors in shards; the ranks are threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from pytest_paramcheck import assert_placements, assert_replicated
from pytest_paramcheck.checks import optimizer_zero
from pytest_paramcheck.checks.wrapped import different_gradients, different_moves
from pytest_paramcheck.messages.errors import raise_if
from pytest_paramcheck.parameters.subject.optimizers import read_slots
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..threads_as_ranks import on_ranks
from . import fails


def _replicated(change: Callable[[nn.Sequential], object]) -> None:
    """Ask two ranks whether they have the same model, where the second was changed."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    other = copy.deepcopy(model)
    for one in (model, other):
        one(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        change(other)
    on_ranks([lambda: assert_replicated(model), lambda: assert_replicated(other)])


@fails("assert_replicated", "a rank whose values drifted")
def values_differ() -> None:
    _replicated(lambda other: other[1].bias.add_(0.5))


@fails("assert_replicated", "a rank whose gradients were not reduced")
def gradients_differ() -> None:
    _replicated(lambda other: other[1].weight.grad.mul_(2))  # type: ignore[union-attr]


@fails("assert_replicated", "a rank without a gradient")
def no_gradient_on_one() -> None:
    def change(other: nn.Sequential) -> None:
        other[0].weight.grad = None

    _replicated(change)


@fails("assert_replicated", "a rank that froze a layer")
def flags_differ() -> None:
    def change(other: nn.Sequential) -> None:
        other.zero_grad()
        other[0].requires_grad_(False)

    _replicated(change)


@fails("assert_replicated", "a rank with another model")
def another_model() -> None:
    def change(other: nn.Sequential) -> None:
        other[0] = nn.Linear(3, 5)
        other[1].double()
        other.append(nn.Linear(2, 2))

    _replicated(change)


@fails("assert_replicated", "a rank that ties what is not tied on the other")
def another_tie() -> None:
    def change(other: nn.Sequential) -> None:
        other.zero_grad()
        other[1].bias = other[0].bias

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    other = copy.deepcopy(model)
    change(other)
    on_ranks([lambda: assert_replicated(model), lambda: assert_replicated(other)])


@fails("assert_replicated", "ranks that registered in another order")
def another_order() -> None:
    a, b = torch.ones(1), torch.zeros(1)
    on_ranks(
        [
            lambda: assert_replicated({"a": a, "b": b}),
            lambda: assert_replicated({"b": b, "a": a}),
        ]
    )


@contextmanager
def _mesh() -> Iterator[DeviceMesh]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        dist.destroy_process_group()


@fails("assert_placements", "a weight in shards of another dimension, a bias that is whole")
def another_placement() -> None:
    with _mesh() as mesh:
        subject = {
            "weight": nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)])),
            "bias": nn.Parameter(torch.ones(4)),
        }
        assert_placements(subject, {"*": Shard(0)})


def _spread(*held: list[int]) -> None:
    """Let each rank hold the state of the parameters of these numbers."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    slots, inventory = read_slots(optimizer), take_inventory(model)
    told = {rank: [f"{number}.weight" for number in own] for rank, own in enumerate(held)}
    with mock.patch.object(optimizer_zero, "exchange", return_value=told):
        found = optimizer_zero.spread_state(slots, slots, inventory)
    raise_if(found, inventory)


@fails("assert_optimizer_state", "state of a ZeroRedundancyOptimizer that no rank has")
def state_nowhere() -> None:
    _spread([0], [])


@fails("assert_optimizer_state", "state of a ZeroRedundancyOptimizer that two ranks have")
def state_twice() -> None:
    _spread([0, 1], [1])


@fails("check_step", "gradients that a wrapper adds up instead of averaging")
def wrapped_sum() -> None:
    own = torch.ones(2, 3)
    raise_if(different_gradients(["weight"], [own * 2], [own], ranks=2), "model")


@fails("check_step", "an optimizer that was built before the model was wrapped")
def built_before_the_wrap() -> None:
    raise_if(different_moves(["weight"], [False], [True]), "model")


@fails("check_step", "a parameter that only the wrapped model trains")
def moved_by_the_wrap() -> None:
    raise_if(different_moves(["bias"], [True], [False]), "model")
