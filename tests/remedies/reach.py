"""What a loss does not reach."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pytest_paramcheck import (
    assert_grads_reach,
    assert_tied_grads_sum,
    part,
)

from ..models import LM, MLP
from . import Call, Case, asking, checking, remedy
from .models import ROW, Spare, Zeros, loss


def reaches(
    broken: Callable[[nn.Module, Tensor], Any], repaired: Callable[[nn.Module, Tensor], Any]
) -> Case:
    return Case(
        lambda: assert_grads_reach(Spare(broken), loss),
        lambda hint: lambda: assert_grads_reach(Spare(repaired), loss),
    )


def used(spare: nn.Module, x: Tensor) -> Any:
    return spare(x)


def without_gradients(spare: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return spare(x)


@remedy("run it with gradients enabled")
def with_gradients() -> Case:
    return reaches(without_gradients, used)


@remedy("use it without .* where it has to train")
def without_detach() -> Case:
    return reaches(lambda spare, x: spare(x).detach(), used)


@remedy("keep it a tensor up to the loss")
def keep_a_tensor() -> Case:
    return reaches(lambda spare, x: spare(x).sum().item(), lambda spare, x: spare(x).sum())


@remedy("let the result reach the loss")
def result_reaches() -> Case:
    return reaches(lambda spare, x: (spare(x), 0)[1], used)


@remedy("let it train past that: soft + (hard - soft).detach(), a straight-through path")
def straight_through() -> Case:
    def repair(hint: str) -> Call:
        path = hint.removeprefix("let it train past that: ").partition(", a")[0]

        def use(spare: nn.Module, x: Tensor) -> Any:
            soft = spare(x)
            return eval(path, {"soft": soft, "hard": soft.round()})

        return lambda: assert_grads_reach(Spare(use), loss)

    return Case(lambda: assert_grads_reach(Spare(lambda s, x: s(x).round()), loss), repair)


class Keeps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, returns: bool) -> Tensor:
        ctx.returns = returns
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        return (grad if ctx.returns else None), None


@remedy("return one from its backward()")
def return_a_gradient() -> Case:
    return reaches(
        lambda spare, x: Keeps.apply(spare(x), False), lambda spare, x: Keeps.apply(spare(x), True)
    )


class Hides(torch.autograd.Function):
    """Reads a parameter that it is not given, or is given it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Linear, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        return x @ module.weight.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return None, None, grad.T @ x if ctx.needs_input_grad[2] else None


@remedy("pass the parameter to *.apply and return its gradient from backward")
def pass_the_parameter() -> Case:
    def call(given: bool) -> Call:
        def run(model: nn.Module) -> Tensor:
            x = ROW.clone().requires_grad_()
            output: Tensor = Hides.apply(x, model, model.weight if given else None)
            return output.sum()

        return lambda: assert_grads_reach(nn.Linear(4, 2, bias=False), run)

    return Case(call(given=False), lambda hint: call(given=True))


@remedy("a hook that returns None keeps the gradient")
def a_hook_that_keeps() -> Case:
    model = nn.Linear(4, 2)
    handle = model.weight.register_hook(lambda grad: grad * 0)

    def repair(hint: str) -> None:
        handle.remove()
        model.weight.register_hook(lambda grad: None)

    return Case(lambda: assert_grads_reach(model, loss), repair, model)


