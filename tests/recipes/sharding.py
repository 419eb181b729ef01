"""Recipes of the sharding family: two ranks in one process."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pytest_paramcheck import assert_placements, assert_replicated

from ..threads_as_ranks import on_ranks
from . import Recipe


def _replicas() -> tuple[nn.Module, nn.Module]:
    model = nn.Linear(3, 2)
    return model, copy.deepcopy(model)


def _apart() -> tuple[nn.Module, nn.Module]:
    first, second = _replicas()
    with torch.no_grad():
        second.weight[0, 0] += 1
    return first, second


def _on_two_ranks(pair: tuple[nn.Module, nn.Module]) -> None:
    on_ranks([lambda: assert_replicated(pair[0]), lambda: assert_replicated(pair[1])])


def _sharded() -> nn.Module:
    from torch.distributed.tensor import Shard

    model = nn.Linear(3, 2)
    model.expected = {"*": Shard(0)}
    return model


RECIPES = {
    "assert_replicated": Recipe(_replicas, _apart, _on_two_ranks),
    "assert_placements": Recipe(
        lambda: nn.Linear(3, 2),
        _sharded,
        lambda model: assert_placements(model, getattr(model, "expected", {"*": None})),
    ),
}
