"""assert_values: each condition on what satisfies it, what does not, and what only rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pytest_paramcheck import TRAINABLE, assert_values, values

from ..models import LM
from .messages import failure, failure_lines, usage, whole

NAN, INF = float("nan"), float("inf")


def tensor(*numbers: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(numbers, dtype=dtype)


def row(condition: Any, value: Tensor) -> str:
    """The row of the failure, without its name."""
    lines = failure_lines(assert_values, {"w": value}, {"w": condition})
    return lines[2].removeprefix("  w  expected ")


def passes(condition: Any, value: Tensor) -> None:
    assert_values({"w": value}, {"w": condition})


W = torch.arange(1.0, 13.0).view(3, 4)
UNIT = nn.functional.normalize(W, dim=1)
MASK = torch.ones(3, 4, dtype=torch.bool).tril()


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        (values.positive(), tensor(1e-30, INF)),
        (values.nonnegative(), tensor(0.0, -0.0, 1.0)),
        (values.between(-INF, 0), tensor(-INF, 0.0)),
        (values.between(2, 4), tensor(2, 4, dtype=torch.int64)),
        (values.between(0, 1), tensor(True, False, dtype=torch.bool)),
        (values.norm(dim=1, equals=1), UNIT),
        (values.norm(at_most=25.5), W),
        (values.norm(1, dim=(0, 1), equals=78), W),
        (values.norm(INF, at_most=12), W),
        (values.orthogonal(), torch.eye(3)[:2]),
        (values.orthogonal(), torch.eye(3)[:, :2]),
        (values.orthogonal(2), 2 * torch.eye(3)),
        (values.symmetric(), W @ W.T),
        (values.symmetric(), torch.ones(2, 3, 3)),
        (values.triangular(), W.tril()),
        (values.triangular(upper=True), W.triu()),
        (values.triangular(diagonal=1), W.tril(1)),
        (values.zero_where(MASK), W * ~MASK),
        (values.zero_where(MASK), -W * ~MASK),
        (lambda w: w > 0, W),
        (lambda w: w.sum() == 78, W),
        (lambda w: True, W),
    ],
)  # fmt: skip
def test_what_passes(condition: Any, value: Tensor) -> None:
    passes(condition, value)


@pytest.mark.parametrize(
    ("condition", "value", "said"),
    [
        (values.positive(), tensor(0.0, 2.0, -1.0),
         "positive(), found 2 of 3 values, worst -1 at [2]"),
        (values.positive(), tensor(NAN, 1.0),
         "positive(), found 1 of 2 values NaN, first at [0]"),
        (values.nonnegative(), tensor(0.0, -2.0),
         "nonnegative(), found 1 of 2 values, worst -2 at [1]"),
        (values.between(0, 1), tensor([0.5, INF], [1.5, 0.0]),
         "between(0, 1), found 2 of 4 values, worst inf at [0, 1]"),
        (values.between(0, 1e9), torch.tensor(INF, dtype=torch.float16),
         "between(0, 1e+09), found it is inf"),
        (values.between(2, 4), tensor(1, 9, dtype=torch.int64),
         "between(2, 4), found 2 of 2 values, worst 9 at [1]"),
        (values.norm(dim=1, equals=1), W,
         "norm(2, dim=1, equals=1), found 3 of 3 norms, worst 21.1187 at [2]"),
        (values.norm(at_most=1), W, "norm(2, at_most=1), found 2-norm 25.4951"),
        (values.orthogonal(), torch.ones(2, 3),
         "orthogonal(), found rows of length 1.732 to 1.732, products off by 3"),
        (values.orthogonal(2), torch.eye(2),
         "orthogonal(gain=2), found rows of length 1 to 1, products off by 3"),
        (values.symmetric(), W[:, :3],
         "symmetric(), found 6 of 9 values, worst off from its mirror by 6 at [0, 2]"),
        (values.triangular(), W, "triangular(), found 6 of 12 values, worst 12 at [2, 3]"),
        (values.triangular(upper=True, diagonal=-1), W.triu(-2) * -1,
         "triangular(upper=True, diagonal=-1), found 1 of 12 values, worst -9 at [2, 0]"),
        (values.zero_where(MASK), W * 0.5,
         "zero_where(mask of 6), found 6 of 12 values, worst 5.5 at [2, 2]"),
        (values.zero_where(~MASK), W.masked_fill(MASK, NAN) * MASK,
         "zero_where(mask of 6), found 6 of 12 values NaN, first at [0, 0]"),
        (lambda w: w > 2, W, "the lambda to be True, found 2 of 12 values, first 1 at [0, 0]"),
        (lambda w: (w > 2).all(1), W, "the lambda to be True, found 1 of 3 False, first at [0]"),
        (lambda w: (w > 2).all(), W, "the lambda to be True, found False of all of it"),
        (lambda w: bool((w > 2).all()), W, "the lambda to be True, found False of all of it"),
        (lambda w: ~(w > 2), tensor(1.0, NAN),
         "the lambda to be True, found 1 of 2 values NaN, first at [1]"),
    ],
)  # fmt: skip
def test_what_fails(condition: Any, value: Tensor, said: str) -> None:
    assert row(condition, value) == said


EYE = torch.eye(2, dtype=torch.bool)


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int8, torch.int64, torch.uint16, torch.uint64, torch.float16,
     torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64],
)  # fmt: skip
@pytest.mark.parametrize(
    "condition",
    [values.norm(dim=1, equals=1), values.orthogonal(), values.symmetric(), values.triangular(),
     values.zero_where(~EYE)],
    ids=lambda condition: type(condition).__name__,
)  # fmt: skip
def test_numbers_of_every_dtype(dtype: torch.dtype, condition: Any) -> None:
    passes(condition, EYE.to(dtype))
    assert row(condition, (8 * torch.ones(2, 2).triu()).to(dtype))


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        (values.positive(), "not positive"),
        (values.nonnegative(), "negative"),
        (values.between(0, 1), "outside [0, 1]"),
        (values.norm(equals=1), "norm is not 1"),
        (values.norm(at_most=1), "norm too large"),
        (values.orthogonal(), "not orthogonal"),
        (values.symmetric(), "not symmetric"),
        (values.triangular(), "not lower triangular"),
        (values.triangular(upper=True), "not upper triangular"),
        (values.zero_where(torch.ones(3, 3, dtype=torch.bool)), "not zero where it has to be"),
        (lambda w: w > 0, "condition not met"),
    ],
)
def test_the_first_line_says_what_is_wrong(condition: Any, problem: str) -> None:
    wrong = -W[:, :3]

    assert (
        failure_lines(assert_values, {"w": wrong}, {"w": condition})[0]
        == f"{problem}: w (a dict of tensors)"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_a_dtype_rounds_is_right(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    w = torch.randn(64, 128)

    passes(values.norm(dim=1, equals=1), nn.functional.normalize(w, dim=1).to(dtype))
    passes(values.norm(dim=1, equals=1), nn.functional.normalize(w.to(dtype), dim=1))
    passes(values.norm(2, dim=0, at_most=0.1), torch.renorm(w.to(dtype), 2, 1, 0.1))
    passes(values.between(-0.1, 0.1), w.to(dtype).clamp(-0.1, 0.1))
    passes(values.orthogonal(), nn.init.orthogonal_(w.clone()).to(dtype))
    passes(values.symmetric(), (w @ w.T).to(dtype))
    assert row(values.norm(dim=1, equals=1), nn.functional.normalize(w, dim=1).to(dtype) * 1.1)
    assert row(values.between(-0.1, 0.1), w.to(dtype).clamp(-0.1, 0.11))
    assert row(values.orthogonal(), (nn.init.orthogonal_(w.clone()) * 1.1).to(dtype))


@pytest.mark.parametrize("n", [8, 300])
def test_an_orthogonal_weight_that_trains_stays_so(n: int) -> None:
    torch.manual_seed(0)
    layer = parametrizations.orthogonal(nn.Linear(n, n))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        (layer.weight * torch.randn(n, n)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    passes(values.orthogonal(), layer.weight.detach())


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6),
    st.floats(-5, 5, width=32),
    st.floats(0, 5, width=32),
)
@settings(max_examples=100, deadline=None)
def test_ranges_as_python_counts_them(numbers: list[float], low: float, width: float) -> None:
    high = low + width
    bound = torch.tensor(high, dtype=torch.float32).item()
    wrong = sum(not low <= number <= bound for number in numbers)

    if wrong:
        found = row(values.between(low, high), tensor(*numbers))
        assert f"found {wrong} of {len(numbers)} value" in found
    else:
        passes(values.between(low, high), tensor(*numbers))


def test_the_last_pattern_decides_and_all_failures_are_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[0].bias.zero_()
        model[1].running_var.zero_()
    expected = {
        "*": values.between(-1, 1),
        "*bias": values.between(0, 0),
        "*running_var": values.positive(),
    }

    assert failure(assert_values, model, expected) == whole("""
        outside [-1, 1]: 0.weight; not positive: 1.running_var (Sequential)

          outside [-1, 1]:
            0.weight  expected between(-1, 1), found 4 of 4 values, worst 2 at [0, 0]
          not positive:
            1.running_var  expected positive(), found 2 of 2 values, worst 0 at [0]""")


def test_a_tied_parameter_declared_twice() -> None:
    model = LM()
    with torch.no_grad():
        model.emb.weight.fill_(2)

    message = failure(
        assert_values,
        model,
        {"emb.weight": values.between(0, 1), "head.weight": values.between(0, 3)},
    )

    assert (
        "one parameter, declared between(0, 1) as emb.weight and between(0, 3) as head.weight"
        in (" ".join(message.split()))
    )


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_kinds_of_tensors() -> None:
    passes(values.nonnegative(), torch.eye(3).to_sparse())
    passes(values.between(-2, 2), torch.quantize_per_tensor(W / 12, 0.1, 0, torch.qint8))
    passes(values.norm(equals=5), torch.tensor([3 + 4j]))
    passes(values.positive(), W.to(torch.float8_e4m3fn))
    passes(values.between(0, 1), torch.tensor(0.5))
    assert row(values.positive(), torch.tensor(-1.0)) == "positive(), found it is -1"
    assert_values(nn.Linear(2, 2), {TRAINABLE: values.between(-1, 1)})


def test_a_function_gets_a_copy() -> None:
    w = W.clone()

    passes(lambda x: x.mul_(-1) < 0, w)
    assert torch.equal(w, W)


def test_an_error_of_the_function_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        passes(lambda w: 1 / 0, W)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: values.between(1, 0), "between(1, 0): low is above high"),
        (lambda: values.between(NAN, 0), "between: nan is not a bound: give a number"),
        (lambda: values.between("a", 0), "between: 'a' is not a bound: give a number"),
        (lambda: values.norm(), "norm(2): give equals= or at_most="),
        (lambda: values.norm(equals=1, at_most=2),
         "norm(2, equals=1, at_most=2): give equals= or at_most="),
        (lambda: values.norm("fro", equals=1), "norm('fro', equals=1): 'fro' is not a number >= 0"),
        (lambda: values.norm(equals=-1), "norm(2, equals=-1): -1 is not a number >= 0"),
        (lambda: values.orthogonal(0), "orthogonal(gain=0): gain must be greater than 0"),
        (lambda: values.zero_where(W),
         "zero_where takes a bool tensor, not a float32 tensor: True where the values are zero "
         "(mask == 0 of a pruning mask)"),
        (lambda: values.zero_where(torch.zeros(3, 4, dtype=torch.bool)),
         "zero_where: no value of the mask is True: it asks nothing"),
        (lambda: values.zero_where([True]),
         "zero_where takes a bool tensor, not a list: True where the values are zero "
         "(mask == 0 of a pruning mask)"),
    ],
)  # fmt: skip
def test_conditions_that_are_none(make: Callable[[], Any], message: str) -> None:
    assert usage(make) == message


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({}, "assert_values takes {pattern: condition}, with one pattern at least: "
             '{"std": values.positive()}'),
        ({"w": values.positive}, "'w': values.positive is not a condition: call it"),
        ({"w": 3}, "'w': 3 is not a condition of pytest_paramcheck.values, like "
                   "values.between(0, 1), nor a function of a tensor"),
        ({"w": lambda w: w.sum()}, "<lambda> returned a float32 tensor for w: a condition returns "
                                   "a bool tensor, or a bool"),
        ({"w": lambda w: None}, "<lambda> returned None for w: a condition returns a bool tensor, "
                                "or a bool"),
        ({"w": values.norm(dim=2, equals=1)},
         "w is 3x4: norm(2, dim=2, equals=1) does not fit it (Dimension out of range (expected to "
         "be in range of [-2, 1], but got 2))"),
        ({"w": values.symmetric()}, "w is 3x4, and symmetric() asks about a square matrix"),
        ({"b": values.orthogonal()}, "b is (4,), and orthogonal() asks about a matrix"),
        ({"b": values.triangular()}, "b is (4,), and triangular() asks about a matrix"),
        ({"w": values.zero_where(MASK[0])}, "w is 3x4, and the mask of zero_where (4,)"),
        ({"c": values.positive()}, "c is complex: positive() has no meaning for it"),
        ({"meta": values.positive()},
         "meta: on meta, where tensors have no values; its values cannot be checked"),
        ({"d": values.positive()},
         "pattern 'd' matches nothing in a dict of tensors; it has w, b, c, meta, none and 1 more"),
        ({"empty": values.positive()},
         "pattern 'empty' matches no parameter or buffer with elements: 'empty' is empty"),
        ({"none": values.positive()},
         "pattern 'none' matches no parameter or buffer with elements: 'none' is None"),
    ],
)  # fmt: skip
def test_wrong_calls(expected: Any, message: str) -> None:
    subject = {
        "w": W,
        "b": W[0],
        "c": W.to(torch.complex64),
        "meta": torch.empty(2, device="meta"),
        "none": None,
        "empty": torch.empty(0),
    }

    assert usage(assert_values, subject, expected).replace("the lambda", "<lambda>") == message


CONDITIONS: dict[str, Callable[[], Any]] = {
    "between": lambda: values.between(0, 1),
    "norm": lambda: values.norm(at_most=1.0),
    "orthogonal": values.orthogonal,
    "symmetric": values.symmetric,
    "triangular": values.triangular,
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_condition_is_a_value(kind: str) -> None:
    """Several cases may declare one, and a set of what is declared has it once."""
    one, other = CONDITIONS[kind](), CONDITIONS[kind]()

    assert {one, other} == {one}
    with pytest.raises(AttributeError):
        one.dim = 1
