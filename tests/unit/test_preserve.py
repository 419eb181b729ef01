"""What a loss does to a model and to the process, and that all of it is put back."""

from __future__ import annotations

import contextlib
import queue
import random
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    ParamCheckUsageError,
    assert_grads_reach,
    assert_registered,
)
from pytest_paramcheck.parameters.running import preserve, tensor_state
from pytest_paramcheck.parameters.running.tensor_state import TensorStates
from pytest_paramcheck.parameters.running.undo import Undo

from .hostile import DAMAGES, MODES, equip
from .state import difference, state_of


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def model_and_loss(damage: Callable[[nn.Module], object]) -> tuple[nn.Module, Callable[[Any], Any]]:
    """A linear layer with one of everything, with gradients, and a loss that does the damage."""
    model = equip(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    x = torch.rand(4, 3)
    model(x).square().sum().backward()

    def loss(m: nn.Module) -> Tensor:
        result: Tensor = m(x).square().sum()
        damage(m)
        return result

    return model, loss


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize(
    ("assertion", "options"),
    [(assert_grads_reach, {}), (assert_registered, {"allow": ["outside[0]"]})],
)
def test_what_a_loss_does_to_a_model_is_put_back(
    name: str, assertion: Callable[..., object], options: Any
) -> None:
    model, loss = model_and_loss(DAMAGES[name])
    before = state_of(model)

    assertion(model, loss, **options)

    assert difference(before, state_of(model)) == []
    loss(model)  # the damage is one
    assert difference(before, state_of(model)) != []


@pytest.mark.parametrize("name", MODES)
def test_what_a_loss_sets_in_the_process_is_put_back(name: str) -> None:
    torch.use_deterministic_algorithms(False)  # the first call imports, and what does so warns
    model, loss = model_and_loss(lambda m: MODES[name]())
    before = state_of(model)

    assert_grads_reach(model, loss)

    assert difference(before, state_of(model)) == []
    with Undo() as undo, undo:
        preserve.put_away(undo, model)
        MODES[name]()
        assert set(difference(before, state_of(model))) - {
            key for key in before if "grad" in key or "hooks" in key
        } or name in ("grad", "global hook")
    assert difference(before, state_of(model)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        lambda: torch.nn.utils.spectral_norm(nn.Linear(3, 4)),
        lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
        lambda: nn.Sequential(nn.Linear(3, 4), torch.jit.script(nn.BatchNorm1d(4))),
    ],
    ids=["batchnorm", "spectral_norm", "parametrized", "scripted"],
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_pending_backward_of_the_user_still_runs(
    make: Callable[[], nn.Module], fails: bool
) -> None:
    model, x = make(), torch.rand(5, 3)

    def loss_fn(m: nn.Module) -> Any:
        loss = m(x).square().sum()
        return loss.detach() if fails else loss

    pending = model(x).square().sum()
    expected = torch.autograd.grad(pending, list(model.parameters()), retain_graph=True)

    try:
        assert_grads_reach(model, loss_fn)
    except ParamCheckError:
        assert fails
    pending.backward()

    for parameter, grad in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, grad)


def test_a_write_that_is_not_put_back_still_stops_a_pending_backward() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    pending = model(torch.rand(2, 3)).sum()

    def writes_a_parameter(m: Any) -> Tensor:
        with torch.no_grad():
            m[1].weight.add_(1)
        result: Tensor = m(torch.rand(2, 3)).sum()
        return result

    assert_grads_reach(model, writes_a_parameter)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()


def test_what_could_not_be_put_on_its_memory_again_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Tensor) -> bool:
        raise RuntimeError("no such place")

    def damage() -> None:
        with Undo() as undo, undo:
            states = TensorStates()
            states.keep([(torch.ones(2), "held")])
            states.push_to(undo)
            monkeypatch.setattr(tensor_state, "_same_place", fails)

    with pytest.raises(ParamCheckUsageError) as caught:
        damage()
    assert str(caught.value) == "not everything could be put back: held: no such place"


def test_what_could_not_be_put_back_still_stops_a_pending_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    pending = (held * weight).sum()

    def fails(*_: Tensor) -> bool:
        raise RuntimeError("no memory")

    def damage() -> None:
        with Undo() as undo, undo:
            states = TensorStates()
            states.keep([(held, "held")])
            states.push_to(undo)
            held.add_(1)
            monkeypatch.setattr(torch, "equal", fails)

    with pytest.raises(ParamCheckUsageError) as caught:
        damage()
    assert str(caught.value) == "not everything could be put back: held: no memory"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()


