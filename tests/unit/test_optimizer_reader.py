"""Reading optimizers: whatever they hold and keep, and saying so where that cannot be read."""

# ruff: noqa: PT012 - what a block does is the subject here

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from pytest_paramcheck import (
    ParamCheckUsageError,
    assert_changed,
    assert_optimizer_covers,
    assert_unchanged,
    assert_updated,
)
from pytest_paramcheck.parameters.subject.leaves import Opaque, leaves_of
from pytest_paramcheck.parameters.subject.optimizers import read_slots, state_of

from .messages import whole


class Odd(Optimizer):
    """Steps what it was given, and lays out its groups as it likes."""

    def __init__(self, params: Any, groups: Any) -> None:
        self.held = list(params)
        super().__init__(self.held, {"lr": 0.1})
        self.param_groups = groups

    def step(self, closure: Any = None) -> None:
        for tensor in self.held:
            if tensor.grad is not None:
                tensor.data.sub_(tensor.grad)


class Moving(Odd):
    """Goes on by the momentum that it keeps in an object."""

    def step(self, closure: Any = None) -> None:
        for tensor in self.held:
            tensor.data.sub_(self.state[tensor].momentum)


GROUPS = [
    ([{"weights": [1]}], "Odd group 0 is not a dict with 'params'"),
    ([[1, 2]], "Odd group 0 is not a dict with 'params'"),
    ([{"params": 3}], "Odd group 0 is not a dict with 'params'"),
    ([{"params": (i for i in "ab")}], "Odd group 0 is not a dict with 'params'"),
    ([{"params": ["w"]}], "Odd group 0 holds something else than tensors"),
]


@pytest.mark.parametrize(("groups", "said"), [*GROUPS, (None, "")])
def test_no_layout_of_groups_breaks_the_step_that_is_observed(groups: Any, said: str) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(1, 1)
    optimizer = Odd(other.parameters(), groups)
    with assert_unchanged(model):
        optimizer.step()
    optimizer = Odd(model.parameters(), groups)
    with assert_updated(model):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    if said:
        with pytest.raises(ParamCheckUsageError) as caught:
            assert_optimizer_covers(optimizer, model)
        assert str(caught.value) == f"what the optimizer holds cannot be read: {said}"


def test_a_group_may_hold_one_tensor_or_a_tuple_of_them() -> None:
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["params"] = (model.weight,)
    optimizer.param_groups.append({"params": model.bias})
    assert_optimizer_covers(optimizer, model)


def test_what_cannot_be_read_is_not_said_to_hold_nothing() -> None:
    model = nn.Linear(3, 2)
    optimizer = Odd([nn.Parameter(torch.ones(1))], [{"weights": []}])
    with pytest.raises(AssertionError) as caught, assert_updated(model, "bias"):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert str(caught.value) == whole("""
        not updated: bias (Linear)

          bias  got a gradient, but what Odd holds cannot be read
        """)


@dataclass
class Kept:
    momentum: Any
    step: int = 1


class Slotted:
    __slots__ = ("empty", "momentum")

    def __init__(self, momentum: Tensor) -> None:
        self.momentum = momentum


STATES = [
    (lambda w: torch.ones_like(w), ["state"]),
    (lambda w: Kept(torch.ones_like(w)), ["momentum", "step"]),
    (lambda w: Slotted(torch.ones_like(w)), ["momentum"]),
    (lambda w: [torch.ones_like(w), 3], ["[0]", "[1]"]),
    (lambda w: {"momentum": torch.ones_like(w)}, ["momentum"]),
    (lambda w: {}, []),
    (lambda w: None, []),
]


@pytest.mark.parametrize(("make", "keys"), STATES)
def test_state_of_any_kind_is_read(make: Any, keys: list[str]) -> None:
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        optimizer.state[parameter] = make(parameter)
    assert list(state_of(optimizer, model.weight)) == keys
    assert_optimizer_covers(optimizer, model)
    with assert_changed(model):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()


def test_momentum_in_an_object_is_momentum() -> None:
    model = nn.Linear(3, 2)
    optimizer = Moving(model.parameters(), [{"params": list(model.parameters()), "lr": 0.1}])
    for parameter in model.parameters():
        optimizer.state[parameter] = Kept(torch.ones_like(parameter))
        parameter.grad = torch.zeros_like(parameter)

    with pytest.raises(AssertionError) as caught, assert_updated(model, "bias"):
        optimizer.step()
    assert str(caught.value) == whole(r"""
        changed without a gradient: bias (Linear)

          bias  2 of 2 values changed, by at most 1: \
        Moving moved it by momentum of earlier steps only, its gradient was all zero
        """)


def test_an_optimizer_whose_state_is_not_a_mapping_keeps_nothing_that_is_known() -> None:
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.state = [1, 2]
    assert_optimizer_covers(optimizer, model)
    optimizer.state = WeakIdKeyDictionary()
    optimizer.state[model.weight] = {"step": 1}
    assert state_of(optimizer, model.weight) == {"step": 1}
    optimizer.state = WeakKeyDictionary({model.weight: {"step": 1}})  # compares its keys by value
    with pytest.raises(ParamCheckUsageError) as caught:
        assert_optimizer_covers(optimizer, model)
    assert str(caught.value) == (
        "what the optimizer holds cannot be read: the state of SGD does not say what it keeps "
        "for a tensor (RuntimeError)"
    )
    with assert_updated(model):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()


class Cyclic:
    def __init__(self) -> None:
        self.me = self
        self.value = 1


def test_leaves() -> None:
    one, two = torch.ones(1), torch.ones(2)
    held = {
        "step": 1,
        "history": deque([one, (two, None)]),
        "kept": Kept(one, step=2),
        "empty": [],
        "table": {3: "x", (1, 2): 0.5},
        "array": numpy.arange(3, dtype=numpy.int32),
        "cyclic": Cyclic(),
        "function": len,
        "set": {1, 2},
        "odd set": {1, len},
    }
    leaves = leaves_of(held)
    array = leaves.pop("array")
    assert array.dtype is torch.int32
    assert array.tolist() == [0, 1, 2]
    assert leaves == {
        "step": 1,
        "history[0]": one,
        "history[1][0]": two,
        "history[1][1]": None,
        "kept": Opaque("Kept"),
        "kept.momentum": one,
        "kept.step": 2,
        "empty": Opaque("list"),
        "table[3]": "x",
        "table[1, 2]": 0.5,
        "cyclic": Opaque("Cyclic"),
        "cyclic.me": Opaque("a reference back"),
        "cyclic.value": 1,
        "function": Opaque("builtin_function_or_method"),
        "set": frozenset({1, 2}),
        "odd set": Opaque("set"),
    }


def test_optimizers_are_told_apart_by_number_where_there_are_several() -> None:
    one, other = (SGD(nn.Linear(2, 2).parameters(), lr=0.1) for _ in range(2))

    assert [slot.where for slot in read_slots(one)] == [
        "SGD group 0, parameter 0",
        "SGD group 0, parameter 1",
    ]
    assert [slot.where for slot in read_slots([one, other])][1:3] == [
        "SGD 0 group 0, parameter 1",
        "SGD 1 group 0, parameter 0",
    ]
