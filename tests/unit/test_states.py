"""Selecting by state and by a function: what each picks, and every way to get one wrong."""

# ruff: noqa: SIM117 - which block a failure ends is the subject here

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    BUFFERS,
    FROZEN,
    PARAMETERS,
    TRAINABLE,
    ParamCheckError,
    assert_dtypes,
    assert_finite,
    assert_frozen,
    assert_grads_present,
    assert_loaded,
    assert_optimizer_covers,
    assert_same_values,
    assert_shapes,
    assert_tied,
    assert_trainable,
    assert_unchanged,
    assert_untied,
)
from pytest_paramcheck.parameters.subject.patterns import pattern_text
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.select import select

from ..models import LM
from .messages import failure, usage


def net() -> nn.Module:
    """A frozen layer, one that trains, statistics, and a parameter that takes no gradient."""
    model = nn.ModuleDict(
        {"backbone": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2), "head": nn.Linear(2, 1)}
    )
    model["backbone"].requires_grad_(False)
    model.count = nn.Parameter(torch.tensor(3), requires_grad=False)
    return model


def chosen(subject: Any, *patterns: Any) -> list[str]:
    return [entry.name for entry in select(take_inventory(subject), patterns)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([FROZEN], ["count", "backbone.weight", "backbone.bias"]),
        ([TRAINABLE], ["norm.weight", "norm.bias", "head.weight", "head.bias"]),
        ([BUFFERS], ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]),
        ([FROZEN, "!count"], ["backbone.weight", "backbone.bias"]),
        ([TRAINABLE, "!norm"], ["head.weight", "head.bias"]),
        ([BUFFERS, "head.bias"], [
            "norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "head.bias"
        ]),
        ([lambda name, tensor: tensor.dim() == 2], ["backbone.weight", "head.weight"]),
        ([lambda name, tensor: name.startswith("head"), "count"],
         ["count", "head.weight", "head.bias"]),
    ],
)  # fmt: skip
def test_what_each_selects(patterns: list[Any], expected: list[str]) -> None:
    assert chosen(net(), *patterns) == expected


def test_parameters_are_what_is_no_buffer() -> None:
    model = net()

    assert chosen(model, PARAMETERS) == [name for name, _ in model.named_parameters()]


def test_a_function_is_asked_under_all_names() -> None:
    asked = []

    def head(name: str, tensor: Tensor) -> bool:
        asked.append(name)
        return name.startswith("head")

    assert chosen(LM(), head) == ["emb.weight"]
    assert asked == ["emb.weight", "head.weight"]


def test_a_function_may_say_yes_in_any_way() -> None:
    model = net()

    assert chosen(model, lambda name, tensor: tensor.isnan().any().logical_not())
    assert chosen(model, partial(lambda what, name, tensor: what in name, "norm")) == [
        "norm.weight", "norm.bias",
        "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
    ]  # fmt: skip


def test_a_mapping_of_parameters_knows_who_is_frozen() -> None:
    named = dict(net().named_parameters())

    assert chosen(named, FROZEN) == ["count", "backbone.weight", "backbone.bias"]
    assert chosen(named, PARAMETERS) == list(named)
    leaf = torch.ones(2, requires_grad=True)
    assert chosen({"functional": leaf, "gradient": leaf.detach()}, TRAINABLE) == ["functional"]


def test_assertions_speak_it() -> None:
    model = net()
    assert_finite(model, BUFFERS)
    assert_dtypes(model, {FROZEN: torch.float32, "count": torch.int64, TRAINABLE: torch.float32})
    assert_shapes(model, {lambda name, tensor: "bias" in name: (None,)}, partial=True)
    assert_trainable(model, exactly=["norm", "head"])
    assert_frozen(model, exactly=[FROZEN])
    assert_untied(model, TRAINABLE)
    assert_tied(LM(), lambda name, tensor: name.endswith("weight"), "head.weight")
    assert_optimizer_covers(torch.optim.SGD(model["head"].parameters()), model, TRAINABLE, "!norm")
    model["head"](torch.ones(1, 2)).sum().backward()
    assert_grads_present(model, TRAINABLE, "!norm")


