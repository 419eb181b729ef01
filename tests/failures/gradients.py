"""Gradients, and what a loss reaches."""

from __future__ import annotations

import torch
from torch import nn

from pytest_paramcheck import (
    ModelCase,
    assert_grad_norm,
    assert_grads_none,
    assert_grads_reach,
    assert_registered,
)

from ..models import MLP
from . import checked, fails


def _with_gradients(scale: float) -> nn.Module:
    model = nn.Linear(3, 2)
    (model(torch.ones(1, 3)).sum() * scale).backward()
    return model


@fails("assert_grad_norm", "a gradient that vanishes")
def too_small() -> None:
    assert_grad_norm(_with_gradients(1e-6), at_least=1e-3)


@fails("assert_grad_norm", "a NaN in a gradient")
def norm_is_nan() -> None:
    assert_grad_norm(_with_gradients(float("nan")), at_most=1)


@fails("assert_grad_norm", "an infinity in a gradient")
def norm_is_infinite() -> None:
    assert_grad_norm(_with_gradients(float("inf")), at_most=1)


@fails("assert_grads_none", "a gradient that is not only zeros left by zero_grad()")
def nonzero() -> None:
    assert_grads_none(_with_gradients(1), allow_zero=True)


@fails("assert_grads_reach", "a loss_fn that forgets its return")
def no_backward_pass() -> None:
    def loss_fn(model: nn.Module) -> None:
        model(torch.ones(1, 3)).sum()

    assert_grads_reach(nn.Linear(3, 2), loss_fn)  # type: ignore[arg-type]


@fails("assert_grads_reach", "a router that picks one expert of four")
def too_few() -> None:
    experts = nn.ModuleList([nn.Linear(3, 2) for _ in range(4)])
    assert_grads_reach(experts, lambda model: model[2](torch.ones(1, 3)).sum(), at_least={"*": 0.5})


@fails("check_grads_reach", "a declaration that is no longer true")
def declared_unreached() -> None:
    case = ModelCase(
        lambda: nn.Linear(3, 2),
        inputs=lambda: torch.ones(1, 3),
        loss=lambda out: out.sum(),
        unreached=["bias"],
        name="model",
    )
    checked("check_grads_reach", case)


@fails("assert_registered", "a loss that no gradient can start from")
def loss_without_a_graph() -> None:
    assert_registered(MLP(), lambda model: model(torch.ones(1, 4)).sum().detach())
