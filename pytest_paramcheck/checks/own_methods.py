"""What was lost where a class copies, moves, saves or loads in its own way: mostly by that.

Tests: ``tests/unit/test_own_methods.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..messages.findings import Finding
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.own_methods import OwnMethods


def with_own_methods(
    findings: Sequence[Finding], inventory: Inventory, methods: Sequence[str]
) -> list[Finding]:
    """Return findings of what was lost; those without a reason say who does it in its own way."""
    if not findings:
        return []
    own = OwnMethods(inventory, methods)
    return [
        finding if finding.why or finding.rows else replace(finding, why=own.around(finding.names))
        for finding in findings
    ]
