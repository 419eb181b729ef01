"""What an optimizer holds: each trainable parameter once, with which settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_optimizer_covers,
    assert_param_groups,
)

from .messages import failure, whole


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 2)


def test_all_parameters_once_pass() -> None:
    model = Net()
    assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model)
    assert_optimizer_covers(SGD(model.named_parameters(), lr=0.1), model)
    several = [SGD(model.a.parameters(), lr=0.1), AdamW(model.b.parameters())]
    assert_optimizer_covers(several, model)
    assert_optimizer_covers(several[0], model, "a")


def test_a_tied_parameter_listed_once_passes() -> None:
    model = Net()
    model.c = nn.Linear(3, 3)
    model.c.weight = model.a.weight
    assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model, "c.weight")
    assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model)


def test_frozen_and_left_out_passes() -> None:
    model = Net()
    model.a.requires_grad_(False)
    assert_optimizer_covers(SGD(model.b.parameters(), lr=0.1), model)


def test_a_teacher_whose_gradient_is_none_passes() -> None:
    model = Net()
    optimizer = AdamW(model.parameters(), weight_decay=0.1)
    model.a.requires_grad_(False)
    assert_optimizer_covers(optimizer, model)
    before = model.a.weight.detach().clone()
    model.b(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model.a.weight, before)  # what the assertion relies on


def test_missing() -> None:
    model = Net()
    assert failure(assert_optimizer_covers, SGD(model.a.parameters(), lr=0.1), model) == whole("""
        not in the optimizer: b.weight, b.bias (Net)

          b.weight  Parameter 2x3 float32 cpu
          b.bias    Parameter 2 float32 cpu

          hint: build the optimizer after the model is complete, or add_param_group() what is new
        """)


@pytest.mark.parametrize("named", [True, False])
def test_stale_after_a_layer_was_replaced(named: bool) -> None:
    model = Net()
    optimizer = SGD(model.named_parameters() if named else model.parameters(), lr=0.1)
    model.b = nn.Linear(3, 5)  # another number of classes
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        stale in the optimizer: b.weight, b.bias (Net)

          b.weight  SGD group 0, parameter 2 is Parameter 2x3 float32 cpu, not the model's: \
        the parameter was replaced after the optimizer was built
          b.bias    SGD group 0, parameter 3 is Parameter 2 float32 cpu, not the model's: \
        the parameter was replaced after the optimizer was built

          hint: build the optimizer after the model is complete, or add_param_group() what is new
        """)


def test_stale_is_told_by_shape_where_positions_differ() -> None:
    model = Net()
    optimizer = SGD([model.b.weight, model.a.weight, model.a.bias], lr=0.1)
    model.b = nn.Linear(3, 2, bias=False)
    assert (
        failure(assert_optimizer_covers, optimizer, model).splitlines()[0]
        == "stale in the optimizer: b.weight (Net)"
    )


def test_stale_by_another_parameter_on_the_same_memory() -> None:
    model = Net()
    optimizer = SGD([nn.Parameter(p.data) for p in model.b.parameters()], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model, "b.weight") == whole(r"""
        stale in the optimizer: b.weight; foreign in the optimizer: \
        SGD group 0, parameter 1 (Net)

          stale in the optimizer:
            b.weight  SGD group 0, parameter 0 is another Parameter, which is on the same memory: \
        gradients of this one are never stepped with
          foreign in the optimizer:
            SGD group 0, parameter 1  Parameter 2 float32 cpu: no parameter of Net

          hint: build the optimizer after the model is complete, or add_param_group() what is new
          hint: where one optimizer trains several models, pass nn.ModuleDict of them
        """)


def test_foreign() -> None:
    model, other = Net(), nn.Linear(7, 1, bias=False)
    optimizer = SGD([*model.parameters(), *other.parameters()], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model) == whole("""
        foreign in the optimizer: SGD group 0, parameter 4 (Net)

          SGD group 0, parameter 4  Parameter 1x7 float32 cpu: no parameter of Net

          hint: where one optimizer trains several models, pass nn.ModuleDict of them
        """)
    assert_optimizer_covers(optimizer, nn.ModuleDict({"net": model, "other": other}))


def test_doubled_across_optimizers_and_within_a_group() -> None:
    model = Net()
    first, second = SGD(model.parameters(), lr=0.1), AdamW([model.b.bias])
    first.param_groups[0]["params"].append(model.a.bias)
    assert failure(assert_optimizer_covers, [first, second], model) == whole(r"""
        held more than once: a.bias, b.bias (Net)

          a.bias  SGD 0 group 0, parameter 1 and SGD 0 group 0, parameter 4: \
        each step moves it 2 times
          b.bias  SGD 0 group 0, parameter 3 and AdamW 1 group 0, parameter 0: \
        each step moves it 2 times

          hint: give each parameter to one group of one optimizer
        """)


def test_doubled_through_its_memory() -> None:
    model = Net()
    model.c = nn.Linear(3, 3, bias=False)
    model.c.weight.data = model.a.weight.data  # shares memory, but is not tied
    assert failure(assert_optimizer_covers, SGD(model.parameters(), lr=0.1), model) == whole(r"""
        memory held more than once: a.weight, c.weight (Net)

          a.weight, c.weight  SGD group 0, parameter 0 and SGD group 0, parameter 4: \
        different tensors on the same memory: each step moves it more than once

          hint: tie by assigning the Parameter itself, not its data
        """)


