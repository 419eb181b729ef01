"""Initial values of other layouts, of parts, and like what the user's own function draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError, assert_init, init, part
from pytest_paramcheck.checks.init_like import Draws, unlike
from pytest_paramcheck.init import Like

from .messages import failure, usage, whole


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def small(weight: Tensor) -> None:
    nn.init.normal_(weight, 0, 0.02)


def scaled(weight: Tensor) -> Tensor:
    """What returns another tensor instead of filling its own."""
    return torch.randn(weight.shape, dtype=weight.dtype) / math.sqrt(weight.shape[-1])


def gates(bias: Tensor) -> None:
    """An LSTM's bias: uniform, but for the forget gate."""
    nn.init.uniform_(bias, -0.1, 0.1)
    quarter = len(bias) // 4
    bias[quarter : 2 * quarter] = 1


def padded(weight: Tensor) -> None:
    nn.init.normal_(weight)
    weight[0].zero_()


def sparse(weight: Tensor) -> None:
    nn.init.sparse_(weight, 0.9)


def filled(function: Callable[[Tensor], Any], *shape: int, dtype: torch.dtype) -> Tensor:
    weight = torch.empty(*shape, dtype=dtype)
    returned = function(weight)
    return weight if returned is None else returned


def half(weight: Tensor) -> None:
    weight[: len(weight) // 2].normal_()


# --- like(fn) --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "function",
    [small, scaled, padded, sparse, nn.init.zeros_, nn.init.eye_, nn.init.xavier_uniform_],
)
@pytest.mark.parametrize("shape", [(64, 32), (8, 3)])
def test_what_a_function_drew(
    function: Callable[[Tensor], Any], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        assert_init({"w": filled(function, *shape, dtype=dtype)}, {"w": init.like(function)})


def test_a_function_that_only_returns() -> None:
    assert_init(nn.Linear(64, 64), {"weight": init.like(lambda: nn.Linear(64, 64).weight)})


def test_a_few_values_and_other_kinds() -> None:
    assert_init({"w": torch.zeros(1)}, {"w": init.like(nn.init.zeros_)})
    assert_init({"w": torch.randn(2)}, {"w": init.like(nn.init.normal_)})
    assert_init({"w": torch.randn(4, dtype=torch.complex64)}, {"w": init.like(scaled)})
    steps = torch.randint(3, (100,))
    assert_init({"w": steps}, {"w": init.like(lambda: torch.randint(3, (100,)))})


@pytest.mark.parametrize(
    ("value", "function", "said"),
    [
        (lambda: torch.randn(64, 64), small,
         "std 0.9933, where it draws mean 8.728e-05, std 0.01994"),
        (lambda: torch.zeros(64, 64), small, "mean 0, std 0, where it draws mean"),
        (lambda: torch.rand(64, 64), nn.init.zeros_,
         "4,096 of 4,096 values that are the same in every draw off, first"),
        (lambda: torch.rand(400) * 0.2 - 0.1, gates,
         "100 of 100 values that are the same in every draw off, first"),
        (lambda: torch.randn(11, 6), padded,
         "6 of 6 values that are the same in every draw off, first"),
        (lambda: torch.cat([torch.randn(8, 8)] * 2), nn.init.normal_,
         "[0] and [8] are equal bit for bit"),
        (lambda: torch.randn(64, 64).bfloat16() * 1.5, nn.init.normal_, "where it draws mean"),
    ],
)  # fmt: skip
def test_what_another_one_drew(value: Callable[[], Tensor], function: Any, said: str) -> None:
    message = failure(assert_init, {"w": value()}, {"w": init.like(function)})

    assert message.startswith("wrong initial values: w (a dict of tensors)\n")
    assert f"expected like({function.__name__}), found " in " ".join(message.split())
    assert said in " ".join(message.split())


def test_the_message() -> None:
    weight = torch.full((64, 64), 0.5)

    assert failure(assert_init, {"w": weight}, {"w": init.like(nn.init.ones_)}) == whole("""
        wrong initial values: w (a dict of tensors)

          w  expected like(ones_), found 4,096 of 4,096 values that are the same in every draw \\
             off, first 0.5 at [0, 0] instead of 1: impossible""")


def test_the_p_value_holds() -> None:
    """Of right values at most one in a hundred has a p-value of one in a hundred."""
    low = 0
    for seed in range(50):
        torch.manual_seed(seed + 1)
        weight = filled(small, 64, 16, dtype=torch.float32)
        draws = Draws("w", Like(small), weight, lambda one: one)
        low += unlike(weight, draws, 0.0).p < 0.01
    assert low <= 3  # 4 or more: 2 in 1,000


def test_constant_ones_are_no_copies_of_one_another() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    for layer in model:
        nn.init.zeros_(layer.weight)

    assert_init(model, {"*.weight": init.like(nn.init.zeros_)})
    for layer in model:
        layer.weight.data = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ParamCheckError, match="identical initial values"):
        assert_init(model, {"*.weight": init.like(nn.init.normal_)})


