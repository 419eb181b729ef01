"""Who wrote in a block, and the hints: a step is the cause only of what it wrote."""

# ruff: noqa: PT012 - what a block does is the subject here, and it takes several lines

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pytest_paramcheck import (
    ParamCheckError,
    assert_unchanged,
    assert_updated,
)
from pytest_paramcheck.parameters.running import steps
from pytest_paramcheck.parameters.running.magnitude import largest_magnitude
from pytest_paramcheck.parameters.running.steps import _Held
from pytest_paramcheck.parameters.tensors.memory import memory_of

Body = Callable[[], object]


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    model = nn.Linear(3, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        model.weight.fill_(1)
    return model


def backward(model: nn.Module, scale: float = 1.0) -> None:
    dtype = next(model.parameters()).dtype
    (model(torch.ones(1, 3, dtype=dtype)).sum() * scale).backward()


def broken(assertion: Any, body: Body) -> str:
    """Return the row and the hints of a failure about one parameter."""
    with pytest.raises(ParamCheckError) as caught, assertion:
        body()
    return "\n".join(str(caught.value).splitlines()[2:])


def shrink(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.9)


class Warm(SGD):
    """Its first steps write nothing."""

    def step(self, closure: Any = None) -> None:
        pass


class Decay(SGD):
    """Shrinks what it holds, with a gradient or without."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.9)


# --- a step that wrote nothing, and another writer ---------------------------------------------

IDLE: dict[str, tuple[Callable[[nn.Module], Optimizer], str]] = {
    "lr 0": (lambda m: SGD(m.parameters(), lr=0.0), "SGD stepped it with lr 0, "),
    "lr 0, a tensor": (
        lambda m: SGD(m.parameters(), lr=torch.tensor(0.0)),
        "SGD stepped it with lr 0, ",
    ),
    "lr 0, fused": (
        lambda m: AdamW(m.parameters(), lr=0.0, fused=True),
        "AdamW stepped it with lr 0, ",
    ),
    "warms up": (
        lambda m: Warm(m.parameters(), lr=0.1),
        "Warm's step with the gradient it got wrote nothing, ",
    ),
    "rounded away": (
        lambda m: SGD(m.parameters(), lr=1e-9),
        "SGD's step with the gradient it got wrote nothing, ",
    ),
}


@pytest.mark.parametrize("kind", IDLE)
def test_a_step_is_not_the_cause_of_what_another_wrote(kind: str) -> None:
    make, said = IDLE[kind]
    model = linear()
    optimizer = make(model)

    def body() -> None:
        backward(model)
        optimizer.step()
        shrink(model)

    assert broken(assert_updated(model), body) == (
        f"  weight  6 of 6 values changed, by at most 0.1: {said}something else wrote it"
    )
    optimizer = SGD(model.parameters(), lr=0.1)
    with assert_updated(model):  # the other writer does not make a step nothing
        body()


def test_a_step_of_another_optimizer_is_not_the_cause() -> None:
    model = linear()
    idle, decaying = SGD(model.parameters(), lr=0.0), Decay(model.parameters(), lr=0.1)

    def body() -> None:
        backward(model)
        idle.step()
        idle.zero_grad()
        decaying.step()

    assert broken(assert_updated(model), body) == (
        "  weight  6 of 6 values changed, by at most 0.1: Decay's step wrote it although it has no "
        "gradient (weight decay or state of its own?)"
    )


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skipped(fused: bool) -> None:
    def training(model: nn.Module, scale: float, then: Body = lambda: None) -> Body:
        optimizer = SGD(model.parameters(), lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)

        def body() -> None:
            scaler.scale(model(torch.ones(1, 3)).sum() * 1e37).backward()
            scaler.step(optimizer)
            scaler.update()
            then()

        return body

    skipped = (
        "its gradient was not finite, and SGD's step wrote nothing"
        if fused
        else "no optimizer stepped, and a gradient was not finite: a GradScaler skips such a step"
    )
    model = linear()
    assert broken(assert_updated(model), training(model, 65536.0)).splitlines() == [
        f"  weight  {skipped}",
        "",
        "  hint: a GradScaler skips such a step and lowers its scale: GradScaler(init_scale=...)",
    ]
    model = linear()
    with assert_updated(model):
        training(model, 1.0)()
    model = linear()
    other = broken(assert_updated(model), training(model, 65536.0, lambda: shrink(model)))
    assert other.endswith("something else wrote it")


def test_one_overflow_explains_why_no_parameter_was_stepped() -> None:
    model = nn.Sequential(linear(), nn.Linear(2, 1))
    with pytest.raises(ParamCheckError) as caught, assert_updated(model, "1"):
        backward(model)
        model[1].bias.grad = None
        (model[1].bias * float("inf")).sum().backward()
    assert [finding.found for finding in caught.value.findings] == [
        "no optimizer stepped, and a gradient was not finite: a GradScaler skips such a step"
    ] * 2


# --- stood still -------------------------------------------------------------------------------


def test_a_step_that_wrote_nothing_is_not_called_rounding() -> None:
    for optimizer in (Warm, SGD):
        model = linear()
        stepping = optimizer(model.parameters(), lr=0.01 if optimizer is Warm else 1e-9)

        def body(model: nn.Module = model, stepping: Optimizer = stepping) -> None:
            backward(model)
            stepping.step()

        said = broken(assert_updated(model), body)
        if optimizer is Warm:
            assert said == (
                "  weight  got a gradient, but Warm's step wrote nothing (largest gradient 1, lr "
                "0.01): does it warm up, delay or skip steps?"
            )
        else:
            assert said.splitlines() == [
                "  weight  got a gradient, but SGD's step was rounded away in float32 (largest "
                "gradient 1, lr 1e-09)",
                "",
                "  hint: a larger lr, or a dtype that resolves more than float32",
            ]
    model = linear(torch.float64)
    optimizer = SGD(model.parameters(), lr=1e-9)
    with assert_updated(model):
        backward(model)
        optimizer.step()


def test_an_adaptive_step_is_rounded_away_whatever_its_gradient() -> None:
    model = linear(torch.bfloat16)
    adam = Adam(model.parameters(), lr=1e-3)

    def body() -> None:
        backward(model, 100.0)
        adam.step()

    assert broken(assert_updated(model), body).splitlines() == [
        "  weight  got a gradient, but Adam's step was rounded away in bfloat16 (largest gradient "
        "100, lr 0.001)",
        "",
        "  hint: keep float32 master weights, or use stochastic rounding",
    ]
    masters = [p.detach().float() for p in model.parameters()]
    stepping = Adam(masters, lr=1e-3)
    with assert_updated(model):
        for _ in range(8):
            backward(model, 100.0)
            for master, parameter in zip(masters, model.parameters(), strict=True):
                master.grad, parameter.grad = parameter.grad.float(), None
            stepping.step()
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.data.copy_(master)


def test_old_values_written_back_are_said() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())

    def body() -> None:
        backward(model)
        optimizer.step()
        model.load_state_dict(before)

    assert broken(assert_updated(model), body) == (
        "  weight  SGD moved it, but at the end it has its old values"
    )


# --- what was written to main_grad -------------------------------------------------------------


def test_a_gradient_in_another_attribute_is_said() -> None:
    model = linear()

    def fused_backward() -> None:
        model.weight.main_grad = torch.ones(2, 3)  # type: ignore[assignment]

    def by_hand() -> None:
        fused_backward()
        model.weight.data.sub_(model.weight.main_grad)

    hint = "  hint: pass grad='main_grad'"
    assert broken(assert_updated(model), by_hand).splitlines() == [
        "  weight  6 of 6 values changed, by at most 1: no gradient reached it and no optimizer "
        "stepped it, something else wrote it; its .main_grad was written, not its .grad",
        "",
        hint,
    ]
    with assert_updated(model, grad="main_grad"):  # the hint repairs
        by_hand()
    assert broken(assert_updated(model), fused_backward).splitlines() == [
        "  weight  its .main_grad was written, not its .grad",
        "",
        hint,
    ]


# --- unchanged: who did it, and what keeps it as it is -----------------------------------------


def test_a_step_that_writes_without_a_gradient() -> None:
    class Skipping(SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    p.mul_(0.9)

    model = linear()
    text = broken(assert_unchanged(model), Decay(model.parameters(), lr=0.1).step)
    assert text.splitlines() == [
        "  weight  6 of 6 values changed, by at most 0.1; Decay's step wrote it although it has no "
        "gradient (weight decay or state of its own?)",
        "",
        "  hint: a step has to skip it: `if p.grad is None: continue` in Decay",
    ]
    with assert_unchanged(model):
        Skipping(model.parameters(), lr=0.1).step()
    decaying = Decay(model.parameters(), lr=0.1, weight_decay=0.5)
    assert "(weight decay?)" in broken(assert_unchanged(model), decaying.step)


def test_momentum_stops_where_the_gradient_is_none() -> None:
    model = linear()
    optimizer = Adam(model.parameters(), lr=0.1)
    backward(model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert broken(assert_unchanged(model), optimizer.step).splitlines() == [
        "  weight  6 of 6 values changed, by at most 0.067; Adam moved it by momentum of earlier "
        "steps only, its gradient was all zero",
        "",
        "  hint: its gradient has to be None, not zero: zero_grad(set_to_none=True), or keep it "
        "out of Adam",
    ]
    optimizer.zero_grad(set_to_none=True)
    with assert_unchanged(model):
        optimizer.step()


def test_zeros_alone_are_said_where_nothing_else_is_known() -> None:
    model = linear()
    model.weight.grad = torch.zeros(2, 3)
    said = broken(assert_unchanged(model), Decay(model.parameters(), lr=0.1).step).splitlines()[0]
    assert said == (
        "  weight  6 of 6 values changed, by at most 0.1; Decay stepped it with a gradient of all "
        "zero"
    )


def test_a_frozen_parameter_with_an_old_gradient() -> None:
    model = nn.Sequential(linear(), nn.Linear(2, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    backward(model)
    model[0].requires_grad_(False)

    def step() -> None:
        backward(model)
        optimizer.step()

    text = broken(assert_unchanged(model, "0"), step)
    moved = 0.1 * float(model[0].weight.grad.abs().max())
    assert text.splitlines() == [
        f"  0.weight  6 of 6 values changed, by at most {moved:.3g}; SGD stepped it with the "
        "gradient in .grad, although it is frozen",
        "",
        "  hint: its gradient has to be None: zero_grad(set_to_none=True) once it is frozen, or "
        "keep it out of SGD",
    ]
    optimizer.zero_grad(set_to_none=True)
    with assert_unchanged(model, "0"), assert_updated(model, "1"):
        step()


def test_a_parameter_that_is_trained() -> None:
    model = linear()

    def train(model: nn.Module) -> Body:
        optimizer = SGD(
            [p for p in model.parameters() if p.requires_grad] or [torch.ones(1)], lr=0.1
        )

        def body() -> None:
            loss = model(torch.ones(1, 3)).sum()
            if loss.requires_grad:
                loss.backward()
            optimizer.step()

        return body

    assert broken(assert_unchanged(model), train(model)).splitlines() == [
        "  weight  6 of 6 values changed, by at most 0.1; SGD stepped it with the gradient in "
        ".grad",
        "",
        "  hint: freeze it with requires_grad_(False) before the backward pass, or train a copy: "
        "copy.deepcopy(model)",
    ]
    model.zero_grad()
    trained = copy.deepcopy(model)
    with assert_unchanged(model), assert_updated(trained):
        train(trained)()
    with assert_unchanged(model, only="values"):
        train(model.requires_grad_(False))()


def test_statistics_are_kept_by_the_module_that_moves_them() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(False), nn.Dropout(), nn.Linear(3, 2))
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, "0"):
        model(torch.rand(4, 3))
    hint = (
        "model[0].eval() after every model.train() keeps the statistics of BatchNorm1d; "
        "requires_grad does not"
    )
    assert {finding.hint for finding in caught.value.findings} == {hint}
    with assert_unchanged(model, "0"):
        model.train()
        model[0].eval()
        model(torch.rand(4, 3))
    assert model[1].training

    odd = nn.ModuleDict(
        {"a-b": nn.BatchNorm1d(3), "0": nn.InstanceNorm1d(3, track_running_stats=True)}
    )
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(odd):
        odd["a-b"](torch.rand(4, 3))
        odd["0"](torch.rand(4, 3, 5))
    assert list(dict.fromkeys(finding.hint[:32] for finding in caught.value.findings)) == [
        "model.get_submodule('a-b').eval(",
        "model.get_submodule('0').eval() ",
    ]


def test_one_statistic_alone_has_its_cause() -> None:
    norm = nn.BatchNorm1d(3)
    said = broken(assert_unchanged(norm, "running_mean"), lambda: norm(torch.rand(4, 3)))
    assert "BatchNorm1d in train mode updates it in every forward" in said
    assert said.endswith(
        "hint: model.eval() after every model.train() keeps the statistics of BatchNorm1d; "
        "requires_grad does not"
    )


def test_statistics_that_somebody_else_wrote_are_not_the_forward_s() -> None:
    norm = nn.BatchNorm1d(3)
    assert broken(assert_unchanged(norm), lambda: norm.running_mean.add_(1)) == (
        "  running_mean  3 of 3 values changed, by at most 1; written in place, and no optimizer "
        "stepped"
    )


def test_what_no_step_wrote_is_told_from_what_is_not_held() -> None:
    model, other = linear(), linear()
    idle, elsewhere = SGD(model.parameters(), lr=0.1), SGD(other.parameters(), lr=0.1)

    def write() -> None:
        with torch.no_grad():
            model.weight.add_(1)

    for optimizer, said in (
        (idle, "written in place; SGD stepped, but did not change it"),
        (elsewhere, "written in place; SGD stepped, but does not hold it"),
    ):

        def body(optimizer: Optimizer = optimizer) -> None:
            optimizer.step()
            write()

        assert broken(assert_unchanged(model), body).endswith(f"by at most 1; {said}")


# --- other tensors on the memory that is stepped -----------------------------------------------


def test_a_state_dict_is_moved_by_the_step_of_its_model() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.1)
    backward(model)
    assert broken(assert_unchanged(model.state_dict()), optimizer.step).splitlines() == [
        "  weight  6 of 6 values changed, by at most 0.1; SGD stepped a parameter on this memory "
        "with the gradient in .grad",
        "",
        "  hint: state_dict() shares memory with the model: keep copy.deepcopy(model.state_dict())",
    ]
    with assert_unchanged(copy.deepcopy(model.state_dict())):
        optimizer.step()
    kept = {"w": model.weight.data}
    assert broken(assert_unchanged(kept), optimizer.step).endswith(
        "  hint: it shares memory with what SGD steps: keep a clone()"
    )
    with assert_unchanged({"w": model.weight.data.clone()}):
        optimizer.step()


def embedding(decay: float = 0.1) -> tuple[nn.Embedding, AdamW]:
    torch.manual_seed(0)
    model = nn.Embedding(10, 4)
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=decay)
    model(torch.tensor([1, 8, 9])).sum().backward()
    model.weight.grad[:8] = 0
    return model, optimizer


def test_a_view_of_what_is_stepped_has_its_part_of_the_gradient() -> None:
    model, optimizer = embedding()
    with assert_updated({"new": model.weight[8:]}):
        optimizer.step()
    model, optimizer = embedding()
    old = {"old": model.weight.data[:8]}
    row = broken(assert_unchanged(old), optimizer.step).splitlines()[0]
    assert row.partition("; ")[2] == (
        "AdamW moved a parameter on this memory by weight decay 0.1 only, its gradient was all zero"
    )
    assert "all zero" in broken(assert_updated({"old": model.weight[:8]}), optimizer.step)
    model, optimizer = embedding(decay=0.0)  # the hint: weight_decay=0 for it
    with assert_unchanged({"old": model.weight.data[:8]}):
        optimizer.step()


def test_a_gradient_arrives_at_views_through_their_parameter() -> None:
    model = nn.Embedding(10, 4)
    views = {"new": model.weight[8:], "old": model.weight[:8]}
    with pytest.raises(ParamCheckError) as caught, assert_updated(views):
        model(torch.tensor([8, 9])).sum().backward()
        with torch.no_grad():
            model.weight.sub_(model.weight.grad)
    assert [(f.names, f.found) for f in caught.value.findings] == [
        (("old",), "its gradient was all zero")
    ]
    assert model.weight._post_accumulate_grad_hooks is None


def test_a_view_has_its_rows_of_a_sparse_gradient() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)

    def body() -> None:
        optimizer.zero_grad()
        model(torch.tensor([1])).sum().backward()
        optimizer.step()

    with assert_updated({"rows": model.weight[:2]}):
        body()
    assert broken(assert_updated({"rows": model.weight[2:]}), body) == (
        "  rows  its gradient was all zero"
    )


class Hidden(Optimizer):
    """Lays out its groups in a way that says nothing of what it holds."""

    def __init__(self, params: Any, *, decay: bool) -> None:
        super().__init__(params, {"lr": 0.1})
        self.held, self.decay = self.param_groups[0]["params"], decay
        self.param_groups = [{"weights": [1]}]

    def step(self, closure: Any = None) -> None:
        for parameter in self.held:
            if self.decay:
                parameter.data.mul_(0.9)
            elif parameter.grad is not None:
                parameter.data.sub_(parameter.grad)


def test_what_an_optimizer_wrote_is_seen_though_it_cannot_be_read() -> None:
    model = linear()
    decaying, stepping = (Hidden(model.parameters(), decay=decay) for decay in (True, False))
    assert broken(assert_unchanged(model), decaying.step).splitlines()[0] == (
        "  weight  6 of 6 values changed, by at most 0.1; Hidden's step wrote it although it has "
        "no gradient (weight decay or state of its own?)"
    )

    def body() -> None:
        backward(model)
        model.zero_grad()
        decaying.step()

    assert "Hidden's step wrote it although" in broken(assert_updated(model), body)

    def beside() -> None:
        stepping.step()
        model.weight.detach().add_(1)

    assert broken(assert_unchanged(model), beside).endswith(
        "by at most 1; written in place; what Hidden holds cannot be read"
    )
    with assert_updated(model):
        backward(model)
        stepping.step()


def test_a_flat_buffer_steps_the_parameters_in_it() -> None:
    flat = nn.Parameter(torch.ones(8))
    model = nn.Linear(3, 2)
    model.weight, model.bias = nn.Parameter(flat.data[:6].view(2, 3)), nn.Parameter(flat.data[6:])
    optimizer = SGD([flat], lr=0.1)

    def body(bias: float = 1.0) -> None:
        backward(model)
        flat.grad = torch.cat([model.weight.grad.flatten(), model.bias.grad * bias])
        optimizer.step()

    with assert_updated(model):
        body()
    assert broken(assert_updated(model), lambda: body(0.0)) == (
        "  bias  SGD stepped a parameter on this memory with a gradient of all zero"
    )


@settings(max_examples=settings.default.max_examples // 5)
@given(st.data())
def test_what_is_held_is_found_as_by_comparing_every_pair(data: st.DataObject) -> None:
    flat = torch.zeros(48)

    def view(_: int) -> Tensor:
        start = data.draw(st.integers(0, 40))
        size = data.draw(st.integers(0, min(6, 48 - start)))
        step = data.draw(st.integers(1, 3))
        return flat[start : start + size * step : step]

    watched = [view(i) for i in range(data.draw(st.integers(1, 6)))]
    held = [*watched, *(view(i) for i in range(3)), flat, torch.zeros(3)]
    found = _Held(watched)
    for tensor in held:
        expected = {
            id(other)
            for other in watched
            if other is tensor or memory_of(other).overlaps(memory_of(tensor))
        }
        assert {id(other) for other in found.by(tensor)} == expected
        assert len(found.by(tensor)) == len(expected)


# --- the watch itself --------------------------------------------------------------------------


def test_a_hook_that_comes_first_and_clears_the_gradient_breaks_nothing() -> None:
    model = linear()

    def clear(parameter: Tensor) -> None:
        parameter.grad = None

    with pytest.raises(ParamCheckError) as caught, assert_updated(model):
        model.weight.register_post_accumulate_grad_hook(clear)
        hooks: Any = model.weight._post_accumulate_grad_hooks
        ours = next(iter(hooks))
        hooks[ours] = hooks.pop(ours)  # behind the one that clears
        backward(model)
    assert [finding.found for finding in caught.value.findings] == [
        "no gradient: no backward pass reached any of the selected parameters"
    ]


def test_a_gradient_whose_values_cannot_be_read_is_not_zero() -> None:
    assert float(largest_magnitude(torch.ones(3, device="meta"))) == 1
    assert float(largest_magnitude(torch.tensor([-2.0, 1.0]))) == 2
    freed = torch.ones(3)
    freed.untyped_storage().resize_(0)
    assert float(largest_magnitude(freed)) == 1


def test_a_compiled_step_does_not_trace_the_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    disabled: list[Any] = []

    def disable(hook: Any) -> Any:
        disabled.append(hook)
        return hook

    monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace(disable=disable))
    with assert_unchanged(linear()):
        pass
    assert len(disabled) == 2


class Inner(SGD):
    """Steps another optimizer inside of its own step, as wrappers do."""

    def step(self, closure: Any = None) -> None:
        SGD(self.param_groups[0]["params"], lr=self.param_groups[0]["lr"]).step()


def test_a_step_inside_a_step_is_one() -> None:
    model = linear()
    wrapper = Inner(model.parameters(), lr=0.1)
    with assert_updated(model):
        backward(model)
        wrapper.step()
    idle = Inner(model.parameters(), lr=0.0)

    def body() -> None:
        backward(model)
        idle.step()
        shrink(model)

    assert broken(assert_updated(model), body).endswith(
        "Inner and SGD stepped it with lr 0, something else wrote it"
    )


def test_a_step_that_raises_is_no_cause_and_leaves_the_next_one_be() -> None:
    class Raising(SGD):
        def step(self, closure: Any = None) -> None:
            raise RuntimeError("mine")

    model = linear()
    raising, stepping = Raising(model.parameters(), lr=0.1), SGD(model.parameters(), lr=0.1)
    with assert_updated(model):
        backward(model)
        with pytest.raises(RuntimeError, match="mine"):
            raising.step()
        stepping.step()


class Half(SGD):
    """Out of memory after its first parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        first = self.param_groups[0]["params"][0]
        first.sub_(0.1 * first.grad)
        raise MemoryError


def _caught(step: Body) -> None:
    with pytest.raises(MemoryError):
        step()


def test_what_a_step_wrote_that_an_error_ended_is_not_known() -> None:
    model = nn.Linear(3, 2)
    optimizer = Half(model.parameters(), lr=0.1)

    def body() -> None:
        backward(model)
        _caught(optimizer.step)

    assert broken(assert_unchanged(model), body) == (
        "  weight  6 of 6 values changed, by at most 0.1; written in place; an error ended Half's "
        "step half way, and what it wrote is not known"
    )
    optimizer.zero_grad()
    assert broken(assert_updated(model), body) == (
        "  changed without a gradient:\n"
        "    weight  6 of 6 values changed, by at most 0.1: an error ended Half's step half way, "
        "and what it wrote is not known\n"
        "  not updated:\n"
        "    bias  got a gradient, but an error ended Half's step before it wrote it"
    )
    with assert_updated(model):  # the step that follows is what moves it
        _caught(optimizer.step)
        SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("parent_too", [True, False])
def test_a_step_that_calls_that_of_its_class_is_one_step(first: bool, parent_too: bool) -> None:
    class Parent(SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            pass

    class Child(Parent):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for parameter in self.param_groups[0]["params"] if first else ():
                parameter.mul_(0.9)
            super().step(closure)
            for parameter in self.param_groups[0]["params"] if not first else ():
                parameter.mul_(0.9)

    model = linear()
    if parent_too:
        Parent(linear().parameters())  # from then on torch calls the hooks for its step, too
    optimizer = Child(model.parameters(), lr=0.1)

    def body() -> None:
        backward(model)
        optimizer.step()

    with assert_updated(model):
        body()
    assert broken(assert_unchanged(model), body).splitlines()[0] == (
        "  weight  6 of 6 values changed, by at most 0.09; Child stepped it with the gradient in "
        ".grad"
    )


def test_steps_of_thousands_of_optimizers_do_not_look_at_every_parameter() -> None:
    model = nn.ParameterList(torch.ones(2) for _ in range(50))
    compared: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        memory = steps.memory_of
        patch.setattr(steps, "memory_of", lambda t: compared.append(1) or memory(t))  # type: ignore[func-returns-value]
        with assert_updated(model):
            sum(p.sum() for p in model).backward()
            for parameter in model:
                SGD([parameter], lr=0.1).step()
    assert len(compared) == 50


def test_a_step_with_a_gradient_counts_after_one_that_only_decays() -> None:
    model = linear()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    with assert_updated(model):
        for scale in (0.0, 1.0):
            optimizer.zero_grad()
            backward(model, scale)
            optimizer.step()


def test_a_settled_parameter_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    contents = steps.read_contents

    def counting(tensors: Any) -> Any:
        read.append(len(tensors))
        return contents(tensors)

    monkeypatch.setattr(steps, "read_contents", counting)
    model = linear()
    optimizer = SGD(model.parameters(), lr=0.1)
    with assert_updated(model):
        for _ in range(3):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
    assert [number for number in read if number] == [1, 1]


def test_an_embedding_that_shortens_its_rows() -> None:
    model = nn.Sequential(nn.Embedding(3, 2, max_norm=0.5))
    with torch.no_grad():
        model[0].weight.fill_(1.0)

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model):
        model(torch.arange(3))
    (finding,) = caught.value.findings
    assert finding.found.endswith(
        "; Embedding(max_norm=0.5) shortens the rows that it looks up, in every forward"
    )
    assert finding.hint == "model[0].max_norm = None keeps them as they are"


def test_who_else_wrote_an_embedding_with_max_norm() -> None:
    model = nn.Sequential(nn.Embedding(3, 2, max_norm=1e6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        model(torch.arange(3)).sum().backward()
        optimizer.step()

    with pytest.raises(ParamCheckError, match="SGD stepped it"), assert_unchanged(model):
        step()
    with pytest.raises(ParamCheckError, match="behind autograd's back"), assert_unchanged(model):
        model[0].weight.data.add_(1.0)
