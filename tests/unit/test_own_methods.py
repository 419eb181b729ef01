"""Who does in its own way what torch does for every module is said where something is lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import ModelCase, assert_roundtrip
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.registry import CHECKS
from pytest_paramcheck.model_checks.run import CaseRun
from pytest_paramcheck.parameters.subject import own_methods as subject
from pytest_paramcheck.parameters.subject.own_methods import (
    COPYING,
    MOVING,
    SAVING,
    OwnMethods,
)
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import failure_lines


class Loads(nn.Linear):
    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)  # type: ignore[no-untyped-call]
        self.reset_parameters()

    def to(self, *args: Any, **options: Any) -> Any:
        return super().to(*args, **options)


def said(model: nn.Module, name: str, methods: tuple[str, ...] = SAVING) -> str:
    return OwnMethods(take_inventory(model), methods).around([name])


def test_the_innermost_module_around_a_name_is_named() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Loads(2, 2), nn.Linear(2, 2)

        def state_dict(self, *args: Any, **options: Any) -> Any:
            return super().state_dict(*args, **options)

    assert said(Around(), "one.weight") == "Loads has its own _load_from_state_dict()"
    assert said(Around(), "two.weight") == "Around has its own state_dict()"
    assert said(Around(), "one.weight", MOVING) == "Loads has its own to()"
    assert said(Around(), "two.weight", MOVING) == ""


def test_what_torch_does_for_its_own_modules_is_not_theirs() -> None:
    model = nn.Sequential(nn.LSTM(2, 2), nn.MultiheadAttention(2, 1), nn.LazyLinear(2))
    nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    for methods in (COPYING, MOVING, SAVING):
        for name in ("0.weight_ih_l0", "1.in_proj_weight", "2.weight"):
            assert said(model, name, methods) == ""


def test_a_hook_is_named_by_what_registers_it() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].register_state_dict_pre_hook(lambda *args: None)
    model[1].register_load_state_dict_post_hook(lambda *args: None)

    assert said(model, "0.weight") == ""
    assert said(model, "1.weight") == (
        "Linear has a hook registered with register_state_dict_pre_hook() and "
        "register_load_state_dict_post_hook()"
    )
    assert said(model, "1.weight", MOVING) == ""


def test_a_layer_that_draws_itself_anew_after_a_load() -> None:
    model = nn.Sequential(Loads(1, 1), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)

    lines = failure_lines(assert_roundtrip, model)

    assert lines[0] == "different values: 0.weight, 0.bias (Sequential)"
    assert all(line.endswith(": Loads has its own _load_from_state_dict()") for line in lines[2:4])


def test_a_move_that_freezes() -> None:
    class Freezes(nn.Linear):
        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            return self.requires_grad_(False)

    case = CaseRun(ModelCase(lambda: nn.Sequential(Freezes(2, 2)), name="model"))

    assert failure_lines(run_check, CHECKS["check_dtype_move"], case) == [
        "role changed: 0.weight, 0.bias (model)",
        "",
        "  0.weight  expected trainable, found frozen: Freezes has its own _apply()",
        "  0.bias    expected trainable, found frozen: Freezes has its own _apply()",
    ]


def test_each_module_is_looked_at_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(*(nn.Sequential(Loads(1, 1), nn.Linear(1, 1)) for _ in range(50)))
    looked: list[nn.Module] = []
    read = subject._said

    def count(module: nn.Module, methods: Any) -> str:
        looked.append(module)
        return read(module, methods)

    monkeypatch.setattr(subject, "_said", count)
    own = OwnMethods(take_inventory(model), SAVING)
    said = [own.around([name]) for name, _ in model.named_parameters()]

    loads = "Loads has its own _load_from_state_dict()"
    assert said == [loads, loads, "", ""] * 50
    assert len(looked) == len(list(model.modules()))
