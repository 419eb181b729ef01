"""``assert_grads_none``: the state before any backward pass, in four states and not two."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import assert_grads_none

from .messages import failure, usage, whole


class LM(nn.Module):
    """A tied model with a part that the loss does not reach."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3, sparse=sparse)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.emb.weight
        self.unused = nn.Linear(3, 3)
        self.register_buffer("mask", torch.ones(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(tokens))


def after_backward(model: nn.Module) -> nn.Module:
    model(torch.tensor([1, 2])).sum().backward()
    return model


CLEAR = (
    "zero_grad(set_to_none=True) clears what a backward pass left; "
    "where none should reach it: requires_grad_(False), or detach() its output"
)


# --- passes ----------------------------------------------------------------------------------


def test_before_any_backward_pass() -> None:
    assert_grads_none(LM())


def test_after_zero_grad() -> None:
    model = after_backward(LM())
    model.zero_grad()

    assert_grads_none(model)


def test_uninitialized_parameters_have_no_gradient() -> None:
    assert_grads_none(nn.LazyLinear(3))


def test_parameters_that_the_loss_did_not_reach() -> None:
    assert_grads_none(after_backward(LM()), "unused")


def test_zeros_where_they_are_declared() -> None:
    model = after_backward(LM())
    model.zero_grad(set_to_none=False)

    assert_grads_none(model, allow_zero=True)


def test_a_mapping_of_gradients() -> None:
    assert_grads_none({"emb.weight": None, "head.bias": None})


# --- fails -----------------------------------------------------------------------------------


def test_after_a_backward_pass() -> None:
    assert failure(assert_grads_none, after_backward(LM())) == whole(f"""
        gradient is not None: emb.weight, head.weight (LM)

          emb.weight, head.weight  nonzero, Tensor 5x3 float32 cpu

          hint: {CLEAR}
        """)


def test_zeros_are_not_none() -> None:
    model = after_backward(LM())
    model.zero_grad(set_to_none=False)

    assert failure(assert_grads_none, model) == whole("""
        gradient is not None: emb.weight, head.weight (LM)

          emb.weight, head.weight  zero, Tensor 5x3 float32 cpu: zero_grad(set_to_none=False) leaves zeros where a gradient was

          hint: zero_grad(set_to_none=True), or allow_zero=True if zeros are right
        """)  # noqa: E501


def test_zeros_and_nonzero_gradients_each_with_their_remedy() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.grad = torch.zeros(2, 2)
    model[1].weight.grad = torch.ones(2, 2)

    assert failure(assert_grads_none, model) == whole(f"""
        gradient is not None: {{0,1}}.weight (Sequential)

          0.weight  zero, Tensor 2x2 float32 cpu: zero_grad(set_to_none=False) leaves zeros where a gradient was
          1.weight  nonzero, Tensor 2x2 float32 cpu

          hint: zero_grad(set_to_none=True), or allow_zero=True if zeros are right
          hint: {CLEAR}
        """)  # noqa: E501
    assert failure(assert_grads_none, model, allow_zero=True) == whole(f"""
        nonzero gradient: 1.weight (Sequential)

          1.weight  nonzero, Tensor 2x2 float32 cpu

          hint: {CLEAR}
        """)


def test_a_tied_parameter_is_found_by_its_other_name() -> None:
    assert failure(assert_grads_none, after_backward(LM()), "head").startswith(
        "gradient is not None: emb.weight, head.weight (LM)\n"
    )


def test_a_stale_gradient_of_a_frozen_parameter() -> None:
    model = after_backward(LM())
    model.requires_grad_(False)

    assert failure(assert_grads_none, model).startswith(
        "gradient is not None: emb.weight, head.weight (LM)\n"
    )


def test_a_sparse_gradient() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    model(torch.tensor([1, 1])).sum().backward()

    assert failure(assert_grads_none, model).splitlines()[2] == (
        "  weight  nonzero, Tensor 5x3 float32 sparse_coo cpu"
    )


def test_a_sparse_gradient_whose_parts_cancel_is_zero() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    out = model(torch.tensor([1, 1]))
    (out[0] - out[1]).sum().backward()

    assert_grads_none(model, allow_zero=True)


@pytest.mark.parametrize("allow_zero", [False, True])
def test_what_is_not_finite_is_said_so(allow_zero: bool) -> None:
    model = nn.Linear(3, 1, bias=False)
    model.weight.grad = torch.tensor([[0.0, float("nan"), float("inf")]])

    assert failure(assert_grads_none, model, allow_zero=allow_zero) == whole(f"""
        gradient not finite: weight (Linear)

          weight  Tensor 1x3 float32 cpu, 2 of 3 values: 1 NaN, 1 inf, first at [0, 1]

          hint: {CLEAR}
        """)


def test_the_smallest_number_is_not_zero() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[0.0, 1e-45]])

    assert failure(assert_grads_none, model, allow_zero=True) == whole(f"""
        nonzero gradient: weight (Linear)

          weight  nonzero, Tensor 1x2 float32 cpu

          hint: {CLEAR}
        """)


def test_the_hints_for_a_pass_that_reaches_too_far_work() -> None:
    def passed(prepare: Any) -> nn.Module:
        teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
        output = prepare(teacher)(torch.ones(1, 3))
        (output - student(torch.ones(1, 3))).sum().backward()
        assert student.weight.grad is not None
        return teacher

    assert CLEAR in failure(assert_grads_none, passed(lambda teacher: teacher))
    assert_grads_none(passed(lambda teacher: teacher.requires_grad_(False)))
    assert_grads_none(passed(lambda teacher: lambda x: teacher(x).detach()))
    cleared = passed(lambda teacher: teacher)
    cleared.zero_grad(set_to_none=True)
    assert_grads_none(cleared)


def test_a_gradient_without_values_was_reached() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2, bias=False)
        model(torch.ones(1, 3)).sum().backward()

    # That it is not zero was not seen.
    assert usage(assert_grads_none, model, allow_zero=True) == (
        "the gradient of weight cannot be checked: on meta, where tensors have no values; "
        "leave allow_zero out to ask whether it is None"
    )
    assert failure(assert_grads_none, model) == whole(f"""
        gradient is not None: weight (Linear)

          weight  Tensor 2x3 float32 meta

          hint: {CLEAR}
        """)


def test_a_mapping_with_gradients() -> None:
    assert failure(assert_grads_none, {"a": None, "b": torch.ones(2)}) == whole("""
        gradient is not None: b (a dict of tensors)

          b  nonzero, Tensor 2 float32 cpu

          hint: in a mapping a plain tensor is taken for a gradient, an nn.Parameter or a leaf that requires grad for a parameter
        """)  # noqa: E501


# --- wrong calls -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "patterns", "expected"),
    [
        (
            nn.ReLU(),
            (),
            "ReLU has no parameters and no buffers: there is nothing to check",
        ),
        (
            nn.BatchNorm1d(2, affine=False),
            (),
            "BatchNorm1d has no parameter that this applies to: there is nothing to check",
        ),
        (LM(), ("mask",), "pattern 'mask' matches no parameter: 'mask' is a buffer"),
        (
            LM(),
            ("haed",),
            "pattern 'haed' matches nothing in LM; did you mean 'head'?",
        ),
    ],
)
def test_wrong_calls(subject: Any, patterns: tuple[Any, ...], expected: str) -> None:
    assert usage(assert_grads_none, subject, *patterns) == expected
