"""Optimizers that hold the wrong parameters or state, and steps that do nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    assert_changed,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_param_groups,
    assert_updated,
)

from ..models import MLP
from . import asserted, bug, checked, during, rows, step
from .ties import aliased


@bug(
    "optimizer",
    "optimizer built before the head was replaced",
    asserted(assert_optimizer_covers),
    "head.weight",
)
def stale_optimizer(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    before = torch.optim.SGD(model.parameters(), lr=0.1)
    model.head = nn.Linear(4, 3)
    return before if planted else torch.optim.SGD(model.parameters(), lr=0.1), model


def two_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(part.parameters(), lr=0.1)
        for part in model.split  # type: ignore[union-attr]
    ]


@bug(
    "optimizer",
    "parameter in two optimizers",
    checked("check_optimizer_covers", optimizer=two_optimizers),
    "head.weight",
)
def doubled(planted: bool) -> nn.Module:
    model = MLP()
    # A tuple of what is registered hides nothing.
    model.split = (model if planted else model.backbone, model.head)
    return model


@bug(
    "optimizer",
    "layer that no optimizer holds",
    checked("check_optimizer_covers", optimizer=two_optimizers),
    "backbone.0.weight",
)
def uncovered(planted: bool) -> nn.Module:
    model = MLP()
    model.split = (model.head,) if planted else (model.backbone, model.head)
    return model


@bug(
    "optimizer",
    "memory stepped twice through two Parameters",
    checked("check_optimizer_covers", optimizer=torch.optim.SGD),
    "head.weight",
)
def stepped_twice(planted: bool) -> nn.Module:
    return aliased(planted)


@bug(
    "optimizer",
    "weight decay on biases",
    asserted(assert_param_groups, {"*.bias": {"weight_decay": 0.0}}),
    "head.bias",
)
def decayed_bias(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    biases = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": biases, **({} if planted else {"weight_decay": 0.0})},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.1), model


@bug(
    "optimizer",
    "optimizer state of a neighbor after a reorder, saved with names",
    asserted(assert_optimizer_state),
    "b.weight",
)
def neighbors_state(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module, dict[str, Any]]:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    first = torch.optim.Adam(model.named_parameters())
    (model["a"](rows()) + model["b"](rows())).pow(2).sum().backward()
    first.step()
    saved = copy.deepcopy(first.state_dict())
    named = list(model.named_parameters())
    again = torch.optim.Adam(named[::-1] if planted else named)
    again.load_state_dict(saved)
    return again, model, saved


@bug(
    "optimizer",
    "optimizer state left in another dtype",
    asserted(assert_optimizer_state),
    "head.weight",
)
def state_dtype(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    if not planted:
        model.double()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer, rows().to(model.head.weight.dtype))
    return optimizer, model.double()


@bug("training", "moved by weight decay alone", during(assert_updated), "head.bias")
def decay_alone(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    factor = 0.0 if planted else 1.0

    def train() -> None:
        (model(rows()) * factor).pow(2).sum().backward()
        optimizer.step()

    return model, train


@bug("training", "gradients cleared before the step", during(assert_updated), "head.weight")
def cleared_too_soon(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        model(rows()).pow(2).sum().backward()
        if planted:
            optimizer.zero_grad()
        optimizer.step()

    return model, train


@bug("training", "bfloat16 step that rounds away", during(assert_updated), "scale")
def rounds_away(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(4, dtype=torch.bfloat16 if planted else torch.float32))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def train() -> None:
        model.scale.sum().backward()
        optimizer.step()

    return model, train


@bug("training", "EMA that is never updated", during(assert_changed), "head.weight")
def dead_ema(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    student = MLP()
    ema = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    def train() -> None:
        step(student, optimizer)
        with torch.no_grad():
            for mine, theirs in zip(ema.parameters(), student.parameters(), strict=True):
                mine.lerp(theirs, 0.1) if planted else mine.lerp_(theirs, 0.1)

    return ema, train


@bug(
    "training",
    "NaN after a step",
    checked(
        "check_training_step",
        inputs=rows,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=model.rate),
    ),
    "head.weight",
)
def nan_step(planted: bool) -> nn.Module:
    model = MLP()
    model.rate = float("inf") if planted else 0.1
    return model
