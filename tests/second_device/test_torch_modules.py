"""The whole battery on torch's own modules, built on the second device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from pytest_paramcheck import ModelCase, parametrize_with_param_checks

from ..whole_models.test_torch_modules import CASES
from ..whole_models.test_torch_modules import finds_nothing as finds_nothing
from .here import HERE
from .test_moves import Spread

LEFT_OUT = {"embedding-sparse"}  # this device has no sparse tensors
#: What torch does to them between the cpu and devices of this kind, see test_moves.py.
LOSES_IN_A_MOVE = {"tied-lm": "its tie", "tied-lm-undeclared": "its tie", "lazy-linear": "laziness"}


@pytest.fixture(autouse=True)
def on_the_second_device() -> Iterator[None]:
    with HERE:
        yield


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@parametrize_with_param_checks(
    [
        replace(
            case,
            expected_failures={
                **case.expected_failures,
                "check_device_move": f"a move loses {LOSES_IN_A_MOVE[case.name]}",
            },
        )
        if case.name in LOSES_IN_A_MOVE
        else case
        for case in CASES
        if case.name not in LEFT_OUT
    ]
)
def test_torch_modules(check: Callable[[], None]) -> None:
    check()


@parametrize_with_param_checks(
    [
        ModelCase(
            Spread,
            inputs=lambda: torch.ones(2, 3, device="cpu"),
            ties=[],
            frozen=[],
            expected_failures={"check_default_device": "it is spread over devices on purpose"},
        )
    ]
)
def test_a_model_spread_over_devices(check: Callable[[], None]) -> None:
    check()
