"""One report of a phase, made of all ranks': what failed, where, and what the others did."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_paramcheck.plugin.ranks.merge import merged
from pytest_paramcheck.plugin.ranks.outcome import LOST, Ending, How, Outcome
from pytest_paramcheck.plugin.ranks.parts import Parts
from pytest_paramcheck.plugin.ranks.texts import with_section


def of_call(outcome: Any = "passed", text: str | None = None, **said: object) -> pytest.TestReport:
    report = pytest.TestReport(
        nodeid="test_it.py::test_a[ranks=2]",
        location=("test_it.py", 0, "test_a"),
        keywords={},
        outcome=outcome,
        longrepr=text,
        when="call",
    )
    vars(report).update(said)
    return report


ITEM = cast(
    "pytest.Item",
    SimpleNamespace(
        nodeid="test_it.py::test_a[ranks=2]",
        location=("test_it.py", 0, "test_a"),
        keywords={},
        user_properties=[],
        reportinfo=lambda: ("test_it.py", 3, "test_a"),
    ),
)


def shown(outcome: Outcome) -> str:
    """What the one report of the call says, all of it."""
    report = merged(ITEM, outcome)["call"]
    assert report.failed
    return report.longreprtext


def of_two(**reports: pytest.TestReport) -> Outcome:
    outcome = Outcome(2)
    for name, report in reports.items():
        outcome.reports[int(name[-1])].append(report)
    outcome.phase_told = "call"
    return outcome


def test_a_rank_that_was_stopped_since_another_failed() -> None:
    outcome = of_two(rank1=of_call("failed", "ValueError: no"))
    outcome.endings[0] = Ending(How.STOPPED, "was stopped 2 s after another rank failed", True)

    assert shown(outcome) == (
        "[rank 1] ValueError: no\n___ rank 0 of 2 ___\nwas stopped 2 s after another rank failed"
    )


def test_who_ended_of_itself_is_named_before_who_waited() -> None:
    outcome = Outcome(3)
    outcome.phase_told = "call"
    outcome.endings[0] = Ending(How.HUNG, "did not finish in 5 s", waits=True)
    outcome.endings[1] = Ending(How.STOPPED, "was stopped", waits=True)
    outcome.endings[2] = Ending(How.DIED, "was killed by SIGKILL")

    assert shown(outcome).splitlines() == [
        "rank 2 was killed by SIGKILL",
        "rank 0 did not finish in 5 s",
        "rank 1 was stopped",
    ]


def test_a_lost_connection_is_the_echo_of_a_failure() -> None:
    echo = of_call("failed", "RuntimeError: Connection closed by peer", **{LOST: True})
    outcome = of_two(rank0=echo, rank1=of_call("failed", "ValueError: no"))

    assert shown(outcome) == (
        "[rank 1] ValueError: no\n"
        "___ rank 0 of 2 ___\n"
        "later: RuntimeError: Connection closed by peer"
    )


class Shown:
    """As pytest represents a failure: sections are added to it."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str, str]] = []

    def addsection(self, *section: str) -> None:
        self.sections.append(cast("tuple[str, str, str]", section))


def test_a_section_goes_to_what_takes_one_and_else_below_the_text() -> None:
    failure = Shown()

    assert with_section(failure, "rank 1", "passed") is failure
    assert failure.sections == [("rank 1", "passed", "_")]
    assert with_section("E  no", "rank 1", "passed") == "E  no\n___ rank 1 ___\npassed"


def with_part(report: pytest.TestReport) -> pytest.TestReport:
    """A report of a call in which one subtest passed and one failed."""
    parts = Parts()
    running = cast("Iterator[object]", parts.pytest_runtest_call())
    next(running)
    assert parts.running
    parts.pytest_runtest_logreport(of_call("passed"))
    parts.pytest_runtest_logreport(of_call("failed", "E  a part"))
    with pytest.raises(StopIteration):
        next(running)
    assert not parts.running
    parts.add_to(report)
    return report


def test_a_test_of_which_a_part_failed_has_failed() -> None:
    report = with_part(of_call("passed"))

    assert report.failed
    assert report.longreprtext == "contains 1 failed subtest\n___ test_a ___\nE  a part"


def test_what_the_test_itself_failed_with_stays() -> None:
    report = with_part(of_call("failed", "E  the whole"))

    assert report.longreprtext == "E  the whole\n___ test_a ___\nE  a part"
