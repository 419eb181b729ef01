"""Gradients after a backward pass of the caller's own: none, present, finite, norm."""

from __future__ import annotations

from typing import Any

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
from pytest_paramcheck.checks.ranks import of_all_ranks
from pytest_paramcheck.parameters.running.gradstate import (
    GradState,
    above_rounding,
    grad_state,
    grad_states,
)

from .messages import failure, usage, whole
from .tensor_kinds import WITH_VALUES, WITHOUT_VALUES, Scaled

CLEAR = (
    "zero_grad(set_to_none=True) clears what a backward pass left; "
    "where none should reach it: requires_grad_(False), or detach() its output"
)


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
        (torch.tensor([0.0, 1e-12]), GradState.NONZERO),
        (torch.tensor([1e-40]), GradState.NONZERO),  # its square underflows
        (torch.tensor([1e38, 1e38]), GradState.NONZERO),  # its square overflows
        (torch.tensor([1.0, float("nan")]), GradState.NONFINITE),
        (torch.tensor([0.0, -float("inf")]), GradState.NONFINITE),
        (torch.tensor([0, complex(0, float("nan"))]), GradState.NONFINITE),
        (torch.tensor([float("inf"), 0.0]).half(), GradState.NONFINITE),
        (torch.full((4,), 6e4).half(), GradState.NONZERO),  # its norm overflows
        (torch.tensor([float("nan")]).to(torch.float8_e4m3fn), GradState.NONFINITE),
        (torch.tensor(2.0), GradState.NONZERO),
        (torch.empty(0), GradState.ZERO),
        (torch.zeros(2, dtype=torch.complex64), GradState.ZERO),
        (torch.tensor([0, 1j]), GradState.NONZERO),
        (torch.ones(2).to(torch.float8_e4m3fn), GradState.NONZERO),
        (torch.zeros(2).to(torch.float8_e4m3fn), GradState.ZERO),
        (torch.tensor([0, 1]), GradState.NONZERO),
        (torch.zeros(1).expand(4), GradState.ZERO),
        (torch.sparse_coo_tensor([[1]], [1.0], (4,), check_invariants=True), GradState.NONZERO),
        (torch.sparse_coo_tensor([[1]], [0.0], (4,), check_invariants=True), GradState.ZERO),
        (
            torch.sparse_coo_tensor([[1, 1]], [1.0, -1.0], (4,), check_invariants=True),
            GradState.ZERO,
        ),
        (torch.eye(3).to_mkldnn(), GradState.NONZERO),
        (torch.empty(2, device="meta"), GradState.NONZERO),
    ],
)
def test_state_of_one_gradient_and_among_many(grad: torch.Tensor | None, state: GradState) -> None:
    assert grad_state(grad) is state
    assert grad_states([torch.ones(2), grad, None]) == [GradState.NONZERO, state, GradState.NONE]


# -- none ----------------------------------------------------------------------------------


