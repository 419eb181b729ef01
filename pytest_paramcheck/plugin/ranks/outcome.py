"""What came of one test on its ranks: their reports, and how those ended that gave none."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any, NamedTuple

import pytest

PHASES = ("setup", "call", "teardown")
#: After these a rank waits for the others.
GATES = PHASES[:2]
#: Attributes that a rank adds to its reports: whether the phase raised, which a strict xfail that
#: passes does not; and whether what it raised is a connection that another rank has closed.
RAISED = "param_raised"
LOST = "param_lost"
#: What gloo says where another rank has closed its end.
_LOST = (
    *("Connection closed by peer", "Application timeout", "pair closure", "Connection reset"),
    "Timed out waiting",  # for a rank that hangs
)


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
        #: What a rank that was stopped had captured: to standard output, and error.
        self.captured: dict[int, tuple[str, str]] = {}
        #: The phase that this is about, where it is one alone.
        self.phase_told = ""
        #: Whether each rank's process group is the one the test was given.
        self.intact = True

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
        if self.phase_told:
            return self.phase_told
        return PHASES[min(len({report.when for report in self.reports[rank]}), 2)]

    def goes_on(self, phase: str, ranks: Collection[int]) -> bool | None:
        """Return whether ranks that have ended a phase go on as if nothing had happened.

        None where they have to wait for others that are in it: no rank's test begins before all
        are set up, and none is torn down before all have run, or one has failed. So it does not
        depend on who is faster which phase a failure belongs to.
        """
        reports = self.of_phase(phase)
        if self.failed:
            return False
        if reports.keys() < set(ranks):
            return None
        return len({report.outcome for report in reports.values()}) == 1

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


def note_of_call(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Let the report of a phase say what only its call knows."""
    text = str(call.excinfo.value) if call.excinfo is not None else ""
    setattr(report, RAISED, call.excinfo is not None)
    setattr(report, LOST, any(words in text for words in _LOST))


def is_bad(report: pytest.TestReport) -> bool:
    """Whether a phase failed, or raised what was expected."""
    return report.failed or (report.skipped and hasattr(report, "wasxfail"))
