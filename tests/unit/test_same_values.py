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
from .tensor_kinds import Block, Scaled, Wrapper, quiet

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
        missing in the second: gone; different value; only in the second; and 4 more (a dict of tensors)

          missing in the second:
            gone  Tensor 1 float32 cpu
          different value:
            grad  None in the first, Tensor 1 float32 cpu in the second
          only in the second:
            new  Tensor 1 float32 cpu
          different shape:
            shape  scalar in the first, (1,) in the second
          different dtype:
            dtype  float32 in the first, bfloat16 in the second; in bfloat16 they are equal
          different layout:
            layout  strided in the first, sparse_coo in the second
          different values:
            values  2 of 4 values: max abs 3 at [1, 1], max rel 3
            nan     1 of 2 values: NaN in the first, first at [1]
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
        different values: a (a dict of tensors)

          a  1 of 4 values: max abs 0.1 at [0], max rel 0.0909""")
    assert_same_values({"a": torch.tensor([5])}, {"a": torch.tensor([6])}, atol=1)
    assert failure(
        assert_same_values, {"a": torch.tensor([INF])}, {"a": torch.tensor([-INF])}, atol=INF
    ) == dedent("""\
        different values: a (a dict of tensors)

          a  1 of 1 value: infinity in the first, -infinity in the second, first at [0]""")


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
        different values: c, i, f (a dict of tensors)

          c  1 of 1 value: max abs 4 at [0], max rel 1.79
          i  1 of 1 value: max abs 1 at [0], max rel inf
          f  1 of 1 value: max abs 1 at [0], max rel inf""")


def differences(a: torch.Tensor, b: torch.Tensor, **tolerances: float) -> str:
    """Return what is said of two values, and hold the rest of the message to its form."""
    said = failure(assert_same_values, {"w": a}, {"w": b}, **tolerances)
    head = "different values: w (a dict of tensors)\n\n  w  "
    assert said.startswith(head)
    return said.removeprefix(head)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
@pytest.mark.parametrize("low", [0, 2**53, 2**60, 2**62 + 2**31])
@pytest.mark.parametrize("off", [1, 3])
def test_wide_integers_are_compared_exactly(dtype: torch.dtype, low: int, off: int) -> None:
    a, b = torch.tensor([7, low], dtype=dtype), torch.tensor([7, low + off], dtype=dtype)
    said = f"1 of 2 values: max abs {off} at [1], max rel {off / (low + off):.3g}"
    assert differences(a, b) == said
    assert differences(a, b, atol=off - 1) == said
    assert differences(a, b, rtol=1e-30) == said
    assert_same_values({"w": a}, {"w": b}, atol=off)


def test_integers_at_both_ends() -> None:
    low, high = torch.tensor([-(2**63)]), torch.tensor([2**63 - 1])
    assert differences(low, high) == "1 of 1 value: max abs 1.84e+19 at [0], max rel 2"
    top = torch.tensor([2**64 - 1], dtype=torch.uint64)
    assert differences(torch.zeros(1, dtype=torch.uint64), top, atol=2.0**63) == (
        "1 of 1 value: max abs 1.84e+19 at [0], max rel 1"
    )
    assert_same_values({"w": torch.zeros(1, dtype=torch.uint64)}, {"w": top}, atol=2.0**64)


def test_a_complex_nan_stands_on_the_side_that_has_it() -> None:
    a, b = torch.tensor([1 + 2j, 3j]), torch.tensor([complex(1, NAN), 3j])
    assert differences(a, b) == "1 of 2 values: NaN in the second, first at [0]"
    assert differences(a, b, atol=1e9) == "1 of 2 values: NaN in the second, first at [0]"
    assert_same_values({"w": b}, {"w": torch.tensor([complex(NAN, 0), 3j])}, atol=1)
    fine = torch.tensor([1 + 2**-52 * 1j], dtype=torch.complex128)
    assert differences(fine, fine.real.to(fine.dtype)) == (
        "1 of 1 value: max abs 2.22e-16 at [0], max rel 2.22e-16"
    )