def test_memory_that_is_shared_stays_shared() -> None:
    model = equip(nn.Linear(3, 2))

    def loss(m: Any) -> Tensor:
        m.base.resize_(20).fill_(5)
        m.view.set_(torch.ones(1))
        result: Tensor = m(torch.ones(1, 3)).sum()
        return result

    assert_grads_reach(model, loss)
    model.base.fill_(7)  # type: ignore[operator, union-attr]

    assert torch.equal(model.view, torch.full((4,), 7.0))  # type: ignore[arg-type]
    assert torch.equal(model.expanded, torch.full((4,), 7.0))  # type: ignore[arg-type]


class Wrapper(torch.Tensor):
    """Holds its values in a tensor of its own, as sharded and quantized parameters do."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        pass

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(func)


class NoClone(torch.Tensor):
    def clone(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")


def test_tensor_subclasses_are_put_back_without_running_their_code() -> None:
    model = nn.Linear(3, 2)
    model.wrapped = Wrapper(torch.zeros(3))
    model.refuses = torch.zeros(3).as_subclass(NoClone)
    before = model.wrapped.inner

    def loss(m: Any) -> Tensor:
        m.wrapped.inner.add_(1)
        m.wrapped.inner = torch.ones(9)
        m.refuses.add_(1)
        result: Tensor = m(torch.ones(1, 3)).sum()
        return result

    assert_grads_reach(model, loss)

    assert model.wrapped.inner is before
    assert before.tolist() == model.refuses.tolist() == [0, 0, 0]
    assert before._version == model.refuses._version == 0


def _inference() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(3)


def _grow_inference(odd: Tensor) -> None:
    with torch.inference_mode():
        odd.add_(1).resize_(7)


def _train_scripted(odd: Any) -> None:
    odd(torch.rand(3, 2))
    odd.eval()
    odd.running_mean = torch.ones(2)


#: An attribute of a kind of its own, and what a loss does to it.
ODD: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "inference": (_inference, _grow_inference),
    "lazy": (lambda: nn.LazyLinear(2), lambda odd: odd(torch.ones(1, 3))),
    "scripted": (lambda: torch.jit.script(nn.BatchNorm1d(2)), _train_scripted),
    "opaque": (lambda: torch.ones(3).to_mkldnn(), lambda odd: odd.mul_(2)),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda odd: odd.mul_(2),
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8),
        lambda odd: odd.copy_(torch.zeros(3)),
    ),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_odd_tensors_are_put_back(kind: str) -> None:
    make, damage = ODD[kind]
    model: Any = nn.Linear(3, 2)
    model.odd = make()

    def loss(m: Any) -> Tensor:
        damage(m.odd)
        result: Tensor = m(torch.ones(1, 3)).sum()
        return result

    before, kept = state_of(model), content(model.odd)

    assert_registered(model, loss)

    assert difference(before, state_of(model)) == []
    assert content(model.odd) == kept


def content(odd: Any) -> Any:
    if isinstance(odd, nn.Module):
        return type(odd), odd.training, [type(p) for p in odd.parameters()]
    if odd.is_nested:
        return [one.tolist() for one in odd.unbind()]
    if odd.is_mkldnn or odd.is_quantized:
        return (odd.to_dense() if odd.is_mkldnn else odd.dequantize()).tolist()
    return odd.tolist()


#: What would leave the other tests' losses nothing to reach.
FREEZES: dict[str, Callable[[nn.Module], object]] = {
    "freeze": lambda m: m.requires_grad_(False),
    "freeze a part": lambda m: m[0].bias.requires_grad_(False),  # type: ignore[index,union-attr]
}
damages = st.lists(st.sampled_from([*DAMAGES, *MODES, *FREEZES]), max_size=6, unique=True)


@settings(max_examples=settings.default.max_examples // 5)
@given(names=damages, raises=st.booleans())
def test_any_damage_in_any_order_is_put_back(names: list[str], raises: bool) -> None:
    """Against a snapshot of everything; what cannot be done after another damage is skipped."""
    torch.use_deterministic_algorithms(False)
    model, loss = model_and_loss(lambda m: None)

    def damaging(m: nn.Module) -> Tensor:
        result: Tensor = loss(m)
        for name in names:
            # A buffer that was freed has no memory to compute with: torch itself would crash.
            if name in ("graph", "rebind", "buffers", "views", "data") and not usable(m):
                continue
            with contextlib.suppress(RuntimeError, AttributeError, KeyError, NotImplementedError):
                damage = DAMAGES.get(name) or FREEZES.get(name)
                damage(m) if damage else MODES[name]()
        if raises:
            raise KeyError("the loss's own")
        return result

    before = state_of(model)
    try:
        assert_grads_reach(model, damaging)
    except KeyError:
        assert raises
    except (ParamCheckError, RuntimeError):
        pass  # what the loss did is a finding, or an error of torch's

    assert difference(before, state_of(model)) == []


def usable(model: Any) -> bool:
    """Whether all that the damages write to has its memory."""
    return all(
        tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + span(tensor)) * 4
        for tensor in (model.seen, model.column, model.view, getattr(model, "base", model.seen))
    )


def span(tensor: Tensor) -> int:
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


class Holder:
    """Knows a module that no loss function names."""

    norm = nn.BatchNorm1d(3)


def _helper(x: Tensor) -> Tensor:
    result: Tensor = Holder.norm(x)
    return result


def _call_hook(model: nn.Module) -> None:
    for hook in model._forward_hooks.values():
        hook(model, (), None)


def _write_first(model: nn.Module) -> None:
    next(model.parameters()).data.add_(1)


def _hooked(model: Any) -> Any:
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    return calls


def _of_a_class(model: Any) -> Any:
    model.kind = type("Kind", (), {"known": []})()
    return model.kind


#: What the docstring of ``assert_grads_reach`` says is not put back: what is there, what a loss
#: does to it, and how one sees that it stays done.
LEFT: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], object], Callable[[Any], Any]]] = {
    "values that ``loss_fn`` writes into a parameter": (
        lambda m: m[0].weight,
        lambda m, held: _write_first(m),
        lambda held: held.sum().item(),
    ),
    "its own lists and counters": (lambda m: [], lambda m, held: held.append(1), len),
    "what functions, hooks and classes of the model keep": (
        _hooked,
        lambda m, held: _call_hook(m),
        len,
    ),
    "hooks and classes of the model keep": (
        lambda m: _of_a_class(m).known,
        lambda m, held: m.kind.known.append(1),
        len,
    ),
    "arrays of objects": (
        lambda m: m.__dict__.setdefault("table", np.zeros(1, dtype=object)),
        lambda m, held: held.fill(1),
        lambda held: held[0],
    ),
    "other settings of the process": (
        lambda m: None,
        lambda m, held: torch.set_float32_matmul_precision("medium"),
        lambda held: torch.get_float32_matmul_precision(),
    ),
    "optimizers": (
        lambda m: m.__dict__.setdefault("optimizer", torch.optim.SGD(m.parameters(), lr=0.1)),
        lambda m, held: held.param_groups[0].update(lr=1.0),
        lambda held: held.param_groups[0]["lr"],
    ),
    "data sets": (
        lambda m: m.__dict__.setdefault("data", torch.utils.data.TensorDataset(torch.zeros(2))),
        lambda m, held: held.tensors[0].add_(1),
        lambda held: held.tensors[0].sum().item(),
    ),
    "objects of the standard library": (
        lambda m: m.__dict__.setdefault("queue", queue.SimpleQueue()),
        lambda m, held: held.put(1),
        lambda held: held.qsize(),
    ),
    "containers of more than 100,000 items": (
        lambda m: m.__dict__.setdefault("long", [0] * 100_001),
        lambda m, held: held.append(1),
        len,
    ),
    "modules that only a function called by ``loss_fn`` knows": (
        lambda m: Holder.norm,
        lambda m, held: _helper(torch.rand(2, 3)),
        lambda held: held.num_batches_tracked.item(),
    ),
}


def _hiding(held: Any, does: Callable[[Any, Any], object]) -> Callable[[Any], object]:
    """Keep from a loss function what it does not know; its own list it has in its closure."""
    if isinstance(held, list):
        return lambda m: does(m, held)
    KNOWN[0:] = [held]
    return lambda m: _call_known(m, does)


KNOWN: list[Any] = []


def _call_known(model: Any, does: Callable[[Any, Any], object]) -> None:
    does(model, KNOWN[0])


@pytest.mark.parametrize("what", LEFT)
def test_what_is_not_put_back_is_said(what: str) -> None:
    make, does, seen = LEFT[what]
    model = nn.Sequential(nn.Linear(3, 3))
    held = make(model)
    damage = _hiding(held, does)
    before = seen(held)

    def loss(m: Any) -> Tensor:
        damage(m)
        result: Tensor = m(torch.ones(1, 3)).sum()
        return result

    try:
        assert_grads_reach(model, loss)
        assert seen(held) != before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert what in " ".join((assert_grads_reach.__doc__ or "").split())


def test_what_cannot_be_put_back_is_named() -> None:
    model: Any = nn.Linear(3, 2)
    model.table = torch.zeros(4)
    model.register_buffer("top", model.table[:2], persistent=False)

    def loss(m: Any) -> Tensor:
        m.top.add_(m.bias)
        result: Tensor = m(torch.ones(1, 3)).sum()
        return result

    with pytest.raises(ParamCheckUsageError) as caught:
        assert_grads_reach(model, loss)

    assert str(caught.value) == (
        "not everything could be put back: top: it was written in place, with a graph"
    )
    assert model.table.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_the_mode_of_a_wrapper_is_put_back_and_its_machinery_left_alone(wrap: Any) -> None:
    model = wrap(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))

    def loss(m: Any) -> Tensor:
        result: Tensor = m.module(torch.rand(4, 3)).square().sum()
        m.eval()
        m.machinery = 1
        return result

    assert_grads_reach(model, loss)

    assert [module.training for module in model.modules()] == [True] * 4
    assert model.machinery == 1


def test_deep_nesting_is_no_recursion() -> None:
    model = leaf = nn.Module()
    for _ in range(2000):
        leaf._modules["m"] = leaf = nn.Module()
    leaf.w = nn.Parameter(torch.ones(1))
    before = leaf.w

    def loss(m: Any) -> Tensor:
        leaf.w.register_hook(print)
        leaf.training = False
        return before.sum()

    assert_grads_reach(model, loss)
    assert_registered(model, loss)

    assert not leaf.w._backward_hooks
    assert leaf.training


def test_a_frozen_parameter_that_the_loss_unfreezes_gets_no_gradient() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)

    def loss(m: Any) -> Tensor:
        result: Tensor = m.requires_grad_()(torch.ones(1, 3)).sum()
        return result

    assert_grads_reach(model, loss)

    assert model.bias.grad is None
    assert not model.bias.requires_grad


def test_the_gradient_of_an_input_inside_a_reentrant_checkpoint_is_put_back() -> None:
    model = nn.Linear(3, 2)
    x, y = torch.ones(1, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    x.grad = torch.zeros(1, 3)
    before = x.grad

    def loss(m: Any) -> Tensor:
        inner = torch.utils.checkpoint.checkpoint(lambda v: m(v * x), y, use_reentrant=True)
        result: Tensor = inner.sum()
        return result

    assert_grads_reach(model, loss)

    assert x.grad is before
    assert before.tolist() == [[0, 0, 0]]
    assert y.grad is None


def test_a_hook_that_the_loss_throws_away_is_there_again() -> None:
    model, called = nn.Linear(2, 1), []
    model.weight.register_hook(lambda grad: called.append("weight"))

    def loses(m: nn.Module) -> Tensor:
        m.get_parameter("weight")._backward_hooks = None
        return m(torch.ones(1, 2)).sum()

    assert_grads_reach(model, loses)
    model(torch.ones(1, 2)).sum().backward()

    assert called == ["weight"]


def test_the_hooks_of_a_leaf_that_the_loss_brings_along_rest_and_are_there_again() -> None:
    model, called = nn.Linear(2, 1), []
    x = torch.ones(1, 2, requires_grad=True)
    x.register_post_accumulate_grad_hook(lambda _: called.append("x"))

    assert_grads_reach(model, lambda m: m(x).sum())
    assert called == []
    model(x).sum().backward()

    assert called == ["x"]


def test_a_parameter_that_the_loss_puts_on_other_memory_is_on_its_own_again() -> None:
    model = nn.Linear(2, 1)
    before, place = model.weight.detach().clone(), model.weight.data_ptr()

    def moves(m: nn.Module) -> Tensor:
        weight = m.get_parameter("weight")
        weight.data = weight.data * 2
        return m(torch.ones(1, 2)).sum()

    assert_grads_reach(model, moves)

    assert model.weight.data_ptr() == place
    assert torch.equal(model.weight, before)
