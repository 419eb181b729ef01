"""``assert_init``: right draws pass at every size and dtype, wrong ones are named."""

# ruff: noqa: E501  (whole messages, as they are printed)

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError, assert_init, init
from pytest_paramcheck.checks.init import wrong_init
from pytest_paramcheck.checks.repeats import low_rank
from pytest_paramcheck.checks.statistics import _chi_square, number_of_tests, sample_tests
from pytest_paramcheck.parameters.subject.declared import decide
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import failure, usage

DRAWS: list[tuple[init.Distribution, Callable[[Tensor], Tensor]]] = [
    (init.normal(0.5, 0.02), lambda t: nn.init.normal_(t, 0.5, 0.02)),
    (init.uniform(-0.3, 0.1), lambda t: nn.init.uniform_(t, -0.3, 0.1)),
    (init.trunc_normal(0, 0.5, -1, 1), lambda t: nn.init.trunc_normal_(t, 0, 0.5, -1, 1)),
    (init.trunc_normal(1, 0.5, 0.5, 2), lambda t: nn.init.trunc_normal_(t, 1, 0.5, 0.5, 2)),
    (init.xavier_uniform(2), lambda t: nn.init.xavier_uniform_(t, 2)),
    (init.xavier_normal(), nn.init.xavier_normal_),
    (init.kaiming_uniform(math.sqrt(5)), lambda t: nn.init.kaiming_uniform_(t, math.sqrt(5))),
    (init.kaiming_normal(mode="fan_out", nonlinearity="relu"),
     lambda t: nn.init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu")),
    (init.zeros(), nn.init.zeros_),
    (init.ones(), nn.init.ones_),
    (init.constant(0.1), lambda t: nn.init.constant_(t, 0.1)),
]  # fmt: skip
ids = [distribution.describe() for distribution, _ in DRAWS]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (3, 2), (40, 30, 3), pytest.param((512, 1000), marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
@pytest.mark.parametrize(("distribution", "draw"), DRAWS, ids=ids)
def test_what_torch_draws_passes(
    distribution: init.Distribution, draw: Any, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    assert_init({"w": draw(torch.zeros(shape, dtype=dtype))}, {"w": distribution})


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_what_was_cast_afterwards_passes(dtype: torch.dtype) -> None:
    assert_init({"w": torch.randn(1 << 17).mul(0.5).to(dtype)}, {"w": init.normal(0, 0.5)})
    assert_init({"w": torch.randn(1 << 17).mul(0.02).to(dtype)}, {"w": init.normal(0, 0.02)})
    assert_init({"w": torch.rand(1 << 17).to(dtype)}, {"w": init.uniform()})
    assert_init({"w": torch.full((3,), 0.1).to(dtype)}, {"w": init.constant(0.1)})


def test_double_precision_is_compared_as_it_is() -> None:
    weight = torch.ones(3, dtype=torch.float64)
    assert_init({"w": weight}, {"w": init.ones()})
    weight[1] += 1e-12
    assert failure(assert_init, {"w": weight}, {"w": init.ones()}).endswith(
        "w  expected constant(1), found 1 of 3 values off, first 1 at [1]"
    )


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (6, 3, 2, 2)], ids=str)
def test_orthogonal(shape: tuple[int, ...]) -> None:
    weight = nn.init.orthogonal_(torch.empty(shape), gain=2)
    assert_init({"w": weight}, {"w": init.orthogonal(2)})
    assert_init({"w": weight.bfloat16()}, {"w": init.orthogonal(2)})
    assert failure(assert_init, {"w": weight}, {"w": init.orthogonal()}).startswith(
        "wrong initial values: w (a dict of tensors)"
    )
    weight[0].neg_()[0] += 0.1
    found = r"(rows|columns) of length 2 to 2\.\d+, products off by 0\.\d+"
    assert re.fullmatch(
        rf"wrong initial values: w \(a dict of tensors\)\n\n  w  expected orthogonal\(gain=2\), found {found}",
        failure(assert_init, {"w": weight}, {"w": init.orthogonal(2)}),
    )


def test_complex_normal() -> None:
    weight = nn.init.normal_(torch.empty(4000, dtype=torch.complex64), 0, 0.1)
    assert_init({"w": weight}, {"w": init.normal(0, 0.1)})
    assert re.fullmatch(
        r"wrong initial values: w \(a dict of tensors\)\n\n  w  expected normal\(0, 0\.1\) = "
        r"normal\(0, 0\.0707107\) here, found std 0\.09\d*, 1\.3 times as wide, over "
        r"8,000 values: probability below 1e-12",
        failure(assert_init, {"w": weight * 1.3}, {"w": init.normal(0, 0.1)}),
    )


def test_a_layer_that_was_forgotten() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Embedding(10, 64))
    nn.init.normal_(model[0].weight, 0, 0.02)
    expected = {"*.weight": init.normal(0, 0.02), "*.bias": init.zeros()}
    assert (
        failure(assert_init, model, expected)
        == dedent("""\
        wrong initial values: {0,1}.bias, {1,2}.weight (Sequential)

          0.bias    expected constant(0), found 64 of 64 values off, first 0.09093 at [0]
          1.weight  expected normal(0, 0.02), found std 0.072, 3.6 times as wide, over 4,096 values: probability below 1e-12
          1.bias    expected constant(0), found 64 of 64 values off, first -0.1024 at [0]
          2.weight  expected normal(0, 0.02), found std 1, 52 times as wide, over 640 values: probability below 1e-12

          hint: these look like the values nn.Linear starts from: your initialization did not run
          hint: these look like the values nn.Embedding starts from: your initialization did not run""")
    )