def test_a_scalar_is_shown() -> None:
    assert differences(torch.tensor(1), torch.tensor(4)) == "1 in the first, 4 in the second"
    assert differences(torch.tensor(1.0), torch.tensor(1 + 2**-20)) == (
        "1 in the first, 1.00000095 in the second"
    )
    assert differences(torch.tensor(0.0), torch.tensor(-0.0)) == "only the sign of zero"
    assert differences(torch.tensor(NAN), torch.tensor(-INF)) == (
        "nan in the first, -inf in the second"
    )


def test_other_values_beside_what_is_not_finite() -> None:
    a, b = torch.tensor([1.0, NAN, 2.0]), torch.tensor([INF, 1.0, 2.5])
    assert differences(a, b) == (
        "3 of 3 values: max abs 0.5 at [2], max rel 0.2; NaN in the first, infinity in the second"
    )


def test_another_dtype_is_said_with_what_a_cast_would_leave() -> None:
    model = nn.Linear(3, 2)
    copied = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        model.bias.fill_(1)
        copied.bias.fill_(3)
    assert (
        failure(assert_same_values, model, copied, rtol=1e-2)
        == dedent("""\
        different dtype: weight, bias (Linear)

          weight  float32 in the first, bfloat16 in the second; in bfloat16 they are equal
          bias    float32 in the first, bfloat16 in the second; in bfloat16 2 of 2 values: max abs 2 at [0], max rel 0.667""")
    )


def scaled(*context: Any) -> Scaled:
    return Scaled(torch.ones(3, dtype=torch.int8), *context)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([2.0], [5.0], "flatten context[0] 2.0 in the first, 5.0 in the second"),
        ([{"s": (1, 2.5)}], [{"s": (1, NAN)}], "flatten context[0]['s'][1] 2.5 in the first, nan in the second"),
        ([torch.int8], [torch.uint8], "flatten context[0] torch.int8 in the first, torch.uint8 in the second"),
        ([(1,)], [(1, 2)], "flatten context[0] sequence of 1 in the first, sequence of 2 in the second; flatten context[0][1] in the second alone"),
        ([(1, 2)], [(1,)], "flatten context[0] sequence of 2 in the first, sequence of 1 in the second; flatten context[0][1] in the first alone"),
        ([torch.ones(2)], [torch.zeros(2)], "2 of 2 values: max abs 1 at [0], max rel inf"),
        ([Block(8)], [Block(16)], "flatten context[0].size 8 in the first, 16 in the second"),
    ],
)  # fmt: skip
def test_numbers_in_a_flatten_context_are_values(a: list[Any], b: list[Any], said: str) -> None:
    assert_same_values({"w": scaled(*a)}, {"w": copy.copy(scaled(*a))})
    assert differences(scaled(*a), scaled(*b)) == said


def test_numbers_in_a_flatten_context_have_the_tolerance() -> None:
    assert_same_values({"w": scaled(2.0)}, {"w": scaled(2.1)}, atol=0.2)
    assert_same_values({"w": scaled(NAN)}, {"w": scaled(NAN)}, atol=0.2)
    assert_same_values({"w": scaled(NAN)}, {"w": scaled(NAN)})
    assert differences(scaled(2.0), scaled(2.1), atol=0.01) == (
        "flatten context[0] 2.0 in the first, 2.1 in the second"
    )
    assert differences(scaled(0.0), scaled(-0.0)) == (
        "flatten context[0] 0.0 in the first, -0.0 in the second"
    )


def test_the_device_and_requires_grad_are_no_values() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert_same_values({"w": scaled(cpu)}, {"w": scaled(meta)})
    trains = scaled(2.0).requires_grad_()
    assert_same_values({"w": scaled(2.0)}, {"w": trains})


