"""What a forward returned: its tensors, and a loss of them where none is declared.

Tests: ``tests/unit/test_case_run.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .case import NothingToCheck

if TYPE_CHECKING:
    from torch import Tensor


def projection(output: Any) -> Tensor:
    """Return a scalar that every floating value of an output moves: a fixed random projection.

    A plain sum will not do: it is constant behind a softmax or a LayerNorm, and every gradient
    before it is zero.
    """
    __tracebackhide__ = True
    import torch

    tensors = [t for t in tensors_of(output) if t.is_floating_point() or t.is_complex()]
    if not tensors:
        raise NothingToCheck("the output has no floating tensor to take a loss of; declare a loss")
    total = None
    for tensor in tensors:
        if not tensor.requires_grad:
            continue
        flat = tensor.abs() if tensor.is_complex() else tensor
        generator = torch.Generator(device="cpu").manual_seed(0)
        weights = torch.rand(flat.shape, generator=generator, device="cpu", dtype=torch.float32).to(
            device=flat.device, dtype=flat.dtype
        )
        term = (flat * weights).sum()
        total = term if total is None else total + term.to(total.device)
    if total is None:
        return tensors[0].sum()  # no graph: the check that runs it says why
    return total


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in what a forward returned: in mappings, sequences and other objects."""
    return _tensors(value, set())


def _tensors(value: Any, seen: set[int]) -> list[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif hasattr(value, "__dataclass_fields__"):
        parts = [getattr(value, name) for name in value.__dataclass_fields__]
    elif isinstance(value, (type, ModuleType, torch.nn.Module)):
        return []
    else:  # a distribution, a batch of a graph: what it is made of
        parts = list(getattr(value, "__dict__", {}).values())
    return [tensor for part in parts for tensor in _tensors(part, seen)]