def test_none_names_each_gradient_and_its_state() -> None:
    model = backward(net())
    model[1].zero_grad(set_to_none=False)
    model[0].bias.grad = None
    assert failure(assert_grads_none, model) == whole(
        f"""
        gradient is not None: {{0,1}}.weight (Sequential)

          0.weight  nonzero, Tensor 2x3 float32 cpu
          1.weight  zero, Tensor 1x2 float32 cpu: zero_grad(set_to_none=False) leaves zeros where a gradient was

          hint: {CLEAR}
          hint: zero_grad(set_to_none=True), or allow_zero=True if zeros are right
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
            1.weight  gradient is all zero

          hint: assert_grads_reach(model, loss_fn) says why
          hint: assert_grads_reach(model, loss_fn) says why; allow_zero=True if zeros are right
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

          hint: call loss.backward() first, and zero_grad() only after the assertion
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
    with pytest.raises(
        ParamCheckUsageError, match="pass allow_zero=True to ask only whether there is a gradient"
    ):
        assert_grads_present(model)
    assert_grads_present(model, allow_zero=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("allow_zero", [False, True])
def test_present_does_not_take_what_is_not_finite_for_reached(
    value: float, allow_zero: bool
) -> None:
    """0 x NaN is NaN: with a broken loss every dead branch has a gradient."""
    model = nn.ModuleDict({"a": nn.Linear(2, 1), "dead": nn.Linear(2, 1)})
    x = torch.ones(1, 2)
    ((model["a"](x) + 0 * model["dead"](x)).sum() * value).backward()
    word = {"nan": "NaN", "inf": "inf", "-inf": "-inf"}[str(value)]
    dead = "NaN"  # 0 x infinity
    assert failure(assert_grads_present, model, allow_zero=allow_zero) == whole(
        f"""
        gradient not finite: a.weight, a.bias, dead.weight, dead.bias (ModuleDict)

          a.weight     2 of 2 values: 2 {word}, first at [0, 0]
          a.bias       1 of 1 value: 1 {word}, first at [0]
          dead.weight  2 of 2 values: 2 {dead}, first at [0, 0]
          dead.bias    1 of 1 value: 1 {dead}, first at [0]

          hint: NaN and infinity do not say who was reached, because 0 x NaN is NaN: \
make the gradients finite first
        """
    )
    assert_grads_present({"w": torch.tensor([6e4, 6e4]).half()})  # only its norm overflows


def test_a_parameter_made_in_inference_mode_says_why_it_has_no_gradient() -> None:
    with torch.inference_mode():
        model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    assert failure(assert_grads_present, model) == whole(
        """
        no gradient: weight (Linear)

          weight  made under torch.inference_mode(): it cannot be trained

          hint: build the model outside torch.inference_mode()
        """
    )


# -- mappings ------------------------------------------------------------------------------


def leaves(grad: float | None = None) -> dict[str, torch.Tensor]:
    """Functional parameters, as torch.func and meta-learning use them."""
    params = {n: p.detach().clone().requires_grad_() for n, p in net().named_parameters()}
    if grad is not None:
        for leaf in params.values():
            leaf.grad = torch.full_like(leaf, grad)
    return params


def test_leaves_that_require_grad_are_parameters() -> None:
    assert_grads_none(leaves())
    with pytest.raises(
        ParamCheckError, match=r"^no gradient: \{0,1\}.weight, 0.bias \(a dict of tensors\)"
    ):
        assert_grads_present(leaves())
    with pytest.raises(ParamCheckError, match=r"^no gradient: "):
        assert_grads_finite(leaves())
    assert_grads_present(leaves(2.0))
    with pytest.raises(ParamCheckError, match=r"^gradient is not None: "):
        assert_grads_none(leaves(2.0))
    with pytest.raises(ParamCheckError, match=r"^gradient not finite: "):
        assert_grads_finite(leaves(float("nan")))
    total = 2 * 10**0.5  # ten elements
    assert_grad_norm(leaves(2.0), at_most=total * 1.001, at_least=total * 0.999)
    assert_grads_present(leaves(2.0).items())


def test_each_value_of_a_mapping_for_itself() -> None:
    weight = nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    fast = (weight * 2).clone()  # a weight after an inner step
    fast.retain_grad()
    computed = torch.autograd.grad((weight**2).sum(), weight, create_graph=True)[0]
    mixed = {"p": weight, "frozen": frozen, "fast": fast, "g": torch.ones(2), "none": None}
    mixed["computed"] = computed  # a gradient that can be differentiated again
    assert failure(assert_grads_present, mixed, "*") == whole(
        """
        no gradient: p, frozen, fast, none (a dict of tensors)

          p       None: not reached
          frozen  frozen: requires_grad is False
          fast    None: not reached
          none    None: not reached

          hint: assert_grads_reach(model, loss_fn) says why
        """
    )
    with pytest.raises(
        ParamCheckError, match=r"^gradient is not None: g, computed \(a dict of tensors\)\n"
    ):
        assert_grads_none(mixed)
    fast.sum().backward()
    weight.grad = torch.ones(2)
    assert_grads_present({key: mixed[key] for key in ("p", "frozen", "fast", "g", "computed")})


@pytest.mark.parametrize(
    "assertion",
    [
        assert_grads_none,
        assert_grads_present,
        assert_grads_finite,
        lambda subject: assert_grad_norm(subject, at_most=1e9),
    ],
)
def test_a_state_dict_has_no_gradients(assertion: Any) -> None:
    model = backward(net())
    for state in (model.state_dict(), model.state_dict(keep_vars=True)):
        assert usage(assertion, state) == (
            "a state_dict holds values, detached from the model: there are no "
            "gradients in it; pass the model, or a mapping of its gradients"
        )
    if assertion is not assert_grads_none:
        assertion({name: p.grad for name, p in model.named_parameters()})


GRADIENTS = [name for name in WITH_VALUES if "quantized" not in name and name != "parameter"]


# -- kinds of gradients --------------------------------------------------------------------


@pytest.mark.parametrize("kind", GRADIENTS)
def test_every_kind_of_gradient_is_told_zero_nonzero_and_not_finite(kind: str) -> None:
    make = WITH_VALUES[kind].of
    some = {"w": make(torch.eye(2, 3))}
    nothing = {"w": make(torch.zeros(2, 3))}
    assert_grads_present(some)
    assert_grads_finite(some)
    assert_grads_none(nothing, allow_zero=True)
    with pytest.raises(ParamCheckError, match=r"^zero gradient: w"):
        assert_grads_present(nothing)
    if not (some["w"].is_floating_point() or some["w"].is_complex()):
        return
    not_a_number = float("nan")
    broken = {"w": make(torch.full((2, 3), not_a_number))}
    if kind == "scaled":  # its bits are integers: only its scale can be wrong
        broken = {"w": Scaled(torch.ones(2, 3, dtype=torch.int8), not_a_number, {"zero": 3})}
    for assertion in (assert_grads_present, assert_grads_finite, assert_grads_none):
        with pytest.raises(ParamCheckError, match=r"^gradient not finite: w"):
            assertion(broken)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_the_norm_of_every_kind_of_gradient_that_computes(kind: str) -> None:
    row = WITH_VALUES[kind]
    if not row.computes:
        with pytest.raises(ParamCheckUsageError, match=r"^the norm of a gradient cannot"):
            assert_grad_norm({"w": row()}, at_most=9)
        return
    expected = float(row().to_dense().to(torch.complex128).abs().square().sum().sqrt())
    assert_grad_norm({"w": row()}, at_least=expected * 0.999, at_most=expected * 1.001)


@pytest.mark.parametrize("kind", [name for name in WITHOUT_VALUES if "lazy" not in name])
def test_a_gradient_without_values_is_named(kind: str) -> None:
    make, reason = WITHOUT_VALUES[kind]
    grads = {"w": make()}
    for assertion in (
        assert_grads_present,
        assert_grads_finite,
        lambda subject: assert_grads_none(subject, allow_zero=True),
        lambda subject: assert_grad_norm(subject, at_most=1),
    ):
        with pytest.raises(ParamCheckUsageError) as caught:
            assertion(grads)
        assert str(caught.value).startswith(f"the gradient of w cannot be checked: {reason}; ")


def test_a_freed_gradient_among_others_is_named() -> None:
    """The storage of a gradient can be freed while it is held: to read it ends the process."""
    model = backward(net())
    model[0].bias.grad.untyped_storage().resize_(0)
    assert usage(assert_grads_present, model) == (
        "the gradient of 0.bias cannot be checked: its memory was freed: the storage behind it "
        "is empty; pass allow_zero=True to ask only whether there is a gradient"
    )
    assert_grads_present(model, allow_zero=True)


def test_a_mapping_of_nones_has_no_gradient() -> None:
    nones = {"a": None, "b": None}
    assert_grads_none(nones)
    for assertion in (assert_grads_present, assert_grads_finite):
        with pytest.raises(ParamCheckError, match=r"^no gradient: a, b"):
            assertion(nones)


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

          hint: assert_grads_reach(model, loss_fn) says which operation it comes from
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

          hint: assert_grads_reach(model, loss_fn) says which operation it comes from
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

          hint: call loss.backward() first, and zero_grad() only after the assertion
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
        no gradient: w (a dict of tensors)

          w  None: there is nothing to measure

          hint: call loss.backward() first, and zero_grad() only after the assertion
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
        gradient norm 5 is above at_most=4.5: b, a (a dict of tensors)

          b  4  64% of the squared norm
          a  3  36% of the squared norm
          c  None
        """
    )
    assert failure(assert_grad_norm, grads, "a", at_least=4) == whole(
        """
        gradient norm 3 is below at_least=4: a (a dict of tensors)

          a  3  100% of the squared norm
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


def test_an_infinite_norm_is_out_of_every_bound() -> None:
    grads = {"a": torch.tensor([float("inf")]), "b": torch.ones(1)}
    for bounds in ({"at_least": 1}, {"at_most": float("inf")}):
        assert failure(assert_grad_norm, grads, **bounds) == whole(
            """
            gradient norm is infinite: a, b (a dict of tensors)

              a  inf
              b  1

              hint: assert_grads_finite(model) says which values are not finite
            """
        )


def test_norm_that_is_no_number_is_out_of_every_bound() -> None:
    grads = {"a": torch.tensor([float("nan")]), "b": torch.ones(1)}
    assert failure(assert_grad_norm, grads, at_most=float("inf")) == whole(
        """
        gradient norm is NaN: a, b (a dict of tensors)

          a  nan
          b  1

          hint: assert_grads_finite(model) says which values are not finite
        """
    )


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "give a bound: at_most= or at_least="),
        ({"at_most": -1}, "at_most=-1 is not a norm: give a number, 0 or more"),
        ({"at_least": True}, "at_least=True is not a norm: give a number, 0 or more"),
        ({"at_most": float("nan")}, "at_most=nan is not a norm: give a number, 0 or more"),
        ({"at_most": 1, "at_least": 2}, "at_least=2 is above at_most=1"),
    ],
)
def test_norm_bounds_that_are_none(bounds: dict[str, float], message: str) -> None:
    assert usage(assert_grad_norm, backward(net()), **bounds) == message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_eight_bits_tell_apart_is_above_rounding(dtype: torch.dtype) -> None:
    small, large = torch.ones(2).to(dtype), torch.full((2,), 4.0)
    assert above_rounding([small, large]) == [False, True]


def test_rounding_is_that_of_the_gradients_own_type() -> None:
    tiny = torch.full((2,), 1e-60, dtype=torch.float64)  # nothing in float32
    assert above_rounding([tiny, None, tiny * 1e-20]) == [True, False, False]
    assert above_rounding([torch.zeros(0), torch.full((1,), 1e-9)]) == [False, True]


def test_rounding_of_a_few_additions_is_no_gradient() -> None:
    spacing = torch.finfo(torch.float32).eps
    gradients = [torch.full((1,), size) for size in (1.0, 8 * spacing, 9 * spacing)]
    assert above_rounding(gradients) == [True, False, True]


@pytest.mark.parametrize("size", [0, 1], ids=["nothing", "one element"])
def test_what_one_rank_alone_lacks_is_said_where_it_holds_an_element(size: int) -> None:
    """A shard of nothing gets no gradient on its rank, and misses none."""
    with pytest.raises(ParamCheckError) as caught:
        assert_grads_present({"w": nn.Parameter(torch.ones(size))})

    assert bool(of_all_ranks({0: caught.value.findings, 1: ()})) is bool(size)