@pytest.mark.parametrize(
    ("made", "declared", "text"),
    [
        (lambda: torch.randn(20_000) * 1.1, init.normal(), "std 1."),
        (lambda: torch.randn(20_000) + 0.1, init.normal(), "mean 0."),
        (lambda: (torch.rand(20_000) - 0.5) * math.sqrt(12), init.normal(), "wrong distribution shape"),
        (lambda: torch.cat([torch.randn(20_000), torch.tensor([9.0])]), init.normal(), "a value 9 standard deviations away"),
        (lambda: torch.tensor([NAN]), init.normal(), "NaN or infinity among the values"),
        (lambda: torch.rand(400) * 0.9, init.uniform(), "no value above"),
        (lambda: torch.rand(400) * 1.1, init.uniform(), "is outside [0, 1]"),
        (lambda: torch.rand(5000) ** 1.2, init.uniform(), "not uniform over [0, 1]"),
        (lambda: torch.randn(20_000), init.trunc_normal(), "is outside [-2, 2]"),
        (lambda: torch.randn(20_000).clamp(-2, 2), init.trunc_normal(), "values are exactly 2: impossible"),
        (lambda: torch.randn(20_000).mul(0.4), init.trunc_normal(), "found std 0.4"),
        (lambda: torch.tensor([30.0]), init.normal(), "a value 30 standard deviations away"),
        (lambda: torch.zeros(100), init.normal(), "all 100 values are 0: impossible"),
        (lambda: torch.zeros(1000, dtype=torch.bfloat16), init.normal(0, 0.02), "all 1,000 values are 0: impossible"),
    ],
    ids=lambda value: "made" if callable(value) else str(value),
)  # fmt: skip
def test_what_is_wrong_is_named(made: Callable[[], Tensor], declared: Any, text: str) -> None:
    assert text in failure(assert_init, {"w": made()}, {"w": declared})


NAN = float("nan")


