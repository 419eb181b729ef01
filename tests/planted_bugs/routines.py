"""Bugs of training routines: routers, clamps, averages, parameter groups, files."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    assert_averaged,
    assert_checkpoint,
    assert_optimizer_covers,
    assert_param_groups,
    assert_values,
    values,
)

from ..models import MLP
from . import Catch, asserted, bug, checked, rows

REACH = checked("check_grads_reach", inputs=rows)
STEP = checked("check_training_step", inputs=rows)


class Routed(nn.Module):
    """Two experts and a router, whose choice is weighted by its softmax, or by its argmax."""

    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.router, self.one, self.two = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(4, 3)
        self.hard = hard

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)
        if self.hard:
            share = nn.functional.one_hot(share.argmax(-1), 2).to(x.dtype)
        return share[:, :1] * self.one(x) + share[:, 1:] * self.two(x)


@bug("gradients", "router whose argmax has no gradient", REACH, "router.weight", "router.bias")
def hard_router(planted: bool) -> nn.Module:
    return Routed(hard=planted)


class Quantized(nn.Linear):
    """Rounds its output, with the gradient of what was rounded or with none."""

    def __init__(self, straight: bool) -> None:
        super().__init__(4, 3)
        self.straight = straight

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        rounded = (out * 4).round() / 4
        return out + (rounded - out).detach() if self.straight else rounded


@bug("gradients", "rounding without a straight-through estimator", REACH, "weight", "bias")
def rounded_output(planted: bool) -> nn.Module:
    return Quantized(straight=not planted)


class Gated(nn.Module):
    """A layer behind a sigmoid gate, open by half or shut for good."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.gate = nn.Parameter(torch.full((3,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) + self.lin(x) * torch.sigmoid(self.gate)


@bug("gradients", "gate that starts shut: a sigmoid that underflows", REACH, "gate")
def gate_shut(planted: bool) -> nn.Module:
    return Gated(-200.0 if planted else 0.0)


@bug("gradients", "hook that zeroes the gradient of a whole embedding", REACH, "emb.weight")
def hook_zeroes_all(planted: bool) -> nn.Module:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
            kept = (
                torch.zeros(4, 4)
                if planted
                else torch.ones(4, 4).index_fill(0, torch.tensor([0]), 0.0)
            )
            self.register_buffer("kept", kept)
            self.emb.weight.register_hook(lambda grad: grad * self.kept)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.emb(x))

    return Bag()


@bug(
    "gradients",
    "attention over a row in which everything is masked",
    checked("check_grads_finite", inputs=rows),
    "query.weight",
)
def all_masked(planted: bool) -> nn.Module:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.query(x) @ x.T
            seen = torch.ones_like(scores).tril(-1 if planted else 0)
            return (scores + seen.log()).softmax(-1) @ x

    return Attention()


class Renormed(nn.Module):
    """An embedding whose rows are shortened as they are read, frozen or not to be written."""

    def __init__(self, longest: float | None) -> None:
        super().__init__()
        self.emb = nn.Embedding(6, 4, max_norm=longest).requires_grad_(False)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))


@bug(
    "frozen",
    "frozen embedding that max_norm shortens in training",
    checked("check_training_step", inputs=torch.arange(6)),
    "emb.weight",
)
def frozen_but_shortened(planted: bool) -> nn.Module:
    return Renormed(0.5 if planted else None)


@bug("registered", "layers in a deque", checked("check_registered"), "recent[{0,1}].weight")
def layers_in_a_deque(planted: bool) -> nn.Module:
    model = MLP()
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    model.recent = nn.ModuleList(layers) if not planted else deque(layers)
    return model


@bug(
    "optimizer",
    "optimizer over a deep copy of the model",
    asserted(assert_optimizer_covers),
    "backbone.0.weight",
)
def optimizer_of_a_copy(planted: bool) -> tuple[Any, nn.Module]:
    model = MLP()
    held = copy.deepcopy(model) if planted else model
    return torch.optim.SGD(held.parameters(), lr=0.1), model


@bug(
    "optimizer",
    "head at the learning rate of the backbone",
    asserted(assert_param_groups, {"backbone": {"lr": 0.01}, "head": {"lr": 0.1}}),
    "head.weight",
    "head.bias",
)
def head_at_the_wrong_rate(planted: bool) -> tuple[Any, nn.Module]:
    model = MLP()
    groups = [
        {"params": [*model.backbone.parameters()]},
        {"params": [*model.head.parameters()], **({} if planted else {"lr": 0.1})},
    ]
    return torch.optim.SGD(groups, lr=0.01), model


