"""The gradient of a tied parameter is the sum of what each use contributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from pytest_paramcheck import assert_tied_grads_sum

from .messages import demand_hidden, failure_lines, usage

TOKENS = torch.tensor([1, 2, 4])


class LM(nn.Module):
    """An embedding whose weight is the head's as well; ``read`` is how the head reads it."""

    def __init__(self, read: Callable[[Tensor], Tensor] = lambda weight: weight) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.emb.weight
        self.read = read
        with torch.no_grad():
            self.emb.weight.copy_(torch.arange(15.0).reshape(5, 3) / 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return linear(self.emb(tokens), self.read(self.head.weight))


def loss(model: Any) -> Tensor:
    return model(TOKENS).square().sum()


def test_a_tied_language_model() -> None:
    model = LM()
    assert_tied_grads_sum(model, loss)
    assert model.emb.weight.grad is None


def test_a_shared_module_with_dropout_between_its_uses() -> None:
    """Both runs draw the same mask: without that, no two gradients would be comparable."""
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Dropout(0.5), nn.Tanh(), layer)
    assert_tied_grads_sum(model, lambda m: m(torch.ones(2, 3)).sum())


def test_three_names_of_one_parameter() -> None:
    layers = [nn.Linear(3, 3, bias=False) for _ in range(3)]
    for layer in layers[1:]:
        layer.weight = layers[0].weight
    model = nn.Sequential(*layers)
    assert_tied_grads_sum(model, lambda m: m(torch.ones(2, 3)).square().sum())


def test_one_name_called_twice_is_one_use() -> None:
    class Twice(LM):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.emb(tokens)) + self.head(self.emb(tokens)).sin()

    assert_tied_grads_sum(Twice(), loss)


def test_in_every_dtype_and_with_checkpointing() -> None:
    assert_tied_grads_sum(LM().double(), loss)
    assert_tied_grads_sum(LM().bfloat16(), loss)

    def checkpointed(model: Any) -> Tensor:
        return checkpoint(model.head, model.emb(TOKENS), use_reentrant=False).square().sum()

    assert_tied_grads_sum(LM(), checkpointed)


def test_a_scaled_use_still_adds_up() -> None:
    """What the other use contributes is scaled before the sum, not after it."""
    assert_tied_grads_sum(LM(lambda weight: weight * 0.5), loss)


def test_a_hook_that_changes_the_sum() -> None:
    model = LM()
    model.emb.weight.register_hook(lambda grad: grad * 0.5)
    # The same numbers by hand: two Parameters of the same values, each with its own use.
    emb, head = (model.emb.weight.detach().clone().requires_grad_() for _ in range(2))
    linear(emb[TOKENS], head).square().sum().backward()
    total = emb.grad + head.grad
    worst = (total / 2).abs().argmax().item()
    assert failure_lines(assert_tied_grads_sum, model, loss) == [
        "gradient is not the sum of its uses: emb.weight, head.weight (LM)",
        "",
        f"  emb.weight                norm {emb.grad.norm().item():.4g}",
        f"  head.weight               norm {head.grad.norm().item():.4g}",
        f"  sum of the uses           norm {total.norm().item():.4g}",
        f"  gradient of the tied one  norm {total.norm().item() / 2:.4g}",
        f"  expected a difference of at most {tolerance(emb.grad, head.grad):.2g}, found "
        f"{total.abs().max().item() / 2:.4g} at [{worst // 3}, {worst % 3}]: a hook on the shared "
        "parameter changes its gradient",
    ]


def tolerance(*contributions: Tensor) -> float:
    """torch.testing's relative tolerance of the sum of the largest contributions."""
    return 1.3e-6 * sum(grad.abs().max().item() for grad in contributions)


def test_a_function_that_tells_the_uses_apart_by_their_parameter() -> None:
    """It gives each Parameter one gradient: half of what two uses of a tied one contribute."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, weight: Tensor, seen: set[int]) -> Tensor:
            ctx.first = id(weight) not in seen
            seen.add(id(weight))
            return weight.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            return grad if ctx.first else torch.zeros_like(grad), None

    class Counts(LM):
        def forward(self, tokens: Tensor) -> Tensor:
            seen: set[int] = set()
            hidden = Once.apply(self.emb.weight, seen)[tokens]
            return linear(hidden, Once.apply(self.head.weight, seen))

    lines = failure_lines(assert_tied_grads_sum, Counts(), loss)
    assert lines[0] == "gradient is not the sum of its uses: emb.weight, head.weight (Counts)"
    assert lines[-1].startswith("  hint: ")


def test_a_tied_one_that_gets_nothing_of_what_its_uses_contribute() -> None:
    class ByTie(LM):
        """Takes what is tied for frozen."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, tokens: Tensor) -> Tensor:
            tied = self.head.weight is self.emb.weight
            one, other = self.emb.weight, self.head.weight
            one, other = (one.detach(), other.detach()) if tied else (one, other)
            return self.scale * linear(one[tokens], other)

    lines = failure_lines(assert_tied_grads_sum, ByTie(), loss)
    assert lines[0] == "gradient is not the sum of its uses: emb.weight, head.weight (ByTie)"
    assert "  gradient of the tied one  norm 0" in lines