def test_the_padding_row_is_left_out() -> None:
    assert_init(nn.Embedding(50, 16, padding_idx=3), {"weight": init.like(nn.init.normal_)})


def test_random_states_and_generators_stay() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(64, 64)

    def own(tensor: Tensor) -> None:
        tensor.normal_(generator=generator)

    before = torch.get_rng_state(), generator.get_state()
    assert_init({"w": weight}, {"w": init.like(own)})
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], generator.get_state())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda w: 3, "like(the lambda) returned int for w: it fills the tensor it is given, or "
                      "returns one"),
        (lambda: None, "like(the lambda) returned NoneType for w: it fills the tensor it is given, "
                       "or returns one"),
        (lambda w: w[:2], "like(the lambda) drew 2x8 for w, which is 8x8"),
        (half, "like(half) leaves values of w as they were: it has to write all of them"),
        (lambda w: w.normal_(0, float(torch.rand(()) * 100)),
         "like(): the function draws from another distribution each time, so that one parameter "
         "cannot be compared with it"),
    ],
)  # fmt: skip
def test_functions_that_cannot_be_compared(function: Any, message: str) -> None:
    assert usage(assert_init, {"w": torch.randn(8, 8)}, {"w": init.like(function)}) == message


def test_what_is_no_function() -> None:
    for thing in (3, torch.ones(2), nn.Linear(1, 1)):
        assert usage(init.like, thing) == (
            f"like() takes a function that fills a tensor, or returns one, "
            f"not {type(thing).__name__}"
        )


# --- fan_in=, fan_out=, stacked= -------------------------------------------------------------


def test_fans_of_a_weight_stored_in_out() -> None:
    weight = torch.empty(512, 64)
    nn.init.kaiming_uniform_(weight.T, a=math.sqrt(5))  # used as x @ w

    assert_init({"w": weight}, {"w": init.kaiming_uniform(math.sqrt(5), fan_in=512)})
    with pytest.raises(ParamCheckError):
        assert_init({"w": weight}, {"w": init.kaiming_uniform(math.sqrt(5))})
    assert_init(
        {"w": nn.init.xavier_normal_(torch.empty(8, 512))},
        {"w": init.xavier_normal(fan_in=8, fan_out=512)},
    )


def test_a_bias_takes_the_fan_of_its_weight() -> None:
    layer = nn.Linear(512, 64)
    bound = init.kaiming_uniform(math.sqrt(5), fan_in=512)

    meant = bound.for_shape((64,))
    assert isinstance(meant, init.uniform)
    assert (meant.a, meant.b) == pytest.approx((-(512**-0.5), 512**-0.5))
    assert_init(layer, {"bias": bound})


def test_weights_that_are_stacked() -> None:
    fused = torch.cat([nn.init.xavier_uniform_(torch.empty(64, 64)) for _ in range(3)])
    experts = torch.stack([nn.init.kaiming_normal_(torch.empty(32, 64)) for _ in range(4)])

    assert_init({"w": fused}, {"w": init.xavier_uniform(stacked=3)})
    assert_init({"w": experts}, {"w": init.kaiming_normal(stacked=4)})
    for weight, wrong in ((fused, init.xavier_uniform()), (experts, init.kaiming_normal())):
        with pytest.raises(ParamCheckError):
            assert_init({"w": weight}, {"w": wrong})


