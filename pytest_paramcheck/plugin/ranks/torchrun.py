"""``torchrun -m pytest``: this process is a rank already, and every rank has a summary of its own.

Each phase of a test ends with an exchange of reports over torchrun's own store, so that every
rank reports the same outcome. The process group under test carries none of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ..marked import ranks_of
from ..session import session_of
from .collected import Collected
from .group import RankGroup, device_of
from .here import Here
from .merge import merged
from .outcome import PHASES, Ending, How, Outcome, note_of_call
from .parts import Parts
from .pool import STARTING

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

#: How much longer than a test may take the others wait for what a rank says of it.
_MORE = 5.0


class TorchrunRun:
    """Registered where torchrun has started this process and tests have as many ranks."""

    def __init__(self, config: pytest.Config, here: Here) -> None:
        self._config = config
        self._here = here
        self._seconds = session_of(config).settings.rank_seconds
        self._number = 0
        self._problems: dict[str, str] = {}
        self._left = False
        #: Ranks that will say no more: nobody waits for them again.
        self._gone: set[int] = set()
        self._parts = Parts()
        config.pluginmanager.register(self._parts, "paramcheck-rank-parts")
        import torch.distributed as dist

        limit = timedelta(seconds=self._seconds + STARTING)
        store, _, _ = next(dist.rendezvous("env://", timeout=limit))  # type: ignore[attr-defined]
        self._all: Store = dist.PrefixStore("paramcheck", store)  # type: ignore[attr-defined]
        self._group = RankGroup(
            here.rank, here.ranks, self._store, timedelta(seconds=self._seconds)
        )

    def _store(self, name: str) -> Store:
        import torch.distributed as dist

        store: Store = dist.PrefixStore(f"group{name}", self._all)  # type: ignore[attr-defined]
        return store

    def learn(self, ids: list[str]) -> None:
        """Compare what the ranks have collected: what they have not alike is not run."""
        said = self._exchange("collected", ids, max(self._seconds, STARTING))
        known = {rank: own or [] for rank, own in said.items()}
        collected = Collected(known)
        self._problems = {
            nodeid: problem for nodeid in ids if (problem := collected.problem(nodeid))
        }
        if not self._problems and len({tuple(own) for own in known.values()}) > 1:
            order = "ranks run the tests in different orders: the order must not depend on the rank"
            self._problems = dict.fromkeys(ids, order)

    def _exchange(self, name: str, value: Any, seconds: float) -> dict[int, Any]:
        """Return what each rank says that is not gone; None where one says nothing in time."""
        self._all.set(f"{name}/{self._here.rank}", json.dumps(value, default=str))
        said: dict[int, Any] = {}
        deadline = time.monotonic() + seconds
        for rank in range(self._here.ranks):
            if rank in self._gone:
                continue
            key = f"{name}/{rank}"
            left = timedelta(seconds=max(0.1, deadline - time.monotonic()))
            try:
                self._all.wait([key], left)
                said[rank] = json.loads(self._all.get(key))
            except RuntimeError:  # a time-out, or a store that is gone with torchrun
                said[rank] = None
        return said

    def _is_ours(self, item: pytest.Item) -> bool:
        return ranks_of(item) == self._here.ranks

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not self._is_ours(item) or item.nodeid in self._problems:
            return (yield)
        self._number += 1
        if problem := self._join(item):
            self._problems[item.nodeid] = problem
        try:
            return (yield)
        finally:
            self._group.leave()

    def _join(self, item: pytest.Item) -> str:
        """Make the process group of a test; returns why not all ranks have, or ``""``."""
        said = ""
        try:
            self._group.enter(self._number, device_of(item))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        # No test begins before all ranks are there: see ``Pool.join``.
        joined = self._exchange(f"{self._number}/joined", said, max(self._seconds, STARTING))
        return "\n".join(
            f"rank {rank} could not join the process group: {text or 'it says nothing'}"
            for rank, text in joined.items()
            if text != ""
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if problem := self._problems.get(item.nodeid):
            pytest.fail(problem, pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not self._is_ours(item) or item.nodeid in self._problems or report.when is None:
            return report
        if self._parts.running:
            return report
        note_of_call(report, call)
        self._parts.add_to(report)
        if call.excinfo is not None:
            self._group.leave()  # first: it wakes the ranks that wait for this one
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        limit = self._seconds + _MORE
        said = self._exchange(f"{self._number}/{report.when}", data, limit)
        outcome = Outcome(self._here.ranks)
        for rank, value in said.items():
            if rank == self._here.rank:
                outcome.reports[rank].append(report)
            elif isinstance(value, dict):
                other = hook.pytest_report_from_serializable(config=self._config, data=value)
                if isinstance(other.longrepr, list):  # a skip, which JSON has no tuple for
                    other.longrepr = tuple(other.longrepr)
                outcome.reports[rank].append(other)
            else:
                gave = f"gave no verdict in {limit:g} s: it hangs, is gone, or has stopped"
                how = How.HUNG if value is None else How.DIED
                gave = gave if value is None else f"ended its session: {value}"
                outcome.endings[rank] = Ending(how, gave)
                outcome.phase_told = report.when
                self._gone.add(rank)
                item.session.shouldfail = (
                    f"rank {rank} of {self._here.ranks} {gave}: the ranks are no longer in step"
                )
        return merged(item, outcome).get(report.when, report)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Tell the others, who wait for what this rank says of the test: pytest.exit() too."""
        self._group.leave()
        with suppress(RuntimeError):
            for phase in PHASES:
                key = f"{self._number}/{phase}/{self._here.rank}"
                if not self._all.check([key]):
                    self._all.set(key, json.dumps(excinfo.exconly()))

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Let rank 0 leave first: torchrun ends all as soon as one has left with an error."""
        if self._left:
            return
        self._left = True
        with suppress(RuntimeError):
            if self._here.rank == 0:
                self._all.set("left", "")
            else:
                self._all.wait(["left"], timedelta(seconds=20))
                time.sleep(1)
