"""Gradients after a backward pass of the caller's own: none, present, finite, norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
)
from pytest_paramcheck.parameters.running.gradstate import GradState, grad_state, grad_states

from .messages import failure, usage, whole


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return model


def backward(model: nn.Module) -> nn.Module:
    model(torch.ones(1, 3)).sum().backward()
    return model


# -- states --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grad", "state"),
    [
        (None, GradState.NONE),
        (torch.zeros(3), GradState.ZERO),
        (torch.tensor([0.0, -0.0]), GradState.ZERO),
        (torch.tensor([0.0, 1e-12]), GradState.SIGNAL),
        (torch.tensor([1e-40]), GradState.SIGNAL),  # its square underflows
        (torch.tensor([1e38, 1e38]), GradState.SIGNAL),  # its square overflows
        (torch.tensor([float("nan")]), GradState.SIGNAL),
        (torch.tensor(2.0), GradState.SIGNAL),
        (torch.empty(0), GradState.ZERO),
        (torch.zeros(2, dtype=torch.complex64), GradState.ZERO),
        (torch.tensor([0, 1j]), GradState.SIGNAL),
        (torch.ones(2).to(torch.float8_e4m3fn), GradState.SIGNAL),
        (torch.zeros(2).to(torch.float8_e4m3fn), GradState.ZERO),
        (torch.tensor([0, 1]), GradState.SIGNAL),
        (torch.zeros(1).expand(4), GradState.ZERO),
        (torch.sparse_coo_tensor([[1]], [1.0], (4,), check_invariants=True), GradState.SIGNAL),
        (torch.sparse_coo_tensor([[1]], [0.0], (4,), check_invariants=True), GradState.ZERO),
        (
            torch.sparse_coo_tensor([[1, 1]], [1.0, -1.0], (4,), check_invariants=True),
            GradState.ZERO,
        ),
        (torch.eye(3).to_mkldnn(), GradState.SIGNAL),
        (torch.empty(2, device="meta"), GradState.SIGNAL),
    ],
)
def test_state_of_one_gradient_and_among_many(grad: torch.Tensor | None, state: GradState) -> None:
    assert grad_state(grad) is state
    assert grad_states([torch.ones(2), grad, None]) == [GradState.SIGNAL, state, GradState.NONE]


# -- none ----------------------------------------------------------------------------------


def test_none_names_each_gradient_and_its_state() -> None:
    model = backward(net())
    model[1].zero_grad(set_to_none=False)
    model[0].bias.grad = None
    assert failure(assert_grads_none, model) == whole(
        """
        gradient is not None: {0,1}.weight (Sequential)

          0.weight  SIGNAL, Tensor 2x3 float32 cpu
          1.weight  ZERO, Tensor 1x2 float32 cpu: zero_grad(set_to_none=False) leaves zeros where a gradient was

          hint: a backward pass has already run: zero_grad(set_to_none=True) clears it
          hint: zero_grad(set_to_none=True), or allow_zero=True if zeros are meant
        """  # noqa: E501
    )


def test_none_passes_before_backward_and_for_zeros_that_are_meant() -> None:
    model = net()
    assert_grads_none(model)
    backward(model).zero_grad(set_to_none=False)
    assert_grads_none(model, allow_zero=True)
    model.zero_grad()
    assert_grads_none(model)


# -- present -------------------------------------------------------------------------------


def test_present_names_what_was_not_reached_and_what_has_no_signal() -> None:
    model = backward(net())
    model[0].bias.grad = None
    model[1].zero_grad(set_to_none=False)
    assert failure(assert_grads_present, model) == whole(
        """
        no gradient: 0.bias; zero gradient: 1.weight (Sequential)

          no gradient:
            0.bias  None: not reached
          zero gradient:
            1.weight  reached, no signal

          hint: assert_grads_reach(model, loss_fn) says why
          hint: assert_grads_reach(model, loss_fn) says why; allow_zero=True if zeros are meant
        """
    )
    with pytest.raises(ParamCheckError, match=r"^no gradient: 0.bias \(Sequential\)\n"):
        assert_grads_present(model, allow_zero=True)


def test_present_asks_whether_backward_ran_where_there_is_no_gradient_at_all() -> None:
    assert failure(assert_grads_present, net(), "0") == whole(
        """
        no gradient: 0.weight, 0.bias (Sequential)

          0.weight  None: not reached
          0.bias    None: not reached

          hint: has backward() run, and was zero_grad() not called after it?
        """
    )


def test_present_reports_a_frozen_parameter_only_where_it_is_named() -> None:
    model = net()
    model[0].requires_grad_(False)
    backward(model)
    assert_grads_present(model)
    assert_grads_present(model, "1")
    assert failure(assert_grads_present, model, "*.weight") == whole(
        """
        no gradient: 0.weight (Sequential)

          0.weight  frozen: requires_grad is False
        """
    )


def test_present_passes_for_layer_scale_and_sparse_gradients_and_ties() -> None:
    emb = nn.Embedding(5, 3, sparse=True)
    head = nn.Linear(3, 5, bias=False)
    head.weight = emb.weight
    model = nn.ModuleDict({"emb": emb, "head": head})
    (emb(torch.tensor([1])) * 1e-12).sum().backward()
    assert_grads_present(model)
    assert_grads_present(model, "head.weight")  # by the tied parameter's other name


def test_present_takes_a_mapping_of_gradients() -> None:
    assert_grads_present({"w": torch.ones(2)})
    with pytest.raises(ParamCheckError, match="no gradient: b; zero gradient: c"):
        assert_grads_present({"w": torch.ones(2), "b": None, "c": torch.zeros(1)})


def test_present_demands_values_or_allow_zero() -> None:
    model = nn.Linear(3, 2, bias=False, device="meta")
    model(torch.ones(1, 3, device="meta")).sum().backward()
    with pytest.raises(ParamCheckUsageError, match="pass allow_zero=True to ask who was reached"):
        assert_grads_present(model)
    assert_grads_present(model, allow_zero=True)


# -- finite --------------------------------------------------------------------------------


def test_finite_counts_what_is_not() -> None:
    model = backward(net())
    model[0].weight.grad[1, 2] = float("nan")
    model[1].weight.grad[0, 0] = float("-inf")
    assert failure(assert_grads_finite, model) == whole(
        """
        gradient not finite: {0,1}.weight (Sequential)

          0.weight  1 of 6 values: 1 NaN, first at [1, 2]
          1.weight  1 of 2 values: 1 -inf, first at [0, 0]
        """
    )
    assert_grads_finite(model, "0.bias")


def test_finite_looks_into_sparse_gradients() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    (model(torch.tensor([3])) * float("inf")).sum().backward()
    assert failure(assert_grads_finite, model) == whole(
        """
        gradient not finite: weight (Embedding)

          weight  2 of 2 values: 2 inf
        """
    )


def test_finite_passes_where_some_have_no_gradient_and_the_weights_are_not_finite() -> None:
    model = backward(net())
    model[0].bias.grad = None
    with torch.no_grad():
        model[0].bias.fill_(float("nan"))
    assert_grads_finite(model)


def test_finite_and_norm_do_not_pass_where_there_is_nothing_to_look_at() -> None:
    model = backward(net())
    model[0].bias.grad = None
    expected = whole(
        """
        no gradient: 0.bias (Sequential)

          0.bias  None: there is nothing to {}

          hint: has backward() run, and was zero_grad() not called after it?
        """
    )
    assert failure(assert_grads_finite, model, "1", "0.bias") == expected.format("check")
    assert failure(assert_grad_norm, model, "1", "0.bias", at_most=100) == expected.format(
        "measure"
    )
    assert failure(assert_grads_finite, net()).startswith(
        "no gradient: {0,1}.weight, 0.bias (Sequential)\n"
    )
    assert failure(assert_grad_norm, {"w": None}, at_most=1) == whole("""
        no gradient: w (dict)

          w  None: there is nothing to measure

          hint: has backward() run, and was zero_grad() not called after it?
        """)


def test_finite_refuses_what_has_no_values() -> None:
    on_meta = {"w": torch.empty(2, device="meta")}
    text = (
        "the gradient of w cannot be checked: on meta, where tensors have no values; run it on a "
        "real device"
    )
    assert usage(assert_grads_finite, on_meta) == text
    assert usage(assert_grad_norm, on_meta, at_most=1) == text


# -- norm ----------------------------------------------------------------------------------


def test_norm_shows_what_each_parameter_has_of_it() -> None:
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]]), "c": None}
    assert_grad_norm(grads, at_most=5, at_least=5.0)  # bounds are included
    assert failure(assert_grad_norm, grads, at_most=4.5) == whole(
        """
        gradient norm too large: b, a (dict)

          b  4  64% of the squares
          a  3  36% of the squares
          c  None
          expected at most 4.5, found 5
        """
    )
    assert failure(assert_grad_norm, grads, "a", at_least=4) == whole(
        """
        gradient norm too small: a (dict)

          a  3  100% of the squares
          expected at least 4, found 3
        """
    )


def test_norm_agrees_with_clip_grad_norm_and_counts_a_tie_once() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    model(torch.randn(5, 4)).square().sum().backward()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1e9))
    assert_grad_norm(model, at_most=norm * 1.00001, at_least=norm * 0.99999)


def test_norm_neither_overflows_nor_underflows() -> None:
    assert_grad_norm({"h": torch.full((4,), 60000.0).half()}, at_least=119000, at_most=121000)
    assert_grad_norm({"s": torch.full((4,), 1e-30)}, at_least=1.9e-30, at_most=2.1e-30)
    assert_grad_norm({"c": torch.tensor([3 + 4j])}, at_least=5, at_most=5)
    doubled = torch.sparse_coo_tensor([[0, 0]], [2.0, 1.0], (2,), check_invariants=True)
    assert_grad_norm({"d": doubled}, at_least=3, at_most=3)


def test_norm_that_is_no_number_is_out_of_every_bound() -> None:
    grads = {"a": torch.tensor([float("nan")]), "b": torch.ones(1)}
    assert failure(assert_grad_norm, grads, at_most=float("inf")) == whole(
        """
        gradient norm is NaN: a, b (dict)

          a  nan
          b  1
          expected a number, found nan

          hint: assert_grads_finite(model) says which values are not finite
        """
    )


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "give a bound: at_most= or at_least="),
        ({"at_most": -1}, "at_most=-1 is no norm: give a number, 0 or more"),
        ({"at_least": True}, "at_least=True is no norm: give a number, 0 or more"),
        ({"at_most": float("nan")}, "at_most=nan is no norm: give a number, 0 or more"),
        ({"at_most": 1, "at_least": 2}, "at_least=2 is above at_most=1"),
    ],
)
def test_norm_bounds_that_are_none(bounds: dict[str, float], message: str) -> None:
    assert usage(assert_grad_norm, backward(net()), **bounds) == message
