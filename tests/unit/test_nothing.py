"""An assertion about nothing is a wrong call: every assertion, every kind of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import (
    assert_devices,
    assert_distinct,
    assert_dtypes,
    assert_finite,
    assert_frozen,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_init,
    assert_loaded,
    assert_manifest,
    assert_materialized,
    assert_param_count,
    assert_roundtrip,
    assert_same_ties,
    assert_same_values,
    assert_tied,
    assert_ties,
    assert_trainable,
    assert_unchanged,
    assert_untied,
    init,
)

from .messages import failure, usage

NONES = "every value of a dict is None: there is nothing to check"
NO_MODULE = "Module has no parameters and no buffers: there is nothing to check"

#: Every kind of nothing, and what is said of it.
NOTHING: dict[str, tuple[Callable[[], Any], str]] = {
    "mapping of Nones": (lambda: {"weight": None, "bias": None}, NONES),
    "pairs of Nones": (
        lambda: [("weight", None)],
        "every value of pairs is None: there is nothing to check",
    ),
    "empty module": (nn.Module, NO_MODULE),
    "module of modules": (
        lambda: nn.Sequential(nn.ReLU()),
        "Sequential has no parameters and no buffers: there is nothing to check",
    ),
    "empty list": (
        list,
        "pairs has no parameters and no buffers: there is nothing to check",
    ),
    "state_dict of nothing": (
        lambda: nn.ReLU().state_dict(),
        "a state_dict has no parameters and no buffers: there is nothing to check",
    ),
    "extra state alone": (
        lambda: {"_extra_state": {"step": 3}},
        "a dict of tensors has no parameters and no buffers: there is nothing to check",
    ),
}

ASSERTIONS: dict[str, Callable[[Any], object]] = {
    "assert_devices": lambda m: assert_devices(m, "cpu"),
    "assert_distinct": assert_distinct,
    "assert_dtypes": lambda m: assert_dtypes(m, torch.float32),
    "assert_finite": assert_finite,
    "assert_frozen": assert_frozen,
    "assert_frozen exactly": lambda m: assert_frozen(m, exactly=[]),
    "assert_init": lambda m: assert_init(m, {"*": init.zeros()}),
    "assert_loaded": lambda m: assert_loaded(m, {"weight": torch.ones(1)}),
    "assert_manifest": lambda m: assert_manifest(m, path="none.txt"),
    "assert_materialized": assert_materialized,
    "assert_param_count": lambda m: assert_param_count(m, 0),
    "assert_same_ties": lambda m: assert_same_ties(m, m),
    "assert_same_values": lambda m: assert_same_values(m, m),
    "assert_tied": lambda m: assert_tied(m, "weight", "bias"),
    "assert_ties": lambda m: assert_ties(m, []),
    "assert_trainable": assert_trainable,
    "assert_unchanged": lambda m: assert_unchanged(m).__enter__(),
    "assert_untied": assert_untied,
    "assert_untied of two": lambda m: assert_untied(m, {"weight": torch.ones(1)}),
}


@pytest.mark.parametrize("name", ASSERTIONS)
@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_check(name: str, kind: str) -> None:
    build, message = NOTHING[kind]

    if name == "assert_loaded" and "Nones" in kind:
        assert failure(ASSERTIONS[name], build())  # the checkpoint has what is None here
    else:
        assert usage(ASSERTIONS[name], build()) == message


@pytest.mark.parametrize("kind", [k for k in NOTHING if "Nones" not in k])
@pytest.mark.parametrize("check", [assert_grads_none, assert_grads_present, assert_grads_finite])
def test_no_gradients_to_ask_of(check: Callable[[Any], object], kind: str) -> None:
    build, message = NOTHING[kind]

    assert usage(check, build()) == message


def test_missing_gradients_are_something_to_ask_about() -> None:
    grads = {name: p.grad for name, p in nn.Linear(3, 2).named_parameters()}

    assert_grads_none(grads)
    assert failure(assert_grads_present, grads).startswith(
        "no gradient: weight, bias (a dict of tensors)"
    )
    assert failure(assert_same_values, grads, {"weight": torch.ones(2, 3), "bias": None})


def test_patterns_that_reach_nothing_but_nones() -> None:
    grads = {"a": None, "b": torch.ones(2)}

    assert_finite(grads)
    assert_untied(grads)
    for check in (assert_finite, assert_untied, assert_distinct):
        assert usage(check, grads, "a") == (
            "pattern 'a' matches no parameter or buffer: 'a' is None"
        )
    assert usage(assert_same_values, grads, grads, "a") == (
        "pattern 'a' matches no parameter or buffer: 'a' is None"
    )


def test_tensors_without_elements_are_nothing_to_look_into() -> None:
    assert usage(assert_finite, {"w": torch.ones(0), "v": torch.ones(0, 3)}) == (
        "a dict of tensors has no parameter or buffer that this applies to: there is nothing to "
        "check"
    )
    assert usage(assert_finite, without_outputs().state_dict(), "0.weight") == (
        "pattern '0.weight' matches no parameter or buffer: '0.weight' is empty"
    )
    assert_finite({"w": torch.ones(0), "v": torch.ones(1)})


def test_a_module_that_saves_nothing() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.ones(3), persistent=False)
    said = (
        "Module saves nothing: it has no parameters and no persistent buffers; "
        "there is nothing to check"
    )

    for through in ("state_dict", "pickle", "torch.save"):
        assert usage(assert_roundtrip, module, through) == said
    module.register_buffer("kept", torch.ones(3))
    assert_roundtrip(module)


class Metric(nn.Module):
    """What metric classes are: their states are plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(1)


def test_plain_attributes_are_something_to_look_at() -> None:
    assert_dtypes(Metric(), torch.float32)
    assert_dtypes(Metric(), {"total": torch.float32})
    assert_devices(Metric(), torch.empty(0).device)
    assert_materialized(Metric())
    assert failure(assert_dtypes, Metric(), torch.float16).startswith("wrong dtype: total (Metric)")
    assert usage(assert_finite, Metric()) == (
        "Metric has no parameters and no buffers: there is nothing to check"
    )


def test_tensors_left_of_a_shard_are_not_materialized() -> None:
    state = nn.Linear(3, 3).state_dict()
    state["weight"] = torch.empty(0)

    assert failure(assert_materialized, state) == (
        "empty: weight (a state_dict)\n\n"
        "  weight  no elements, where a parameter has some\n\n"
        "  hint: if the model was sharded, gather its parameters before saving them"
    )


def without_outputs() -> nn.Module:
    """A layer of no outputs and one of no inputs."""
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 3))
    model[0].weight = nn.Parameter(torch.ones(0, 3))
    model[0].bias = nn.Parameter(torch.ones(0))
    model[1].weight = nn.Parameter(torch.ones(3, 0))
    return model


def test_a_layer_without_outputs_is_meant() -> None:
    model = without_outputs()

    assert_materialized(model)
    assert_materialized(model.state_dict())
