"""Recipes of the gradient assertions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pytest_paramcheck import (
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_grads_reach,
    assert_tied_grads_sum,
)

from . import Recipe


def _after_backward() -> nn.Module:
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    return model


def _with_inf() -> nn.Module:
    model = _after_backward()
    assert model.weight.grad is not None
    model.weight.grad[0, 1] = float("inf")
    return model


class _Net(nn.Module):
    """Batch norm and dropout: a forward pass that writes buffers and draws random numbers."""

    def __init__(self, path: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.path(self.body(x)))


def _net(path: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    model = _Net(path)
    model.head(torch.ones(1, 4)).sum().backward()  # gradients that have to survive
    return model


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _loss(model: nn.Module) -> torch.Tensor:
    return model(torch.linspace(-1, 1, 15).reshape(5, 3)).square().sum()


def _tied() -> nn.Module:
    shared = nn.Linear(3, 3)
    return nn.Sequential(shared, nn.Dropout(0.5), shared)


def _hooked() -> nn.Module:
    model = _tied()
    model[0].weight.register_hook(lambda grad: grad * 2)
    return model


RECIPES = {
    "assert_grads_none": Recipe(lambda: nn.Linear(3, 2), _after_backward, assert_grads_none),
    "assert_grads_present": Recipe(_after_backward, lambda: nn.Linear(3, 2), assert_grads_present),
    "assert_grads_finite": Recipe(_after_backward, _with_inf, assert_grads_finite),
    "assert_grad_norm": Recipe(
        _after_backward, _with_inf, lambda model: assert_grad_norm(model, at_most=9)
    ),
    "assert_grads_reach": Recipe(
        lambda: _net(_same),
        lambda: _net(torch.Tensor.detach),
        lambda model: assert_grads_reach(model, _loss),
        runs_user_code=True,
    ),
    "assert_tied_grads_sum": Recipe(
        _tied, _hooked, lambda model: assert_tied_grads_sum(model, _loss), runs_user_code=True
    ),
}
