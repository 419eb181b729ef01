"""assert_updated and assert_changed: who moved, by what, and why not."""

# ruff: noqa: PT012, SIM117 - what a block does is the subject here, and it takes several lines

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import optimizer as optimizers
from torch.utils.checkpoint import checkpoint

from pytest_paramcheck import (
    ParamCheckError,
    assert_changed,
    assert_updated,
    part,
)

from .messages import usage, whole


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2, dtype=dtype)
        self.b = nn.Linear(2, 2, dtype=dtype)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


def loss_of(model: nn.Module, scale: float = 1.0) -> Tensor:
    dtype = next(model.parameters()).dtype
    return model(torch.ones(1, 2, dtype=dtype)).sum() * scale


def failing(model: nn.Module, body: Callable[[], object], *patterns: str) -> str:
    with pytest.raises(ParamCheckError) as caught, assert_updated(model, *patterns):
        body()
    return str(caught.value)


# --- what passes -------------------------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "fused", "RMSprop"])
def test_a_step_and_a_cleared_gradient_pass(kind: str, set_to_none: bool) -> None:
    model = Net()
    if kind == "fused":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    else:
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1)
    with assert_updated(model):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)


def test_several_steps_and_a_last_one_without_gradient_pass() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with assert_updated(model):
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            loss_of(model).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()


def test_closures_accumulation_and_two_optimizers_pass() -> None:
    model = Net()
    lbfgs = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = loss_of(model) ** 2
        loss.backward()
        return loss.detach()  # torch 2.8 makes a number of it (pytorch#160197)

    with assert_updated(model):
        lbfgs.step(closure)
        lbfgs.zero_grad()

    first = torch.optim.SGD(model.a.parameters(), lr=0.1)
    second = torch.optim.AdamW(model.b.parameters(), lr=0.1)
    with assert_updated(model):
        for _ in range(3):
            loss_of(model).backward()
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()


def test_a_gradient_from_before_the_block_counts_when_it_is_stepped_with() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model).backward()
    with assert_updated(model):
        optimizer.step()


def test_an_update_by_hand_passes() -> None:
    model = Net()
    with assert_updated(model):
        loss_of(model).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None


def test_an_optimizer_in_the_backward_pass_passes() -> None:
    model = Net()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        optimizers[parameter].zero_grad()  # type: ignore[index]

    def by_hand(parameter: Tensor) -> None:
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        parameter.grad = None

    for hook in (step, by_hand):
        handles = [p.register_post_accumulate_grad_hook(hook) for p in model.parameters()]
        with assert_updated(model):
            loss_of(model).backward()
        for handle in handles:
            handle.remove()


def test_a_tied_parameter_is_one() -> None:
    model = Net()
    model.b.weight = model.a.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with assert_updated(model, "b.weight"):
        loss_of(model).backward()
        optimizer.step()


def test_tiny_and_sparse_gradients_are_gradients() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with assert_updated(model):
        model(torch.tensor([1])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    tiny = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        tiny.weight.fill_(0)
    scaled = torch.optim.SGD(tiny.parameters(), lr=1e10)
    with assert_updated(tiny):  # its square is zero in float32
        (tiny(torch.ones(1, 1)) * 1e-30).sum().backward()
        scaled.step()


def test_modes_of_the_test_do_not_matter() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for mode in (
        torch.device("meta"),
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.enable_grad(),
    ):
        with mode, assert_updated(model), assert_changed(model):
            model(torch.ones(1, 2, device="cpu")).sum().backward()
            optimizer.step()
            optimizer.zero_grad()


def test_complex_parameters_and_checkpointed_ones_pass() -> None:
    model = Net(torch.complex64)
    optimizer = torch.optim.Adam(model.parameters())
    with assert_updated(model):
        x = torch.ones(1, 2, dtype=torch.complex64)
        checkpoint(model, x, use_reentrant=False).abs().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


# --- moved, but not by a gradient --------------------------------------------------------------


def test_moved_by_weight_decay_only() -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)

    def body() -> None:
        (loss_of(model) * 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    assert failing(model, body, "a") == whole(r"""
        changed without a gradient: a.weight, a.bias (Net)

          a.weight  4 of 4 values changed, by at most 0.05: \
        AdamW moved it by weight decay 0.5 only, its gradient was all zero
          a.bias    2 of 2 values changed, by at most 0.05: \
        AdamW moved it by weight decay 0.5 only, its gradient was all zero
        """)


def test_moved_by_momentum_only() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    loss_of(model).backward()
    optimizer.step()

    def body() -> None:
        loss_of(model).backward()
        optimizer.zero_grad(set_to_none=False)  # in the wrong place
        optimizer.step()

    assert failing(model, body, "b.bias") == whole(r"""
        changed without a gradient: b.bias (Net)

          b.bias  2 of 2 values changed, by at most 0.05: \
        SGD moved it by momentum of earlier steps only, its gradient was all zero; \
        a gradient had arrived, and was made all zero before the step

          hint: look between backward() and step() for a clip to 0, a mask of zeros, or a \
        zero_grad(set_to_none=False), which belongs before backward()
        """)


@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0), torch.zeros(1)], ids=str)
def test_a_learning_rate_of_zero_is_named_as_a_number_and_as_a_tensor(lr: Any) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def step() -> None:
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()

    assert failing(model, step).endswith("  weight  got a gradient, but SGD stepped it with lr 0")


