"""Questions about gradients and training steps."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from . import asking


@asking(
    "Does only the lower triangle of a matrix train?",
    "discuss.pytorch.org/t/171255",
    "`upper` is a mask of the weight, `step()` a training step. A gradient that is multiplied by a "
    "mask makes -0.0 of 0.0, which are one number within any `atol`.",
    'with assert_unchanged(model, part("weight", upper), atol=1e-12):\n    step()',
)
def triangle(right: bool) -> dict[str, Any]:
    model = nn.Linear(4, 4, bias=False)
    upper = torch.ones(4, 4, dtype=torch.bool).triu(1)
    with torch.no_grad():
        model.weight.mul_(~upper)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        model(torch.rand(3, 4)).square().sum().backward()
        if right:
            model.weight.grad.mul_(~upper)
        optimizer.step()

    return {"model": model, "upper": upper, "step": step}


@asking(
    "Is a block that forward does not use left alone by weight decay?",
    "discuss.pytorch.org/t/89270",
    "Any index of a tensor makes a part: here the last rows.",
    'with assert_unchanged(model, part("weight", slice(4, None))):\n    step()',
)
def unused_block(right: bool) -> dict[str, Any]:
    model = nn.Linear(8, 8, bias=False)
    decay = 0.0 if right else 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)

    def step() -> None:
        model.weight[:4].sum().backward()
        optimizer.step()

    return {"model": model, "step": step}


def _body_and_head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))


@asking(
    "Do these weights not change in training?",
    "duoke360.com/post/34825",
    '`"0"` is the frozen layer.',
    'with assert_unchanged(model, "0"):\n    step()',
)
def frozen(right: bool) -> dict[str, Any]:
    model = _body_and_head()
    model[0].requires_grad_(not right)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()

    return {"model": model, "step": step}


@asking(
    "Did everything that may train move, and nothing that is frozen?",
    "predibase.com/blog/unit-testing-machine-learning-code-in-ludwig",
    "`FROZEN` selects what does not require a gradient.",
    "with assert_updated(model), assert_unchanged(model, FROZEN):\n    step()",
)
def moved(right: bool) -> dict[str, Any]:
    model = _body_and_head()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        y = model(torch.ones(2, 3))
        if not right:
            y = y.detach() + 0 * sum(p.sum() for p in model[1].parameters())
        y.sum().backward()
        optimizer.step()

    return {"model": model, "step": step}


@asking(
    "Are frozen modules in eval mode while the rest trains?",
    "DLR-RM/stable-baselines3#553, chemprop/chemprop#952",
    "A BatchNorm in train mode moves its statistics, frozen or not.",
    'assert_frozen(model, "0", in_eval=True)',
)
def in_eval(right: bool) -> dict[str, Any]:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).train()
    model[0].requires_grad_(False).train(not right)
    return {"model": model}


@asking(
    "Which parameters are unused?",
    "discuss.pytorch.org/t/154506, anabel.icu/blog/unused-parameters-why-they-appear",
    "`loss(model)` returns a loss; the answer names each parameter, and why.",
    "assert_grads_reach(model, loss, allow_zero=True)",
)
def unused(right: bool) -> dict[str, Any]:
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

    def loss(model: Any) -> Tensor:
        hidden = model[0](torch.ones(1, 3))
        return (model[1](hidden) if right else hidden).sum()

    return {"model": model, "loss": loss}


@asking(
    "Does the EMA average parameters, and copy buffers?",
    "lucidrains/ema-pytorch#8",
    "`step()` trains the model and updates `ema`.",
    "with assert_averaged(ema, model, decay=0.99):\n    step()",
)
def averaged(right: bool) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    ema = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def step() -> None:
        model(torch.randn(8, 4) + 2)
        for mean, new in zip(ema.parameters(), model.parameters(), strict=True):
            new.add_(0.1)
            mean.lerp_(new, 0.01)
        named = (ema.named_buffers(), model.named_buffers())
        for (_, mean), (_, new) in zip(*named, strict=True) if right else ():
            mean.copy_(new)

    return {"model": model, "ema": ema, "step": step}


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, adds: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.adds = adds
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if ctx.adds:
            weight.main_grad += g.T @ x
        return g @ weight, None, None


class _FusedLinear(nn.Module):
    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.weight.main_grad = torch.zeros(4, 4)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        return _Fused.apply(x, self.weight, self.adds)


@asking(
    "Do fused kernels accumulate every weight's gradient?",
    "NVIDIA/TransformerEngine#287, AMD-AGI/Primus-Turbo#454",
    "Gradients lie in `main_grad`; `.grad` stays None.",
    'assert_grads_reach(model, loss, grad="main_grad")',
)
def fused(right: bool) -> dict[str, Any]:
    def loss(model: Any) -> Tensor:
        return model(torch.ones(3, 4, requires_grad=True)).square().sum()

    return {"model": nn.Sequential(_FusedLinear(True), _FusedLinear(right)), "loss": loss}


class _Delay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, store: list[Any]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.store = store
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        ctx.store.append((g, x))
        return g @ weight, None, None


class _Delayed(nn.Module):
    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.store: list[Any] = []
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        return _Delay.apply(x, self.weight, self.store)

    def backward_dw(self) -> None:
        g, x = self.store.pop()
        old = self.weight.grad
        self.weight.grad = g.T @ x if old is None or not self.adds else old + g.T @ x


@asking(
    "Do delayed weight gradients add up for a tied weight?",
    "NVIDIA/TransformerEngine#3437",
    "A second call computes them; `backward` makes both, on the model it is given.",
    "backward = lambda loss, model: (loss.backward(), model[2].backward_dw(), "
    "model[0].backward_dw())\n"
    "assert_tied_grads_sum(model, loss, backward=backward)",
)
def delayed(right: bool) -> dict[str, Any]:
    model = nn.Sequential(_Delayed(right), nn.Tanh(), _Delayed(right))
    model[2].weight = model[0].weight

    def loss(model: Any) -> Tensor:
        return model(torch.ones(3, 4, requires_grad=True)).square().sum()

    return {"model": model, "loss": loss}


QUESTIONS = [
    *(triangle, unused_block, frozen, moved, in_eval, unused, averaged, fused, delayed),
]
