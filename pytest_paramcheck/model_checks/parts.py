"""The inputs of a case: fresh copies, and each rank's part of them.

Tests: ``tests/unit/test_wrapped.py`` and ``test_case_run.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from ..messages.errors import ParamCheckUsageError


def fresh(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return copies of some inputs on a device; float32 ones in a dtype."""
    if isinstance(value, torch.Tensor):
        # float32 is what torch makes where nobody says what: it follows the test's choice.
        wanted = dtype if value.dtype is torch.float32 else value.dtype
        copied = value.detach().to(device=device, dtype=wanted, copy=True)
        return copied.requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: fresh(part, device, dtype) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(fresh(part, device, dtype) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(fresh(part, device, dtype) for part in value)
    return value


def own_part() -> tuple[int, int]:
    """Return this rank, of how many."""
    return dist.get_rank(), dist.get_world_size()


def part_of(value: Any, dim: int, part: tuple[int, int]) -> Any:
    """Return one of equal parts of every tensor in some inputs: which, of how many.

    Raises :class:`ParamCheckUsageError` where there are no equal parts.
    """
    if isinstance(value, torch.Tensor):
        number, ranks = part
        if not -value.dim() <= dim < value.dim() or value.shape[dim] % ranks:
            raise ParamCheckUsageError(
                f"ModelCase(split={dim}): an input of shape {tuple(value.shape)} has no {ranks} "
                f"equal parts along it"
            )
        size = value.shape[dim] // ranks
        return (
            value.detach()
            .narrow(dim, number * size, size)
            .clone()
            .requires_grad_(value.requires_grad)
        )
    if isinstance(value, Mapping):
        return {key: part_of(each, dim, part) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(part_of(each, dim, part) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(part_of(each, dim, part) for each in value)
    return value
