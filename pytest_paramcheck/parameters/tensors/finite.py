"""All values finite, with few kernel launches and one synchronization per device.

The screen is the 2-norm of every tensor, taken in one call per dtype: squares never cancel,
so a NaN or an infinity always shows in it. A norm may also overflow where all values are
finite; those tensors, and only those, are looked at exactly. Small tensors of one size are the
rows of one copy: a norm of each, one after the other, would take ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ...messages.wording import plural
from .content import broken_numbers, value_parts
from .memory import PLAIN_TYPES
from .sharded import index_in_whole, local_of, mesh_of

#: What the fused norm takes as it is. Everything else is taken apart first.
_PLAIN_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})

#: Tensors of so many elements are copied to be looked at together, if there are enough of them.
SMALL, ENOUGH = 1024, 8

#: A dtype, and how many elements the tensors have where these are few.
_Kind: TypeAlias = tuple[torch.dtype, int]
_Groups: TypeAlias = "dict[torch.device, dict[_Kind, _Group]]"


def are_finite(tensors: Sequence[Tensor]) -> list[bool]:
    """Return for each tensor whether all its values are finite; integers always are.

    Waits for each device once, and once more for a device on which something is suspect.
    """
    groups: _Groups = {}
    finite = [True] * len(tensors)
    for index, tensor in enumerate(tensors):
        if (
            type(tensor) in PLAIN_TYPES
            and tensor.layout is torch.strided
            and tensor.dtype in _PLAIN_DTYPES
            and tensor.is_contiguous()
        ):
            _add(groups, index, tensor)
        else:
            finite[index] = not broken_numbers(tensor)
            for part in value_parts(tensor):
                _add(groups, index, _unexpanded(part))
    with torch.no_grad():
        for device, by_kind in groups.items():
            suspects: _Groups = {}
            for index, part in _failing(by_kind, _screen):
                _add(suspects, index, part)
            for index, _ in _failing(suspects.get(device, {}), _exact):
                finite[index] = False
    return finite


class _Group:
    """Tensors of one device and kind, and to which question each belongs."""

    __slots__ = ("indices", "parts")

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.parts: list[Tensor] = []


def _add(groups: _Groups, index: int, part: Tensor) -> None:
    by_kind = groups.get(device := part.device)
    if by_kind is None:
        by_kind = groups[device] = {}
    size = part.numel()
    kind = (part.dtype, size if size <= SMALL else 0)
    group = by_kind.get(kind)
    if group is None:
        group = by_kind[kind] = _Group()
    group.indices.append(index)
    group.parts.append(part)


def _failing(
    groups: dict[_Kind, _Group], test: Callable[[list[Tensor]], Tensor]
) -> list[tuple[int, Tensor]]:
    """Return the tensors of one device that fail a test, read back in one transfer."""
    if not groups:
        return []
    passed = torch.cat([test(group.parts) for group in groups.values()]).tolist()
    if all(passed):
        return []
    items = [pair for g in groups.values() for pair in zip(g.indices, g.parts, strict=True)]
    return [item for item, fine in zip(items, passed, strict=True) if not fine]


def _screen(parts: list[Tensor]) -> Tensor:
    """Return one bool per tensor of one device and kind: False may be a false alarm."""
    size = parts[0].numel()
    if 0 < size <= SMALL and len(parts) >= ENOUGH and parts[0].element_size() > 1:
        flat = [part if part.dim() == 1 else part.reshape(-1) for part in parts]
        return torch.cat(flat).view(-1, size).isfinite().all(1)
    foreach_norm = getattr(torch, "_foreach_norm", None)  # private: it may go
    if foreach_norm is not None and parts[0].element_size() > 1:
        try:
            return torch.stack(foreach_norm(parts, 2)).isfinite()
        except (RuntimeError, TypeError):
            pass  # a backend without it for this dtype
    return _exact(parts)


def _exact(parts: list[Tensor]) -> Tensor:
    # isfinite is missing on some float8 types; all of them convert exactly.
    return torch.stack(
        [(part.float() if part.element_size() == 1 else part).isfinite().all() for part in parts]
    )


def _unexpanded(part: Tensor) -> Tensor:
    """Look at each element in memory once: an expanded scalar is one value."""
    for dimension, stride in enumerate(part.stride()):
        if stride == 0:
            part = part.narrow(dimension, 0, 1)
    return part


def count_text(tensor: Tensor) -> str:
    """Return ``3 of 66 values: 1 NaN, 2 inf, first at [0, 3]``, and what is beside the values."""
    total, bad, first = 0, 0, ""
    kinds = {"NaN": 0, "inf": 0, "-inf": 0}
    with torch.no_grad():
        for part in value_parts(tensor):
            values = part.float() if part.element_size() == 1 else part
            nan, inf = values.isnan(), values.isinf()
            # A complex infinity has no sign.
            below = inf & False if values.is_complex() else inf & (values < 0)
            for kind, mask in (("NaN", nan), ("inf", inf & ~below & ~nan), ("-inf", below)):
                kinds[kind] += int(mask.sum())
            where = nan | inf
            total += values.numel() if mesh_of(tensor) is None else tensor.numel()
            bad += int(where.sum())
            # The place is the user's own only where the tensor holds its values itself.
            if not first and values.shape == local_of(tensor).shape and values.dim() and bad:
                at = index_in_whole(tensor, where.nonzero()[0].tolist())
                first = f", first at {at}"
    said = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    of = plural(total, "value")
    if tensor.is_quantized:
        of = plural(total, "scale", "scales and zero points")
    texts = [f"{bad:,} of {of}: {said}{first}"] if bad else []
    return "; ".join([*texts, *broken_numbers(tensor)])
