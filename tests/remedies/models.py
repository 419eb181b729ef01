"""What several remedies are applied to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ROW = torch.linspace(-1, 1, 4).reshape(1, 4)


def loss(model: nn.Module) -> Tensor:
    output: Tensor = model(ROW).square().sum()
    return output


class Spare(nn.Linear):
    """A layer with a part that forward does not use, or multiplies by zero."""

    def __init__(self, use: Callable[[nn.Module, Tensor], Any] | None = None) -> None:
        super().__init__(4, 2)
        self.spare = nn.Linear(4, 2)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        return output if self.use is None else output + self.use(self.spare, x)


class Zeros(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def root(model: nn.Module) -> Tensor:
    return loss(model) + (model(ROW) * 0).sum().sqrt()


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})
