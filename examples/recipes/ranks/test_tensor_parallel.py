"""Tensor parallelism against the plain model: the same values, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

pytestmark = pytest.mark.params(ranks=2, devices=["cpu"])


class MLP(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def plain() -> MLP:
    torch.manual_seed(0)
    return MLP()


def parallel() -> MLP:
    mesh = init_device_mesh("cpu", (2,))
    return parallelize_module(plain(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def loss_of(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return model(torch.randn(4, 8, generator=generator)).square().sum()


def test_it_is_sharded_as_planned(assert_placements, assert_same_values, assert_shapes) -> None:
    model = parallel()
    assert_placements(
        model, {"norm": None, "up": Shard(0), "down.weight": Shard(1), "down.bias": Replicate()}
    )
    assert_same_values(model, plain())
    assert_shapes(model, {"up.weight": (32, 8), "down.weight": (8, 32)}, partial=True)


def test_gradients_are_those_of_the_plain_model(
    assert_same_values, assert_grad_norm, assert_replicated
) -> None:
    model, reference = parallel(), plain()
    for one in (model, reference):
        loss_of(one).backward()
    grads = {name: p.grad for name, p in reference.named_parameters()}
    sharded = {name: p.grad for name, p in model.named_parameters()}
    assert_same_values(sharded, grads, rtol=1e-4, atol=1e-5)
    norm = float(nn.utils.get_total_norm(grads.values()))
    assert_grad_norm(model, at_least=0.999 * norm, at_most=1.001 * norm)
    assert_replicated(model)  # the norm, and the bias that every rank has


def test_a_step_keeps_the_replicas_alike(assert_updated, assert_replicated) -> None:
    model = parallel()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with assert_updated(model):
        loss_of(model).backward()
        optimizer.step()
    assert_replicated(model)
