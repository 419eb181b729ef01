"""Recipes of the training assertions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    assert_averaged,
    assert_changed,
    assert_frozen,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_param_groups,
    assert_trainable,
    assert_unchanged,
    assert_updated,
)

from . import Recipe

Body = Callable[[nn.Module], object]


def _linear() -> nn.Module:
    return nn.Linear(3, 2)


def _frozen() -> nn.Module:
    return nn.Linear(3, 2).requires_grad_(False)


def _nothing(model: nn.Module) -> None:
    pass


def _write(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.add_(1)


def _train(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    here = next(model.parameters()).device
    model(torch.ones(1, 3, device=here)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _block(assertion: Callable[[nn.Module], Any]) -> Callable[[tuple[nn.Module, Body]], None]:
    def call(subject: tuple[nn.Module, Body]) -> None:
        model, body = subject
        with assertion(model):
            body(model)

    return call


def _with(body: Body) -> Callable[[], tuple[nn.Module, Body]]:
    return lambda: (_linear(), body)


def _average_and_model() -> tuple[nn.Module, nn.Module]:
    model = _linear()
    return copy.deepcopy(model).requires_grad_(False), model


def _averaged(subject: tuple[nn.Module, nn.Module]) -> None:
    """Update the average once, or twice where it says so."""
    average, model = subject
    with assert_averaged(average, model, decay=0.9):
        _write(model)
        for _ in range(2 if hasattr(average, "twice") else 1):
            for mean, new in zip(average.parameters(), model.parameters(), strict=True):
                mean.data.mul_(0.9).add_(new.data, alpha=0.1)


def _optimized() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = _linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def _stale() -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = _optimized()
    model.weight = nn.Parameter(torch.ones(2, 3))
    return model, optimizer


def _misfit() -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = _optimized()
    optimizer.state[model.weight]["momentum_buffer"] = torch.ones(2)
    return model, optimizer


def _another_rate() -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = _optimized()
    optimizer.param_groups[0]["lr"] = 0.2
    return model, optimizer


def _state(subject: tuple[nn.Module, torch.optim.Optimizer]) -> None:
    model, optimizer = subject
    assert_optimizer_state(optimizer, model, copy.deepcopy(optimizer.state_dict()))


def _twice() -> tuple[nn.Module, nn.Module]:
    average, model = _average_and_model()
    average.twice = True
    return average, model


RECIPES = {
    "assert_averaged": Recipe(
        _average_and_model,
        _twice,
        _averaged,
        writes=True,
        runs_user_code=True,
    ),
    "assert_frozen": Recipe(_frozen, _linear, assert_frozen),
    "assert_trainable": Recipe(_linear, _frozen, assert_trainable),
    "assert_unchanged": Recipe(
        _with(_nothing), _with(_write), _block(assert_unchanged), writes=True, runs_user_code=True
    ),
    "assert_changed": Recipe(
        _with(_write), _with(_nothing), _block(assert_changed), writes=True, runs_user_code=True
    ),
    "assert_updated": Recipe(
        _with(_train), _with(_write), _block(assert_updated), writes=True, runs_user_code=True
    ),
    "assert_optimizer_covers": Recipe(
        _optimized, _stale, lambda subject: assert_optimizer_covers(subject[1], subject[0])
    ),
    "assert_optimizer_state": Recipe(_optimized, _misfit, _state),
    "assert_param_groups": Recipe(
        _optimized,
        _another_rate,
        lambda subject: assert_param_groups(subject[1], subject[0], {"*": {"lr": 0.1}}),
    ),
}