def test_written_by_something_else() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def overwrite() -> None:
        model.a.weight.data.zero_()

    def step_and_overwrite() -> None:
        optimizer.step()
        overwrite()

    assert failing(model, overwrite, "a.weight") == whole(r"""
        changed without a gradient: a.weight (Net)

          a.weight  4 of 4 values changed, by at most 1: \
        no gradient reached it and no optimizer stepped it, something else wrote it
        """)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert failing(model, step_and_overwrite, "a.weight") == whole(r"""
        changed without a gradient: a.weight (Net)

          a.weight  4 of 4 values changed, by at most 1: \
        SGD stepped without a gradient for it, something else wrote it
        """)


def test_moved_to_nan() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        (loss_of(model) * float("nan")).backward()
        optimizer.step()
        optimizer.zero_grad()

    assert failing(model, body, "a.bias") == whole("""
        became NaN or infinite: a.bias (Net)

          a.bias  2 of 2 values: 2 NaN, first at [0]: its gradient was not finite
        """)
    assert failing(model, body, "a.bias") == whole(r"""
        became NaN or infinite: a.bias (Net)

          a.bias  2 of 2 values: 2 NaN, first at [0]: it was not finite before the block either
        """)

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)

    def overflow() -> None:
        loss_of(model, 10.0).backward()
        optimizer.step()

    assert failing(model, overflow, "b.bias") == whole(r"""
        became NaN or infinite: b.bias (Net)

          b.bias  2 of 2 values: 2 -inf, first at [0]: \
        its gradient was finite: the step itself overflowed
        """)


def test_replaced_is_not_updated() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        loss_of(model).backward()
        optimizer.step()
        model.a.bias = nn.Parameter(torch.zeros(2))

    assert failing(model, body) == whole("""
        replaced, not updated: a.bias (Net)

          a.bias  another Parameter object

          hint: an optimizer built before still holds the old one
        """)


# --- stood still -------------------------------------------------------------------------------


def test_no_backward_at_all() -> None:
    assert failing(Net(), lambda: None, "a") == whole("""
        not updated: a.weight, a.bias (Net)

          a.weight  no gradient: no backward pass reached any of the selected parameters
          a.bias    no gradient: no backward pass reached any of the selected parameters
        """)


def test_frozen_unreached_unstepped_and_without_lr_are_told_apart() -> None:
    model = Net()
    model.c = nn.Linear(2, 2)  # never used
    model.d = nn.Linear(2, 2).requires_grad_(False)  # frozen
    model.b.bias.register_hook(lambda grad: grad * 0)  # reached with zero signal
    optimizer = torch.optim.SGD(
        [{"params": [model.a.weight], "lr": 0.0}, {"params": [model.b.bias], "lr": 0.1}]
    )

    def body() -> None:
        loss_of(model).backward()
        optimizer.step()

    assert failing(model, body, "*") == whole("""
        not updated: a.weight, a.bias, b.weight, b.bias and 4 more (Net)

          a.weight  got a gradient, but SGD stepped it with lr 0
          a.bias    got a gradient, but SGD does not hold it
          b.weight  got a gradient, but SGD does not hold it
          b.bias    its gradient was all zero
          c.weight  no gradient reached it
          c.bias    no gradient reached it
          d.weight  frozen (requires_grad=False)
          d.bias    frozen (requires_grad=False)

          hint: assert_optimizer_covers(optimizer, model) names what is missing and what is stale
          hint: assert_grads_reach(model, loss_fn) says why a gradient does not arrive
        """)


