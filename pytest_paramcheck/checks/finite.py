"""All values finite, with few kernel launches and one synchronisation per device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..findings import Finding, ParamCheckUsageError
from ..parameters.content import no_values
from ..parameters.inventory import Entry
from ..wording import plural


def not_finite(entries: Sequence[Entry]) -> list[Finding]:
    """Find the entries that hold a NaN or an infinity, with how many and where the first is."""
    findings = []
    for entry in entries:
        tensor = entry.tensor
        if tensor is None:
            continue
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
        if bool(torch.isfinite(tensor.detach()).all()):
            continue
        findings.append(Finding(tuple(entry.names), "not finite", found=count_text(tensor)))
    return findings


def count_text(tensor: Tensor) -> str:
    """Return ``3 of 66 values: 1 NaN, 2 inf, first at [0, 3]``."""
    values = tensor.detach()
    if values.layout is not torch.strided:
        values = values.to_dense()
    if values.is_complex():
        values = torch.view_as_real(values).sum(-1)
    if values.element_size() == 1:
        values = values.float()
    nan, inf = values.isnan(), values.isinf()
    parts = []
    for name, mask in (("NaN", nan), ("inf", inf & (values > 0)), ("-inf", inf & (values < 0))):
        if count := int(mask.sum()):
            parts.append(f"{count:,} {name}")
    first = (nan | inf).nonzero()[0].tolist()
    at = f", first at {first}" if first else ""
    return (
        f"{int((nan | inf).sum()):,} of {plural(values.numel(), 'value')}: {', '.join(parts)}{at}"
    )
