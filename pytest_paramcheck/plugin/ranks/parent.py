"""The hooks of the process that the user started: it keeps pytest's protocol, the ranks run.

No fixture of such a test is set up here. The ranks are asked in the set-up, once pytest has
decided about skip and xfail, and one report of each phase is put in place of this process's own:
so everything that looks at reports works, from ``-x`` to JUnit and xdist.
"""

from __future__ import annotations

import sys
import unittest
import warnings
from collections.abc import Generator
from typing import Any

import pytest

from ..marked import is_remote, ranks_of
from ..marker import ParamCheckWarning
from ..session import session_of
from .collected import Collected
from .items import RankItems
from .merge import merged, not_run
from .outcome import Outcome
from .pool import Pool, new_folder, said_of
from .start import Starts
from .texts import ranks_text

_Reports = dict[str, pytest.TestReport]
_REPORTS = pytest.StashKey[_Reports]()


class RanksRun:
    """Registered where tests have ranks: runs each on its ranks."""

    def __init__(self, config: pytest.Config, items: RankItems) -> None:
        self._config = config
        self._items = items
        self._pools: dict[int, Pool] = {}
        self._errors: dict[tuple[int, int], str] = {}
        #: What went wrong on ranks and belongs to no test any more.
        self._left: list[str] = []
        self._warned: set[object] = set()
        # Under xdist the next test is one of another worker, or not known yet.
        self._knows_next = not hasattr(config, "workerinput")

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
        after = self._items.after(item.nodeid, ranks) if self._knows_next else None
        try:
            if ranks not in self._pools:
                self._pools[ranks] = self._new_pool(ranks)
            pool = self._pools[ranks]
            started = pool.wait_until_ready()
            if started.endings:
                self._close(ranks, kill=True)
                return not_run(item, said_of(started))
            if problem := self._not_collected(item, pool, ranks):
                return not_run(item, problem)
            pool.begin(item.nodeid, after)
            outcome = pool.finish()
        except BaseException:
            self._close(ranks, kill=True)
            raise
        self._close_after(ranks, item, outcome, last=after == "")
        return merged(item, outcome)

    def _new_pool(self, ranks: int) -> Pool:
        settings = session_of(self._config).settings
        folder = new_folder()
        starts = Starts(
            self._config,
            ranks,
            self._items.files(ranks),
            folder,
            settings.devices,
            settings.rank_seconds,
        )

        def read(data: Any) -> pytest.TestReport:
            report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=data
            )
            return report

        def receive(rank: int, word: str, value: Any) -> None:
            self._receive(ranks, rank, word, value)

        return Pool(
            range(ranks),
            ranks,
            {rank: starts.of(rank) for rank in range(ranks)},
            folder,
            read,
            receive,
            shown=self._config.getoption("capture") == "no",
        )

    def _not_collected(self, item: pytest.Item, pool: Pool, ranks: int) -> str:
        """Return why the ranks cannot run a test; warn of what only they have."""
        collected = Collected(pool.ids)
        for function, by in collected.only_somewhere(self._items.ids(ranks)).items():
            if function not in self._warned:
                self._warned.add(function)
                item.warn(
                    ParamCheckWarning(
                        f"{ranks_text(by)} alone collected {function}: what is collected must "
                        f"not depend on the rank"
                    )
                )
        problem = collected.problem(item.nodeid)
        said = {
            text: rank for (of, rank), text in self._errors.items() if of == ranks and text.strip()
        }
        if problem and said:
            problem += "".join(f"\n--- rank {rank}\n{text}" for text, rank in said.items())
        return problem

    def _close_after(self, ranks: int, item: pytest.Item, outcome: Outcome, *, last: bool) -> None:
        """End ranks that cannot or need not run another test."""
        device = dict(item.user_properties).get("param_device")
        if not outcome.survives or (outcome.failed and device not in ("cpu", "meta")):
            self._close(ranks, kill=True)
        elif last:
            self._close(ranks, kill=False)

    def _close(self, ranks: int, *, kill: bool) -> None:
        pool = self._pools.pop(ranks, None)
        if pool is not None:
            pool.close(kill=kill)

    # -- what else ranks send ----------------------------------------------------------------

    def _receive(self, ranks: int, rank: int, word: str, value: Any) -> None:
        if word == "warning":
            self._warn(value)
        elif word == "manifests":
            session_of(self._config).manifests.merge(value)
        elif word == "errors":
            self._errors[ranks, rank] = value
        else:
            self._left.append(f"rank {rank} of {ranks}, as it ended: {value.strip()}")

    def _warn(self, value: Any) -> None:
        """Record a warning of a rank, once for all ranks."""
        (module, name, text), (file, line), (when, nodeid, location) = value
        key = (module, name, text, file, line, when, nodeid)
        if key in self._warned:
            return
        self._warned.add(key)
        category = getattr(sys.modules.get(module), name, None)
        try:
            message = category(text)  # type: ignore[misc]
        except Exception:  # a class of its own kind, or of a module that only ranks have loaded
            category, message = UserWarning, UserWarning(f"{name}: {text}")
        shown = warnings.WarningMessage(message, type(message), file, line)
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": shown,
                "nodeid": nodeid,
                "when": when,
                "location": location,
            }
        )

    # -- the end -----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for ranks in [*self._pools]:
            self._close(ranks, kill=bool(session.shouldstop))
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._left:
            terminalreporter.write_line(f"ERROR: {line}", red=True, bold=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        for ranks in [*self._pools]:  # where the session did not come to its end
            self._close(ranks, kill=True)