def _quietly(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says so as well
        return call(*args, **options)


@remedy("checkpoint(..., use_reentrant=False) does not depend on its inputs")
def checkpoint_not_reentrant() -> Case:
    def use(reentrant: bool) -> Call:
        return lambda: assert_grads_reach(
            Spare(lambda spare, x: _quietly(checkpoint, spare, x, use_reentrant=reentrant)), loss
        )

    return Case(use(reentrant=True), lambda hint: use(reentrant=False))


@remedy("unfreeze it with requires_grad_(True), or exclude it: '!name'")
def unfreeze() -> Case:
    model = MLP()
    model.head.requires_grad_(False)
    assert_grads_reach(model, loss, "!head")

    def repair(hint: str) -> None:
        model.head.requires_grad_(True)

    return Case(lambda: assert_grads_reach(model, loss, "*"), repair, model)


@remedy("if it is unused on purpose, exclude it: '!name'")
def exclude_unused() -> Case:
    model = Spare()
    return Case(
        lambda: assert_grads_reach(model, loss),
        lambda hint: lambda: assert_grads_reach(model, loss, "!spare"),
        model,
    )


class LoRA(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)
        self.down = nn.Parameter(torch.ones(1, 4))
        self.up = nn.Parameter(torch.zeros(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


@remedy("expected at the first step of LoRA or zero-initialized branches: *")
def losses_of_two_steps() -> Case:
    model = LoRA()
    assert_grads_reach(model, loss, allow_zero=True)

    def stepped(model: nn.Module) -> Tensor:
        moved = {"up": model.up + 1, **{k: v for k, v in model.named_parameters() if k != "up"}}
        return torch.func.functional_call(model, moved, (ROW,)).sum()  # type: ignore[no-any-return]

    return Case(
        lambda: assert_grads_reach(model, loss),
        lambda hint: lambda: assert_grads_reach(model, [loss, stepped]),
        model,
    )


@remedy("allow_zero=True asks only whether a gradient arrives")
def allow_zero() -> Case:
    model = Spare(lambda spare, x: spare(x) * torch.zeros(()))
    return Case(
        lambda: assert_grads_reach(model, loss),
        lambda hint: lambda: assert_grads_reach(model, loss, allow_zero=True),
        model,
    )


@remedy("return the loss from loss_fn")
def return_the_loss() -> Case:
    model = MLP()
    return Case(
        lambda: assert_grads_reach(model, lambda m: None),  # type: ignore[arg-type,return-value]
        lambda hint: lambda: assert_grads_reach(model, loss),
    )


@remedy("return the loss itself, a scalar tensor")
def return_a_tensor() -> Case:
    model = MLP()
    return Case(
        lambda: assert_grads_reach(model, lambda m: loss(m).item()),  # type: ignore[arg-type,return-value]
        lambda hint: lambda: assert_grads_reach(model, loss),
    )


@remedy("reduce the loss to one real number: .mean() or .sum()")
def reduce_the_loss() -> Case:
    model = MLP()
    return Case(
        lambda: assert_grads_reach(model, lambda m: m(ROW)),
        lambda hint: lambda: assert_grads_reach(model, lambda m: m(ROW).mean()),
    )


@remedy("requires_grad_(False) keeps it out; if this is intended, list it in exactly=")
def keep_it_out() -> Case:
    model = MLP()
    assert_grads_reach(model, loss, exactly=["head", "backbone"])

    def repair(hint: str) -> None:
        model.backbone.requires_grad_(False)

    return Case(lambda: assert_grads_reach(model, loss, exactly=["head"]), repair, model)


@remedy("if this is intended, list it in exactly=")
def list_in_exactly() -> Case:
    model = nn.Linear(4, 2)
    first, rest = part("weight", slice(1)), part("weight", slice(1, None))
    return Case(
        lambda: assert_grads_reach(model, loss, exactly=[first, "bias"]),
        lambda hint: lambda: assert_grads_reach(model, loss, exactly=[first, rest, "bias"]),
    )


@remedy("pass grad=*")
def where_gradients_are() -> Case:
    model = nn.Linear(4, 2)
    for parameter in model.parameters():
        parameter.main_grad = torch.zeros_like(parameter)  # type: ignore[attr-defined]

    def backward(total: Tensor) -> None:
        grads = torch.autograd.grad(total, list(model.parameters()))
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter.main_grad.copy_(grad)  # type: ignore[attr-defined]

    def repair(hint: str) -> Call:
        options = eval(f"dict({hint.removeprefix('pass ')})")
        return lambda: assert_grads_reach(model, loss, backward=backward, **options)

    return Case(lambda: assert_grads_reach(model, loss, backward=backward), repair)


@remedy(
    "look for a custom function that writes gradients itself, or code that asks whether the "
    "parameter is shared"
)
def look_for_sharing() -> Case:
    class Asks(LM):
        def __init__(self, asks: bool) -> None:
            super().__init__()
            self.asks = asks

        def forward(self, ids: Tensor) -> Tensor:
            output = super().forward(ids)
            shared = self.asks and self.head.weight is self.emb.weight
            return output * 2 if shared else output

    def run(asks: bool) -> Call:
        ids = torch.tensor([[1, 2]])
        return lambda: assert_tied_grads_sum(Asks(asks), lambda m: m(ids).square().sum())

    return Case(run(asks=True), lambda hint: run(asks=False))


@remedy("if this loss is not supposed to reach it: ModelCase(unreached=[*])")
def declare_unreached() -> Case:
    made = {"factory": lambda: Spare(lambda s, x: s(x) * torch.zeros(())), "inputs": ROW}

    def repair(hint: str) -> Call:
        options = eval(hint.partition("ModelCase")[2].join(("dict", "")))
        return checking("check_grads_reach", made["factory"], inputs=ROW, **options)

    return Case(checking("check_grads_reach", made["factory"], inputs=ROW), repair)  # type: ignore[arg-type]


@remedy("*; or, if this loss is not supposed to reach it: ModelCase(unreached=[*])")
def repair_or_declare() -> Case:
    return Case(
        checking("check_grads_reach", lambda: Spare(without_gradients), inputs=ROW),
        lambda hint: checking("check_grads_reach", lambda: Spare(used), inputs=ROW),
    )


class Switched(Spare):
    """Uses its part with long inputs only; its dummy inputs are short."""

    dummy_inputs = {"x": ROW}

    def __init__(self) -> None:
        super().__init__(used)

    def forward(self, x: Tensor) -> Tensor:
        self.use = used if len(x) > 1 else None
        return super().forward(x)


@remedy("where others than the * reach it: ModelCase(inputs=...); *")
def other_inputs() -> Case:
    return Case(
        checking("check_grads_reach", Switched),
        lambda hint: checking("check_grads_reach", Switched, inputs=torch.ones(2, 4)),
    )


@remedy("take it out of ModelCase(unreached=...)")
def take_out_unreached() -> Case:
    return Case(
        checking("check_grads_reach", MLP, inputs=ROW, unreached=["head.bias"]),
        lambda hint: checking("check_grads_reach", MLP, inputs=ROW),
    )


@remedy("check_grads_reach says why")
def check_says_why() -> Case:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 2), Zeros())

    return Case(
        checking("check_training_step", factory, inputs=ROW),
        asking(checking("check_grads_reach", factory, inputs=ROW), "0.weight", "mul in 1 (Zeros)"),
    )