def test_two_subjects_are_asked_by_the_state_of_the_first() -> None:
    model, other = net(), net().state_dict()
    with torch.no_grad():
        other = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        other["head.bias"] += 1

    assert_same_values(model, other, FROZEN)
    assert_same_values(other, model, FROZEN, BUFFERS)
    with pytest.raises(ParamCheckError, match=r"head\.bias"):
        assert_same_values(model, other, TRAINABLE)


def test_a_block_asks_when_it_is_entered() -> None:
    """Who is frozen inside the block is none that was added to it."""
    model = net()

    with assert_unchanged(model, FROZEN):
        model["head"].requires_grad_(False)
        with torch.no_grad():
            model["head"].weight.add_(1)

    with pytest.raises(ParamCheckError, match=r"requires_grad turned on: backbone\.weight"):
        with assert_unchanged(model, FROZEN):
            model["backbone"].requires_grad_(True)


@pytest.mark.parametrize(
    ("subject", "pattern", "message"),
    [
        (nn.Linear(2, 1), FROZEN, "FROZEN selects nothing: Linear has no frozen parameter"),
        (nn.Linear(2, 1), BUFFERS, "BUFFERS selects nothing: Linear has no buffer"),
        (
            nn.Linear(2, 1).requires_grad_(False),
            TRAINABLE,
            "TRAINABLE selects nothing: Linear has no trainable parameter",
        ),
        (
            nn.Linear(2, 1).state_dict(),
            FROZEN,
            "FROZEN asks the model, or its named_parameters(): a state_dict holds values, "
            "detached from the model",
        ),
        (
            {"a": torch.ones(2)},
            PARAMETERS,
            "PARAMETERS asks the model, or its named_parameters(): a dict of tensors holds values, "
            "detached from the model",
        ),
        (
            list(nn.Linear(2, 1).named_parameters()),
            BUFFERS,
            "BUFFERS asks a module: these pairs hold tensors, and nothing says which are buffers",
        ),
        (nn.Linear(2, 1), lambda name: True, (
            "<lambda> selects by name and tensor: lambda name, tensor: ..."
        )),
        (nn.Linear(2, 1), lambda name, tensor: False, (
            "the function <lambda> selects nothing in Linear: it said no to all names"
        )),
        (nn.Linear(2, 1), lambda name, tensor: tensor > 0, (
            "<lambda> has to say yes or no about weight, and returned a tensor"
        )),
    ],
)  # fmt: skip
def test_wrong_calls(subject: Any, pattern: Any, message: str) -> None:
    assert usage(assert_finite, subject, pattern) == message


def test_an_error_of_the_function_comes_through() -> None:
    def broken(name: str, tensor: Tensor) -> bool:
        raise KeyError(name)

    with pytest.raises(KeyError, match="weight"):
        assert_finite(nn.Linear(2, 1), broken)


def test_a_checkpoint_does_not_say_who_is_frozen() -> None:
    model = nn.Linear(2, 1)

    assert usage(assert_loaded, model, model.state_dict(), unexpected=[FROZEN]) == (
        "FROZEN asks the model, or its named_parameters(): checkpoint holds values, "
        "detached from the model"
    )


def test_states_read_as_they_are_written() -> None:
    assert [pattern_text(one) for one in (FROZEN, TRAINABLE, BUFFERS, PARAMETERS)] == [
        "FROZEN", "TRAINABLE", "BUFFERS", "PARAMETERS",
    ]  # fmt: skip
    assert repr(FROZEN) == "FROZEN"


def test_what_is_selected_is_named_as_ever() -> None:
    model = net()
    with torch.no_grad():
        model["norm"].running_mean.fill_(float("nan"))

    assert failure(assert_finite, model, BUFFERS).splitlines()[0] == (
        "not finite: norm.running_mean (ModuleDict)"
    )
