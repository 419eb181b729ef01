"""What the harness of ranks knows and does in each of its processes, without a second one."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch.distributed as dist

from pytest_paramcheck.plugin.ranks import items, watcher
from pytest_paramcheck.plugin.ranks.collected import Collected
from pytest_paramcheck.plugin.ranks.debugging import RanksDebug, _Test
from pytest_paramcheck.plugin.ranks.group import RankGroup
from pytest_paramcheck.plugin.ranks.here import Here
from pytest_paramcheck.plugin.ranks.items import RankItems
from pytest_paramcheck.plugin.ranks.outcome import LOST, Outcome
from pytest_paramcheck.plugin.ranks.pool import GRACE
from pytest_paramcheck.plugin.ranks.start import Starts
from pytest_paramcheck.plugin.ranks.where import frames_of, where_file


def test_no_two_ranks_of_any_workers_have_one_place() -> None:
    places = [Here(rank, 3, worker=worker).place for worker in range(2) for rank in range(3)]

    assert places == [0, 1, 2, 3, 4, 5]


def test_what_comes_next_on_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a teardown of wider fixtures only where nothing does."""
    numbers = {"a": 2, "b": None, "c": 4, "d": 2, "e": 2}
    monkeypatch.setattr(items, "ranks_of", lambda item: numbers[item.nodeid])
    found = RankItems(
        cast("Any", SimpleNamespace(nodeid=name, path=Path(f"{name}.py"))) for name in numbers
    )

    assert [found.after(name, 2) for name in ("a", "d", "e")] == ["d", "e", ""]
    assert found.after("c", 4) == ""
    assert found.after("gone", 2) == ""


RULE = "what is collected must not depend on the rank"


def test_a_test_that_some_ranks_have_under_another_id() -> None:
    found = Collected({0: ["t.py::test_a[1]"], 1: ["t.py::test_a[1]", "t.py::test_a[2]"]})

    assert found.problem("t.py::test_a[1]") == f"rank 1 alone collected t.py::test_a[2]: {RULE}"
    assert found.problem("t.py::test_a[2]") == (
        f"rank 0 did not collect this test, rank 1 did: {RULE}"
    )


def test_what_ranks_alone_have_is_told_of_functions_that_run_nowhere() -> None:
    found = Collected({0: ["t.py::test_a", "t.py::test_b[0]"], 1: ["t.py::test_a"]})

    assert found.problem("t.py::test_a") == ""
    assert found.only_somewhere(["t.py::test_a"]) == {"t.py::test_b": [0]}
    assert found.only_somewhere(["t.py::test_a", "t.py::test_b[1]"]) == {}


