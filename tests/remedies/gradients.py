"""Gradients that are there or not, finite or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_grads_reach,
    assert_updated,
)

from ..models import MLP
from . import Call, Case, asking, checking, done, remedy
from .models import ROW, Spare, loss, root


@remedy("zero_grad(set_to_none=True) clears what a backward pass left; *")
def clear_gradients() -> Case:
    model = MLP()
    loss(model).backward()

    def repair(hint: str) -> None:
        done(f"model.{hint.partition(' clears')[0]}", model=model)

    return Case(lambda: assert_grads_none(model), repair, model)


@remedy("zero_grad(set_to_none=True) clears what a backward pass left; *")
def detach_its_output() -> Case:
    def run(detach: bool) -> nn.Module:
        teacher, student = nn.Linear(4, 2), nn.Linear(4, 2)
        output = teacher(ROW).detach() if detach else teacher(ROW)
        (output - student(ROW)).square().sum().backward()
        return teacher

    return Case(
        lambda: assert_grads_none(run(detach=False)),
        lambda hint: lambda: assert_grads_none(run(detach=True)),
    )


@remedy("zero_grad(set_to_none=True), or allow_zero=True if zeros are right")
def zeros_are_left() -> Case:
    model = MLP()
    loss(model).backward()
    model.zero_grad(set_to_none=False)
    assert_grads_none(model, allow_zero=True)

    def repair(hint: str) -> None:
        done(f"model.{hint.partition(', or')[0]}", model=model)

    return Case(lambda: assert_grads_none(model), repair, model)


@remedy("zero_grad() does not see *: set it to zero too, and pass allow_zero=True")
def zero_elsewhere() -> Case:
    model = nn.Linear(4, 2)
    for parameter in model.parameters():
        parameter.main_grad = torch.ones_like(parameter)  # type: ignore[attr-defined]

    def repair(hint: str) -> Call:
        for parameter in model.parameters():
            parameter.main_grad.zero_()  # type: ignore[attr-defined]
        return lambda: assert_grads_none(model, grad="main_grad", allow_zero=True)

    return Case(lambda: assert_grads_none(model, grad="main_grad"), repair, model)


@remedy("in a mapping a plain tensor is taken for a gradient, *")
def parameters_in_a_mapping() -> Case:
    state = {"w": torch.ones(2)}
    return Case(
        lambda: assert_grads_none(state),
        lambda hint: lambda: assert_grads_none({k: nn.Parameter(v) for k, v in state.items()}),
    )


@remedy("call loss.backward() first, and zero_grad() only after the assertion")
def backward_first() -> Case:
    model = MLP()
    return Case(lambda: assert_grads_present(model), lambda hint: loss(model).backward(), model)


@remedy(
    "assert_grads_reach(model, loss_fn) says why",
    "assert_grads_reach(model, loss_fn) says why a gradient does not arrive",
)
def reach_says_why() -> Case:
    model = Spare()

    def call() -> None:
        with assert_updated(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            loss(model).backward()
            optimizer.step()
        assert_grads_present(model)

    def present() -> None:
        loss(model).backward()
        assert_grads_present(model)

    why = asking(lambda: assert_grads_reach(model, loss), "spare.weight", "never used")
    return Case(lambda: (_failing(present), _failing(call), _raise_both(present, call)), why)


def _failing(call: Call) -> None:
    try:
        call()
    except AssertionError:
        return
    raise LookupError("it does not fail")


def _raise_both(*calls: Call) -> None:
    """Raise the error of one with the findings of all."""
    from pytest_paramcheck import ParamCheckError

    findings: list[Any] = []
    for call in calls:
        try:
            call()
        except ParamCheckError as error:
            findings += error.findings
    raise ParamCheckError(findings)


@remedy("assert_grads_reach(model, loss_fn) says why; allow_zero=True if zeros are right")
def reach_says_why_zero() -> Case:
    model = Spare(lambda spare, x: spare(x) * 0)
    loss(model).backward()
    assert_grads_present(model, allow_zero=True)
    return Case(
        lambda: assert_grads_present(model),
        asking(lambda: assert_grads_reach(model, loss), "spare.weight", "mul in Spare"),
    )


@remedy(
    "NaN and infinity do not say who was reached, because 0 x NaN is NaN: make the gradients "
    "finite first"
)
def finite_first() -> Case:
    model = nn.Linear(4, 2)
    return Case(
        lambda: assert_grads_reach(model, root),
        lambda hint: lambda: assert_grads_reach(model, loss),
        model,
    )


@remedy("assert_grads_reach(model, loss_fn) says which operation it comes from")
def reach_says_where() -> Case:
    model = nn.Linear(4, 2)
    root(model).backward()
    return Case(
        lambda: assert_grads_finite(model),
        asking(lambda: assert_grads_reach(model, root), "from the gradient of sqrt"),
    )


@remedy("assert_grads_finite(model) says which values are not finite")
def finite_says_which() -> Case:
    model = nn.Linear(4, 2)
    root(model).backward()
    return Case(
        lambda: assert_grad_norm(model, at_most=1.0),
        asking(lambda: assert_grads_finite(model), "8 of 8 values"),
    )


@remedy("no backward pass while the model is built, or zero_grad() after it")
def built_without_gradients() -> Case:
    def factory(cleared: bool) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            model = MLP()
            loss(model).backward()
            if cleared:
                model.zero_grad()
            return model

        return build

    return Case(
        checking("check_grads_none", factory(cleared=False)),
        lambda hint: (
            lambda: (
                checking("check_grads_none", factory(cleared=True))(),
                checking("check_grads_none", MLP)(),
            )
        ),
    )


@remedy("keep what sqrt gets away from 0: x.clamp_min(1e-6), or x + 1e-6")
def away_from_zero() -> Case:
    def roots(shift: Callable[[Tensor], Tensor]) -> Call:
        return checking(
            "check_grads_finite",
            lambda: nn.Linear(4, 2),
            loss=lambda model: shift((model(torch.zeros(3, 4)) - model.bias).square()).sqrt().sum(),
        )

    return Case(
        roots(lambda x: x),
        lambda hint: lambda: (roots(lambda x: x.clamp_min(1e-6))(), roots(lambda x: x + 1e-6)()),
    )


@remedy("leave one value of each row unmasked: softmax of nothing but -inf is NaN")
def unmask_one() -> Case:
    def masked(several: int) -> Call:
        hidden = torch.zeros(2)
        hidden[:several] = -torch.inf
        return checking(
            "check_grads_finite",
            lambda: nn.Linear(4, 2),
            loss=lambda model: (model(torch.ones(3, 4)) + hidden).softmax(-1)[:, -1].sum(),
        )

    return Case(masked(2), lambda hint: masked(1))
