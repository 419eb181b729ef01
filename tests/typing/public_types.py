"""The types that users annotate with. Never run: ``mypy tests/typing`` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from pytest_paramcheck import (
    CaseRun,
    ModelCase,
    ModelCheck,
    Pattern,
    ShapeSpec,
    Subject,
    assert_finite,
    assert_shapes,
    parametrize_with_param_checks,
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


def what_a_test_receives(bound: BoundCheck) -> ModelCheck:
    return bound


def wrong(patterns: list[Pattern]) -> None:
    held(3, patterns)  # type: ignore[arg-type]
    patterns.append(7)  # type: ignore[arg-type]
