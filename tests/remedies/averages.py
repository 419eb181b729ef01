"""Running averages."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    assert_averaged,
)

from . import Call, Case, remedy
from .models import loss, sgd


def averaged(update: Callable[[Any, Any, torch.optim.Optimizer], None], **options: Any) -> Call:
    """Return a block that updates an average of a model with a norm."""

    def block() -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        average = copy.deepcopy(model).requires_grad_(False)
        optimizer = sgd(model)
        with assert_averaged(average, model, decay=0.9, **options):
            model(torch.randn(6, 4)).square().sum().backward()
            update(average, model, optimizer)

    return block


def blend(average: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
            ours.lerp_(theirs, 0.1)


def copy_buffers(average: nn.Module, model: nn.Module) -> None:
    for averaged_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
        averaged_buffer.copy_(buffer)


def right(average: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    blend(average, model)
    copy_buffers(average, model)


@remedy("update the average after optimizer.step()")
def update_after() -> Case:
    def run(after: bool) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            average = copy.deepcopy(nn.Linear(4, 2)).requires_grad_(False)
            optimizer = sgd(model)
            with assert_averaged(average, model, decay=0.9):
                loss(model).backward()
                if not after:
                    blend(average, model)
                optimizer.step()
                if after:
                    blend(average, model)

        return block

    return Case(run(after=False), lambda hint: run(after=True))


@remedy("after each update: averaged_buffer.copy_(buffer); or buffers='keep'")
def update_buffers() -> Case:
    def without(average: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        blend(average, model)

    return Case(
        averaged(without),
        lambda hint: lambda: (averaged(right)(), averaged(without, buffers="keep")()),
    )


@remedy("copy buffers, or say that they are averaged: buffers='average'")
def average_buffers() -> Case:
    def both(average: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        blend(average, model)
        for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 0.1)
            else:
                ours.copy_(theirs)

    return Case(
        averaged(both),
        lambda hint: lambda: (averaged(right)(), averaged(both, buffers="average")()),
    )


@remedy("pair names, not positions: dict(model.named_parameters())[name]")
def pair_names() -> Case:
    def run(named: bool) -> Call:
        def block() -> None:
            model = nn.ModuleDict({"a": nn.Linear(2, 2, False), "b": nn.Linear(2, 2, False)})
            average = nn.ModuleDict({"b": nn.Linear(2, 2, False), "a": nn.Linear(2, 2, False)})
            average.load_state_dict(model.state_dict())
            average.requires_grad_(False)
            with assert_averaged(average, model, decay=0.5), torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter))
                theirs = dict(model.named_parameters())
                pairs = zip(average.named_parameters(), theirs.values(), strict=True)
                for (name, ours), other in pairs:
                    ours.lerp_(theirs[name] if named else other, 0.5)

        return block

    return Case(run(named=False), lambda hint: run(named=True))


@remedy("make the average of a copy: copy.deepcopy(model)")
def average_of_a_copy() -> Case:
    def run(copied: bool) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            average = copy.deepcopy(model) if copied else nn.Linear(4, 2)
            if not copied:
                average.weight, average.bias = model.weight, model.bias
            optimizer = sgd(model)
            with assert_averaged(average, model, 0.9):
                loss(model).backward()
                optimizer.step()
                blend(average, model)

        return block

    return Case(run(copied=False), lambda hint: run(copied=True))


@remedy("keep the average in float32: copy.deepcopy(model).float()")
def average_in_float32() -> Case:
    def run(wide: bool) -> Call:
        def block() -> None:
            model = nn.Linear(64, 64, bias=False)
            average = copy.deepcopy(model).requires_grad_(False)
            average = average.float() if wide else average.bfloat16()
            with assert_averaged(average, model, decay=0.9999), torch.no_grad():
                model.weight.mul_(1.05)
                average.weight.lerp_(model.weight.to(average.weight.dtype), 0.0001)

        return block

    return Case(run(wide=False), lambda hint: run(wide=True))


@remedy("build the average from the complete model; if it is to have none, *")
def average_of_the_complete_model() -> Case:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    smaller = copy.deepcopy(nn.ModuleDict({"body": model.body})).requires_grad_(False)
    whole = copy.deepcopy(model).requires_grad_(False)

    def run(average: nn.Module, of: Any) -> Call:
        def block() -> None:
            with assert_averaged(average, of, decay=0.9), torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.rand_like(parameter))
                theirs = dict(model.named_parameters())
                for name, ours in average.named_parameters():
                    ours.lerp_(theirs[name], 0.1)

        return block

    def repair(hint: str) -> Call:
        held = {n: p for n, p in model.named_parameters() if n.startswith("body")}
        return lambda: (run(whole, model)(), run(smaller, held)())

    return Case(run(smaller, model), repair)
