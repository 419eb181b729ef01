"""Which devices a run really tested, so that a green run cannot lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from ..messages.wording import plural
from . import options
from .devices import meets


class Tally:
    """How many marked tests ran on each device, and how many were skipped, with the reasons."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, report: pytest.TestReport) -> None:
        """Count a test report: xdist sends the workers' ones home with their properties."""
        device = dict(report.user_properties).get("param_device")
        if not isinstance(device, str):
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[device] += 1
            self.reasons[reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call" or report.failed:
            self.ran[device] += 1

    def untested_devices(self, asked: Sequence[str], *, selected: bool = False) -> list[str]:
        """Return a line for each asked device on which no marked test ran though some were due.

        A suite without marked tests has none due: that is not a lie. Where the user ``selected``
        tests, those that are not in the run are missing on purpose: only skipped ones were due.
        """
        count = sum((self.skipped + self.ran).values())
        if not count:
            return []
        reasons = "; ".join(f"{n} skipped: {reason}" for reason, n in self.reasons.most_common(3))
        return [
            f"--param-device={device}: not one of {plural(count, 'marked test')} ran on it"
            f"{f' ({reasons})' if reasons else ''}"
            for device in asked
            if not _any_on(device, self.ran) and (not selected or self._skipped(device, asked))
        ]

    def _skipped(self, device: str, asked: Sequence[str]) -> bool:
        """Whether tests were skipped on a device, or because no asked device suited them."""
        unsuited = (d for d in self.skipped if not any(_any_on(name, [d]) for name in asked))
        return _any_on(device, self.skipped) or any(unsuited)


def _any_on(device: str, others: Iterable[str]) -> bool:
    return any(meets(device, other) or meets(other, device) for other in others)


class RunReport:
    """Registered where devices were asked for on the command line: fails a run that tested none."""

    def __init__(self, config: pytest.Config, asked: Sequence[str]) -> None:
        self._asked = asked
        self._tally = Tally()
        self._untested: list[str] = []
        # On xdist's controller nobody reports deselected tests, hence the options.
        self._selected = options.selects(config)

    def pytest_deselected(self) -> None:
        self._selected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tally.add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.shouldstop or session.shouldfail:
            return  # an interrupted run says nothing about the tests it did not come to
        self._untested = self._tally.untested_devices(self._asked, selected=self._selected)
        if session.exitstatus == pytest.ExitCode.OK and self._untested:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._untested:
            terminalreporter.write_line(f"ERROR: {line}", red=True, bold=True)
