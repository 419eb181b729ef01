"""What is frozen and what trains, and what moves nevertheless."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pytest_paramcheck import assert_trainable, assert_unchanged

from ..models import LM, MLP, Scale
from . import asserted, bug, checked, during, rows, step


@bug(
    "frozen",
    "layer frozen by mistake",
    checked("check_frozen", frozen=[]),
    "head.weight",
    "head.bias",
)
def frozen_by_mistake(planted: bool) -> nn.Module:
    model = MLP()
    model.head.requires_grad_(not planted)
    return model


@bug("frozen", "backbone thawed", checked("check_frozen", frozen=["backbone"]), "backbone.0.weight")
def thawed(planted: bool) -> nn.Module:
    model = MLP()
    model.backbone.requires_grad_(planted)
    return model


@bug("frozen", "head frozen through its tie", asserted(assert_trainable, "head"), "head.weight")
def frozen_by_tie(planted: bool) -> nn.Module:
    model = LM()
    if not planted:
        model.head.weight = nn.Parameter(model.emb.weight.detach().clone())
    model.emb.requires_grad_(False)
    return model


@bug(
    "frozen", "parameter of integers, which nothing can train", asserted(assert_trainable), "scale"
)
def integer_parameter(planted: bool) -> nn.Module:
    value = torch.ones(4)
    return Scale(
        nn.Parameter(value.long(), requires_grad=False) if planted else nn.Parameter(value)
    )


@bug(
    "frozen",
    "BatchNorm of a frozen backbone left in train mode",
    during(assert_unchanged, "backbone"),
    "backbone.1.running_mean",
)
def batchnorm_drift(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP(norm=True)
    model.backbone.requires_grad_(False).train(planted)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    return model, lambda: step(model, optimizer)


@bug(
    "frozen",
    "weight decay moves what is frozen",
    during(assert_unchanged, "backbone"),
    "backbone.0.weight",
)
def decay_of_frozen(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    step(model, optimizer)
    # None is skipped by the optimizer, zeros are not.
    optimizer.zero_grad(set_to_none=not planted)
    model.backbone.requires_grad_(False)

    def train() -> None:
        model(rows()).sum().backward()
        optimizer.step()

    return model, train


@bug(
    "frozen",
    "soft update that writes to the wrong network",
    during(assert_unchanged),
    "head.weight",
)
def wrong_network(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    online, target = MLP(), MLP()
    source, goal = (target, online) if planted else (online, target)

    @torch.no_grad()
    def update() -> None:
        for mine, theirs in zip(goal.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    return online, update


@bug(
    "frozen",
    "reset that makes new Parameters",
    during(assert_unchanged, only="objects"),
    "head.weight",
)
def rebound(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()

    def reset() -> None:
        if planted:
            model.head.weight = nn.Parameter(torch.zeros(2, 4))
        else:
            nn.init.zeros_(model.head.weight)

    return model, reset


@bug(
    "frozen",
    "flags changed by a validation pass",
    during(assert_unchanged, only="flags"),
    "backbone.0.bias",
)
def flags_flipped(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()

    def validate() -> None:
        model.requires_grad_(False)
        model(rows())
        if not planted:
            model.requires_grad_(True)

    return model, validate


@bug(
    "frozen",
    "statistics of a frozen norm that move",
    checked("check_training_step", inputs=rows, frozen=["0"]),
    "0.running_mean",
)
def frozen_statistics(planted: bool) -> nn.Module:
    class Backbone(nn.Sequential):
        def train(self, mode: bool = True) -> Backbone:
            super().train(mode)
            if not planted:
                self[0].eval()
            return self

    model = Backbone(nn.BatchNorm1d(4).requires_grad_(False), nn.Linear(4, 2))
    return model.train()
