"""All values finite: who holds a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.content import no_values
from ..parameters.tensors.finite import are_finite, count_text
from ..parameters.tensors.memory import PLAIN_TYPES


def not_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the entries that hold a NaN or an infinity, with how many and where the first is."""
    asked = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    tensors = [tensor for _, tensor in asked]
    if any(type(tensor) not in PLAIN_TYPES or tensor.is_meta for tensor in tensors):
        _require_values(asked)
    try:
        verdicts = are_finite(tensors)
    except Exception:
        _require_values(asked)  # nested ones, and those of a torch.func transform
        raise
    return [
        Finding(tuple(entry.names), "not finite", found=count_text(tensor))
        for (entry, tensor), finite in zip(asked, verdicts, strict=True)
        if not finite
    ]


def _require_values(asked: Sequence[tuple[Entry, Tensor]]) -> None:
    for entry, tensor in asked:
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