def test_equal_experts_are_evidence() -> None:
    expert = nn.init.kaiming_normal_(torch.empty(32, 64))

    message = failure(
        assert_init, {"w": torch.stack([expert] * 4)}, {"w": init.kaiming_normal(stacked=4)}
    )
    assert "found only 2,048 of 8,192 values differ: impossible" in message


def test_orthogonal_matrices_that_are_stacked() -> None:
    gates = torch.cat([nn.init.orthogonal_(torch.empty(16, 16)) for _ in range(4)])
    assert_init({"w": gates}, {"w": init.orthogonal(stacked=4)})
    assert "products off" in failure(assert_init, {"w": gates}, {"w": init.orthogonal()})

    broken = gates.clone()
    broken[32:48] *= 2
    assert failure(assert_init, {"w": broken}, {"w": init.orthogonal(stacked=4)}) == whole("""
        wrong initial values: w (a dict of tensors)

          w  expected orthogonal(gain=1, stacked=4), found number 2 of 4: rows of length 2 to 2, \\
             products off by 3""")
    equal = gates.clone()
    equal[48:] = gates[:16]
    assert "number 3 of 4: it is equal to number 0 bit for bit" in " ".join(
        failure(assert_init, {"w": equal}, {"w": init.orthogonal(stacked=4)}).split()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init.kaiming_normal(fan_in=0), "fan_in=0: give a whole number above 0"),
        (lambda: init.xavier_normal(stacked=1.5), "stacked=1.5: give a whole number above 0"),
        (lambda: init.orthogonal(stacked=True), "stacked=True: give a whole number above 0"),
        (lambda: assert_init({"w": torch.ones(3, 2)}, {"w": init.xavier_normal(stacked=2)}),
         "xavier_normal(gain=1, stacked=2): shape (3, 2) is not 2 weights along its first "
         "dimension"),
        (lambda: assert_init({"w": torch.ones(3)}, {"w": init.xavier_normal(fan_in=3)}),
         "xavier_normal(gain=1, fan_in=3) needs a fan, and shape (3,) has none: a bias takes "
         "zeros() or uniform(a, b), or fan_out="),
    ],
)  # fmt: skip
def test_layouts_that_are_none(make: Callable[[], Any], message: str) -> None:
    assert usage(make) == message


# --- parts -----------------------------------------------------------------------------------


def test_initial_values_of_a_part() -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        nn.init.normal_(model.weight, 0, 0.02)
        model.weight[:8].zero_()
    expected = {"weight": init.normal(0, 0.02), part("weight", slice(8)): init.zeros()}

    assert_init(model, expected)
    with pytest.raises(ParamCheckError, match="wrong initial values: weight"):
        assert_init(model, {"weight": init.normal(0, 0.02)})
    with torch.no_grad():
        model.weight[:8] = 1
    assert failure(assert_init, model, expected).splitlines() == [
        "wrong initial values: weight[:8] (Linear)",
        "",
        "  weight[:8]  expected constant(0), found all 512 values are 1",
    ]


def test_a_part_beside_the_padding_row() -> None:
    model = nn.Embedding(64, 64, padding_idx=0)
    with torch.no_grad():
        model.weight[32:].mul_(0.02)

    assert_init(
        model, {"weight": init.normal(0, 1), part("weight", slice(32, None)): init.normal(0, 0.02)}
    )
    assert_init(model, {"weight": init.like(nn.init.normal_), part("weight", slice(32, None)): (
        init.like(lambda w: nn.init.normal_(w, 0, 0.02))
    )})  # fmt: skip
    with pytest.raises(ParamCheckError, match=r"wrong initial values: weight\[:32\]"):
        assert_init(model, {part("weight", slice(32)): init.normal(0, 0.5)})


def test_a_part_of_a_buffer_that_is_named() -> None:
    model = nn.BatchNorm1d(4)

    assert_init(model, {part("running_var", slice(2)): init.ones()})
