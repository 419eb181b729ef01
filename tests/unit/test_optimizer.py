"""What an optimizer holds: each trainable parameter once, with which settings."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
    assert failure(assert_optimizer_covers, SGD(model.a.parameters(), lr=0.1), model) == whole(r"""
        not in the optimizer: b.weight, b.bias (Net)

          b.weight  Parameter 2x3 float32 cpu: the optimizer holds only what is below a
          b.bias    Parameter 2 float32 cpu: the optimizer holds only what is below a

          hint: build the optimizer after the model is complete, or add what is missing: \
        add_param_group()
        """)


def test_a_layer_replaced_under_the_name_that_the_optimizer_was_told_is_stale() -> None:
    model = Net()
    optimizer = SGD(model.named_parameters(), lr=0.1)
    model.b = nn.Linear(3, 5)  # another number of classes
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        stale in the optimizer: b.weight, b.bias (Net)

          b.weight  SGD group 0, parameter 2 is Parameter 2x3 float32 cpu, not the model's: \
        the parameter was replaced after the optimizer was built
          b.bias    SGD group 0, parameter 3 is Parameter 2 float32 cpu, not the model's: \
        the parameter was replaced after the optimizer was built

          hint: build the optimizer from the parameters of the complete model
        """)
    assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model)


def test_a_parameter_tied_to_another_after_the_optimizer_was_built_is_stale() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    optimizer = SGD(model.named_parameters(), lr=0.1)
    model["b"].weight = model["a"].weight
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        stale in the optimizer: b.weight (ModuleDict)

          b.weight  SGD group 0, parameter 2 is Parameter 3x3 float32 cpu, not the model's: \
        the parameter was replaced after the optimizer was built

          hint: build the optimizer from the parameters of the complete model
        """)
    assert_optimizer_covers(SGD(model.named_parameters(), lr=0.1), model)


def test_only_its_name_finds_a_parameter_that_moved_on() -> None:
    model = Net()
    others = [(n, p) for n, p in model.named_parameters() if n != "b.bias"]
    optimizer = SGD([("b.bias", nn.Parameter(torch.ones(7))), *others], lr=0.1)
    text = failure(assert_optimizer_covers, optimizer, model)
    assert text.splitlines()[0] == "stale in the optimizer: b.bias (Net)"


def test_a_replaced_layer_without_names_is_not_said_to_be_replaced() -> None:
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1)
    model.b = nn.Linear(3, 2)
    model.b.bias = nn.Parameter(torch.ones(5))
    assert failure(assert_optimizer_covers, optimizer, model) == whole(r"""
        not in the optimizer: b.weight, b.bias (Net)

          b.weight  SGD group 0, parameter 2 has its shape and is not a parameter of the model
          b.bias    SGD group 0, parameter 3 (Parameter 2 float32 cpu) is in its place and is not \
        a parameter of the model

          hint: build the optimizer from the parameters of the complete model
        """)


def test_an_optimizer_of_quite_another_model() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    text = failure(assert_optimizer_covers, SGD(other.parameters(), lr=0.1), model)
    assert text.splitlines()[0] == "not in the optimizer: weight, bias (Linear)"
    assert "replaced" not in text
    assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model)


def test_a_shape_is_told_where_positions_differ() -> None:
    model = Net()
    optimizer = SGD([model.b.weight, model.a.weight, model.a.bias], lr=0.1)
    model.b = nn.Linear(3, 2, bias=False)
    assert failure(assert_optimizer_covers, optimizer, model) == whole("""
        not in the optimizer: b.weight (Net)

          b.weight  SGD group 0, parameter 0 has its shape and is not a parameter of the model

          hint: build the optimizer from the parameters of the complete model
        """)


def test_another_parameter_on_the_same_memory() -> None:
    model = Net()
    optimizer = SGD([nn.Parameter(p.data) for p in model.b.parameters()], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model, "b.weight") == whole(r"""
        held through its memory alone: b.weight; not a parameter of the model: \
        SGD group 0, parameter 1 (Net)

          held through its memory alone:
            b.weight  SGD group 0, parameter 0 is another Parameter, which is on the same memory: \
        its gradients are never used by a step
          not a parameter of the model:
            SGD group 0, parameter 1  Parameter 2 float32 cpu

          hint: build the optimizer from the parameters of the complete model
          hint: where one optimizer trains several models, pass nn.ModuleDict of them
        """)


def test_foreign() -> None:
    model, other = Net(), nn.Linear(7, 1, bias=False)
    optimizer = SGD([*model.parameters(), *other.parameters()], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model) == whole("""
        not a parameter of the model: SGD group 0, parameter 4 (Net)

          SGD group 0, parameter 4  Parameter 1x7 float32 cpu

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
        held through its memory alone: c.weight (Net)

          c.weight  SGD group 0, parameter 0 is a.weight, which is on the same memory: \
        its gradients are never used by a step

          hint: tie by assigning the Parameter itself
        """)


def flatten(model: nn.Module) -> nn.Parameter:
    """Lay the parameters of a model side by side in one flat one."""
    flat = nn.Parameter(torch.zeros(sum(p.numel() for p in model.parameters())))
    start = 0
    for parameter in model.parameters():
        flat.data[start : start + parameter.numel()] = parameter.detach().flatten()
        parameter.data = flat.data[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat


def test_slices_of_a_flat_parameter_that_no_gradient_gets_to() -> None:
    model = Net()
    flat = flatten(model)
    optimizer = SGD([flat], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model, "b") == whole(r"""
        held through its memory alone: b.weight, b.bias (Net)

          b.weight  SGD group 0, parameter 0 is a tensor that it is part of: \
        its gradients are never used by a step
          b.bias    SGD group 0, parameter 0 is a tensor that it is part of: \
        its gradients are never used by a step

          hint: give the optimizer the parameters themselves, or set .grad of what it holds from \
        theirs
        """)
    model.b(model.a(torch.ones(1, 3))).sum().backward()
    flat.grad = torch.zeros_like(flat)  # nobody filled it
    assert failure(assert_optimizer_covers, optimizer, model, "b").startswith("held through")
    flat.grad = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert_optimizer_covers(optimizer, model)
    for parameter in model.parameters():
        parameter.grad = None  # and cleared once it was taken
    assert_optimizer_covers(optimizer, model)


def test_a_flat_parameter_whose_gradient_the_slices_share_is_covered_once() -> None:
    model = Net()
    flat = flatten(model)
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in model.parameters():
        parameter.grad = flat.grad[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    optimizer = SGD([flat], lr=0.1)
    assert_optimizer_covers(optimizer, model)
    before = model.b.bias.detach().clone()
    model.b(model.a(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    assert not torch.equal(model.b.bias, before)
    second = nn.Parameter(flat.data)
    second.grad = flat.grad
    twice = [optimizer, SGD([second], lr=0.1)]
    assert failure(assert_optimizer_covers, twice, model, "b.bias") == whole(r"""
        memory held more than once: b.bias (Net)

          b.bias  SGD 0 group 0, parameter 0 and SGD 1 group 0, parameter 0: \
        each step moves it more than once
        """)


def test_views_in_the_graph_are_covered_by_what_they_are_of() -> None:
    flat = nn.Parameter(torch.arange(8.0))
    views = {"w": flat[:6].view(2, 3), "b": flat[6:]}
    assert_optimizer_covers(SGD([flat], lr=0.1), views)
    other = nn.Parameter(flat.detach())
    assert failure(assert_optimizer_covers, SGD([other], lr=0.1), views).startswith("held through")


def test_a_parameter_held_in_part() -> None:
    model = Net()
    rows = nn.Parameter(model.a.weight.data[:1])
    columns = nn.Parameter(model.b.weight.data.t()[:2])
    for part in (rows, columns):
        part.grad = torch.ones_like(part)  # whether gradients get there or not
    rest = [model.a.bias, model.b.bias]
    assert failure(assert_optimizer_covers, SGD([rows, columns, *rest], lr=0.1), model) == whole("""
        held in part: a.weight, b.weight (Net)

          a.weight  SGD group 0, parameter 0 holds 3 of its 9 elements, on its memory
          b.weight  SGD group 0, parameter 1 holds 4 of its 6 elements, on its memory

          hint: build the optimizer from the parameters of the complete model
        """)
    others = nn.Parameter(model.a.weight.data[1:])
    others.grad = torch.ones_like(others)
    whole_again = [SGD([rows], lr=0.1), SGD([others], lr=0.1)]
    assert_optimizer_covers(whole_again, model, "a.weight")


# --- copies in a wider dtype -------------------------------------------------------------------


def masters(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().float().requires_grad_() for p in model.parameters()]


def half() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2)
    ).bfloat16()


def test_float32_copies_are_a_kind_of_their_own() -> None:
    model = Net().bfloat16()
    optimizer = AdamW(masters(model))
    assert failure(assert_optimizer_covers, optimizer, model, "b") == whole(r"""
        held as a float32 copy: b.weight, b.bias; not a parameter of the model: \
        AdamW group 0, parameter {0,1} (Net)

          held as a float32 copy:
            b.weight  AdamW group 0, parameter 2 has its values: a step moves the copy, the \
        parameter only where code copies it back
            b.bias    AdamW group 0, parameter 3 has its values: a step moves the copy, the \
        parameter only where code copies it back
          not a parameter of the model:
            AdamW group 0, parameter 0  Tensor 3x3 float32 cpu
            AdamW group 0, parameter 1  Tensor 3 float32 cpu

          hint: if code does (mixed precision with masters): masters=True
          hint: where one optimizer trains several models, pass nn.ModuleDict of them
        """)
    assert_optimizer_covers(optimizer, model, "b", masters=True)  # the hint repairs
    text = failure(assert_optimizer_covers, optimizer, model)
    assert text.splitlines()[0] == (
        "held as a float32 copy: a.weight, a.bias, b.weight, b.bias (Net)"
    )


@pytest.mark.parametrize("missing", range(10))
@pytest.mark.parametrize("how", ["list", "flat", "two optimizers", "flat, padded"])
def test_the_one_without_a_copy_is_listed_apart(missing: int, how: str) -> None:
    model = half()
    copies = masters(model)
    del copies[missing]
    if how == "flat":
        copies = [torch.cat([c.detach().flatten() for c in copies])]
    elif how == "flat, padded":
        pad = torch.nn.functional.pad
        copies = [torch.cat([pad(c.detach().flatten(), (0, -c.numel() % 4)) for c in copies])]
    optimizers: Any = AdamW(copies)
    if how == "two optimizers":
        optimizers = [AdamW(copies[:4]), SGD(copies[4:], lr=0.1)]
    with pytest.raises(ParamCheckError) as caught:
        assert_optimizer_covers(optimizers, model)
    kinds = {name: finding.problem for finding in caught.value.findings for name in finding.names}
    names = [name for name, _ in model.named_parameters()]
    assert kinds == {
        name: "not in the optimizer" if number == missing else "held as a float32 copy"
        for number, name in enumerate(names)
    }


def test_what_only_has_the_shape_is_no_copy() -> None:
    model = Net().bfloat16()
    copies = [torch.randn_like(c).requires_grad_() for c in masters(model)]
    assert failure(assert_optimizer_covers, AdamW(copies), model).splitlines()[0] == (
        "not in the optimizer: a.weight, a.bias, b.weight, b.bias (Net)"
    )


def test_a_lazy_parameter_is_no_copy() -> None:
    lazy = nn.LazyLinear(2)
    assert_optimizer_covers(SGD(lazy.parameters(), lr=0.1), lazy)
    text = failure(assert_optimizer_covers, SGD(lazy.parameters(), lr=0.1), Net().bfloat16())
    assert text.startswith("not in the optimizer: a.weight, a.bias, b.weight, b.bias;")


def test_a_named_copy_is_a_copy() -> None:
    model = Net().bfloat16()
    copies = [(n, p.detach().float().requires_grad_()) for n, p in model.named_parameters()]
    assert failure(assert_optimizer_covers, AdamW(copies), model).startswith("held as a float32")


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


def test_a_frozen_parameter_with_nothing_to_move_it_passes() -> None:
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # momentum buffers of zeros
    model.a.requires_grad_(False)
    assert_optimizer_covers(optimizer, model)
    before = model.a.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.a.weight, before)


def test_frozen_on_the_memory_of_what_is_trained() -> None:
    model = Net()
    model.c = nn.Linear(3, 3, bias=False)
    model.c.weight.data = model.a.weight.data
    model.c.requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    assert failure(assert_optimizer_covers, optimizer, model) == whole("""
        frozen, but the next step moves it: c.weight (Net)

          c.weight  it shares memory with a.weight, which the optimizer holds

          hint: give it memory of its own: parameter.data = parameter.data.clone()
        """)
    model.c.weight.data = model.c.weight.data.clone()
    assert_optimizer_covers(optimizer, model)


# --- against what a step moves -----------------------------------------------------------------


HELD = [
    *("itself", "left out", "twice", "twin", "twin with the gradient"),
    *("rows", "rows and rest", "rows that overlap", "all but one element", "itself and a twin"),
]


@settings(max_examples=settings.default.max_examples // 2)
@given(
    ways=st.lists(st.sampled_from(HELD), min_size=1, max_size=4),
    flat=st.sampled_from(["no", "bare", "with the gradient"]),
    transposed=st.booleans(),
)
def test_coverage_against_what_a_step_moves(ways: list[str], flat: str, transposed: bool) -> None:
    shapes = [(2, 3), (4,), (3, 2), (2, 2)][: len(ways)]
    held: list[torch.Tensor] = []
    model = nn.ParameterDict()
    buffer = nn.Parameter(torch.zeros(sum(torch.Size(s).numel() for s in shapes)))
    buffer.grad = torch.zeros_like(buffer) if flat == "with the gradient" else None
    start = 0
    for number, (shape, way) in enumerate(zip(shapes, ways, strict=True)):
        size = torch.Size(shape).numel()
        data = torch.zeros(shape)
        if transposed and len(shape) == 2:
            data = torch.zeros(shape[::-1]).t()
        if flat != "no":
            data = buffer.data[start : start + size].view(shape)
        parameter = model[str(number)] = nn.Parameter(data)
        if buffer.grad is not None:
            parameter.grad = buffer.grad[start : start + size].view(shape)
        else:
            parameter.grad = torch.zeros_like(parameter)
        start += size
        if flat != "no":
            continue
        if way in ("itself", "twice", "itself and a twin"):
            held += [parameter] * (2 if way == "twice" else 1)
        if way.endswith("twin") or way.startswith("twin"):
            held.append(nn.Parameter(parameter.data))
            held[-1].grad = parameter.grad if way != "twin" else None
        elif "rows" in way or way == "all but one element":
            pieces: list[Any] = [slice(0, 1)]
            if way == "rows and rest":
                pieces.append(slice(1, None))
            elif way == "rows that overlap":
                pieces = [slice(0, 2), slice(1, None)]
            elif way == "all but one element":
                pieces = [slice(0, -1), (-1, slice(0, -1))][: len(shape)]
            for piece in pieces:
                held.append(nn.Parameter(parameter.data[piece]))
                held[-1].grad = parameter.grad[piece]
    if flat != "no":
        held = [buffer]
    held = held or [nn.Parameter(torch.zeros(1))]
    optimizers = [SGD([tensor], lr=1.0) for tensor in held]

    try:
        assert_optimizer_covers(optimizers, model)
        passed = True
    except ParamCheckError:
        passed = False
    for parameter in model.values():
        assert parameter.grad is not None
        parameter.grad.fill_(1.0)
    for optimizer in optimizers:
        optimizer.step()
    assert passed == all(bool((parameter == -1).all()) for parameter in model.values())


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


class Unanswerable:
    """Compares to nothing."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


