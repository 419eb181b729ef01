"""Recipes of the values family."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pytest_paramcheck import (
    assert_finite,
    assert_init,
    assert_init_complete,
    assert_same_values,
    assert_values,
    init,
    values,
)

from . import Recipe


def _twins() -> tuple[nn.Module, nn.Module]:
    model = nn.Linear(3, 2)
    return model, copy.deepcopy(model)


def _strangers() -> tuple[nn.Module, nn.Module]:
    a, b = _twins()
    with torch.no_grad():
        b.weight[0, 0] += 1
    return a, b


def _with_nan() -> nn.Module:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 1] = float("nan")
    return model


def _policy(std: float) -> nn.Module:
    policy = nn.Linear(3, 2)
    policy.std = nn.Parameter(torch.tensor([0.5, std]))
    return policy


class _Uninitialized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3))


RECIPES = {
    "assert_finite": Recipe(lambda: nn.Linear(3, 2), _with_nan, assert_finite),
    "assert_same_values": Recipe(_twins, _strangers, lambda pair: assert_same_values(*pair)),
    "assert_values": Recipe(
        lambda: _policy(0.1),
        lambda: _policy(-0.1),
        lambda model: assert_values(model, {"std": values.positive()}),
    ),
    "assert_init": Recipe(
        lambda: nn.Linear(64, 32),
        lambda: nn.Linear(16, 32),
        lambda model: assert_init(model, {"weight": init.uniform(-1 / 8, 1 / 8)}),
    ),
    "assert_init_complete": Recipe(
        lambda: lambda: nn.Linear(3, 2),
        lambda: _Uninitialized,
        assert_init_complete,
        runs_user_code=True,
    ),
}
