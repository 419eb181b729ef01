"""Bugs that an option of an assertion catches: other places of gradients, masters, own draws."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from pytest_paramcheck import (
    assert_checkpoint,
    assert_grads_reach,
    assert_init,
    assert_optimizer_state,
    assert_param_groups,
    assert_resumes,
    init,
)

from . import Catch, asserted, bug


class _Fused(torch.autograd.Function):
    """Adds its weight's gradient to ``main_grad``, as fused kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, writes: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.writes = writes
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if ctx.writes:
            weight.main_grad += grads[0].T @ x
        return grads[0] @ weight, None, None


class _FusedLinear(nn.Linear):
    def __init__(self, writes: bool = True) -> None:
        super().__init__(3, 3, bias=False)
        self.writes = writes
        self.weight.main_grad = torch.zeros(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return _Fused.apply(x, self.weight, self.writes)


@bug(
    "gradients",
    "fused layer that forgets to add to main_grad",
    asserted(
        assert_grads_reach,
        lambda model: model(torch.ones(2, 3, requires_grad=True)).sum(),
        grad="main_grad",
    ),
    "1.weight",
)
def fused_layer_forgets(planted: bool) -> nn.Module:
    return nn.Sequential(_FusedLinear(), _FusedLinear(writes=not planted))


def _masters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().float() for name, p in model.named_parameters()}


def with_masters(assertion: Callable[..., Any], *args: Any) -> Catch:
    def run(factory: Callable[[], Any]) -> None:
        model, masters, optimizer = factory()
        assertion(optimizer, model, *args, masters=masters)

    return Catch(assertion.__name__, run)


@bug(
    "optimizers",
    "master of a bias in the group that decays",
    with_masters(assert_param_groups, {"*.bias": {"weight_decay": 0}}),
    "1.bias",
)
def master_in_the_wrong_group(planted: bool) -> tuple[nn.Module, dict[str, Tensor], Any]:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).bfloat16()
    masters = _masters(model)
    decays = {"0.weight", "1.weight", *(["1.bias"] if planted else [])}
    groups: list[dict[str, Any]] = [
        {"params": [m for name, m in masters.items() if name in decays]},
        {"params": [m for name, m in masters.items() if name not in decays], "weight_decay": 0},
    ]
    return model, masters, torch.optim.AdamW(groups, weight_decay=0.1)


@bug(
    "optimizers",
    "moments of a master that were cast with the model",
    with_masters(assert_optimizer_state),
    "weight",
)
def moments_are_cast(planted: bool) -> tuple[nn.Module, dict[str, Tensor], Any]:
    model = nn.Linear(2, 2).bfloat16()
    masters = _masters(model)
    optimizer = torch.optim.AdamW(masters.values())
    for master in masters.values():
        master.grad = torch.ones_like(master)
    optimizer.step()
    if planted:
        state = optimizer.state[masters["weight"]]
        state["exp_avg"] = state["exp_avg"].bfloat16()
    return model, masters, optimizer


def _two_scales_(tensor: Tensor) -> None:
    """Half of the values narrow, half of them wide."""
    with torch.no_grad():
        tensor.normal_(std=0.02).mul_(torch.where(torch.rand_like(tensor) < 0.5, 3.0, 1.0))


@bug(
    "values",
    "layer that its own initializer was not asked for",
    asserted(assert_init, {"*.weight": init.like(_two_scales_)}),
    "1.weight",
)
def not_drawn_by_its_own(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    _two_scales_(model[0].weight)
    if not planted:
        _two_scales_(model[1].weight)
    return model


@bug(
    "values",
    "projection used as x @ w and drawn for the other side",
    asserted(assert_init, {"weight": init.kaiming_normal(nonlinearity="linear", fan_in=64)}),
    "weight",
)
def drawn_for_the_other_side(planted: bool) -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.empty(64, 512))
    stored_in_out = model.weight if planted else model.weight.t()
    nn.init.kaiming_normal_(stored_in_out, nonlinearity="linear")
    return model


def resumed() -> Catch:
    def run(factory: Callable[[], Any]) -> None:
        assert_resumes(*factory())

    return Catch(assert_resumes.__name__, run)


@bug("resuming", "schedule that a checkpoint leaves out", resumed(), "schedule")
def schedule_is_not_saved(planted: bool) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    class Schedule(torch.optim.lr_scheduler.LambdaLR):
        def state_dict(self) -> dict[str, Any]:
            return {} if planted else super().state_dict()

    def build() -> dict[str, Any]:
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = Schedule(optimizer, lambda step: 1 / (1 + step))
        return {"model": model, "optimizer": optimizer, "schedule": schedule}

    def step(objects: dict[str, Any]) -> None:
        objects["optimizer"].zero_grad()
        objects["model"](torch.ones(2, 3)).square().sum().backward()
        objects["optimizer"].step()
        objects["schedule"].step()

    return build, step


def published() -> Catch:
    def run(factory: Callable[[], Any]) -> None:
        change = factory()
        with tempfile.TemporaryDirectory() as above, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that there is no process group
            folder = Path(above) / "step1"
            dcp.save(nn.Linear(3, 2).state_dict(), checkpoint_id=folder, no_dist=True)
            change(folder)
            assert_checkpoint(folder)

    return Catch(assert_checkpoint.__name__, run)


@bug(
    "checkpoints",
    "folder of torch.distributed.checkpoint without one rank's file",
    published(),
    "__0_0.distcp",
)
def a_rank_s_file_is_missing(planted: bool) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if planted:
            (folder / "__0_0.distcp").unlink()

    return change
