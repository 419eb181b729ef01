"""What a run really tested, so that a green run cannot lie: devices, numbers of ranks.

And why a test was run on meta.

Tests: ``tests/unit/test_device_report.py``, ``tests/integration/test_absent.py``,
``test_workers.py``, ``test_ranks.py`` and ``test_misuse.py``.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence

import pytest

from ..messages.errors import ParamCheckError
from ..messages.wording import plural
from .devices import meets
from .marked import support_of
from .properties import DEVICE, NOT_ON, RANKS, own_properties
from .session import session_of


class Tally:
    """How many marked tests ran on each device, and how many were skipped, with the reasons.

    ``of`` is the property that names what is counted, ``meet`` whether one name means another.
    """

    def __init__(
        self,
        of: str = DEVICE,
        meet: Callable[[str, str], object] = meets,
        option: str = "--param-device",
    ) -> None:
        self._of = of
        self._meet = meet
        self._option = option
        self.ran: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        #: Of the counted ones, those that are not due on a device.
        self.not_due: Counter[str] = Counter()

    def add(self, report: pytest.TestReport) -> None:
        """Count a test report: xdist sends the workers' ones home with their properties."""
        properties = own_properties(report)
        device = properties.get(self._of)
        if device is None:
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[device] += 1
            self.reasons[reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call" or report.failed:
            self.ran[device] += 1
        else:
            return
        self.not_due.update(filter(None, properties.get(NOT_ON, "").split(",")))

    def untested(self, asked: Sequence[str], *, selected: bool = False) -> list[str]:
        """Return a line for each asked device on which no marked test ran though some were due.

        A suite without marked tests has none due: that is not a lie. No more has one whose tests
        all say that they do not support the device (``"!meta"``). Where the user ``selected``
        tests, those that are not in the run are missing on purpose: only skipped ones were due.
        """
        count = sum((self.skipped + self.ran).values())
        reasons = "; ".join(f"{n} skipped: {reason}" for reason, n in self.reasons.most_common(3))
        return [
            f"{self._option}={device}: none of the {plural(due, 'marked test')} ran on it"
            f"{f' ({reasons})' if reasons else ''}"
            for device in asked
            if (due := count - self.not_due[device])
            and not self._any_on(device, self.ran)
            and (not selected or self._skipped(device, asked))
        ]

    def _skipped(self, device: str, asked: Sequence[str]) -> bool:
        """Whether tests were skipped on a device, or because no asked device suited them."""
        unsuited = (d for d in self.skipped if not any(self._any_on(name, [d]) for name in asked))
        return self._any_on(device, self.skipped) or any(unsuited)

    def _any_on(self, device: str, others: Iterable[str]) -> bool:
        return any(self._meet(device, other) or self._meet(other, device) for other in others)


class MetaReport:
    """Registered where meta was chosen: says so of a test that failed there."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[object]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and call.excinfo is not None and (why := _why(item, call.excinfo.value)):
            report.sections.append(("paramcheck", why))
        return report


def _why(item: pytest.Item, error: BaseException) -> str:
    """Return which option brought a test to meta, where its marker did not ask for it."""
    session = session_of(item.config)
    if session.running is None or session.running.device.type != "meta":
        return ""
    if isinstance(error, ParamCheckError) or not isinstance(item, pytest.Function):
        return ""  # what was found on meta was found, and a model has no marker
    support = support_of(item)
    if support is None or (support.devices and support.devices[0][0] != "!"):
        return ""
    origin = "--param-device" if session.settings.asked else "param_devices (ini)"
    return (
        f"run on meta because of {origin}; if it reads values: "
        f'@pytest.mark.{session.settings.marker}(devices=["!meta"])'
    )


class RunReport:
    """Registered where something was asked for on the command line: fails a run without it.

    ``devices`` and ``ranks`` are what was asked for.
    """

    def __init__(
        self,
        devices: Sequence[str],
        ranks: Sequence[str] = (),
        *,
        selected: bool,
        option: str = "--param-ranks",
    ) -> None:
        self._tallies = [(devices, Tally()), (ranks, Tally(RANKS, operator.eq, option))]
        self._untested: list[str] = []
        # On xdist's controller nobody reports deselected tests, hence the options.
        self._selected = selected

    def pytest_deselected(self) -> None:
        self._selected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for _, tally in self._tallies:
            tally.add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.shouldstop or session.shouldfail:
            return  # an interrupted run says nothing about the tests it did not come to
        self._untested = [
            line
            for asked, tally in self._tallies
            for line in tally.untested(asked, selected=self._selected)
        ]
        if session.exitstatus == pytest.ExitCode.OK and self._untested:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._untested:
            terminalreporter.write_line(f"ERROR: {line}", red=True, bold=True)
