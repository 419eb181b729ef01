"""Flags, blocks of training and averages."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pytest_paramcheck import (
    assert_averaged,
    assert_changed,
    assert_unchanged,
    assert_updated,
)

from ..models import MLP
from . import fails


@fails("assert_unchanged", "a layer that a block takes out")
def removed() -> None:
    model = MLP()
    with assert_unchanged(model):
        del model.head


@fails("assert_unchanged", "a layer that a block puts in")
def added() -> None:
    model = MLP()
    with assert_unchanged(model):
        model.extra = nn.Linear(2, 2)


@fails("assert_unchanged", "a Parameter that is put on other memory")
def other_memory() -> None:
    model = nn.Linear(3, 2)
    with assert_unchanged(model):
        model.weight.data = model.weight.detach().clone()


@fails("assert_unchanged", "a frozen layer that a block unfreezes")
def unfrozen() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with assert_unchanged(model):
        model.requires_grad_(True)


@fails("assert_updated", "a Parameter that is replaced during training")
def replaced() -> None:
    model = nn.Linear(3, 2)
    with assert_updated(model):
        model.weight = nn.Parameter(torch.ones(2, 3))


@fails("assert_changed", "a model that is moved to meta")
def no_values_left() -> None:
    model = nn.Linear(3, 2)
    with assert_changed(model):
        model.to("meta")


@fails("assert_changed", "a move that is smaller than it has to be")
def hardly_changed() -> None:
    model = nn.Linear(3, 2)
    with assert_changed(model, more_than=0.1), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)


def _averaged(update: str, *, decay: float = 0.9, buffers: str = "copy") -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))  # as after some steps

    def average(decay: float) -> None:
        with torch.no_grad():
            for mine, other in zip(ema.parameters(), model.parameters(), strict=True):
                mine.lerp_(other, 1 - decay)

    def copy_buffers() -> None:
        with torch.no_grad():
            for mine, other in zip(ema.buffers(), model.buffers(), strict=True):
                mine.copy_(other)

    with assert_averaged(ema, model, decay, buffers=buffers):  # type: ignore[arg-type]
        if update == "before":
            average(decay)
        model(torch.randn(4, 3)).pow(2).sum().backward()
        optimizer.step()
        match update:
            case "swapped":
                average(1 - decay)
            case "twice":
                average(decay)
                average(decay)
            case "other":
                average(0.5)
            case "copied":
                ema.load_state_dict(model.state_dict())
            case "random":
                with torch.no_grad():
                    for parameter in ema.parameters():
                        parameter.normal_()
            case "ok" | "averaged buffers" | "random buffers":
                average(decay)
            case "shared":
                ema[0].weight = model[0].weight
            case "neighbor":
                with torch.no_grad():
                    ema[1].weight.lerp_(model[0].bias, 1 - decay)
        if update == "averaged buffers":
            with torch.no_grad():
                for name, buffer in ema.named_buffers():
                    if buffer.is_floating_point():
                        buffer.lerp_(model.get_buffer(name), 1 - decay)
        elif update == "random buffers":
            with torch.no_grad():
                ema[1].running_mean.add_(3)
        elif update != "never" and buffers == "copy":
            copy_buffers()


@fails("assert_averaged", "an average that is never updated")
def never_averaged() -> None:
    _averaged("never")


@fails("assert_averaged", "decay and 1 - decay in each other's place")
def decay_swapped() -> None:
    _averaged("swapped")


@fails("assert_averaged", "an average that is updated twice in a step")
def averaged_twice() -> None:
    _averaged("twice")


@fails("assert_averaged", "an average that is updated before the optimizer steps")
def averaged_before() -> None:
    _averaged("before")


@fails("assert_averaged", "a copy where an average was to be")
def copied() -> None:
    _averaged("copied")


@fails("assert_averaged", "an average of something else")
def wrong_average() -> None:
    _averaged("random")


@fails("assert_averaged", "statistics that are averaged instead of copied")
def buffers_averaged() -> None:
    _averaged("averaged buffers")


@fails("assert_averaged", "statistics that are neither copied nor kept")
def buffers_of_something_else() -> None:
    _averaged("random buffers")


@fails("assert_averaged", "statistics that were to be kept")
def buffers_not_kept() -> None:
    _averaged("random buffers", buffers="keep")


@fails("assert_averaged", "an average that holds the model's own Parameter")
def average_shares() -> None:
    _averaged("shared")


@fails("assert_averaged", "an average of the neighbor's values")
def average_of_another() -> None:
    _averaged("neighbor")


@fails("assert_averaged", "a parameter that the average lacks")
def not_in_the_average() -> None:
    model = nn.Linear(3, 2)
    ema = copy.deepcopy(model)
    model.scale = nn.Parameter(torch.ones(1))
    with assert_averaged(ema, model), torch.no_grad():
        ema.weight.add_(1)
