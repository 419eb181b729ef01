"""Optimizers: what they hold, and the state they keep."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from pytest_paramcheck import (
    ModelCase,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_param_groups,
)

from . import checked, fails


def _two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def _stepped(model: nn.Module, named: bool = False) -> SGD:
    parameters: Any = model.named_parameters() if named else model.parameters()
    optimizer = SGD(parameters, lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


@fails("assert_optimizer_covers", "an optimizer that was told names, and holds what was replaced")
def stale() -> None:
    model = _two()
    optimizer = SGD(model.named_parameters(), lr=0.1)
    model[1] = nn.Linear(2, 2)
    assert_optimizer_covers(optimizer, model)


@fails("assert_optimizer_covers", "an optimizer that steps what is of another model")
def of_another_model() -> None:
    model = nn.Linear(2, 2)
    extra = nn.Parameter(torch.ones(5))
    assert_optimizer_covers(SGD([*model.parameters(), extra], lr=0.1), model)


@fails("assert_optimizer_covers", "weight decay on what is frozen")
def moves_what_is_frozen() -> None:
    model = _two()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.ones(1, 2)).sum().backward()
    model[0].requires_grad_(False)
    assert_optimizer_covers(optimizer, model)


@fails("assert_optimizer_covers", "an optimizer that holds a slice of a weight")
def held_in_part() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        half = nn.Parameter(model.weight[:1])
    assert_optimizer_covers(SGD([half], lr=0.1), model)


@fails("assert_optimizer_covers", "an optimizer that holds a detached view")
def held_through_memory() -> None:
    model = nn.Linear(2, 2, bias=False)
    assert_optimizer_covers(SGD([nn.Parameter(model.weight.data)], lr=0.1), model)


@fails("assert_optimizer_covers", "float32 copies of bfloat16 parameters")
def float32_copies() -> None:
    model = nn.Linear(2, 2).bfloat16()
    copies = [nn.Parameter(p.detach().float()) for p in model.parameters()]
    assert_optimizer_covers(SGD(copies, lr=0.1), model)


@fails("assert_optimizer_covers", "a master that has another shape")
def wrong_master() -> None:
    model = nn.Linear(3, 2, bias=False).bfloat16()
    master = nn.Parameter(torch.zeros(3, 2))
    assert_optimizer_covers(SGD([master], lr=0.1), model, masters={"weight": master})


@fails("assert_param_groups", "a float16 master of a bfloat16 parameter")
def narrow_master() -> None:
    model = nn.Linear(3, 2, bias=False).bfloat16()
    master = nn.Parameter(torch.zeros(2, 3, dtype=torch.float16))
    expected = {"weight": {"lr": 0.1}}
    assert_param_groups(SGD([master], lr=0.1), model, expected, masters={"weight": master})


@fails("assert_optimizer_covers", "one master for two parameters")
def one_master() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).bfloat16()
    master = nn.Parameter(torch.zeros(2, 2))
    masters = {"0.weight": master, "1.weight": master}
    assert_optimizer_covers(SGD([master], lr=0.1), model, masters=masters)


@fails("assert_optimizer_state", "one momentum for two parameters")
def state_shared() -> None:
    model = _two()
    optimizer = _stepped(model)
    state = optimizer.state
    state[model[0].weight]["momentum_buffer"] = state[model[1].weight]["momentum_buffer"]
    assert_optimizer_state(optimizer, model)


@fails("assert_optimizer_state", "a Parameter that was replaced, and its momentum lost")
def state_lost() -> None:
    model = _two()
    optimizer = _stepped(model)
    new = nn.Parameter(model[0].weight.detach().clone())
    optimizer.param_groups[0]["params"][0] = model[0].weight = new
    assert_optimizer_state(optimizer, model)


def _saved(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())


@fails("assert_optimizer_state", "momentum that was reset after the load")
def not_as_saved() -> None:
    model = _two()
    optimizer = _stepped(model, named=True)
    saved = _saved(model, optimizer)
    optimizer.state[model[0].weight]["momentum_buffer"].zero_()
    assert_optimizer_state(optimizer, model, saved)


@fails("assert_optimizer_state", "momentum that a load rounds to the parameter's dtype")
def cast_by_the_load() -> None:
    model = _two()
    optimizer = _stepped(model, named=True)
    saved = _saved(model, optimizer)
    model.bfloat16()
    optimizer.load_state_dict(saved)
    assert_optimizer_state(optimizer, model, saved)


@fails("assert_optimizer_state", "state saved under another name")
def saved_under_another_name() -> None:
    model = _two()
    optimizer = _stepped(model, named=True)
    saved = _saved(model, optimizer)
    saved["param_groups"][0]["param_names"][3] = "1.bais"
    assert_optimizer_state(optimizer, model, saved)


@fails("assert_optimizer_state", "state of a model with another layer")
def of_a_larger_model() -> None:
    larger = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model = _two()
    assert_optimizer_state(_stepped(model), model, _saved(larger, _stepped(larger)))


@fails("check_training_step", "a model that no step changes")
def moves_nothing() -> None:
    class Constant(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0

    case = ModelCase(
        lambda: Constant(3, 2),
        inputs=lambda: torch.ones(1, 3),
        loss=lambda out: out.sum(),
        name="model",
    )
    checked("check_training_step", case)