def said(values: Tensor, declared: init.Distribution) -> str:
    """Return what is found of values that should have been drawn, and hold the rest to its form."""
    text = failure(assert_init, {"w": values}, {"w": declared})
    head = f"wrong initial values: w (a dict of tensors)\n\n  w  expected {declared.describe()}, found "
    assert text.startswith(head)
    return text.removeprefix(head)


HALF = torch.randn(64, 64, generator=torch.Generator().manual_seed(5))
ODD = torch.empty(40).uniform_(-10, 10, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("values", "declared", "text"),
    [
        (HALF.expand(8, 64, 64).reshape(512, 64), init.normal(), "only 4,096 of 32,768 values differ: impossible"),
        (torch.cat([HALF, HALF.flip(0)]), init.normal(), "only 4,096 of 8,192 values differ: impossible"),
        (torch.cat([HALF, HALF.flip(1)], 1), init.normal(), "only 4,096 of 8,192 values differ: impossible"),
        (torch.cat([HALF, -HALF.flip(0, 1)]), init.normal(), "only 4,096 of 8,192 values differ but for their signs: impossible"),
        (HALF.double().tile(2), init.normal(), "only 4,096 of 8,192 values differ: impossible"),
        (torch.cat([HALF, HALF]).bfloat16(), init.normal(), "rows 0 and 64 are equal bit for bit: impossible"),
        (torch.cat([HALF, HALF], 1).half(), init.normal(), "columns 0 and 64 are equal bit for bit: impossible"),
        (HALF.bfloat16().view(4, 16, 64)[[0, 1, 2, 1, 3]], init.normal(), "[1] and [3] are equal bit for bit: impossible"),
        (HALF.bfloat16().view(4, 16, 64)[:, [0, 1, 2, 2]], init.normal(), "[:, 2] and [:, 3] are equal bit for bit: impossible"),
        (torch.cat([HALF, HALF[3:4]]), init.normal(), "rows 3 and 64 are equal bit for bit: impossible"),
        (torch.where(torch.arange(40) % 2 == 0, 0.0, ODD), init.uniform(-10, 10), "20 of 40 values are exactly 0: impossible"),
        (torch.where(torch.arange(400) % 2 == 0, 0.0, ODD.repeat(10)).bfloat16(), init.uniform(-10, 10), "200 of 400 values are exactly 0: impossible"),
        (ODD[:5].repeat(8), init.uniform(-10, 10), "8 of 40 values are exactly -7.478: impossible"),
        (ODD.clamp(max=3), init.uniform(-10, 10), "19 of 40 values are exactly 3: impossible"),
    ],
)  # fmt: skip
def test_values_that_repeat_were_not_drawn(
    values: Tensor, declared: init.Distribution, text: str
) -> None:
    assert said(values, declared) == text
    torch.manual_seed(1)
    drawn = torch.empty_like(values, memory_format=torch.contiguous_format)
    fresh = drawn.uniform_(-10, 10) if isinstance(declared, init.Uniform) else drawn.normal_()
    assert_init({"w": fresh}, {"w": declared})


@pytest.mark.parametrize("rank", [24, 48, 60])
def test_a_matrix_of_low_rank_was_not_drawn(rank: int) -> None:
    # Every value is normal, of spread 1: the rows of one factor have length 1.
    left = nn.functional.normalize(torch.randn(80, rank, dtype=torch.float64))
    weight = left @ torch.randn(rank, 80, dtype=torch.float64)
    for values in (weight, weight.float(), weight.float().view(80, 8, 10)):
        assert said(values, init.normal()) == (
            f"rank {rank} among 64 rows and 64 columns, where draws have 64: impossible"
        )
    for drawn in (torch.randn(64, 64), torch.rand(300, 64) - 0.5, torch.randn(64, 4, 4, 4).half()):
        assert low_rank(drawn) is None
    assert low_rank(torch.randn(63, 1) @ torch.randn(1, 99)) is None  # too few rows to tell


