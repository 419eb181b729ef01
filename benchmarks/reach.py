"""What assert_grads_reach costs on top of the forward and backward pass it has to run.

python benchmarks/reach.py
"""

from __future__ import annotations

import functools
import sys

import torch
from timing import Row, alternate, median, paired_ratio, show
from torch import Tensor, nn

from pytest_paramcheck import assert_grads_reach

BUDGET = 1.5  # our own: the design names none for this row


class Residual(nn.Module):
    """Two convolutions and their norms around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


def transformer() -> tuple[nn.Module, Tensor]:
    """Twelve layers, 128 wide, a batch of 8 sequences of 64."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), torch.randn(8, 64, 128)


def cnn() -> tuple[nn.Module, Tensor]:
    """Eight residual blocks of width 32, a batch of 8 images of 32x32."""
    blocks = [Residual(32) for _ in range(8)]
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *blocks), torch.randn(8, 3, 32, 32)


def loss(batch: Tensor, model: nn.Module) -> Tensor:
    return model(batch).square().mean()


def bare(model: nn.Module, batch: Tensor) -> None:
    """What a user runs anyway."""
    loss(batch, model).backward()
    model.zero_grad()


def main() -> int:
    rows = []
    for name, (model, batch) in {"12-layer transformer": transformer(), "CNN": cnn()}.items():
        checked, plain = alternate(
            7,
            functools.partial(assert_grads_reach, model, functools.partial(loss, batch)),
            functools.partial(bare, model, batch),
        )
        ratio = paired_ratio(checked, plain)
        what = f"{name}: reach against {median(plain) * 1e3:.0f} ms of forward and backward"
        rows.append(Row(what, f"{ratio:.2f}x", f"{BUDGET}x", ratio <= BUDGET))
    return 0 if show(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
