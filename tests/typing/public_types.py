"""The types that users annotate with. Never run: ``mypy tests/typing`` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from pytest_paramcheck import (
    BUFFERS,
    FROZEN,
    PARAMETERS,
    TRAINABLE,
    CaseRun,
    ModelCase,
    ModelCheck,
    Pattern,
    ShapeSpec,
    Subject,
    assert_finite,
    assert_init,
    assert_shapes,
    assert_values,
    init,
    parametrize_with_param_checks,
    part,
    values,
)
from pytest_paramcheck.plugin.model_items import BoundCheck

CASES = [ModelCase(lambda: nn.Linear(3, 2), inputs=torch.ones(1, 3))]
SHAPES: Mapping[Pattern, ShapeSpec] = {"weight": ("out", 3), nn.LayerNorm: (None,)}


@parametrize_with_param_checks(CASES)
def test_parameters(check: ModelCheck) -> None:
    check()
    check.skip_reason = check.model + check.name  # type: ignore[attr-defined]
    check(1)  # type: ignore[call-arg]
    check.run()  # type: ignore[attr-defined]


def check_finite_in_eval(case: CaseRun) -> None:
    assert_finite(case.build().eval())
    case.weights  # type: ignore[attr-defined]  # noqa: B018


def held(subject: Subject, patterns: Sequence[Pattern]) -> None:
    assert_finite(subject, *patterns)
    assert_shapes(subject, SHAPES)


def selected(model: nn.Module) -> list[Pattern]:
    patterns: list[Pattern] = [FROZEN, TRAINABLE, BUFFERS, PARAMETERS]
    patterns += [part("weight", slice(2)), lambda name, tensor: tensor.dim() == 2]
    return patterns


def conditions(model: nn.Module) -> Mapping[Pattern, values.Condition]:
    assert_values(model, {"weight": values.positive(), TRAINABLE: lambda tensor: tensor > 0})
    assert_values(model, {part("weight", 0): values.norm(dim=0, equals=1.0)})
    assert_init(model, {"weight": init.kaiming_normal(fan_in=3, stacked=2)})
    assert_init(model, {"weight": init.like(nn.init.zeros_)})
    ModelCase(lambda: nn.Linear(3, 2), values={"weight": values.between(0, 1)})
    return {"weight": values.zero_where(torch.ones(2, 3) == 0)}


def wrong_conditions(model: nn.Module) -> None:
    assert_values(model, {"weight": 3})  # type: ignore[dict-item]
    values.norm(equal=1)  # type: ignore[call-arg]
    part("weight")  # type: ignore[call-arg]


def what_a_test_receives(bound: BoundCheck) -> ModelCheck:
    return bound


def wrong(patterns: list[Pattern]) -> None:
    held(3, patterns)  # type: ignore[arg-type]
    patterns.append(7)  # type: ignore[arg-type]
