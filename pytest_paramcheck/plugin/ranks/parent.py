"""The hooks of the process that the user started: it keeps pytest's protocol, the ranks run.

No fixture of such a test is set up here. The ranks are asked in the set-up, once pytest has
decided about skip and xfail, and one report of each phase is put in place of this process's own:
so everything that looks at reports works, from ``-x`` to JUnit and xdist.
"""

from __future__ import annotations

import unittest
from collections.abc import Generator
from typing import Any

import pytest

from ..marked import is_remote, ranks_of
from .merge import merged, not_run
from .outcome import Outcome
from .pool import said_of
from .pools import Pools

_Reports = dict[str, pytest.TestReport]
_REPORTS = pytest.StashKey[_Reports]()


class RanksRun(Pools):
    """Registered where tests have ranks: runs each on its ranks."""

    # -- the protocol of a test --------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)  # inside pytest's own: skip and xfail are decided first
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        if not is_remote(item):
            return (yield)
        if isinstance(item, pytest.Function):
            item.funcargs.update(dict.fromkeys(item.fixturenames))  # pytest sets up what lacks
        yield
        if isinstance(item, pytest.Function) and issubclass(item.cls or object, unittest.TestCase):
            pytest.fail(
                "unittest.TestCase cannot run on ranks: make it a plain class", pytrace=False
            )
        if not self._config.getoption("setuponly"):
            item.stash[_REPORTS] = self._ask(item)
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        return True if is_remote(pyfuncitem) else None  # its body ran on the ranks

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        reports = item.stash.get(_REPORTS, {})
        if call.excinfo is None and call.when in reports:
            return reports[call.when]
        return report

    # -- the ranks ---------------------------------------------------------------------------

    def _ask(self, item: pytest.Item) -> _Reports:
        """Run a test on its ranks and return the reports of its phases."""
        ranks = ranks_of(item) or 1
        after = self.after(item, ranks)
        try:
            pool = self.of(ranks)
            started = pool.wait_until_ready()
            if started.endings:
                self.close(ranks, kill=True)
                return not_run(item, said_of(started))
            if problem := self.not_collected(item, pool, ranks):
                return not_run(item, problem)
            pool.begin(item.nodeid, after)
            outcome = pool.join()
            if not outcome.endings:
                outcome = pool.finish()
        except BaseException:
            self.close(ranks, kill=True)
            raise
        self._close_after(ranks, item, outcome, last=after == "")
        return merged(item, outcome)

    def _close_after(self, ranks: int, item: pytest.Item, outcome: Outcome, *, last: bool) -> None:
        """End ranks that cannot or need not run another test."""
        device = dict(item.user_properties).get("param_device")
        if not outcome.survives or (outcome.failed and device not in ("cpu", "meta")):
            self.close(ranks, kill=True)
        elif last:
            self.close(ranks, kill=False)