def averaged(decay: float) -> Catch:
    def run(factory: Callable[[], Any]) -> None:
        ema, model, update = factory()
        with assert_averaged(ema, model, decay=decay):
            update()

    return Catch(assert_averaged.__name__, run)


@bug("training", "running average updated twice a step", averaged(0.9), "head.weight")
def averaged_twice(planted: bool) -> tuple[nn.Module, nn.Module, Callable[[], None]]:
    ema, model = MLP(), MLP()

    def update() -> None:
        with torch.no_grad():
            for _ in range(2 if planted else 1):
                for kept, now in zip(ema.parameters(), model.parameters(), strict=True):
                    kept.lerp_(now, 0.1)

    return ema, model, update


@bug("training", "running average that leaves a layer out", averaged(0.9), "head.weight")
def averaged_in_part(planted: bool) -> tuple[nn.Module, nn.Module, Callable[[], None]]:
    ema, model = MLP(), MLP()

    def update() -> None:
        with torch.no_grad():
            for (name, kept), now in zip(ema.named_parameters(), model.parameters(), strict=True):
                if not (planted and name.startswith("head")):
                    kept.lerp_(now, 0.1)

    return ema, model, update


@bug(
    "values",
    "log scale that a step has moved out of its bounds",
    asserted(assert_values, {"log_std": values.between(-5, 2)}),
    "log_std",
)
def log_scale_out_of_bounds(planted: bool) -> nn.Module:
    model = nn.Module()
    model.log_std = nn.Parameter(torch.full((3,), 2.5))
    if not planted:
        with torch.no_grad():
            model.log_std.clamp_(-5, 2)
    return model


@bug(
    "values",
    "pruning mask that training has filled again",
    asserted(assert_values, {"weight": values.zero_where(torch.eye(3).bool())}),
    "weight",
)
def mask_is_filled(planted: bool) -> nn.Module:
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.fill_diagonal_(1e-3 if planted else 0.0)
    return model


@bug(
    "values",
    "layer whose start depends on how many were built before it",
    checked("check_deterministic"),
    "weight",
)
def start_goes_on(planted: bool) -> nn.Module:
    model = nn.Linear(3, 2)
    if planted:
        nn.init.constant_(model.weight, next(STARTS))
    return model


STARTS = itertools.cycle([1.0, -1.0])


@bug(
    "structure",
    "running statistics made once, for every model",
    checked("check_built_anew"),
    "1.running_mean",
    "1.running_var",
)
def statistics_for_all(planted: bool) -> nn.Module:
    norm = SHARED_NORM if planted else nn.BatchNorm1d(4)
    return nn.Sequential(nn.Linear(4, 4), norm)


SHARED_NORM = nn.BatchNorm1d(4)


@bug(
    "sharing",
    "deep copy that shares a buffer with its original",
    checked("check_deepcopy"),
    "copy.table",
)
def copy_shares_a_buffer(planted: bool) -> nn.Module:
    class Tabled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.register_buffer("table", torch.linspace(0, 1, 4))

        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            if planted:
                memo[id(self.table)] = self.table
            twin = Tabled.__new__(Tabled)
            twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
            return twin

    return Tabled()


def published(name: str) -> Catch:
    """Caught in a file that the factory writes."""

    def run(factory: Callable[[], Any]) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            torch.save(factory(), path)
            assert_checkpoint(path)

    return Catch(name, run)


@bug(
    "checkpoints",
    "checkpoint of a slice that drags its whole storage along",
    published(assert_checkpoint.__name__),
    "first",
)
def drags_a_storage(planted: bool) -> dict[str, Tensor]:
    first = torch.ones(4096, 16)[:2]
    return {"first": first if planted else first.clone(), "last": torch.ones(3)}


@bug(
    "checkpoints",
    "NaN in a checkpoint that is to be published",
    published(assert_checkpoint.__name__),
    "scale",
)
def nan_in_a_file(planted: bool) -> dict[str, Tensor]:
    return {"scale": torch.tensor([1.0, torch.nan if planted else 2.0])}