def test_a_detached_use_is_named() -> None:
    assert failure_lines(assert_tied_grads_sum, LM(Tensor.detach), loss) == [
        "one use gets no gradient: head.weight (LM)",
        "",
        "  head.weight  tied to emb.weight: detached by .detach() in LM",
        "",
        "  hint: use it without .detach() where it has to train",
    ]


@pytest.mark.parametrize("scale", [0.0, None], ids=["zeros", "no gradient"])
def test_a_sum_of_nothing_proves_nothing(scale: float | None) -> None:
    model = LM()
    model.scale = nn.Parameter(torch.ones(1))

    def silent(model: Any) -> Tensor:
        return model.scale.sum() if scale is None else scale * loss(model)

    what = "no gradient" if scale is None else "zero gradient"
    said = "reaches the loss" if scale is None else "has a nonzero gradient"
    assert failure_lines(assert_tied_grads_sum, model, silent) == [
        f"{what}: emb.weight, head.weight (LM)",
        "",
        f"  emb.weight, head.weight  no use of it {said}, so there is no sum to check",
        "",
        "  hint: assert_grads_reach(model, loss_fn) says why",
    ]


def test_a_silent_tie_beside_one_that_adds_up() -> None:
    """Each group for itself."""
    model = nn.ModuleDict({"a": LM(), "b": LM()})
    lines = failure_lines(assert_tied_grads_sum, model, lambda m: loss(m["a"]) + 0 * loss(m["b"]))
    assert lines[0] == "zero gradient: b.emb.weight, b.head.weight (ModuleDict)"


def test_uses_that_cancel_add_up() -> None:
    """Nothing is left of two contributions that are there: that is their sum."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    x = torch.ones(1, 3)
    assert_tied_grads_sum(model, lambda m: (m[0](x) - m[1](x)).sum())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_sum(value: float) -> None:
    word = "NaN" if value != value else "inf"

    def broken(model: Any) -> Tensor:
        return (model.emb.weight.sum() + model.head.weight.sum()) * value

    counted = f"15 of 15 values: 15 {word}, first at [0, 0]"
    assert failure_lines(assert_tied_grads_sum, LM(), broken) == [
        "gradient not finite: emb.weight, head.weight (LM)",
        "",
        f"  emb.weight                {counted}",
        f"  head.weight               {counted}",
        f"  gradient of the tied one  {counted}",
        "",
        "  hint: NaN and infinity do not say who was reached, because 0 x NaN is NaN: "
        "make the gradients finite first",
    ]


class Plain(nn.Module):
    """A tied model that can be scripted; the head can read a detached weight."""

    def __init__(self, detach: bool = False) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.emb.weight
        self.detach = detach

    def forward(self, tokens: Tensor) -> Tensor:
        if self.detach:
            return linear(self.emb(tokens), self.head.weight.detach())
        return self.head(self.emb(tokens))


@pytest.mark.parametrize("how", [torch.jit.script, lambda m: torch.jit.trace(m, TOKENS)])
def test_a_scripted_module(how: Callable[[nn.Module], nn.Module]) -> None:
    model = how(Plain())
    assert_tied_grads_sum(model, loss)
    assert model.emb.weight.grad is None  # not by way of the copy either
    shared = nn.Linear(3, 3)
    doubled = how(Plain())
    doubled.emb.weight.register_hook(lambda grad: grad * 2)
    lines = failure_lines(assert_tied_grads_sum, doubled, loss)
    assert lines[0].startswith("gradient is not the sum of its uses: emb.weight, head.weight (")
    if how is torch.jit.script:
        several = how(nn.Sequential(shared, nn.Tanh(), shared))
        assert_tied_grads_sum(several, lambda m: m(torch.ones(1, 3)).sum())


@pytest.mark.parametrize(
    ("make", "loss_fn", "message"),
    [
        pytest.param(
            lambda: nn.Linear(2, 2),
            loss,
            "Linear has no tied parameter that trains: there is no sum to check",
            id="no tie",
        ),
        pytest.param(
            lambda: LM().requires_grad_(False),
            loss,
            "LM has no tied parameter that trains: there is no sum to check",
            id="frozen",
        ),
        pytest.param(
            LM,
            lambda model: None,
            "there is no backward pass to compare: loss_fn returned None",
            id="no loss",
        ),
        pytest.param(
            LM,
            lambda model: torch.ones(()),
            "there is no backward pass to compare: loss_fn returned a loss without a graph "
            "(Tensor scalar float32 cpu)",
            id="no graph",
        ),
    ],
)
def test_usage(make: Callable[[], nn.Module], loss_fn: Any, message: str) -> None:
    assert usage(assert_tied_grads_sum, make(), loss_fn) == message


def test_an_error_of_the_loss_comes_through_and_nothing_is_left() -> None:
    model = LM()
    model.emb.weight.grad = kept = torch.ones(5, 3)

    def fails(model: nn.Module) -> Tensor:
        loss(model).backward()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        assert_tied_grads_sum(model, fails)
    assert model.emb.weight.grad is kept
    assert torch.equal(kept, torch.ones(5, 3))


def test_an_error_of_the_loss_shows_no_frame_of_ours() -> None:
    def raises(model: nn.Module) -> Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        assert_tied_grads_sum(LM(), raises)
    demand_hidden(caught.value)
