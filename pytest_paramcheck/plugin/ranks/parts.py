"""Subtests in a rank: a report of a part of a phase is not that of the phase.

pytest counts the failures of parts where it shows a report. Where ranks run that is another
process, so the report of the phase says them.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ...messages.wording import plural
from .outcome import RAISED
from .texts import with_section


class Parts:
    """Registered in a rank: knows whether a report is of a part, and keeps what parts failed."""

    def __init__(self) -> None:
        #: Whether the test is running: what is reported meanwhile is a part of it.
        self.running = False
        self._failed: list[pytest.TestReport] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        self.running = True
        try:
            return (yield)
        finally:
            self.running = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.running and report.failed:
            self._failed.append(report)

    def add_to(self, report: pytest.TestReport) -> None:
        """Let the report of the phase say what its parts failed with."""
        parts, self._failed = self._failed, []
        if not parts:
            return
        if not report.failed:
            report.outcome = "failed"
            report.longrepr = f"contains {plural(len(parts), 'failed subtest')}"
        setattr(report, RAISED, True)
        for part in parts:
            title = part.head_line or "subtest"
            report.longrepr = with_section(report.longrepr, title, part.longreprtext)
