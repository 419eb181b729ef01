"""Recipes of the first assertions."""

from __future__ import annotations

import torch
from torch import nn

from pytest_paramcheck import assert_finite, assert_grads_none, assert_shapes

from . import Recipe


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _after_backward() -> nn.Module:
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    return model


def _with_nan() -> nn.Module:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 1] = float("nan")
    return model


RECIPES = {
    "assert_grads_none": Recipe(_linear, _after_backward, assert_grads_none),
    "assert_finite": Recipe(_linear, _with_nan, assert_finite),
    "assert_shapes": Recipe(
        _linear,
        lambda: nn.Linear(4, 2),
        lambda model: assert_shapes(model, {"weight": (2, 3), "bias": (2,)}),
    ),
}
