"""``assert_same_values``: all differences at once, whole messages."""

# ruff: noqa: E501  (whole messages, as they are printed)

from __future__ import annotations

import copy
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import assert_same_values

from ..models import lm
from .messages import failure, usage

NAN, INF = float("nan"), float("inf")


def test_the_same() -> None:
    model = lm()
    assert_same_values(model, copy.deepcopy(model))
    assert_same_values(model, model.state_dict())  # which holds no mask
    odd = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1e-45])
    assert_same_values({"a": odd, "b": None}, {"b": None, "a": odd.clone()})
    for dtype in (torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.bool, torch.int8):
        assert_same_values({"a": torch.ones(2).to(dtype)}, {"a": torch.ones(2).to(dtype)})


def test_all_differences_at_once() -> None:
    a = {
        "gone": torch.zeros(1), "shape": torch.ones(()), "dtype": torch.ones(2), "layout": torch.eye(2),
        "grad": None, "values": torch.tensor([[1.0, 2.0], [0.0, 4.0]]), "nan": torch.tensor([1.0, NAN]),
        "zero": torch.tensor([0.0]),
    }  # fmt: skip
    b = {
        "new": torch.zeros(1), "shape": torch.ones(1), "dtype": torch.ones(2).bfloat16(), "layout": torch.eye(2).to_sparse(),
        "grad": torch.ones(1), "values": torch.tensor([[1.0, 2.5], [0.0, 1.0]]), "nan": torch.tensor([1.0, 0.0]),
        "zero": torch.tensor([-0.0]),
    }  # fmt: skip
    assert failure(assert_same_values, a, b) == dedent("""\
        missing in the second: gone; different value: grad; only in the second: new; different shape: shape; different dtype: dtype; different layout: layout; different values: values, nan, zero (dict)

          missing in the second:
            gone  Tensor 1 float32 cpu
          different value:
            grad  None in the first, Tensor 1 float32 cpu in the second
          only in the second:
            new  Tensor 1 float32 cpu
          different shape:
            shape  scalar in the first, 1 in the second
          different dtype:
            dtype  float32 in the first, bfloat16 in the second
          different layout:
            layout  strided in the first, sparse_coo in the second
          different values:
            values  2 of 4 values: max abs 3 at [1, 1], max rel 3
            nan     1 of 2 values: NaN or infinity on one side, first at [1]
            zero    1 of 1 value: only the sign of zero, first at [0]""")


def test_tied_names_are_compared_once() -> None:
    model = lm()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.emb.weight[2, 1] = model.emb.weight[2, 1] + 1
    assert failure(assert_same_values, model, other).splitlines()[0] == (
        "different values: emb.weight, head.weight (LM)"
    )
    assert len(failure(assert_same_values, model, other).splitlines()) == 3


def test_tolerances() -> None:
    a, b = torch.tensor([1.0, 100.0, NAN, INF]), torch.tensor([1.1, 101.0, NAN, INF])
    assert_same_values({"a": a}, {"a": b}, atol=0.11, rtol=0.01)
    assert failure(assert_same_values, {"a": a}, {"a": b}, rtol=0.02) == dedent("""\
        different values: a (dict)

          a  1 of 4 values: max abs 0.1 at [0], max rel 0.0909""")
    assert_same_values({"a": torch.tensor([5])}, {"a": torch.tensor([6])}, atol=1)
    assert failure(
        assert_same_values, {"a": torch.tensor([INF])}, {"a": torch.tensor([-INF])}, atol=INF
    ) == dedent("""\
        different values: a (dict)

          a  1 of 1 value: NaN or infinity on one side, first at [0]""")


def test_complex_and_integers_and_float8() -> None:
    assert failure(
        assert_same_values,
        {
            "c": torch.tensor([1 + 2j]),
            "i": torch.tensor([True]),
            "f": torch.ones(1).to(torch.float8_e4m3fn),
        },
        {
            "c": torch.tensor([1 - 2j]),
            "i": torch.tensor([False]),
            "f": torch.zeros(1).to(torch.float8_e4m3fn),
        },
    ) == dedent("""\
        different values: c, i, f (dict)

          c  1 of 1 value: max abs 4 at [0], max rel 1.79
          i  1 of 1 value: max abs 1 at [0], max rel inf
          f  1 of 1 value: max abs 1 at [0], max rel inf""")


def test_patterns_select_on_both_sides() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.extra = nn.Parameter(torch.ones(1))
    with torch.no_grad():
        b.weight.copy_(a.weight)
    assert_same_values(a, b, "weight")
    assert failure(assert_same_values, a, b, "!bias") == dedent("""\
        only in the second: extra (Linear)

          extra  Parameter 1 float32 cpu""")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2), "bais"),
         "pattern 'bais' matches nothing in Linear and Linear; did you mean 'bias'?"),
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2), atol=-1),
         "atol=-1 is no tolerance: pass a number >= 0"),
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2), rtol=NAN),
         "rtol=nan is no tolerance: pass a number >= 0"),
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")),
         "weight of the second: on meta, where tensors have no values; its values cannot be compared"),
        (lambda: assert_same_values(nn.LazyLinear(2), nn.Linear(2, 2)),
         ("weight of the first: uninitialized: a lazy parameter gets its values in the first forward; "
         "its values cannot be compared")),
    ],
)  # fmt: skip
def test_wrong_calls(call: Any, message: str) -> None:
    assert usage(call) == message
