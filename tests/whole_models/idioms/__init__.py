"""Small models as public code writes them: correct, each with a habit that a check might take ill.

Each is registered with what makes its inputs; nothing else is declared of any.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

FAMILIES = ("language", "vision", "training", "structure")

#: Each model with what makes its inputs.
MODELS: dict[str, tuple[type[nn.Module], Callable[[], Any]]] = {}


def model(inputs: Callable[[], Any]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a model with what makes its inputs."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        MODELS[cls.__name__] = cls, inputs
        return cls

    return register


def ids(high: int, *shape: int) -> Callable[[], Any]:
    return lambda: torch.randint(high, shape)


def rn(*shape: int) -> Callable[[], Any]:
    return lambda: torch.randn(shape)


def models() -> dict[str, tuple[type[nn.Module], Callable[[], Any]]]:
    """Return the models of all families."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return MODELS
