"""All values finite: who holds a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.elements import elements
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.content import no_values
from ..parameters.tensors.finite import are_finite, count_text
from ..parameters.tensors.memory import PLAIN_TYPES, in_storage


def not_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the entries that hold a NaN or an infinity, with how many and where the first is."""
    whole = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    asked = whole
    try:
        if any(_may_hold_none(tensor) for _, tensor in whole):
            _require_values(whole)
        asked = [(entry, some) for entry in entries if (some := elements(entry)) is not None]
        tensors = [tensor for _, tensor in asked]
        verdicts = are_finite(tensors)
    except ParamCheckUsageError:
        raise
    except Exception:
        _require_values(whole)  # nested ones, and those of a torch.func transform
        raise
    return [
        Finding(tuple(entry.names), "not finite", found=count_text(tensor))
        for (entry, tensor), finite in zip(asked, verdicts, strict=True)
        if not finite
    ]


def _may_hold_none(tensor: Tensor) -> bool:
    if type(tensor) not in PLAIN_TYPES or tensor.is_meta or tensor.is_nested:
        return True
    # Reading memory that was freed ends the interpreter.
    return tensor.layout is torch.strided and not in_storage(tensor)


def _require_values(asked: Sequence[tuple[Entry, Tensor]]) -> None:
    for entry, tensor in asked:
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
