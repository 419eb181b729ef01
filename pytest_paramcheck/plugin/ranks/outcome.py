"""What came of one test on its ranks: their reports, and how those ended that gave none."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import pytest

PHASES = ("setup", "call", "teardown")
#: Attributes that a rank adds to its reports: whether the phase raised, which a strict xfail that
#: passes does not; and whether what it raised is a connection that another rank has closed.
RAISED = "param_raised"
LOST = "param_lost"


class How(Enum):
    """How a rank ended that did not finish a test, the one that says most first."""

    DIED = 0
    HUNG = 1
    STOPPED = 2


class Ending(NamedTuple):
    """The end of a rank that did not finish a test."""

    how: How
    #: For people: ``was killed by SIGKILL``.
    said: str
    #: Whether it waited for other ranks.
    waits: bool = False


class Outcome:
    """What came of one test."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.reports: dict[int, list[pytest.TestReport]] = {rank: [] for rank in range(ranks)}
        self.endings: dict[int, Ending] = {}
        #: What a rank that ended had written outside of pytest.
        self.tails: dict[int, str] = {}
        #: Whether each rank's process group is the one the test was given.
        self.intact = True
        #: Why the test was not run at all.
        self.not_run = ""

    def of_phase(self, phase: str) -> dict[int, pytest.TestReport]:
        """Return the report of each rank that has one."""
        return {
            rank: report
            for rank, reports in self.reports.items()
            for report in reports
            if report.when == phase
        }

    def phase_of_ending(self, rank: int) -> str:
        """Return the phase in which a rank ended: the one after its last report."""
        return PHASES[min(len({report.when for report in self.reports[rank]}), 2)]

    @property
    def survives(self) -> bool:
        """Whether the ranks can run another test."""
        return self.intact and not self.endings

    @property
    def failed(self) -> bool:
        """Whether any rank failed, as expected or not."""
        return bool(self.endings) or any(map(is_bad, self._all()))

    def _all(self) -> Iterator[pytest.TestReport]:
        for reports in self.reports.values():
            yield from reports


def is_bad(report: pytest.TestReport) -> bool:
    """Whether a phase failed, or raised what was expected."""
    return report.failed or (report.skipped and hasattr(report, "wasxfail"))