def test_an_option_that_is_no_plain_data_stays_at_home(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    config.option.plain = {"a": [1, None, {"b": Path("c")}]}
    config.option.nested = {"a": [object()]}
    config.option.keyed = {object: 1}
    config.option.opened = sys.stdout
    options = Starts(config, 2, [], "", [], 5).of(1).options

    assert options["plain"] == config.option.plain
    assert options.keys().isdisjoint({"nested", "keyed", "opened"})


@pytest.mark.skipif(sys.platform == "win32", reason="ranks are started where there are signals")
def test_a_process_that_does_not_answer_says_where_it_is(tmp_path: Path) -> None:
    file = where_file(str(tmp_path), 1)
    with file.open("w", encoding="utf-8") as traces:
        faulthandler.register(signal.SIGUSR1, file=traces, all_threads=False)
        try:
            frames = frames_of(os.getpid(), file)
        finally:
            faulthandler.unregister(signal.SIGUSR1)

    assert frames[0].function == "frames_of"
    assert (frames[1].file, frames[1].function) == (
        __file__,
        "test_a_process_that_does_not_answer_says_where_it_is",
    )


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would be killed."""
    found: list[tuple[int, int]] = []

    def kill(group: int, signal: int) -> None:
        found.append((group, signal))
        raise SystemExit  # of the thread alone

    monkeypatch.setattr(watcher.os, "killpg", kill)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="ranks are started where there are signals")
def test_a_rank_answers_while_it_waits_and_ends_with_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: list[tuple[int, int]]
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    lives, ends = Pipe(duplex=False)
    monkeypatch.setattr(watcher, "parent_process", lambda: SimpleNamespace(sentinel=lives))
    ask, answers = Pipe()
    before = {*threading.enumerate()}
    one = watcher.Watcher(answers, str(folder))
    threads = {*threading.enumerate()} - before
    written = SimpleNamespace(read_global_capture=lambda: ("out", "err"))
    plugins = SimpleNamespace(get_plugin={"capturemanager": written}.get)

    ask.send("captured")
    assert ask.poll(10)
    assert ask.recv() == ("", "")
    one.config = cast("Any", SimpleNamespace(pluginmanager=plugins))
    ask.send("captured")
    assert ask.poll(10)
    assert ask.recv() == ("out", "err")
    ask.close()  # who asks may end before who has started it
    assert not killed
    assert folder.exists()
    ends.close()
    for thread in threads:
        thread.join(10)
    assert killed == [(os.getpgrp(), signal.SIGKILL)]
    assert not folder.exists()


OPEN = """
from multiprocessing import Pipe
from pytest_paramcheck.plugin.ranks.output import Output
read, write = Pipe(duplex=False)
Output(read, "")
"""


def test_output_that_nobody_closes_does_not_keep_the_run_from_its_end() -> None:
    """A process that a rank has started holds it open for as long as it lives."""
    subprocess.run([sys.executable, "-c", OPEN], check=True, timeout=20)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[RankGroup]:
    if dist.is_initialized():
        pytest.skip("this process is in a group")
    one = RankGroup(0, 1, lambda name: cast("Any", dist.HashStore()), timedelta(seconds=30))
    yield one
    one.leave()


@pytest.mark.parametrize(("device", "kept"), [("cpu", False), ("meta", False), ("mps", True)])
def test_a_test_has_a_group_of_its_own_and_keeps_that_of_an_accelerator(
    group: RankGroup, device: str, kept: bool
) -> None:
    """A collective that one rank left unfinished is paired with nothing of the next test."""
    group.enter(1, device)
    first = dist.group.WORLD
    group.enter(2, device)

    assert (dist.group.WORLD is first) is kept
    assert group.intact()


def test_a_group_that_the_test_has_replaced_is_made_anew(group: RankGroup) -> None:
    group.enter(1, "mps")
    dist.destroy_process_group()

    assert not group.intact()
    group.enter(2, "mps")
    assert group.intact()


class Ranks:
    """The other ranks of a test that this process runs as rank 0, as they ended."""

    def __init__(self, report: pytest.TestReport) -> None:
        self._outcome = Outcome(2)
        self._outcome.reports[1].append(report)
        self.waited: list[float | None] = []

    def finish(self, seconds: float | None) -> Outcome:
        self.waited.append(seconds)
        return self._outcome

    def leave(self) -> None:
        """Of the process group of this one."""


def report_of(outcome: Any, text: str | None = None, when: Any = "call") -> pytest.TestReport:
    return pytest.TestReport("t.py::test_a", ("t.py", 0, "test_a"), {}, outcome, text, when)


@pytest.mark.parametrize("fails", [False, True], ids=["passes-here", "fails-here"])
def test_what_a_debugger_hears_of_the_other_ranks(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Where this rank failed the others lose their connection: they are soon ended, and echo it."""
    run = RanksDebug(pytester.parseconfig(), RankItems([]))
    lost = report_of("failed", "Connection closed by peer")
    setattr(lost, LOST, True)
    others = Ranks(lost)
    run._test = _Test(cast("Any", others), cast("Any", others), {})
    item = cast(
        "pytest.Item", SimpleNamespace(nodeid="t.py::test_a", reportinfo=lambda: ("t.py", 0, "a"))
    )

    def told(hook: Any, report: pytest.TestReport | None) -> Any:
        next(hook)
        with pytest.raises(StopIteration) as ended:
            hook.send(report)
        return ended.value.value

    def phase(when: Any, *, fails: bool = False) -> pytest.TestReport:
        call = pytest.CallInfo.from_call(lambda: 1 / (not fails), when)
        report = report_of("failed" if fails else "passed", None, when)
        made: pytest.TestReport = told(run.pytest_runtest_makereport(item, call), report)
        return made

    phase("call", fails=fails)
    told(run.pytest_runtest_teardown(item), None)
    report = phase("teardown")

    assert others.waited == [GRACE if fails else None]
    assert report.failed is not fails
    assert ("rank 1 failed: Connection closed by peer" in report.longreprtext) is not fails