def test_what_was_drawn_in_a_narrower_dtype_may_repeat() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for wide in (torch.float32, torch.float64):
            drawn = torch.randn(128, 128, dtype=dtype).to(wide)
            assert len(drawn.unique()) < 0.9 * drawn.numel()
            assert_init({"w": drawn}, {"w": init.normal()})
    assert_init({"w": torch.randn(128, 128).double()}, {"w": init.normal()})
    far = torch.empty(64, 64).normal_(1000, 0.01)  # two hundred float32 numbers
    assert len(far.unique()) < 2000
    assert_init({"w": far}, {"w": init.normal(1000, 0.01)})


def test_the_rows_are_those_of_the_parameter_with_its_padding() -> None:
    model = nn.Embedding(50, 64, padding_idx=3)
    with torch.no_grad():
        model.weight[7] = model.weight[2]
    assert failure(assert_init, model, {"weight": init.normal()}) == dedent("""\
        wrong initial values: weight (Embedding)

          weight  expected normal(0, 1), found rows 2 and 7 are equal bit for bit: impossible""")


@pytest.mark.parametrize("columns", [2048, 2049])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_no_column_is_never_looked_at(columns: int, step: int) -> None:
    """A fixed stride would see the columns alone that it has a divisor in common with."""
    size = torch.rand(1024, columns).add(0.5).div((13 / 12) ** 0.5)  # of spread 1
    weight = torch.randn(1024, columns).sign() * size
    weight[:, ::step] = torch.randn(1024, len(range(0, columns, step)))
    assert "wrong distribution shape" in said(weight, init.normal())


@pytest.mark.slow  # one big matrix
def test_no_row_of_an_orthogonal_matrix_is_never_looked_at() -> None:
    weight = torch.eye(2304)
    assert_init({"w": weight}, {"w": init.orthogonal()})
    assert_init({"w": weight.bfloat16()}, {"w": init.orthogonal()})
    for place in (1, 1000, 2300):
        wrong = weight.clone()
        wrong[place + 1] = wrong[place]
        assert re.fullmatch(
            r"rows of length 1 to 1, products off by [12]", said(wrong, init.orthogonal())
        )


def test_each_fact_is_said_once() -> None:
    model = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(4))
    for layer in model:
        nn.init.normal_(layer.weight, std=0.02)
    assert (
        failure(assert_init, model, {"*": init.normal(0, 0.005)})
        == dedent("""\
        wrong initial values: {0..3}.weight (ModuleList)

          {0..3}.weight  expected normal(0, 0.005), found std 0.02, 4 times as wide, over 4,096 values: probability below 1e-12""")
    )
    both = (
        r"mean (0\.9|1\.0)\d*, std 0\.(49|5|51), [12](\.9)? times as narrow, over 4,096 values: .*"
    )
    assert re.fullmatch(both, said(torch.randn(4096) * 0.5 + 1, init.normal()))
    mean = r"mean (0\.9|1\.0)\d*, over 4,096 values: probability below 1e-12"
    assert re.fullmatch(mean, said(torch.randn(4096) + 1, init.normal()))


def test_fans_of_another_layout() -> None:
    declared = init.kaiming_normal(nonlinearity="linear")
    weight = nn.init.kaiming_normal_(torch.empty(512, 64), nonlinearity="linear").T
    assert (
        failure(assert_init, {"w": weight}, {"w": declared})
        == dedent("""\
        wrong initial values: w (a dict of tensors)

          w  expected kaiming_normal(a=0, mode='fan_in', nonlinearity='linear') = normal(0, 0.0441942) here (fan_in 512), found std 0.13, 2.8 times as wide, over 32,768 values: probability below 1e-12

          hint: they fit fan_in 64, of a weight stored (in, out), used as x @ w: if it is one, declare init.kaiming_normal(a=0, mode='fan_in', nonlinearity='linear', fan_in=64)""")
    )
    assert_init(
        {"w": weight},
        {"w": init.kaiming_normal(a=0, mode="fan_in", nonlinearity="linear", fan_in=64)},
    )


