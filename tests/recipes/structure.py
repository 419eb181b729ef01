"""Recipes of the structure family."""

from __future__ import annotations

import torch
from torch import nn

from pytest_paramcheck import (
    assert_devices,
    assert_dtypes,
    assert_materialized,
    assert_param_count,
    assert_registered,
    assert_shapes,
)

from . import Recipe


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _placed(device: str | None = None) -> tuple[nn.Module, torch.device]:
    """A model and the device it was built on, moved to another one or not."""
    model = nn.Linear(3, 2)
    built_on = model.weight.device
    return model.to(device or built_on), built_on


class _Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.layers = [nn.Linear(3, 3)]


class _Normed(nn.Module):
    """Its forward writes to buffers, draws random numbers and keeps an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.extra: list[nn.Module] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.drop(self.norm(x))
        return self.last


def _normed_hiding() -> nn.Module:
    model = _Normed()
    model.extra.append(nn.Linear(3, 3))
    return model


RECIPES = {
    "assert_shapes": Recipe(
        _linear,
        lambda: nn.Linear(4, 2),
        lambda model: assert_shapes(model, {"weight": (2, 3), "bias": (2,)}),
    ),
    "assert_dtypes": Recipe(
        _linear, lambda: _linear().double(), lambda model: assert_dtypes(model, torch.float32)
    ),
    "assert_devices": Recipe(
        _placed, lambda: _placed("meta"), lambda subject: assert_devices(*subject)
    ),
    "assert_param_count": Recipe(
        _linear, lambda: nn.Linear(4, 2), lambda model: assert_param_count(model, 8, trainable=8)
    ),
    "assert_materialized": Recipe(_linear, lambda: _linear().to("meta"), assert_materialized),
    "assert_registered": Recipe(
        _Normed,
        _normed_hiding,
        lambda model: assert_registered(model, lambda m: m(torch.randn(4, 3)).sum(), tensors=True),
        runs_user_code=True,
    ),
}