def test_the_other_half_of_shared_memory_is_not_covered() -> None:
    model = Net()
    model.c = nn.Linear(3, 3, bias=False)
    model.c.weight.data = model.a.weight.data
    optimizer = SGD([*model.a.parameters(), *model.b.parameters()], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        not in the optimizer: c.weight (Net)

          c.weight  SGD group 0, parameter 0 is a.weight, which is on the same memory: \
        gradients of this one are never stepped with

          hint: tie by assigning the Parameter itself
        """)


def test_slices_of_a_flat_parameter_are_covered_by_it_once() -> None:
    model = Net()
    flat = nn.Parameter(torch.zeros(sum(p.numel() for p in model.parameters())))
    start = 0
    for parameter in model.parameters():
        parameter.data = flat.data[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    assert_optimizer_covers(SGD([flat], lr=0.1), model)
    twice = [SGD([flat], lr=0.1), SGD([nn.Parameter(flat.data)], lr=0.1)]
    assert failure(assert_optimizer_covers, twice, model).splitlines()[0] == (
        "memory held more than once: a.weight, a.bias, b.weight, b.bias (Net)"
    )


def test_frozen_that_the_next_step_moves() -> None:
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.b(model.a(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    model.a.requires_grad_(False)
    model.b.bias.requires_grad_(False)
    model.b.bias.grad = torch.ones(2)
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        frozen, but the next step moves it: a.weight, a.bias, b.bias (Net)

          a.weight  SGD group 0, parameter 0: weight decay 0.1 and momentum (momentum_buffer)
          a.bias    SGD group 0, parameter 1: weight decay 0.1 and momentum (momentum_buffer)
          b.bias    SGD group 0, parameter 3: a gradient left in .grad, weight decay 0.1 and \
        momentum (momentum_buffer)

          hint: clear it with zero_grad(set_to_none=True), or take it out of the groups
        """)
    optimizer.zero_grad()
    assert_optimizer_covers(optimizer, model)


def test_wrong_calls_of_covers() -> None:
    model = Net()
    with pytest.raises(ParamCheckUsageError, match="got Net; the optimizer comes first"):
        assert_optimizer_covers(model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(ParamCheckUsageError, match="an empty list of optimizers"):
        assert_optimizer_covers([], model)
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ParamCheckUsageError, match="none of the selected parameters of Net is"):
        assert_optimizer_covers(optimizer, model.requires_grad_(False), "a")
    with pytest.raises(ParamCheckUsageError, match="pattern 'nope' matches nothing"):
        assert_optimizer_covers(optimizer, model, "nope")


# --- assert_param_groups -----------------------------------------------------------------------


def grouped(model: nn.Module) -> AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=torch.tensor(1e-3), weight_decay=0.1)


def test_the_settings_each_parameter_gets_pass() -> None:
    model = Net()
    assert_param_groups(
        grouped(model),
        model,
        {
            "*": {"weight_decay": 0.1, "betas": (0.9, 0.999), "amsgrad": False},
            "*.bias": {"weight_decay": 0, "lr": torch.tensor(1e-3)},
        },
    )
    optimizer = SGD(model.parameters(), lr=0.1 + 0.2)
    assert_param_groups(optimizer, model, {"*": {"lr": 0.3}})


def test_a_wrong_setting_is_named_with_its_group() -> None:
    model = Net()
    assert failure(
        assert_param_groups,
        grouped(model),
        model,
        {"*": {"weight_decay": 0.1, "eps": 1e-8}, "a.bias": {"weight_decay": 0}},
    ) == whole(r"""
        wrong hyperparameter: b.bias (Net)

          b.bias  expected weight_decay=0.1, found weight_decay=0.0: AdamW group 1, by pattern '*'
        """)
    with pytest.raises(ParamCheckError, match=r"expected lr=0\.10001, found lr=0\.1"):
        assert_param_groups(SGD(model.parameters(), lr=0.1), model, {"*": {"lr": 0.10001}})
    with pytest.raises(ParamCheckError, match="expected nesterov=0, found nesterov=False"):
        assert_param_groups(SGD(model.parameters(), lr=0.1), model, {"*": {"nesterov": 0}})


def test_a_parameter_that_no_optimizer_holds_gets_nothing() -> None:
    model = Net()
    optimizer = SGD(model.a.parameters(), lr=0.1)
    assert failure(assert_param_groups, optimizer, model, {"*": {"lr": 0.1}}) == whole("""
        not in the optimizer: b.weight, b.bias (Net)

          b.weight  expected lr=0.1
          b.bias    expected lr=0.1

          hint: assert_optimizer_covers(optimizer, model) says more
        """)
    model.b.requires_grad_(False)
    assert_param_groups(optimizer, model, {"*": {"lr": 0.1}})
    with pytest.raises(ParamCheckError, match=r"^not in the optimizer: b\.weight, b\.bias"):
        assert_param_groups(optimizer, model, {"a": {"lr": 0.1}, "b": {"lr": 0.1}})


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"*": {"weight_decy": 0}}, "no group has a hyperparameter 'weight_decy'; did you mean"),
        ({"*": {"zz": 0}}, "no group has a hyperparameter 'zz'; there are dampening, "),
        ({}, "expected hyperparameters map patterns to settings"),
        ({"*": 0.1}, r"'\*': expected a mapping of hyperparameters, got 0.1"),
        ({"nope": {"lr": 0.1}}, "pattern 'nope' matches nothing in Net"),
        ({"a": {"lr": 0.1}, "*": {"lr": 0.1}}, "pattern 'a' has no effect"),
    ],
)
def test_wrong_calls_of_param_groups(expected: Any, said: str) -> None:
    model = Net()
    with pytest.raises(ParamCheckUsageError, match=said):
        assert_param_groups(SGD(model.parameters(), lr=0.1), model, expected)