@pytest.mark.parametrize("lr", [torch.tensor(0.0), torch.zeros(1), 0])
def test_a_tensor_as_learning_rate_is_read(lr: Tensor | float) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def body() -> None:
        loss_of(model).backward()
        optimizer.step()

    assert failing(model, body, "a.bias").endswith("got a gradient, but SGD stepped it with lr 0")


def test_no_step_and_a_gradient_cleared_before_the_step() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def cleared() -> None:
        loss_of(model).backward()
        optimizer.zero_grad()
        optimizer.step()

    assert failing(model, lambda: loss_of(model).backward(), "a.bias") == whole("""
        not updated: a.bias (Net)

          a.bias  got a gradient, but no optimizer stepped
        """)
    assert failing(model, cleared, "a.bias") == whole("""
        not updated: a.bias (Net)

          a.bias  its gradient was cleared before SGD stepped

          hint: call zero_grad() before backward() or after step(), not between the two
        """)


@pytest.mark.parametrize("how", ["zeroed", "clipped", "masked"])
def test_a_gradient_made_all_zero_before_the_step_was_not_cleared(how: str) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        model(torch.ones(1, 1)).sum().backward()
        if how == "zeroed":
            optimizer.zero_grad(set_to_none=False)
        elif how == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 0.0)
        else:
            assert model.weight.grad is not None
            model.weight.grad.mul_(0)
        optimizer.step()

    assert failing(model, body) == whole(r"""
        not updated: weight (Linear)

          weight  its gradient was made all zero before SGD stepped

          hint: look between backward() and step() for a clip to 0, a mask of zeros, or a \
        zero_grad(set_to_none=False), which belongs before backward()
        """)


def test_a_stale_optimizer_is_said() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.b = nn.Linear(2, 2)

    def body() -> None:
        loss_of(model).backward()
        optimizer.step()

    assert failing(model, body) == whole("""
        not updated: b.weight, b.bias (Net)

          b.weight  got a gradient, but SGD does not hold it
          b.bias    got a gradient, but SGD does not hold it

          hint: assert_optimizer_covers(optimizer, model) names what is missing and what is stale
        """)


def test_a_step_that_rounds_away() -> None:
    def step(dtype: torch.dtype) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def body() -> None:
            loss_of(model, 0.5).backward()
            optimizer.step()

        return body

    model = Net(torch.bfloat16)
    assert failing(model, step(torch.bfloat16), "b.bias") == whole(r"""
        not updated: b.bias (Net)

          b.bias  got a gradient, but SGD's step was rounded away in bfloat16 \
        (largest gradient 0.5, lr 0.001)

          hint: keep float32 master weights, or use stochastic rounding
        """)
    model = Net()
    with assert_updated(model):
        step(torch.float32)()


# --- the call ----------------------------------------------------------------------------------


def test_nothing_is_left_behind_and_exceptions_pass_through() -> None:
    model = Net()
    kept = model.a.weight.register_post_accumulate_grad_hook(lambda p: None)
    error = RuntimeError("mine")
    for fail in (False, True):
        with pytest.raises((RuntimeError, ParamCheckError)) as caught, assert_updated(model):
            loss_of(model).backward()
            if fail:
                raise error
        assert len(model.a.weight._post_accumulate_grad_hooks) == 1
        assert all(
            p._post_accumulate_grad_hooks is None
            for name, p in model.named_parameters()
            if name != "a.weight"
        )
        assert not optimizers._global_optimizer_pre_hooks
        assert not optimizers._global_optimizer_post_hooks
    assert caught.value is error
    kept.remove()


def test_nothing_to_look_at_is_a_wrong_call() -> None:
    frozen = Net().requires_grad_(False)
    assert usage(assert_updated(frozen).__enter__) == (
        "Net has no trainable parameter that this applies to: there is nothing to check"
    )
    assert usage(assert_changed({"w": torch.empty(0)}).__enter__) == (
        "a dict of tensors has no parameter or buffer with elements that this applies to: there is "
        "nothing to check"
    )
    for assertion in (assert_updated, assert_changed):
        assert usage(assertion(nn.Linear(2, 2, device="meta")).__enter__) == (
            "weight: on meta, where tensors have no values; cannot check whether its values change"
        )
    model = Net()
    model.register_buffer("step", torch.zeros(()))
    assert usage(assert_updated(model, "step").__enter__) == (
        "pattern 'step' matches no parameter with elements: 'step' is a buffer"
    )


