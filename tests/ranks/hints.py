"""What a hint about ranks says is done, on real ranks: the same call passes then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import pytest_paramcheck as pc
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .cells import cell, on_rank_1, step
from .wrapped import local, plain

ONE_RANK = "let one rank step it"
EVERY_RANK = "step on every rank, and load the state on each of them"
OWN_SEED = "seed each rank by itself: torch.manual_seed(seed + dist.get_rank())"
OF_THE_WRAPPED = "the optimizer has to be built of the wrapped model's parameters"


def fails_with(hint: str, call: Callable[[], object]) -> None:
    """Demand that a call fails, on every rank, with this hint."""
    with pytest.raises(pc.ParamCheckError) as caught:
        call()
    assert hint in {finding.hint for finding in caught.value.findings}, str(caught.value)


def _stepped() -> tuple[nn.Module, Any, Callable[[], None]]:
    model = DistributedDataParallel(plain())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.1)
    step("ddp", model, optimizer)
    return model, optimizer, lambda: pc.assert_optimizer_state(optimizer, model)


@cell(f"hints/{ONE_RANK}", "pass")
def _() -> None:
    model, optimizer, call = _stepped()
    own = optimizer.optim
    other = next(p for p in model.parameters() if p not in own.state)
    state = {"step": torch.ones(()), "exp_avg": other.data * 0, "exp_avg_sq": other.data * 0}

    def step_it_too() -> None:
        own.param_groups[0]["params"].append(other)
        own.state[other] = state

    def leave_it() -> None:
        own.param_groups[0]["params"].pop()
        own.state.pop(other)

    on_rank_1(step_it_too)
    fails_with(ONE_RANK, call)

    on_rank_1(leave_it)
    call()


@cell(f"hints/{EVERY_RANK}", "pass")
def _() -> None:
    model, optimizer, call = _stepped()
    on_rank_1(optimizer.optim.state.clear)

    fails_with(EVERY_RANK, call)

    step("ddp", model, optimizer)
    call()


@cell(f"hints/{OWN_SEED}", "pass")
def _() -> None:
    model = fully_shard(nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)))

    def draw(seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                local(parameter).normal_()

    draw(3)
    fails_with(OWN_SEED, lambda: pc.assert_distinct(model))

    draw(3 + dist.get_rank())
    pc.assert_distinct(model)


@cell(f"hints/{OF_THE_WRAPPED}", "pass")
def _() -> None:
    before: list[nn.Parameter] = []

    def wrap(model: nn.Module) -> nn.Module:
        before[:] = model.parameters()
        return fully_shard(model)

    def steps(parameters: Callable[[nn.Module], Any]) -> Callable[[], None]:
        case = pc.ModelCase(
            lambda: nn.Linear(4, 2),
            inputs=torch.linspace(-1, 1, 16).view(4, 4),
            wrap=wrap,
            split=0,
            optimizer=lambda model: torch.optim.SGD(parameters(model), lr=0.1),
            name="model",
        )
        return lambda: run_check(pc.CHECKS["check_step"], CaseRun(case))

    def built_before(model: nn.Module) -> Any:
        wrapped = isinstance(next(model.parameters()), DTensor)
        return before if wrapped else model.parameters()

    fails_with(OF_THE_WRAPPED, steps(built_before))

    steps(lambda model: model.parameters())()
