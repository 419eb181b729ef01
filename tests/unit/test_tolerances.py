"""Options of the blocks and of assert_same_values: tolerances, shares, attributes, two dtypes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    assert_changed,
    assert_same_values,
    assert_unchanged,
    assert_updated,
)
from pytest_paramcheck.checks.tolerance import Tolerance

from .messages import failure, usage, whole

NAN, INF = float("nan"), float("inf")


def linear() -> nn.Linear:
    """Weights 1, 2, ... 6 and a bias of ones."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 7.0).view(2, 3))
        model.bias.fill_(1)
    return model


def block_failure(block: Any, inside: Callable[[], object]) -> str:
    with pytest.raises(ParamCheckError) as caught, block, torch.no_grad():
        inside()
    return str(caught.value)


# --- assert_unchanged(rtol=, atol=) ----------------------------------------------------------


def test_a_merge_and_its_undoing() -> None:
    """Rounding leaves other bits, and no other numbers."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64)

    def merge_and_unmerge() -> None:
        update = torch.randn(64, 64)
        model.weight += update
        model.weight -= update

    with assert_unchanged(model, atol=1e-6), torch.no_grad():
        merge_and_unmerge()
    assert "values changed: weight" in block_failure(assert_unchanged(model), merge_and_unmerge)


def test_what_is_beyond_a_tolerance() -> None:
    model = linear()

    message = block_failure(
        assert_unchanged(model, rtol=0.01, atol=0.5), lambda: model.weight[1].mul_(1.2)
    )

    assert message == whole("""
        values changed: weight (Linear)

          weight  3 of 6 values: max abs 1.2 at [1, 2], max rel 0.2 (rtol=0.01, atol=0.5); \\
                  written in place, and no optimizer stepped""")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_no_number_is_near_to_none(value: float) -> None:
    model = linear()

    message = block_failure(assert_unchanged(model, atol=1e9), lambda: model.bias.fill_(value))
    assert message.startswith("values changed: bias (Linear)\n")
    with assert_unchanged(model, atol=1e-9), torch.no_grad():
        model.bias.copy_(model.bias.clone())


def test_another_shape_or_dtype_is_no_rounding() -> None:
    model = linear()

    message = block_failure(assert_unchanged(model, rtol=1.0), model.double)
    assert "was 2x3 float32 cpu, is 2x3 float64 cpu" in message
    message = block_failure(
        assert_unchanged(model, rtol=1.0),
        lambda: setattr(model, "weight", nn.Parameter(torch.ones(1, 3, dtype=torch.float64))),
    )
    assert "was 2x3 float64 cpu, is 1x3 float64 cpu" in message


def test_objects_and_flags_are_asked_beside_a_tolerance() -> None:
    model = linear()

    message = block_failure(assert_unchanged(model, atol=1), lambda: model.requires_grad_(False))
    assert message.startswith("requires_grad turned off: weight, bias (Linear)\n")


def test_buffers_and_other_kinds_of_tensors() -> None:
    norm = nn.BatchNorm1d(2)
    with assert_unchanged(norm, atol=1):
        norm.running_mean += 0.5
        norm.num_batches_tracked += 1
    subject = {
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "bits": torch.tensor([True]),
        "empty": torch.empty(0),
    }
    with assert_unchanged(subject, atol=0.1):
        subject["complex"] += 0.05j
        subject["half"] += 0.05
    assert "values changed: complex" in block_failure(
        assert_unchanged(subject, atol=0.1), lambda: subject["complex"].add_(0.2j)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": -1}, "rtol=-1 is not a tolerance: pass a number >= 0"),
        ({"atol": "1"}, "atol='1' is not a tolerance: pass a number >= 0"),
        (
            {"atol": 1, "only": "flags"},
            "only='flags' asks about no values: leave rtol and atol out",
        ),
    ],
)
def test_tolerances_that_are_none(options: dict[str, Any], message: str) -> None:
    assert usage(assert_unchanged, linear(), **options) == message


floats = st.floats(-100, 100, width=32) | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1e-30])


@given(
    st.lists(st.tuples(floats, floats), min_size=1, max_size=8),
    st.sampled_from([0.0, 1e-6, 0.1, 1.0, INF]),
    st.sampled_from([0.0, 1e-6, 0.5]),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
@settings(max_examples=300, deadline=None)
def test_the_quick_look_is_never_wrong(
    pairs: list[tuple[float, float]], atol: float, rtol: float, dtype: torch.dtype
) -> None:
    """What it says is near is near in exact arithmetic; and equal numbers are seen to be."""
    a, b = (torch.tensor(side, dtype=dtype) for side in zip(*pairs, strict=True))
    x, y = a.double(), b.double()
    near = ((x - y).abs() <= atol + rtol * y.abs()) & (x - y).isfinite()
    same = (x == y) | (x.isnan() & y.isnan())

    if Tolerance(rtol, atol).holds(a, b):
        assert bool((near | same).all())
    assert Tolerance(rtol, max(min(atol, 1.0), 1e-3)).holds(a, a.clone())


@given(st.integers(0, 2**20), st.sampled_from([1e-5, 0.3]), st.sampled_from([0.0, 1e-3]))
@settings(max_examples=20, deadline=None)
def test_the_quick_look_looks_everywhere(at: int, rtol: float, atol: float) -> None:
    """In pieces, of which one has a value too far off; the others are near, or the same."""
    b = torch.linspace(1, 2, 2**20 + 1)
    a = b.clone()
    a[: 2**19] *= 1 + 1e-6
    tolerance = Tolerance(rtol, atol)
    assert tolerance.holds(a, b)

    a[at] += 2 * (rtol * b[at] + atol)
    assert not tolerance.holds(a, b)


# --- assert_changed(more_than=) --------------------------------------------------------------


def test_more_than_a_bit() -> None:
    model = linear()

    def nudge(by: float) -> Callable[[], None]:
        def nudge_all() -> None:
            for parameter in model.parameters():
                parameter += by

        return nudge_all

    with assert_changed(model, more_than=1e-4), torch.no_grad():
        nudge(1e-3)()
    with assert_changed(model), torch.no_grad():
        nudge(1e-6)()
    with torch.no_grad():
        model.bias.fill_(1)
    assert block_failure(assert_changed(model, "bias", more_than=0.5), nudge(0.25)) == whole("""
        not changed by more than 0.5: bias (Linear)

          bias  2 of 2 values: max abs 0.25 at [0], max rel 0.25""")
    assert block_failure(assert_changed(model, "bias", more_than=1), lambda: None) == whole("""
        not changed by more than 1: bias (Linear)

          bias  values are bit-identical""")


def test_one_value_that_moved_is_enough_and_a_cast_moves_none() -> None:
    model = linear()

    with assert_changed(model, "weight", more_than=1), torch.no_grad():
        model.weight[0, 0] += 2
    message = block_failure(assert_changed(model, more_than=1e-4), model.double)
    assert message.startswith("not changed by more than 0.0001: weight, bias (Linear)")
    assert usage(assert_changed, model, more_than=-1) == (
        "more_than=-1 is not a tolerance: pass a number >= 0"
    )


# --- assert_updated(at_least=) ---------------------------------------------------------------


def experts(used: int, **options: Any) -> None:
    model = nn.ModuleDict(
        {"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(4)), "head": nn.Linear(2, 1)}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with assert_updated(model, **options):
        x = torch.ones(1, 2)
        routed = sum(model["experts"][i](x) for i in range(used))
        (model["head"](x).sum() + torch.as_tensor(routed).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_share_of_the_experts() -> None:
    experts(4)
    experts(2, at_least={"experts": 0.5})
    assert failure(experts, 1, at_least={"experts": 0.5}) == whole("""
        too few updated: experts.{1..3}.weight, experts.{1..3}.bias (ModuleDict)

          experts.{1..3}.weight  no gradient reached it
          experts.{1..3}.bias    no gradient reached it
          expected at least 50% of the 8 parameters of 'experts', found 2 (25%)""")


def test_who_is_in_no_share_is_asked_as_ever() -> None:
    message = failure(experts, 1, at_least={"experts.0": 1.0, "head": 0.5})

    assert message.splitlines()[0].startswith("not updated: experts.{1..3}.weight")


@pytest.mark.parametrize(
    ("at_least", "message"),
    [
        (0.5, 'at_least maps patterns to shares, {"experts": 0.5}, not float 0.5'),
        ({"experts": 2}, "at_least: 2 for 'experts' is not a share: give a number above "
                         "0, at most 1"),
        ({"nobody": 0.5}, "pattern 'nobody' matches nothing in ModuleDict; it has "
                          "experts.0.weight, experts.0.bias, experts.1.weight, experts.1.bias, "
                          "experts.2.weight and 5 more"),
    ],
)  # fmt: skip
def test_shares_that_are_none(at_least: Any, message: str) -> None:
    assert usage(experts, 4, at_least=at_least) == message


# --- assert_unchanged(only="attributes") -----------------------------------------------------


def marked() -> nn.Linear:
    model = linear()
    model.weight._no_weight_decay = True
    return model


def test_what_hangs_on_parameters() -> None:
    model = marked()
    with assert_unchanged(model, only="attributes"), torch.no_grad():
        model.weight.mul_(2)
        model.weight._no_weight_decay = False
        model.bias.new = 1
        model.requires_grad_(False)

    def replace() -> None:
        model.weight = nn.Parameter(model.weight.detach())

    assert block_failure(assert_unchanged(model, only="attributes"), replace) == whole("""
        attributes lost: weight (Linear)

          weight  _no_weight_decay: another Parameter object

          hint: copy what hangs on a parameter to the one that replaces it: \\
                new.__dict__.update(old.__dict__) keeps _no_weight_decay""")


def test_the_hint_keeps_them() -> None:
    model = marked()

    with assert_unchanged(model, only="attributes"):
        old = model.weight
        new = nn.Parameter(old.detach().clone())
        new.__dict__.update(old.__dict__)
        model.weight = new


def test_attributes_are_not_asked_for_by_default() -> None:
    model = marked()

    with assert_unchanged(model):
        del model.weight._no_weight_decay
    model = marked()
    message = block_failure(
        assert_unchanged(model, only=("values", "attributes")),
        lambda: delattr(model.weight, "_no_weight_decay"),
    )
    assert message == whole("""
        attributes lost: weight (Linear)

          weight  _no_weight_decay

          hint: copy what hangs on a parameter to the one that replaces it: \\
                new.__dict__.update(old.__dict__) keeps _no_weight_decay""")


def test_where_nothing_can_be_lost() -> None:
    def ask(model: nn.Module, *patterns: str) -> None:
        with assert_unchanged(model, *patterns, only="attributes"):
            pass

    said = (
        "only='attributes': nothing hangs on the selected parameters of Linear, so nothing can be "
        "lost; set attributes before the block"
    )
    assert usage(ask, linear()) == said
    assert usage(ask, marked(), "bias") == said
    ask(marked(), "weight")
    with assert_unchanged(linear(), only=("values", "attributes")):
        pass


# --- assert_same_values(dtypes=False) --------------------------------------------------------


def test_a_copy_that_overflows() -> None:
    """Cast to float16 both are infinite."""
    wide = {"w": torch.tensor([1.0, 1e6, INF])}
    assert failure(assert_same_values, wide, {"w": wide["w"].half()}, dtypes=False) == whole("""
        different values: w (a dict of tensors)

          w  1 of 3 values: finite in the first, too large for float16
    """)
    fits = {"w": torch.tensor([1.0, 6e4, INF])}
    assert_same_values(fits, {"w": fits["w"].half()}, dtypes=False)
    assert_same_values({"w": fits["w"].half()}, fits, dtypes=False)


def test_a_narrow_copy() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    narrow = copy.deepcopy(model).bfloat16()

    assert_same_values(model, narrow, dtypes=False)
    assert_same_values(narrow, model, dtypes=False)
    assert "different dtype" in failure(assert_same_values, model, narrow)
    with torch.no_grad():
        narrow.bias.neg_()
    message = failure(assert_same_values, model, narrow, dtypes=False)
    assert message.startswith("different values: bias (Linear)\n")
    assert message.endswith("(compared in bfloat16)")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (torch.tensor([1.001]), torch.tensor([1.0], dtype=torch.bfloat16), True),
        (torch.tensor([1.01]), torch.tensor([1.0], dtype=torch.bfloat16), False),
        (torch.tensor([1.5], dtype=torch.float16), torch.tensor([1.5], dtype=torch.bfloat16), True),
        (torch.tensor([1.001], dtype=torch.float16), torch.tensor([1.0], dtype=torch.bfloat16),
         False),  # neither is the narrower: as numbers
        (torch.tensor([1]), torch.tensor([1.0]), True),
        (torch.tensor([1]), torch.tensor([1.5]), False),
        (torch.tensor([1], dtype=torch.int8), torch.tensor([1]), True),
        (torch.tensor([2], dtype=torch.int8), torch.tensor([True]), False),
        (torch.tensor([1.0]), torch.tensor([1.0]).to(torch.float8_e4m3fn), True),
        (torch.tensor([1 + 1j]), torch.tensor([1 + 1j], dtype=torch.complex128), True),
        (torch.tensor([NAN]), torch.tensor([1.0], dtype=torch.bfloat16), False),
    ],
)  # fmt: skip
def test_pairs_of_dtypes(a: Tensor, b: Tensor, same: bool) -> None:
    if same:
        assert_same_values({"a": a}, {"a": b}, dtypes=False)
        assert_same_values({"a": b}, {"a": a}, dtypes=False)
    else:
        assert "different values" in failure(assert_same_values, {"a": a}, {"a": b}, dtypes=False)


def test_numbers_and_complex_numbers_stay_two_kinds() -> None:
    a, b = torch.ones(1), torch.ones(1, dtype=torch.complex64)

    assert failure(assert_same_values, {"a": a}, {"a": b}, dtypes=False) == whole("""
        different dtype: a (a dict of tensors)

          a  float32 in the first, complex64 in the second""")


def test_tolerances_hold_in_the_narrower_dtype() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.01, 2.0], dtype=torch.bfloat16)

    assert_same_values({"a": a}, {"a": b}, atol=0.02, dtypes=False)
    assert "different values" in failure(
        assert_same_values, {"a": a}, {"a": b}, atol=0.001, dtypes=False
    )
