"""From which operation on gradients are not finite is said where a second run shows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure_lines


def lines(loss: Any, factory: Any = lambda: nn.Linear(3, 2)) -> list[str]:
    case = CaseRun(
        ModelCase(factory, name="model", loss=lambda model: loss(model, torch.ones(2, 3)))
    )
    return failure_lines(run_check, CHECKS["check_grads_finite"], case)


def test_the_first_operation_is_named_with_what_keeps_it_finite() -> None:
    found = lines(lambda model, x: (model(x) * 0.0).sqrt().sum())

    assert found == [
        "gradient not finite: weight, bias (Linear)",
        "",
        "  weight  6 of 6 values: 6 NaN, first at [0, 0]: made by the backward of sqrt in loss_fn",
        "  bias    2 of 2 values: 2 NaN, first at [0]: made by the backward of sqrt in loss_fn",
        "",
        "  hint: keep what sqrt gets away from 0: x.clamp_min(1e-6), or x + 1e-6",
    ]


def test_what_overflows_has_no_hint_of_zeros() -> None:
    found = lines(lambda model, x: (model(x) * 1e38 * 1e38).sum())

    assert found[2].endswith("made by the backward of mul in loss_fn")
    assert not any("hint" in line for line in found)


def test_what_a_second_run_does_not_show_is_not_said() -> None:
    runs: list[Tensor] = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        runs.append(x)
        return (model(x) * (float("inf") if len(runs) == 1 else 1.0)).sum()

    assert lines(loss)[-1] == (
        "  hint: assert_grads_reach(model, loss_fn) says which operation it comes from"
    )
    assert len(runs) == 2