def test_what_is_held_in_another_way_has_the_same_values() -> None:
    uncoalesced = quiet(lambda: torch.sparse_coo_tensor([[0, 0, 1]], [1.0, 1.0, 3.0], (2,)))
    assert_same_values({"w": uncoalesced}, {"w": uncoalesced.coalesce()})
    assert differences(uncoalesced, torch.tensor([2.0, 4.0]).to_sparse()) == (
        "1 of 2 values: max abs 1 at [1], max rel 0.25"
    )


def test_pairs_of_float4_are_compared() -> None:
    dtype = getattr(torch, "float4_e2m1fn_x2", None)
    if dtype is None:
        pytest.skip("this torch has no float4")
    a, b = (torch.tensor([0x21, code], dtype=torch.uint8).view(dtype) for code in (0x43, 0x44))
    twin = a.view(torch.uint8).clone().view(dtype)  # torch 2.8 cannot clone them
    assert_same_values({"w": a}, {"w": twin})
    assert differences(a, b) == "1 of 2 values: max abs 1 at [1], max rel 0.0147"


class Sharded(Wrapper):
    """What a DTensor is to the assertions: a local tensor, and where its shards lie."""

    def __init__(self, inner: torch.Tensor, placements: str) -> None:
        super().__init__(inner)
        self._local_tensor, self.placements = inner, placements

    @staticmethod
    def __new__(cls, inner: torch.Tensor, placements: str) -> Sharded:
        return Wrapper.__new__(cls, inner)  # type: ignore[return-value]


def test_a_shard_and_a_whole_tensor_cannot_be_told_apart_yet() -> None:
    whole, sharded = torch.ones(3), Sharded(torch.ones(3), "Shard(0)")
    assert_same_values({"w": sharded}, {"w": Sharded(torch.ones(3), "Shard(0)")})
    assert differences(sharded, Sharded(torch.zeros(3), "Shard(0)")).startswith("3 of 3 values")
    said = (
        "w is {} 3 float32 cpu in the first and {} 3 float32 cpu in the second: tensors that are "
        "sharded in two ways cannot be compared yet; compare their full_tensor()"
    )
    for other, kind in ((whole, "Tensor"), (Sharded(torch.ones(3), "Replicate()"), "Sharded")):
        assert usage(assert_same_values, {"w": sharded}, {"w": other}) == (
            said.format("Sharded", kind)
        )
        assert usage(assert_same_values, {"w": other}, {"w": sharded}) == (
            said.format(kind, "Sharded")
        )


def test_equal_values_under_another_scale() -> None:
    def quantized(scale: float) -> torch.Tensor:
        return quiet(lambda: torch.quantize_per_tensor(torch.zeros(2), scale, 0, torch.qint8))

    assert_same_values({"w": quantized(0.5)}, {"w": quantized(0.5)})
    assert differences(quantized(0.5), quantized(0.25)) == (
        "equal values under another scale or zero point"
    )
    assert_same_values({"w": quantized(0.5)}, {"w": quantized(0.25)}, atol=1e-9)


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
         "atol=-1 is not a tolerance: pass a number >= 0"),
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2), rtol=NAN),
         "rtol=nan is not a tolerance: pass a number >= 0"),
        (lambda: assert_same_values(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")),
         "weight of the second: on meta, where tensors have no values; its values cannot be compared"),
        (lambda: assert_same_values(nn.LazyLinear(2), nn.Linear(2, 2)),
         ("weight of the first: uninitialized: a lazy parameter gets its values in the first forward; "
         "its values cannot be compared")),
    ],
)  # fmt: skip
def test_wrong_calls(call: Any, message: str) -> None:
    assert usage(call) == message


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_neighbors_are_near_where_the_upper_half_of_a_number_changes(dtype: torch.dtype) -> None:
    one, two = (torch.tensor([value], dtype=dtype) for value in (2**32, 2**32 - 1))
    assert_same_values({"w": one}, {"w": two}, atol=1)
    assert differences(one, two).startswith("1 of 1 value: max abs 1 at [0]")
