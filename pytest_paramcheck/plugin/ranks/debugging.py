"""``--pdb`` and ``--trace``: pytest itself is rank 0, where the terminal is; others are started.

A debugger can hold this process for hours, so nothing has a limit while it runs the test. A rank
that fails takes its process group away at once, which wakes this process out of a collective;
what it said is in the report of the teardown, without an exception that a debugger opens in.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ..marked import ranks_of, variant_of
from ..session import session_of
from .group import RankGroup
from .merge import failure_of
from .outcome import LOST, How, Outcome
from .pool import GRACE, Pool, said_of
from .pools import Pools
from .start import DAY
from .texts import first_line_of, ranks_text

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


class _Test(NamedTuple):
    """What the test that runs was given."""

    pool: Pool
    group: RankGroup
    #: What the environment held before.
    before: dict[str, str | None]


class RanksDebug(Pools):
    """Registered where a debugger was asked for: this process runs the tests as rank 0."""

    def __init__(self, config: pytest.Config, items: Any) -> None:
        super().__init__(config, items, first=1)
        self._test: _Test | None = None
        self._failed = False
        self._said = ""

    @pytest.hookimpl  # after skip and xfail are decided, before the first fixture
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        ranks = ranks_of(item)
        self._failed, self._said = False, ""
        if ranks is None:
            return
        pool = self.of(ranks)
        started = pool.wait_until_ready()
        if started.endings:
            self.close(ranks, kill=True)
            pytest.fail(said_of(started), pytrace=False)
        if problem := self.not_collected(item, pool, ranks):
            pytest.fail(problem, pytrace=False)
        number = pool.begin(item.nodeid, self.after(item, ranks))
        names = pool.starts.names(0)
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)

        def store(name: str) -> Store:
            import torch.distributed as dist

            file = str(Path(pool.starts.folder, f"store{name}"))
            made: Store = dist.FileStore(file, ranks)  # type: ignore[attr-defined]
            return made

        group = RankGroup(0, ranks, store, timedelta(seconds=DAY))
        self._test = _Test(pool, group, before)
        variant = variant_of(item)
        device = variant.device if variant is not None else "cpu"
        group.enter(number, session_of(item.config).machine.device(device).type)
        joined = pool.join()
        if joined.endings:
            self.close(ranks, kill=True)
            pytest.fail(said_of(joined), pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            if self._test is not None:
                test, self._test = self._test, None
                self._end(item, test)

    def _end(self, item: pytest.Item, test: _Test) -> None:
        """Take away what the test was given, and hear what the other ranks say."""
        test.group.leave()
        for name, value in test.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        outcome = test.pool.finish(GRACE if self._failed else None)
        ranks = outcome.ranks
        self._said = _said(outcome, failed_here=self._failed)
        last = self.after(item, ranks) == ""
        if not outcome.survives or last:
            self.close(ranks, kill=not outcome.survives)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._failed = self._failed or call.excinfo is not None
        if call.when == "teardown" and self._said and report.passed:
            report.outcome, report.longrepr = "failed", failure_of(item, self._said)
        return report


def _said(outcome: Outcome, *, failed_here: bool) -> str:
    """Return what the other ranks failed with; not what this one's failure did to them."""
    lines = []
    for rank, reports in sorted(outcome.reports.items()):
        for report in reports:
            if report.failed and not (failed_here and getattr(report, LOST, False)):
                first = first_line_of(report.longrepr)
                lines.append(f"{ranks_text([rank])} failed: {first}\n{report.longreprtext}")
    for rank, ending in sorted(outcome.endings.items()):
        if not failed_here or ending.how is How.DIED:
            lines.append(f"{ranks_text([rank])} {ending.said}")
    return "\n".join(lines)