def test_a_parameter_without_elements_is_left_out() -> None:
    model = Net()
    model.empty = nn.Parameter(torch.empty(0))
    with assert_changed(model):
        for parameter in model.parameters():
            parameter.data.add_(1)


# --- assert_changed ----------------------------------------------------------------------------


def test_changed_takes_any_writer() -> None:
    model, average = Net(), Net().requires_grad_(False)
    with assert_changed(model):
        model.a.reset_parameters()
        model.b.weight.detach().numpy()[0, 0] = 5
        model.b.bias = nn.Parameter(torch.zeros(2))
    with assert_changed(average), torch.no_grad():
        for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 0.5)


def test_changed_names_what_stood_still() -> None:
    model = Net()
    model.register_buffer("count", torch.zeros((), dtype=torch.int64))
    with pytest.raises(ParamCheckError) as caught, assert_changed(model, "*"):
        model.a.weight.data.add_(1)
        with torch.no_grad():
            model.a.bias.copy_(model.a.bias.clone())
        model.b.weight = nn.Parameter(model.b.weight.detach().clone())
        del model.b.bias
    assert str(caught.value) == whole("""
        not changed: count, a.bias, b.weight; removed: b.bias (Net)

          not changed:
            count     values are bit-identical, and no write to it was seen
            a.bias    written to, but with the same values
            b.weight  replaced by another object with the same bits
          removed:
            b.bias  was Parameter 2 float32 cpu
        """)
    with assert_changed(model, "count"):
        model.count += 1


def test_by_default_every_parameter_has_to_change_frozen_ones_too() -> None:
    half = Net()
    half.a.requires_grad_(False)
    with pytest.raises(ParamCheckError, match=r"^not changed: a\.weight, a\.bias \(Net\)"):
        with assert_changed(half):
            half.b.reset_parameters()
    target = nn.BatchNorm1d(2).requires_grad_(False)  # its statistics need a pattern
    with assert_changed(target):
        for parameter in target.parameters():
            parameter.data.mul_(0.9).add_(1)
    counted = nn.BatchNorm1d(2, affine=False)
    with assert_changed(counted):  # no parameter: then its buffers
        counted(torch.rand(4, 2))


def without_storage(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.untyped_storage().resize_(0)


def made_lazy(model: Net) -> None:
    for layer in (model.a, model.b):
        for name in ("weight", "bias"):
            setattr(layer, name, nn.UninitializedParameter())


def made_fake(model: Net) -> None:
    with FakeTensorMode():
        for layer in (model.a, model.b):
            layer.weight, layer.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("way", [without_storage, made_lazy, made_fake, lambda m: m.to("meta")])
@pytest.mark.parametrize("assertion", [assert_changed, assert_updated])
def test_what_has_no_values_any_more_did_not_change(
    assertion: Callable[..., Any], way: Callable[[nn.Module], object]
) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ParamCheckError) as caught, assertion(model):
        loss_of(model).backward()
        optimizer.step()
        way(model)
    problems = {finding.problem for finding in caught.value.findings}
    assert problems <= {"no values left", "replaced, not updated"}
    assert len(caught.value.findings) == 4


def test_no_values_left_and_removed_are_said() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ParamCheckError) as caught, assert_changed(model):
        model.to("meta")
        model.bias = None
    assert str(caught.value) == whole("""
        no values left: weight; removed: bias (Linear)

          no values left:
            weight  Parameter 2x2 float32 meta: on meta, where tensors have no values
          removed:
            bias  was Parameter 2 float32 cpu
        """)


def test_a_removed_parameter_was_not_updated() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ParamCheckError) as caught, assert_updated(model):
        loss_of(model).backward()
        optimizer.step()
        del model.b.bias
    assert str(caught.value) == whole("""
        removed: b.bias (Net)

          b.bias  was Parameter 2 float32 cpu
        """)


def test_a_cast_alone_is_no_change() -> None:
    model = nn.Linear(2, 2, bias=False)
    with pytest.raises(ParamCheckError) as caught, assert_changed(model):
        model.double()
    assert str(caught.value) == whole(r"""
        not changed: weight (Linear)

          weight  was Parameter 2x2 float32 cpu, is Parameter 2x2 float64 cpu, \
        with the values it had
        """)
    with assert_changed(model):
        model.weight.data = model.weight.data.float() * 0.9
    some = part("weight", torch.eye(2).bool())
    with assert_changed(model, some):  # which no longer fits, whatever the values are cast to
        model.weight = nn.Parameter(torch.ones(3, 3).double())