def test_fans_of_weights_stacked_in_one() -> None:
    weight = torch.cat([nn.init.xavier_uniform_(torch.empty(64, 64)) for _ in range(3)])
    lines = failure(assert_init, {"w": weight}, {"w": init.xavier_uniform()}).splitlines()
    assert lines[-1] == (
        "  hint: they fit fan_in 64, fan_out 64, of each of 3 weights stacked in this one: if it is "
        "one, declare init.xavier_uniform(gain=1, stacked=3)"
    )
    assert_init({"w": weight}, {"w": init.xavier_uniform(gain=1, stacked=3)})
    other = torch.empty(192, 64).uniform_(-0.5, 0.5)
    assert "hint" not in failure(assert_init, {"w": other}, {"w": init.xavier_uniform()})


def test_buffers_count_where_they_are_named() -> None:
    model = nn.ModuleDict({"attn": nn.Module(), "fc": nn.Linear(2, 2)})
    model["attn"].register_buffer("bias", torch.ones(4, 4).tril())
    nn.init.zeros_(model["fc"].bias)
    assert_init(model, {"*.bias": init.zeros()})
    assert_init(model, {nn.Module: init.uniform(-1, 1), "*.bias": init.zeros()})
    assert_init({"a": torch.zeros(2), "b": torch.zeros(2)}, {"*": init.zeros()})
    assert failure(assert_init, model, {"attn.bias": init.zeros()}) == dedent("""\
        wrong initial values: attn.bias (ModuleDict)

          attn.bias  expected constant(0), found 10 of 16 values off, first 1 at [0, 0]""")
    assert usage(assert_init, model, {"attn": init.zeros()}) == (
        "pattern 'attn' matches no parameter (a buffer counts where a pattern is its very name): "
        "'attn.bias' is a buffer"
    )


def test_constants_are_compared_in_the_dtype() -> None:
    tensors = {"w": torch.tensor([[0.1, 0.1], [0.1, 0.2]])}
    assert failure(assert_init, tensors, {"w": init.constant(0.1)}) == dedent("""\
        wrong initial values: w (a dict of tensors)

          w  expected constant(0.1), found 1 of 4 values off, first 0.2 at [1, 1]""")
    assert_init({"n": torch.zeros(3, dtype=torch.int64)}, {"n": init.zeros()})


def test_the_padding_row_is_judged_apart() -> None:
    model = nn.Embedding(50, 8, padding_idx=3)
    assert_init(model, {"weight": init.normal()})
    nn.init.normal_(model.weight)
    assert failure(assert_init, model, {"weight": init.normal()}) == dedent("""\
        padding row is not zero: weight (Embedding)

          weight  row 3 (padding_idx): an initializer or a load wrote it; it gets no gradient and stays so

          hint: after the initialization: weight[3].zero_() under no_grad""")


def test_layers_that_start_identical() -> None:
    layer = nn.Linear(8, 8)
    model = nn.Sequential(*[copy.deepcopy(layer) for _ in range(3)], nn.Linear(8, 8))
    bound = 8**-0.5
    assert failure(assert_init, model, {"*": init.uniform(-bound, bound)}) == dedent("""\
        identical initial values: {0..2}.weight, {0..2}.bias (Sequential)

          {0..2}.weight  uniform(-0.353553, 0.353553)
          they hold the same values bit for bit, in memory of their own

          {0..2}.bias  uniform(-0.353553, 0.353553)
          they hold the same values bit for bit, in memory of their own

          hint: initialize each layer separately, also those copied with deepcopy()""")
    shared = nn.Sequential(layer, layer)  # one layer under two names is no copy
    assert_init(shared, {"*": init.uniform(-bound, bound)})
    assert_init(nn.Sequential(nn.LayerNorm(3), nn.LayerNorm(3)), {"*.weight": init.ones()})


