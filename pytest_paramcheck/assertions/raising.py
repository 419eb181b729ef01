"""The last step of every assertion."""

from __future__ import annotations

from collections.abc import Iterable

from ..messages.findings import Finding, ParamCheckError


def raise_if(findings: Iterable[Finding], subject: str) -> None:
    """Raise :class:`ParamCheckError` with all findings, if there are any."""
    __tracebackhide__ = True
    found = tuple(findings)
    if found:
        raise ParamCheckError(found, subject)
