"""What a step moves or does not move."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    assert_changed,
    assert_unchanged,
    assert_updated,
    part,
)

from ..models import MLP
from . import Call, Case, asking, done, remedy
from .models import ROW, loss, sgd


def cleared_between(**between: bool) -> Case:
    """A gradient that is gone before the step, and one that is not."""
    model = MLP()
    optimizer = sgd(model)

    def run(before: bool) -> Call:
        def block() -> None:
            with assert_updated(model):
                if before:
                    optimizer.zero_grad(**between)
                loss(model).backward()
                if not before:
                    optimizer.zero_grad(**between)
                optimizer.step()

        return block

    return Case(run(before=False), lambda hint: run(before=True))


@remedy("call zero_grad() before backward() or after step(), not between the two")
def zero_grad_before() -> Case:
    return cleared_between()


@remedy("look between backward() and step() for a clip to 0, a mask of zeros, *")
def look_between() -> Case:
    return cleared_between(set_to_none=False)


def bfloat16_step(master: bool) -> Call:
    def block() -> None:
        scale = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        held = nn.Parameter(scale.detach().float()) if master else scale
        optimizer = torch.optim.SGD([held], lr=1e-1 if master else 1e-4)
        model = {"scale": scale}
        with assert_updated(model, grad="grad") if not master else assert_changed(model):
            for _ in range(2):
                (scale * 1).sum().backward()
                held.grad = scale.grad.float() if master and scale.grad is not None else held.grad
                optimizer.step()
                if master:
                    scale.data.copy_(held)

    return block


@remedy("keep float32 master weights, or use stochastic rounding")
def keep_masters() -> Case:
    return Case(bfloat16_step(master=False), lambda hint: bfloat16_step(master=True))


@remedy("a larger lr, or a dtype that resolves more than *")
def a_larger_rate() -> Case:
    def step(rate: float, dtype: torch.dtype = torch.float32) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2).to(dtype)
            nn.init.constant_(model.weight, 1e3)
            nn.init.constant_(model.bias, 1e3)
            optimizer = sgd(model, lr=rate)
            with assert_updated(model):
                model(torch.ones(1, 4, dtype=dtype)).sum().backward()
                optimizer.step()

        return block

    return Case(step(1e-6), lambda hint: lambda: (step(1.0)(), step(1e-6, torch.float64)()))


@remedy("a GradScaler skips such a step and lowers its scale: GradScaler(init_scale=...)")
def a_smaller_scale() -> Case:
    def scaled(**options: Any) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            optimizer = sgd(model)
            scaler = torch.amp.GradScaler("cpu", **options)
            with assert_updated(model):
                scaler.scale(model(ROW).sum() * 1e36).backward()
                scaler.step(optimizer)
                scaler.update()

        return block

    return Case(scaled(), lambda hint: scaled(init_scale=1.0))


@remedy("assert_optimizer_covers(optimizer, model) names what is missing and what is stale")
def covers_names_it() -> Case:
    from pytest_paramcheck import assert_optimizer_covers

    model = MLP()
    optimizer = torch.optim.SGD(model.backbone.parameters(), lr=0.1)

    def call() -> None:
        with assert_updated(model):
            loss(model).backward()
            optimizer.step()

    said = asking(lambda: assert_optimizer_covers(optimizer, model), "not in the optimizer: head")
    return Case(call, said)


def unchanged(
    prepare: Callable[[nn.Module], torch.optim.Optimizer],
    watched: Callable[[nn.Module], Any] = lambda model: model,
    cleared: bool | None = None,
    **options: Any,
) -> Call:
    """Return a call that steps twice and expects that nothing moves in the second one."""

    def block() -> None:
        model = nn.Linear(4, 2)
        optimizer = prepare(model)
        loss(model).backward()
        optimizer.step()
        if cleared is not None:
            optimizer.zero_grad(set_to_none=cleared)
        with assert_unchanged(watched(model), only="values", **options):
            optimizer.step()

    return block


@remedy("its gradient has to be None, not zero: zero_grad(set_to_none=True), or keep it out of *")
def none_not_zero() -> Case:
    return Case(
        unchanged(lambda m: sgd(m, momentum=0.9), cleared=False),
        lambda hint: unchanged(lambda m: sgd(m, momentum=0.9), cleared=True),
    )


@remedy("its gradient has to be None: zero_grad(set_to_none=True) once it is frozen, *")
def none_once_frozen() -> Case:
    def frozen(model: nn.Module) -> nn.Module:
        return model.requires_grad_(False)

    return Case(unchanged(sgd, frozen), lambda hint: unchanged(sgd, frozen, cleared=True))


@remedy("freeze it with requires_grad_(False) before the backward pass, or train a copy: *")
def train_a_copy() -> Case:
    def run(copied: bool) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            trained = copy.deepcopy(model) if copied else model
            with assert_unchanged(model):
                optimizer = sgd(trained)
                loss(trained).backward()
                optimizer.step()

        return block

    return Case(run(copied=False), lambda hint: run(copied=True))


class Decay(torch.optim.SGD):
    """Shrinks all it holds, whether there is a gradient or not."""

    skips = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            if self.skips and p.grad is None:
                continue
            p.mul_(0.9)


@remedy("a step has to skip it: `if p.grad is None: continue` in *")
def skip_without_gradient() -> Case:
    def run(skips: bool) -> Call:
        optimizer = type("Decay", (Decay,), {"skips": skips})
        return unchanged(lambda m: optimizer(m.parameters()), cleared=True)

    return Case(run(skips=False), lambda hint: run(skips=True))


@remedy("state_dict() shares memory with the model: keep copy.deepcopy(model.state_dict())")
def keep_a_copied_state() -> Case:
    def repair(hint: str) -> Call:
        kept = hint.partition(": keep ")[2]
        return unchanged(sgd, lambda model: eval(kept, {"copy": copy, "model": model}))

    return Case(unchanged(sgd, lambda model: model.state_dict()), repair)


@remedy("it shares memory with what * steps: keep a clone()")
def keep_a_clone() -> Case:
    return Case(
        unchanged(sgd, lambda model: {"w": model.weight.detach()}),
        lambda hint: unchanged(sgd, lambda model: {"w": model.weight.detach().clone()}),
    )


@remedy("a parameter group with weight_decay=0 for it in *")
def a_group_without_decay() -> Case:
    def run(decay: float) -> Call:
        return unchanged(
            lambda m: sgd(m, weight_decay=decay),
            lambda m: {"w": m.weight.detach()},
            cleared=False,
        )

    return Case(run(0.1), lambda hint: run(0.0))


def masked(before: Callable[[nn.Module], None], after: Callable[[nn.Module], None]) -> Call:
    """Return a step in which half of a weight has to stay zero."""

    def block() -> None:
        model = nn.Linear(4, 2)
        with torch.no_grad():
            model.weight[:1] = 0
        optimizer = sgd(model)
        with assert_unchanged(model, part("weight", slice(1)), only="values", atol=1e-12):
            loss(model).backward()
            before(model)
            optimizer.step()
            after(model)

    return block


def nothing(model: nn.Module) -> None:
    """Do nothing."""


@remedy("set their gradient to zero before * steps")
def zero_their_gradient() -> Case:
    def zero(model: Any) -> None:
        model.weight.grad[:1] = 0

    return Case(masked(nothing, nothing), lambda hint: masked(zero, nothing))


@remedy("write them back after * stepped: their zero gradient does not stop it")
def write_them_back() -> Case:
    def run(back: bool) -> Call:
        def block() -> None:
            model = nn.Embedding(3, 4)
            old = model.weight.detach()[1:].clone()
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
            with assert_unchanged(model, part("weight", slice(1, None)), only="values"):
                model(torch.tensor([0])).sum().backward()
                optimizer.step()
                if back:
                    with torch.no_grad():
                        model.weight[1:] = old

        return block

    return Case(run(back=False), lambda hint: run(back=True))


@remedy("an optimizer built before still holds the old one")
def keep_the_object() -> Case:
    def run(copied: bool) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            with assert_unchanged(model):
                value = model.weight.detach().clone()
                if copied:
                    model.weight.data.copy_(value)
                else:
                    model.weight = nn.Parameter(value)

        return block

    return Case(run(copied=False), lambda hint: run(copied=True))


@remedy("copy what hangs on a parameter to the one that replaces it: *")
def copy_attributes() -> Case:
    def run(statement: str) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2)
            model.weight.no_decay = True  # type: ignore[assignment]
            with assert_unchanged(model, only="attributes"):
                old, new = model.weight, nn.Parameter(model.weight.detach().clone())
                done(statement, old=old, new=new)
                model.weight = new

        return block

    return Case(run("pass"), lambda hint: run(hint.partition(": ")[2].partition(" keeps")[0]))