@pytest.mark.parametrize(
    ("subject", "expected", "message"),
    [
        ({"w": torch.ones(1)}, {}, 'assert_init takes {pattern: distribution}, with one pattern at least: {"*.weight": init.normal(0, 0.02)}'),
        ({"w": torch.ones(1)}, {"w": 3}, "'w': 3 is not a distribution of pytest_paramcheck.init, like init.normal(0, 0.02)"),
        ({"w": torch.ones(1)}, {"w": init.normal}, "'w': the class Normal is not a distribution of pytest_paramcheck.init, like init.normal(0, 0.02); call it"),
        ({"w": torch.ones(1)}, {"w": nn.init.normal_}, "'w': normal_ is not a distribution of pytest_paramcheck.init, like init.normal(0, 0.02); what a function draws is init.like(normal_)"),
        ({"w": torch.ones(3)}, {"w": init.xavier_normal()}, "xavier_normal(gain=1) needs a fan, and shape (3,) has none: a bias takes zeros() or uniform(a, b), or fan_in="),
        ({"w": torch.ones(3)}, {"w": init.orthogonal()}, "orthogonal(gain=1) needs two dimensions or more, not shape (3,)"),
        ({"w": torch.ones(3, device="meta")}, {"w": init.ones()}, "w: on meta, where tensors have no values; its values cannot be checked"),
        ({"w": torch.ones(0)}, {"w": init.ones()}, "all parameters selected in a dict of tensors are empty: there is nothing to check"),
        ({"w": torch.ones(3, dtype=torch.int64)}, {"w": init.normal()}, "w is int64: normal(0, 1) is for floating dtypes"),
    ],
)  # fmt: skip
def test_wrong_calls(subject: Any, expected: Any, message: str) -> None:
    assert usage(assert_init, subject, expected) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init.normal(0, 0), "normal(0, 0): std must be greater than 0"),
        (lambda: init.uniform(1, 1), "uniform(1, 1): a must be less than b"),
        (lambda: init.normal(NAN, 1), "normal(nan, 1): its parameters must be finite"),
        (lambda: init.kaiming_normal(mode="fan"), "kaiming_normal(a=0, mode='fan', nonlinearity='leaky_relu'): mode is 'fan_in' or 'fan_out', not 'fan'"),
        (lambda: init.kaiming_normal(nonlinearity="x"), "kaiming_normal(a=0, mode='fan_in', nonlinearity='x'): Unsupported nonlinearity x"),
    ],
)  # fmt: skip
def test_distributions_that_are_none(make: Callable[[], Any], message: str) -> None:
    assert usage(make) == message


RATE = 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5, 50, 3000])
@pytest.mark.parametrize("kind", ["normal", "uniform", "trunc_normal", "bfloat16"])
def test_calibration(kind: str, size: int) -> None:
    """Stated against observed rate of false alarms, at a rate that can be observed.

    Over 1000 seeds a true rate of 1e-2 alarms more than 25 times with probability 2e-5.
    """
    runs = 1000
    alarms = 0
    for seed in range(runs):
        torch.manual_seed(seed)
        drawn = {}
        for name in "abc":
            t = torch.empty(size, dtype=torch.bfloat16 if kind == "bfloat16" else torch.float32)
            if kind == "uniform":
                drawn[name] = t.uniform_(-0.1, 0.1)
            elif kind == "trunc_normal":
                drawn[name] = nn.init.trunc_normal_(t, 0, 0.5, -1, 0.7)
            else:
                drawn[name] = t.normal_(0, 0.02)
        declared = {
            "uniform": init.uniform(-0.1, 0.1),
            "trunc_normal": init.trunc_normal(0, 0.5, -1, 0.7),
        }.get(kind, init.normal(0, 0.02))
        inventory = take_inventory(drawn)
        alarms += bool(wrong_init(inventory, decide(inventory, {"*": declared}), RATE))
    assert alarms <= 25
    if kind == "normal":
        assert alarms >= 2  # and it is no test that never alarms


