"""A model with batch norm under DistributedDataParallel, on two ranks.

What goes wrong: a layer that is added, or swapped in, after the wrap is in nobody's bucket and
every rank trains its own; a backward pass inside ``no_sync()`` is the last one before the step;
the running statistics of a batch norm are each rank's own after a forward pass, and a checkpoint
that rank 1 writes holds others than one that rank 0 writes.

What the tests hold: parameters and gradients the same on every rank, before and after a step;
what is not synchronized found on every rank, by name; buffers that are rank 0's once more where
they are used.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pytest_paramcheck import ParamCheckError, assert_replicated, assert_unchanged

pytestmark = pytest.mark.params(ranks=2)
PARAMETERS = ("*.weight", "*.bias")


@pytest.fixture
def model() -> DistributedDataParallel:
    torch.manual_seed(dist.get_rank())  # DDP broadcasts rank 0's values, whatever they are
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return DistributedDataParallel(layers)


@pytest.fixture
def batch() -> Tensor:
    torch.manual_seed(100 + dist.get_rank())  # each rank its own part of the data
    return torch.rand(6, 4)


def step(model: nn.Module, batch: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def test_all_ranks_start_from_the_same(model: DistributedDataParallel) -> None:
    assert_replicated(model)


def test_all_ranks_stay_the_same(model: DistributedDataParallel, batch: Tensor) -> None:
    for _ in range(2):
        step(model, batch)
        assert_replicated(model, *PARAMETERS)


def test_running_statistics_are_each_rank_s_own_until_the_next_forward(
    model: DistributedDataParallel, batch: Tensor
) -> None:
    step(model, batch)
    with pytest.raises(ParamCheckError, match="running_mean"):
        assert_replicated(model, "*.running_mean", "*.running_var")
    model.eval()
    model(batch)  # broadcasts rank 0's buffers, and in eval mode does not change them
    assert_replicated(model)


def test_what_is_added_after_the_wrap_is_found(
    model: DistributedDataParallel, batch: Tensor
) -> None:
    torch.manual_seed(0)  # equal on all ranks: nothing is wrong yet
    model.module.append(nn.Linear(1, 1))
    assert_replicated(model)
    step(model, batch)
    with pytest.raises(ParamCheckError, match=r"4\.weight"):
        assert_replicated(model, *PARAMETERS)


def test_a_backward_that_was_not_synchronized_is_found(
    model: DistributedDataParallel, batch: Tensor
) -> None:
    with model.no_sync():
        model(batch).square().mean().backward()
    assert_replicated(model, *PARAMETERS, only=["values", "flags"])
    with pytest.raises(ParamCheckError, match="gradient"):
        assert_replicated(model, *PARAMETERS, only="grads")


def test_evaluation_changes_nothing(model: DistributedDataParallel, batch: Tensor) -> None:
    model.eval()
    with assert_unchanged(model):
        model(batch)
