"""All values finite: who holds a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Sequence

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.content import no_values
from ..parameters.tensors.finite import PLAIN_TYPES, are_finite, count_text


def not_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the entries that hold a NaN or an infinity, with how many and where the first is."""
    asked = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    tensors = [tensor for _, tensor in asked]
    if any(type(tensor) not in PLAIN_TYPES or tensor.is_meta for tensor in tensors):
        for entry, tensor in asked:
            if reason := no_values(tensor):
                raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
    return [
        Finding(tuple(entry.names), "not finite", found=count_text(tensor))
        for (entry, tensor), finite in zip(asked, are_finite(tensors), strict=True)
        if not finite
    ]
