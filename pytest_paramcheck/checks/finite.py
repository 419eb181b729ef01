"""All values finite, with few kernel launches and one synchronisation per device.

The screen is the 2-norm of every tensor, taken in one call per dtype: squares never cancel,
so a NaN or an infinity always shows in it. A norm may also overflow where all values are
finite; those tensors, and only those, are looked at exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..findings import Finding, ParamCheckUsageError
from ..parameters.content import no_values, value_parts
from ..parameters.inventory import Entry
from ..wording import plural

#: What the fused norm takes as it is. Everything else is taken apart first.
_PLAIN_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
_PLAIN_TYPES = (nn.Parameter, Tensor)


def not_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the entries that hold a NaN or an infinity, with how many and where the first is."""
    asked = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    for entry, tensor in asked:
        if (type(tensor) not in _PLAIN_TYPES or tensor.is_meta) and (reason := no_values(tensor)):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
    finite = are_finite([tensor for _, tensor in asked])
    return [
        Finding(tuple(entry.names), "not finite", found=count_text(tensor))
        for (entry, tensor), fine in zip(asked, finite, strict=True)
        if not fine
    ]


def are_finite(tensors: Sequence[Tensor]) -> list[bool]:
    """Return for each tensor whether all its values are finite; integers always are.

    Waits for each device once, and once more for a device on which something is suspect.
    """
    finite = [True] * len(tensors)
    groups: dict[torch.device, dict[torch.dtype, list[tuple[int, Tensor]]]] = {}
    for index, tensor in enumerate(tensors):
        plain = type(tensor) in _PLAIN_TYPES and tensor.layout is torch.strided
        if plain and tensor.dtype in _PLAIN_DTYPES and tensor.is_contiguous():
            parts = [tensor]
        else:
            parts = [_unexpanded(part) for part in value_parts(tensor)]
        for part in parts:
            of_device = groups.setdefault(part.device, {})
            of_device.setdefault(part.dtype, []).append((index, part))
    with torch.no_grad():
        for by_dtype in groups.values():
            suspects: dict[torch.dtype, list[tuple[int, Tensor]]] = {}
            for index, part in _failing(by_dtype, _screen):
                suspects.setdefault(part.dtype, []).append((index, part))
            for index, _ in _failing(suspects, _exact):
                finite[index] = False
    return finite


def _failing(
    groups: dict[torch.dtype, list[tuple[int, Tensor]]],
    test: Callable[[list[Tensor]], Tensor],
) -> Iterable[tuple[int, Tensor]]:
    """Return the tensors of one device that fail a test, read back in one transfer."""
    items = [item for group in groups.values() for item in group]
    if not items:
        return ()
    passed = torch.cat([test([part for _, part in group]) for group in groups.values()]).tolist()
    return [item for item, fine in zip(items, passed, strict=True) if not fine]


def _screen(parts: list[Tensor]) -> Tensor:
    """Return one bool per tensor of one device and dtype: False may be a false alarm."""
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
    """Return ``3 of 66 values: 1 NaN, 2 inf, first at [0, 3]``."""
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
            total += values.numel()
            bad += int(where.sum())
            # The place is the user's own only where the tensor holds its values itself.
            if not first and values.shape == tensor.shape and values.dim() and bad:
                first = f", first at {where.nonzero()[0].tolist()}"
    said = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return f"{bad:,} of {plural(total, 'value')}: {said}{first}"