ALIKE: list[tuple[Any, Any]] = [
    (torch.tensor(0.1), 0.1),
    (torch.tensor(0.1, dtype=torch.float16), 0.1),
    (torch.tensor([0.1]), 0.1),
    (0.1, torch.tensor(0.1)),
    (torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64)),
    (torch.ones(3), torch.ones(3)),
    (torch.ones(3), [1, 1, 1]),
    (torch.ones(3), numpy.ones(3)),
    ((torch.tensor(0.9), torch.tensor(0.999)), (0.9, 0.999)),
    (numpy.float32(0.1), 0.1),
    (numpy.float64(0.1) + numpy.float64(0.2), 0.3),
    (torch.tensor(True), True),
    (torch.tensor(3), 3),
    ("linear", "linear"),
    (None, None),
    (math.inf, math.inf),
    (math.nan, math.nan),
    (torch.tensor(math.nan), math.nan),
    (10**400, 10**400),
]
UNLIKE: list[tuple[Any, Any, str]] = [
    (torch.tensor(0.1), 0.2, "expected x=0.2, found x=0.1"),
    (torch.tensor(0.1, dtype=torch.bfloat16), 0.2, "expected x=0.2, found x=0.1"),
    (
        torch.ones(3),
        torch.ones(2),
        "expected x=tensor([1.0, 1.0]), found x=tensor([1.0, 1.0, 1.0])",
    ),
    (torch.ones(3), torch.zeros(3), "expected x=tensor([0.0, 0.0, 0.0]), found x=tensor([1.0, "),
    (
        torch.ones(9),
        torch.zeros(9),
        "expected x=Tensor 9 float32 cpu, found x=Tensor 9 float32 cpu",
    ),
    (torch.ones(3), 1, "expected x=1, found x=tensor([1.0, 1.0, 1.0])"),
    (torch.tensor(True), 1.0, "expected x=1.0, found x=True"),
    (torch.tensor(0), 0.1, "expected x=0.1, found x=0"),
    (torch.tensor(1.0), "one", "expected x='one', found x=1.0"),
    (torch.tensor(1.0, device="meta"), 1.0, "expected x=1.0, found x=Tensor scalar float32 meta"),
    ((0.9, torch.tensor(0.9)), (0.9, 0.99), "expected x=(0.9, 0.99), found x=(0.9, 0.9)"),
    (numpy.float32(0.1), 0.2, "expected x=0.2, found x=0.1"),
    ("linear", "cosine", "expected x='cosine', found x='linear'"),
    (1.0, math.inf, "expected x=inf, found x=1.0"),
    (-math.inf, math.inf, "expected x=inf, found x=-inf"),
    (math.inf, 1.0, "expected x=1.0, found x=inf"),
    (torch.tensor(1.0, dtype=torch.float64), math.inf, "expected x=inf, found x=1.0"),
    (1.0, math.nan, "expected x=nan, found x=1.0"),
    (2**60 + 1, 2**60, "expected x=1152921504606846976, found x=1152921504606846977"),
    (10**400, 1.0, "expected x=1.0, found x=1000"),
    (None, 1, "expected x=1, found x=None"),
    (Unanswerable(), 1, "expected x=1, found x=<"),
]


@pytest.mark.parametrize(("found", "expected"), ALIKE)
def test_settings_that_are_equal(found: Any, expected: Any) -> None:
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["x"] = found
    assert_param_groups(optimizer, model, {"*": {"x": expected}})


@pytest.mark.parametrize(("found", "expected", "said"), UNLIKE)
def test_settings_that_are_not(found: Any, expected: Any, said: str) -> None:
    model = nn.Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["x"] = found
    assert said in failure(assert_param_groups, optimizer, model, {"bias": {"x": expected}})
