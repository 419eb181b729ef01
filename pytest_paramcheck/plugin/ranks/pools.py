"""The pools of a run, and what their ranks send that is not about one test."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

from ..marker import ParamCheckWarning
from ..session import session_of
from .collected import Collected
from .items import RankItems
from .pool import Pool, new_folder
from .start import Starts
from .texts import ranks_text


class Pools:
    """The pools of a run; ``first`` is the lowest rank that is a process of its own."""

    def __init__(self, config: pytest.Config, items: RankItems, *, first: int = 0) -> None:
        self._config = config
        self._items = items
        self._first = first
        self._pools: dict[int, Pool] = {}
        self._errors: dict[tuple[int, int], str] = {}
        #: What went wrong on ranks and belongs to no test any more.
        self._left: list[str] = []
        self._warned: set[object] = set()
        # Under xdist the next test is one of another worker, or not known yet.
        self._knows_next = not hasattr(config, "workerinput")

    def of(self, ranks: int) -> Pool:
        """Return the ranks of a number, started where they are not."""
        if ranks not in self._pools:
            self._pools[ranks] = self._new_pool(ranks)
        return self._pools[ranks]

    def after(self, item: pytest.Item, ranks: int) -> str | None:
        """Return the test that comes next: ``""`` where none does, None where nobody knows."""
        return self._items.after(item.nodeid, ranks) if self._knows_next else None

    def _new_pool(self, ranks: int) -> Pool:
        settings = session_of(self._config).settings
        starts = Starts(
            self._config,
            ranks,
            self._items.files(ranks),
            new_folder(),
            settings.devices,
            settings.rank_seconds,
            debugging=self._first > 0,
        )

        def read(data: Any) -> pytest.TestReport:
            report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=data
            )
            return report

        def receive(rank: int, word: str, value: Any) -> None:
            self._receive(ranks, rank, word, value)

        return Pool(range(self._first, ranks), ranks, starts, read, receive)

    def not_collected(self, item: pytest.Item, pool: Pool, ranks: int) -> str:
        """Return why the ranks cannot run a test; warn of what only they have."""
        own = {rank: self._items.ids(ranks) for rank in range(self._first)}
        collected = Collected({**own, **pool.ids})
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

    def close(self, ranks: int, *, kill: bool) -> None:
        """End the ranks of a number."""
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
            self.close(ranks, kill=bool(session.shouldstop))
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._left:
            terminalreporter.write_line(f"ERROR: {line}", red=True, bold=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        for ranks in [*self._pools]:  # where the session did not come to its end
            self.close(ranks, kill=True)
