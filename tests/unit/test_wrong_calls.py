"""What is passed in the place of something else is named, with what to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import (
    ModelCase,
    assert_finite,
    assert_init,
    assert_loaded,
    assert_optimizer_covers,
    assert_updated,
    init,
)

from .messages import usage

MODEL = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1)
SUBJECT = (
    "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the Path of a "
    "checkpoint, got "
)


def make() -> nn.Module:
    return MODEL


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: assert_finite(make), f"{SUBJECT}the function make; call it: make()"),  # type: ignore[arg-type]
        (
            lambda: assert_finite(MODEL.named_buffers),  # type: ignore[arg-type]
            f"{SUBJECT}the method named_buffers; call it: named_buffers()",
        ),
        (
            lambda: assert_updated(OPTIMIZER).__enter__(),  # type: ignore[arg-type]
            f"{SUBJECT}the optimizer SGD; pass the model that it steps",
        ),
        (
            lambda: assert_finite(MODEL, nn.Conv2d),
            "pattern Conv2d matches nothing in Sequential; it has modules of Linear, BatchNorm1d",
        ),
        (
            lambda: assert_loaded(MODEL.state_dict(), MODEL),  # type: ignore[arg-type]
            "the model comes first, then the checkpoint: got a state_dict, then a Sequential",
        ),
        (
            lambda: assert_loaded(MODEL, MODEL),  # type: ignore[arg-type]
            "the checkpoint is a Sequential; pass its state_dict()",
        ),
        (
            lambda: assert_optimizer_covers(MODEL, OPTIMIZER),
            "expected an optimizer or a list of optimizers, got Sequential; the optimizer comes "
            "first",
        ),
        (
            lambda: assert_optimizer_covers(OPTIMIZER.state_dict(), MODEL),
            "expected an optimizer or a list of optimizers, got its state_dict(); pass the "
            "optimizer itself",
        ),
        (
            lambda: assert_optimizer_covers(torch.optim.Adam, MODEL),
            "expected an optimizer or a list of optimizers, got the class Adam; build one: "
            "Adam(model.parameters())",
        ),
        (
            lambda: assert_init(MODEL, {"0.weight": init.normal(0, "0.02")}),  # type: ignore[arg-type]
            "init.Normal: '0.02' is not a number",
        ),
        (
            lambda: assert_init(MODEL, {"0.weight": init.xavier_normal(gain=None)}),  # type: ignore[arg-type]
            "init.XavierNormal: None is not a number",
        ),
        (
            lambda: ModelCase(make, frozen={"0": True}),  # type: ignore[arg-type]
            "ModelCase: frozen is a list of patterns, got dict",
        ),
    ],
)
def test_what_was_passed_is_named(call: Callable[[], Any], said: str) -> None:
    assert usage(call) == said
