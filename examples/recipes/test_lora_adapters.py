"""LoRA: a frozen linear layer and a low-rank update beside it.

What goes wrong: B is not zero, and the adapted model starts as another model; the base is frozen
by a name that misses a layer, or an optimizer holds it and weight decay moves it; merging leaves
the update in twice. And a test that asks for a gradient everywhere is wrong at the first step:
B is zero, so A gets a gradient of zeros until B has moved.

What the tests hold: how A and B start; that the base stays bit-identical and everything else
trains; that A is silent at the first step and not after the second; that a merge changes the
weight and not the output.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, init, parametrize_with_param_checks

RANK = 4

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


class LoRALinear(nn.Module):
    """``base(x) + x A^T B^T``, with B zero at first."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(RANK, base.in_features))
        self.lora_b = nn.Parameter(torch.empty(base.out_features, RANK))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one linear layer that does the same; this one keeps its own weight."""
        layer = copy.deepcopy(self.base)
        layer.weight += self.lora_b @ self.lora_a
        return layer


def pretrained() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3))


def adapted() -> nn.Sequential:
    return nn.Sequential(*(LoRALinear(m) if isinstance(m, nn.Linear) else m for m in pretrained()))


def adapters_only(model: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def batch() -> Tensor:
    return torch.linspace(-1, 1, 5 * 8).reshape(5, 8)


def loss(model: nn.Module) -> Tensor:
    return (model(batch()) - 1).square().mean()


def train(model: nn.Module, steps: int = 1) -> None:
    optimizer = adapters_only(model)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


@pytest.fixture
def model() -> nn.Sequential:
    return adapted()


@parametrize_with_param_checks(
    ModelCase(
        adapted,
        inputs=batch,
        frozen=["*.base"],
        optimizer=adapters_only,
        steps=2,
        name="lora",
    )
)
def test_everything_that_holds_of_every_model(check):
    check()


@reads_values
def test_it_starts_as_the_pretrained_model(model, assert_init):
    assert_init(model, {"*.lora_a": init.kaiming_uniform(a=math.sqrt(5)), "*.lora_b": init.zeros()})

    base = nn.Sequential(*(getattr(m, "base", m) for m in model))
    assert torch.equal(model(batch()), base(batch()))


def test_the_base_is_frozen_and_nothing_else(model, assert_frozen):
    assert_frozen(model, exactly=["*.base"])


@reads_values
def test_training_leaves_the_base_bit_identical(model, assert_unchanged, assert_updated):
    with assert_unchanged(model, "*.base"), assert_updated(model):
        train(model, steps=2)


@reads_values
def test_a_is_silent_at_the_first_step(model, assert_grads_present):
    loss(model).backward()

    assert_grads_present(model, "*.lora_b")
    assert_grads_present(model, "*.lora_a", allow_zero=True)  # reached, with zeros
    assert not any(layer.lora_a.grad.any() for layer in model if isinstance(layer, LoRALinear))


@reads_values
def test_two_steps_together_reach_everything(model, assert_grads_reach):
    def second_step(model: nn.Module) -> Tensor:
        # What the first step does to B, written as a function: the loss of a model whose B
        # has moved. The union of both losses is what has to reach every adapter.
        moved = {
            name: parameter + 0.1 if name.endswith("lora_b") else parameter
            for name, parameter in model.named_parameters()
        }
        return (torch.func.functional_call(model, moved, (batch(),)) - 1).square().mean()

    assert_grads_reach(model, [loss, second_step])


def test_the_optimizer_holds_the_adapters(model, assert_optimizer_covers):
    assert_optimizer_covers(adapters_only(model), model)


@reads_values
def test_a_merge_changes_the_weight_and_not_the_output(model, assert_unchanged, assert_untied):
    train(model, steps=2)
    layer = model[0]

    with assert_unchanged(layer):
        merged = layer.merged()

    assert_untied(layer, merged)
    assert not torch.equal(merged.weight, layer.base.weight)
    torch.testing.assert_close(merged(batch()), layer(batch()))


@reads_values
def test_weight_decay_on_the_base_is_caught(model, assert_unchanged):
    # The mistake: everything trains in a first phase, and the base is frozen for the second
    # while the gradients are still there. The optimizer goes on with those.
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    loss(model).backward()
    for layer in model:
        if isinstance(layer, LoRALinear):
            layer.base.requires_grad_(False)

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, "*.base"):
        optimizer.step()

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "values changed: {0,2}.base.weight, {0,2}.base.bias (Sequential)"


@reads_values
def test_one_step_alone_is_caught(model, assert_grads_reach):
    with pytest.raises(ParamCheckError) as caught:
        assert_grads_reach(model, loss)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "zero gradient: {0,2}.lora_a (Sequential)"
