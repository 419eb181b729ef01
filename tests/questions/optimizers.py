"""Questions about what an optimizer holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import asking


@asking(
    "Is every trainable parameter in the optimizer once, and with which settings?",
    "facebookresearch/mmf#104, Tencent/YOLO-Master#186",
    "The first line fails where one is not; the second shows groups, sizes and settings.",
    "assert_optimizer_covers(optimizer, model)\nprint(param_table(model, optimizer=optimizer))",
)
def covers(right: bool) -> dict[str, Any]:
    model = nn.Linear(3, 2)
    held = model.parameters() if right else [model.weight]
    return {"model": model, "optimizer": torch.optim.SGD(held, lr=0.1)}


@asking(
    "Which learning rate does each layer get?",
    "discuss.pytorch.org/t/65128",
    "Settings are those each parameter really gets, whatever its group.",
    'assert_param_groups(optimizer, model, {"0": {"lr": 0.01}, "1": {"lr": 0.1}})',
)
def rates(right: bool) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    body = {"params": model[0].parameters(), "lr": 0.01 if right else 0.1}
    optimizer = torch.optim.SGD([body, {"params": model[1].parameters()}], lr=0.1)
    return {"model": model, "optimizer": optimizer}


@asking(
    "Has every bfloat16 parameter its float32 master?",
    "TensorAuto/OpenTau#184",
    "The optimizer holds masters, and none of the model's own parameters.",
    "assert_optimizer_covers(optimizer, model, masters=True)",
)
def masters(right: bool) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).bfloat16()
    copies = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(copies if right else copies[:-1], lr=0.1)
    return {"model": model, "optimizer": optimizer}


QUESTIONS = [covers, rates, masters]
