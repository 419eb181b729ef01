"""How a DTensor lies on its mesh, in words and to be compared: no communication."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from .sharded import is_dtensor


def placements_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return the placements of a DTensor, one per mesh dimension; None for a plain tensor."""
    return tuple(tensor.placements) if is_dtensor(tensor) else None  # type: ignore[attr-defined]


def is_placement(value: object) -> bool:
    """Whether a value is one of torch's placements, which nobody has before they are imported."""
    module = sys.modules.get("torch.distributed.tensor.placement_types")
    return module is not None and isinstance(value, module.Placement)


def key_of(placement: Any, dimensions: int) -> tuple[str, object]:
    """Return what has to be equal for two placements to be one.

    ``_StridedShard(0)`` is what FSDP2 and tensor parallelism together make of ``Shard(0)``.
    """
    dim = getattr(placement, "dim", None)
    if dim is not None:
        return "Shard", int(dim) % max(dimensions, 1)
    if placement.is_partial():
        return "Partial", str(placement.reduce_op)
    return "Replicate", None


def placement_text(placement: Any, dimensions: int = 0) -> str:
    """Return ``Shard(0)``, ``Replicate()`` or ``Partial(sum)``."""
    kind, what = key_of(placement, dimensions or 1 << 30)
    return f"{kind}({'' if what is None else what})"


def placements_text(placements: tuple[Any, ...] | None) -> str:
    """Return ``plain``, ``Shard(0)`` or ``(Replicate(), Shard(0))``."""
    if placements is None:
        return "plain"
    said = [placement_text(placement) for placement in placements]
    return said[0] if len(said) == 1 else f"({', '.join(said)})"


def mesh_text(tensor: Tensor) -> str:
    """Return ``a mesh of 2x2``."""
    sizes = tensor.device_mesh.shape  # type: ignore[attr-defined]
    return f"a mesh of {'x'.join(map(str, sizes))}"
