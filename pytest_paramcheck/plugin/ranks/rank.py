"""The process of a rank: a whole pytest session that runs what it is told, and what starts it."""

from __future__ import annotations

import faulthandler
import gc
import os
import pdb
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ..marked import ranks_of
from ..session import session_of
from .group import RankGroup, device_of
from .here import Here, set_here
from .outcome import GATES, note_of_call
from .parts import Parts
from .start import Start
from .watcher import Watcher
from .where import where_file

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


def run_rank(start: Start, channel: Connection, questions: Connection, out: Connection) -> None:
    """Be a rank, from the start of its process to the end."""
    os.setsid()  # so that it can be killed with all that it started, and nothing else
    watcher = Watcher(questions, start.folder)
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    out.close()
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(start.environment)
    os.chdir(start.folder_of_run)
    sys.path[:] = start.path
    traces = where_file(start.folder, start.here.rank).open("w", encoding="utf-8")
    faulthandler.register(signal.SIGUSR1, file=traces, all_threads=False, chain=False)

    import torch

    # What is loaded stays: who collects garbage (pytest does five times as it ends) need not look
    # at 170,000 objects of torch, 0.1 s each time.
    gc.freeze()
    # The library was loaded before this process had an environment of its own.
    with suppress(ValueError):
        torch.set_num_threads(int(start.environment["OMP_NUM_THREADS"]))
    said = ""
    rank = RankSession(start, channel)
    try:
        config = pytest.Config.fromdictargs(start.options, list(start.args))
        watcher.config = config
        set_here(config, start.here)
        config.pluginmanager.register(rank, "paramcheck-rank")
        config.pluginmanager.register(_TerminalToNowhere(), "paramcheck-rank-terminal")
        config.hook.pytest_cmdline_main(config=config)
    except pytest.UsageError as error:
        said = str(error)
    except BaseException:
        said = traceback.format_exc()
    with suppress(OSError):
        channel.send(("bye", said or rank.why_it_ended))


class _TerminalToNowhere:
    """Lets pytest's terminal plugin write to nowhere.

    Not without it: other plugins ask for it, and pytest 8.0 does to explain a comparison.
    """

    def __init__(self) -> None:
        self._stdout = sys.stdout

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        self._stdout = sys.stdout
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        sys.stdout = self._stdout


class RankSession:
    """The plugin of a rank's session: it collects, waits for items, and sends home what came."""

    def __init__(self, start: Start, channel: Connection) -> None:
        self._start = start
        self._channel = channel
        self._here: Here = start.here
        self._files = {Path(file) for file in start.files}
        self._folders = {folder for file in self._files for folder in file.parents}
        self._config: pytest.Config | None = None
        self._group = RankGroup(
            self._here.rank,
            self._here.ranks,
            self._store,
            timedelta(seconds=start.group_seconds),
        )
        self._errors: list[str] = []
        self._passing_over = False
        self._parts = Parts()
        #: Whether the test goes on as if it were alone: all others came as far as this one.
        self._goes_on = True

    @property
    def why_it_ended(self) -> str:
        """What went wrong with the collection."""
        return "\n".join(self._errors)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config
        config.pluginmanager.register(self._parts, "paramcheck-rank-parts")
        # After pytest's own: this process has no terminal.
        sys.breakpointhook = _no_terminal
        pdb.set_trace = _no_terminal

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        # They write the cache, of what they have seen of one rank.
        manager = session.config.pluginmanager
        for name in ("lfplugin", "nfplugin", "stepwiseplugin"):
            if (plugin := manager.get_plugin(name)) is not None:
                manager.unregister(plugin)

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        known = self._files if collection_path.is_file() else self._folders
        return None if collection_path in known else True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if ranks_of(item) == self._here.ranks]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._errors.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self._errors.append(str(excrepr))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._errors.append(excinfo.exconly())

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        category = warning_message.category
        self._channel.send(
            (
                "warning",
                (
                    (category.__module__, category.__qualname__, str(warning_message.message)),
                    (warning_message.filename, warning_message.lineno),
                    (when, nodeid, location),
                ),
            )
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self._parts.running:
            return report
        note_of_call(report, call)
        self._parts.add_to(report)
        if self._start.wakes and call.excinfo is not None:
            time.sleep(1)  # another rank may not have come out of what this one came out of
            self._group.leave()
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        if not self._goes_on:
            pytest.skip("another rank was not set up, or skipped")  # this process alone reads it

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._config is None or self._parts.running:
            return
        if report.when == "call" and not self._goes_on:
            return
        if self._passing_over:
            if report.failed:  # of a wider fixture, after the last test that it was for
                self._channel.send(("last", report.longreprtext))
            return
        report.user_properties = [_portable(each) for each in report.user_properties]
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._channel.send(("report", data))
        if report.when in GATES and not self._start.wakes:
            self._goes_on = self._told() or False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        following = dict(zip(items, [*items][1:], strict=False))
        self._channel.send(("ready", ([*items], self.why_it_ended)))
        hook = session.config.hook
        expected: pytest.Item | None = None
        while (told := self._told()) is not None:
            nodeid, after, number = told
            item = items[nodeid]
            if expected is not None and expected is not item:
                self._pass_over(expected, item)
            # Where nobody knows what comes next, what stands next in the file.
            expected = items.get(following.get(nodeid, "") if after is None else after)
            if not self._joins(number, item):
                continue
            self._goes_on = True
            hook.pytest_runtest_protocol(item=item, nextitem=expected)
            manifests = session_of(session.config).manifests.output()
            self._channel.send(("done", (self._group.intact(), manifests)))
        return True

    def _joins(self, number: int, item: pytest.Item) -> bool:
        """Join the process group of a test, and wait until all ranks have."""
        said = ""
        try:
            self._group.enter(number, device_of(item))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        self._channel.send(("joined", said))
        return bool(self._told())

    def _told(self) -> Any:
        """Return what to do next: a test, whether to go on with one; None at the end.

        A test is an id, the id after it, and a number.
        """
        try:
            return self._channel.recv()
        except (EOFError, OSError):
            return None

    def _pass_over(self, expected: pytest.Item, item: pytest.Item) -> None:
        """Tear down what was kept for a test that is not run here after all."""
        self._passing_over = True
        expected.add_marker(pytest.mark.skip(reason="not run"), append=False)
        try:
            expected.config.hook.pytest_runtest_protocol(item=expected, nextitem=item)
        finally:
            del expected.own_markers[0]
            self._passing_over = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._group.leave()

    def _store(self, name: str) -> Store:
        import torch.distributed as dist

        # A new file for each group: old keys of another would be read.
        file = str(Path(self._start.folder, f"store{name}"))
        store: Store = dist.FileStore(file, self._here.ranks)  # type: ignore[attr-defined]
        return store


def _portable(given: Any) -> Any:
    """Return what another process can read of a property of a report."""
    try:
        pickle.loads(pickle.dumps(given))
    except Exception:
        return tuple(map(str, given)) if isinstance(given, (tuple, list)) else str(given)
    return given


def _no_terminal(*_: Sequence[object], **__: object) -> NoReturn:
    raise RuntimeError("a rank has no terminal: run pytest --pdb, it makes rank 0 this process")