@pytest.mark.slow
def test_each_test_alone_is_calibrated() -> None:
    """The p-values of the exact tests are uniform; the bound on the shape is conservative."""
    runs = 4000
    below = dict.fromkeys(("mean", "std", "shape", "extremes"), 0)
    for seed in range(runs):
        torch.manual_seed(seed)
        for outcome in sample_tests(torch.randn(200), init.normal()):
            below[outcome.what] += outcome.p < 0.05
    for what in ("mean", "std", "extremes"):
        assert 0.035 < below[what] / runs < 0.065, (what, below)  # 4 standard errors
    assert below["shape"] / runs < 0.065
    assert number_of_tests(init.normal()) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("size", [3, 30, 1000, pytest.param(300_000, marks=pytest.mark.slow)])
def test_what_torch_draws_never_repeats_as_no_draws_do(dtype: torch.dtype, size: int) -> None:
    for seed in range(300 if size < 10_000 else 10):
        torch.manual_seed(seed)
        for declared, drawn in (
            (init.normal(0, 0.02), torch.empty(size, dtype=dtype).normal_(0, 0.02)),
            (init.uniform(-0.1, 0.1), torch.empty(size, dtype=dtype).uniform_(-0.1, 0.1)),
            (
                init.trunc_normal(0, 0.02, -0.04, 0.04),
                nn.init.trunc_normal_(torch.empty(size, dtype=dtype), 0, 0.02, -0.04, 0.04),
            ),
        ):
            assert isinstance(declared, (init.Normal, init.Uniform, init.TruncNormal))
            assert "repeats" not in {outcome.what for outcome in sample_tests(drawn, declared)}


@pytest.mark.parametrize("sigmas", [-6, -4, -2, 2, 4, 6])
def test_where_the_sum_of_squares_is_approximated_its_p_value_is_the_exact_one(sigmas: int) -> None:
    n = 10_001  # the first that is; larger ones are nearer
    ratio = 1 + sigmas * math.sqrt(2 / n)
    a = torch.tensor(n / 2, dtype=torch.float64)
    tail = torch.special.gammaincc if sigmas > 0 else torch.special.gammainc
    exact = 2 * float(tail(a, ratio * a))
    assert _chi_square(ratio * n, n, 0.0) == pytest.approx(exact, rel=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "factor", "dtype"),
    [
        (64 * 64, 1.1, torch.float32), (64 * 64, 0.9, torch.float32),
        (256 * 256, 1.1, torch.bfloat16), (256 * 256, 0.9, torch.bfloat16),
        (64 * 64, 1.1, torch.float16),
    ],
)  # fmt: skip
def test_power_to_catch_a_std_off_by_a_tenth(size: int, factor: float, dtype: torch.dtype) -> None:
    """At the real rate of 1e-6 and from a 64x64 weight up, each of 200 wrong draws is caught."""
    inventory = None
    for seed in range(200):
        torch.manual_seed(seed)
        inventory = take_inventory({"w": torch.empty(size, dtype=dtype).normal_(0, 0.02 * factor)})
        assert wrong_init(inventory, decide(inventory, {"*": init.normal(0, 0.02)}))


@pytest.mark.parametrize(
    "distribution",
    [
        init.kaiming_normal(mode="fan_out", nonlinearity="relu", fan_out=32),
        init.xavier_normal(fan_in=24, fan_out=8),
    ],
    ids=["one", "both"],
)
def test_the_fans_of_what_has_none_can_be_given(distribution: Any) -> None:
    torch.manual_seed(0)
    std = (2 / 32) ** 0.5
    assert_init({"b": torch.randn(4096) * std}, {"b": distribution})
    with pytest.raises(ParamCheckError):
        assert_init({"b": torch.randn(4096) * std * 2}, {"b": distribution})
