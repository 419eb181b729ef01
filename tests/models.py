"""The small models that most tests need; what a test plants in one stands in the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class LM(nn.Module):
    """An embedding and a head, tied or not; ``norm`` (a module class) stands between them.

    ``mask``: with a buffer that is not saved.
    """

    def __init__(
        self,
        *,
        tied: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
        mask: bool = False,
        vocab: int = 11,
        width: int = 6,
    ) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        if norm is not None:
            self.norm = norm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.emb.weight
        if mask:
            self.register_buffer("mask", torch.ones(2), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        return self.head(self.norm(x) if hasattr(self, "norm") else x)


def lm(*, tied: bool = True) -> LM:
    """A small LM with a norm, and a buffer that is not saved."""
    return LM(tied=tied, norm=nn.BatchNorm1d, mask=True, vocab=5, width=3)


class MLP(nn.Module):
    """A backbone and a head; the features go ``between`` them through a function."""

    def __init__(
        self, between: Callable[[Tensor], Tensor] | None = None, *, norm: bool = False
    ) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4) if norm else nn.Identity(), nn.Tanh()
        )
        self.head = nn.Linear(4, 2)
        if between is not None:
            self.between = between

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        return self.head(self.between(features) if hasattr(self, "between") else features)


class Scale(nn.Module):
    """A layer whose output is multiplied by ``scale``, however that is kept."""

    def __init__(self, scale: object = None) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        if scale is not None:
            self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) * self.scale


class IgnoresLoads(nn.Module):
    """Holds a tensor of any kind; a load says that it worked, and does nothing."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return nn.Module().load_state_dict({})
