"""The failures of the harness's own, as pytest shows a failure, and ranks in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def ranks_text(ranks: Iterable[int], of: int | None = None) -> str:
    """Return ranks in words: ``rank 1``, ``ranks 0,2``, ``every rank`` where they are all."""
    listed = sorted(ranks)
    if of is not None and len(listed) == of:
        return "every rank"
    said = ",".join(map(str, listed))
    return f"rank {said}" if len(listed) == 1 else f"ranks {said}"


def shown_failure(text: str, place: str, line: int) -> Any:
    """Return a text as pytest represents a failure: its first line is in the short summary."""
    try:
        raise pytest.fail.Exception(text, pytrace=False)
    except pytest.fail.Exception as raised:
        shown = pytest.ExceptionInfo.from_exception(raised).getrepr(style="value")
    crash = shown.reprcrash
    if crash is not None:
        crash.message, crash.path, crash.lineno = text, place, line
    return shown


def crash_of(longrepr: Any) -> Any:
    """Return where a failure is and what it says in one line; None for a plain text."""
    return getattr(longrepr, "reprcrash", None)


def first_line_of(longrepr: Any) -> str:
    """Return what a failure says, in one line."""
    crash = crash_of(longrepr)
    text = crash.message if crash is not None else str(longrepr).strip()
    return str(text).strip().partition("\n")[0]


def with_section(longrepr: Any, title: str, text: str) -> Any:
    """Add a section to what a failure says."""
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(title, text, "_")
        return longrepr
    return f"{longrepr}\n___ {title} ___\n{text}"
