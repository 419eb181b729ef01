"""From which operation on gradients are not finite, and what to do about it.

Tests: ``tests/unit/test_broken_at.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..messages.findings import Finding
from ..parameters.running.reasons import Reason
from .reach import place_text

#: Their derivative is infinite, or not there, at zero.
_STEEP = frozenset({"sqrt", "rsqrt", "log", "log2", "log10", "reciprocal", "pow", "norm", "acos"})
_SOFTMAX = frozenset({"softmax", "log_softmax", "scaled_dot_product_attention"})


def with_operations(findings: Sequence[Finding], reasons: Sequence[Reason]) -> list[Finding]:
    """Return findings of gradients that are not finite; where it was seen, from what on."""
    return [
        _from(finding, reason) if _is_seen(reason) else finding
        for finding, reason in zip(findings, reasons, strict=True)
    ]


def _is_seen(reason: Reason) -> bool:
    return reason.kind == "nonfinite" and reason.place is not None and bool(reason.place.operation)


def _from(finding: Finding, reason: Reason) -> Finding:
    if reason.place is None:
        return finding
    operation = reason.place.operation
    at = operation + place_text(reason.place, finding.names[0])
    hint = ""
    if operation in _STEEP:
        hint = f"keep what {operation} gets away from 0: x.clamp_min(1e-6), or x + 1e-6"
    elif operation in _SOFTMAX:
        hint = f"leave one value of each row unmasked: {operation} of nothing but -inf is NaN"
    return replace(finding, why=f"made by the backward of {at}", hint=hint)
