"""The processes of one number of ranks: started, told what to run, listened to, ended."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest

from .outcome import GATES, Ending, How, Outcome
from .output import Output
from .rank import run_rank
from .start import Start, Starts
from .texts import ranks_text
from .where import frames_of, place_of, where_file

#: How long the other ranks have once one has failed.
GRACE = 2.0
#: The least that ranks have to start and to collect.
STARTING = 120.0
#: Loaded once, by the process that the ranks are forked from.
_PRELOADED = ["torch", "torch.distributed", "pytest", "pytest_paramcheck.plugin.ranks.rank"]

Receive = Callable[[int, str, Any], None]


class Pool:
    """Ranks of one number.

    ``read`` makes a report of what a rank sends as one; ``receive`` is given all that is not about
    the test that runs: the rank, a word, and what was sent.
    """

    def __init__(
        self,
        ranks: Sequence[int],
        of: int,
        starts: Starts,
        read: Callable[[Any], pytest.TestReport],
        receive: Receive,
    ) -> None:
        self._of = of
        self.starts = starts
        self._read = read
        self._receive = receive
        self._number = 0
        #: What each rank has collected, once all are ready.
        self.ids: dict[int, list[str]] = {}
        self._processes: dict[int, Any] = {}
        self._channels: dict[int, Connection] = {}
        self._questions: dict[int, Connection] = {}
        self._outputs: dict[int, Output] = {}
        #: The phase that a rank has ended, while it waits to be told how to go on.
        self._gates: dict[int, str] = {}
        atexit.register(self.close, kill=True)
        try:
            context = _context()
            for rank in ranks:
                self._start(context, rank, starts.of(rank))
        except BaseException:
            self.close(kill=True)
            raise

    def _start(self, context: Any, rank: int, start: Start) -> None:
        ours, theirs = context.Pipe()
        questions, answers = context.Pipe()
        read, write = context.Pipe(duplex=False)
        # Not a daemon: those may have no children, and a DataLoader has workers.
        process = context.Process(
            target=run_rank, args=(start, theirs, answers, write), name=f"rank {rank}"
        )
        with _without_main():
            process.start()
        for end in (theirs, answers, write):
            end.close()
        self._processes[rank] = process
        self._channels[rank] = ours
        self._questions[rank] = questions
        self._outputs[rank] = Output(read, f"[rank {rank}] " if self.starts.shown else "")

    def wait_until_ready(self) -> Outcome:
        """Wait until every rank has collected; the outcome says who did not come so far."""
        outcome = Outcome(self._of)
        if not self.ids:
            seconds = max(self.starts.seconds, STARTING)
            self._gather(outcome, "ready", seconds, "did not collect its tests")
        return outcome

    def begin(self, nodeid: str, after: str | None) -> int:
        """Tell the ranks to make the process group of a test; returns its number."""
        self._number += 1
        for rank in self._channels:
            self._tell(rank, (nodeid, after, self._number))
        return self._number

    def join(self) -> Outcome:
        """Wait until all ranks are in the group; the outcome says who is not. Then let them begin.

        Not before: one that is through first could end its process, and another that still
        connects to it would fail before its test and not say of what.
        """
        outcome = Outcome(self._of)
        seconds = max(self.starts.seconds, STARTING)
        self._gather(outcome, "joined", seconds, "did not join the process group of the test")
        if not outcome.endings:
            for rank in self._channels:
                self._tell(rank, True)
        return outcome

    def finish(self, seconds: float | None = None) -> Outcome:
        """Wait until all ranks have run the test, or until they had their time."""
        outcome = Outcome(self._of)
        limit = self.starts.seconds if seconds is None else seconds
        self._gather(outcome, "done", limit, "did not finish")
        return outcome

    def _tell(self, rank: int, what: Any) -> None:
        with suppress(OSError):  # it has ended; who listens to it will hear so
            self._channels[rank].send(what)

    def _gather(self, outcome: Outcome, until: str, seconds: float, if_not: str) -> None:
        """Take in what the ranks send until each has said a word, has ended, or time is up."""
        waiting = set(self._channels)
        deadline = time.monotonic() + seconds
        failed = False
        self._gates.clear()
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                late = waiting - {*self._gates}
                said = "" if failed else f"{if_not} in {seconds:g} s"
                self._ask_where(outcome, late or waiting, said)
                if late in (set(), waiting):
                    break
                waiting -= late  # the others have ended the phase in which these are
                deadline = time.monotonic() + GRACE
                failed = True
                self._open_gates(outcome)
                continue
            of = {id(self._channels[rank]): rank for rank in waiting}
            of.update({self._processes[rank].sentinel: rank for rank in waiting})
            objects = [self._channels[rank] for rank in waiting]
            ends = [self._processes[rank].sentinel for rank in waiting]
            for ready in connection.wait([*objects, *ends], left):
                rank = of[ready if isinstance(ready, int) else id(ready)]
                if rank in waiting and self._listen(outcome, rank, until):
                    waiting.discard(rank)
            if not failed and outcome.failed:
                failed = True
                deadline = min(deadline, time.monotonic() + GRACE)
            self._open_gates(outcome)

    def _open_gates(self, outcome: Outcome) -> None:
        """Tell the ranks how to go on that have ended a phase, where that is known."""
        for rank, phase in [*self._gates.items()]:
            goes_on = outcome.goes_on(phase, self._channels)
            if goes_on is not None:
                del self._gates[rank]
                self._tell(rank, goes_on)

    def _listen(self, outcome: Outcome, rank: int, until: str) -> bool:
        """Take in what one rank has sent; whether it has said the word, or has ended."""
        channel = self._channels[rank]
        alive = self._processes[rank].is_alive()  # asked first: what it sent last is there then
        with suppress(EOFError, OSError):
            while channel.poll():
                word, value = channel.recv()
                if word == "report":
                    report = self._read(value)
                    outcome.reports[rank].append(report)
                    if report.when in GATES and self.starts.gated:
                        self._gates[rank] = report.when
                elif word == "bye":
                    self._note_bye(outcome, rank, until, value)
                    return True
                elif word == "joined":
                    if value:
                        self._note(outcome, rank, f"could not join the process group: {value}")
                elif word == "done":
                    intact, manifests = value
                    outcome.intact = outcome.intact and intact
                    self._receive(rank, "manifests", manifests)
                elif word == "ready":
                    self.ids[rank], errors = value
                    self._receive(rank, "errors", errors)
                else:
                    self._receive(rank, word, value)
                if word == until:
                    return True
        if alive:
            return False
        code = self._processes[rank].exitcode
        if code is not None and code < 0:
            said = f"was killed by {signal.Signals(-code).name}"
        else:
            said = f"exited with code {code}"
        self._note(outcome, rank, said)
        return True

    def _note_bye(self, outcome: Outcome, rank: int, until: str, text: str) -> None:
        """Note that a rank's session came to its end, in time or not."""
        if until == "bye":
            if text:
                self._receive(rank, "last", text)
            return
        end = "ended while it collected" if until == "ready" else "ended its session"
        self._note(outcome, rank, f"{end}: {text.strip()}" if text.strip() else end)

    def _note(self, outcome: Outcome, rank: int, said: str) -> None:
        outcome.endings[rank] = Ending(How.DIED, said)
        outcome.tails[rank] = self._outputs[rank].text()

    def _ask_where(self, outcome: Outcome, waiting: set[int], too_late: str) -> None:
        """Note where the ranks are that did not come to an end: in time, or after a failure."""
        for rank in sorted(waiting):
            frames = frames_of(self._processes[rank].pid, where_file(self.starts.folder, rank))
            below = self.starts.folder_of_run
            place, waits = place_of(frames, below, failed=not too_late)
            with suppress(OSError, EOFError):
                self._questions[rank].send("captured")
                if self._questions[rank].poll(0.5):
                    outcome.captured[rank] = self._questions[rank].recv()
            if too_late:
                outcome.endings[rank] = Ending(How.HUNG, f"{too_late}{place}", waits)
            else:
                said = f"was stopped {GRACE:g} s after another rank failed{place}"
                outcome.endings[rank] = Ending(How.STOPPED, said, waits)

    def close(self, *, kill: bool = False) -> None:
        """End all ranks: let them tear down what is left, or kill them with all they started."""
        atexit.unregister(self.close)
        if not kill:
            for channel in self._channels.values():
                with suppress(OSError):
                    channel.send(None)
            self._listen_to_the_last()
        for process in self._processes.values():
            if process.is_alive():
                # The group that it made for itself; before it has, it is killed alone.
                with suppress(ProcessLookupError, PermissionError):
                    if os.getpgid(process.pid) == process.pid:
                        os.killpg(process.pid, signal.SIGKILL)
                process.kill()
            process.join(2)
        for end in (*self._channels.values(), *self._questions.values()):
            end.close()
        self._channels.clear()
        shutil.rmtree(self.starts.folder, ignore_errors=True)

    def _listen_to_the_last(self) -> None:
        """Take in what the teardown of wider fixtures says."""
        outcome = Outcome(self._of)
        waiting = set(self._channels)
        deadline = time.monotonic() + 5
        while waiting and (left := deadline - time.monotonic()) > 0:
            channels = {self._channels[rank]: rank for rank in waiting}
            for ready in connection.wait([*channels], left):
                rank = channels[cast("Connection", ready)]
                if self._listen(outcome, rank, "bye"):
                    waiting.discard(rank)
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))


def _context() -> Any:
    """How processes are started: forked from a clean one that has loaded torch, else anew."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        return context
    return multiprocessing.get_context("spawn")


@contextmanager
def _without_main() -> Iterator[None]:
    """multiprocessing runs the main script again in each process; a rank needs nothing of it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {
        name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)
    }
    for name in kept:
        delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)


def new_folder() -> str:
    """Return a new folder for what ranks share."""
    return tempfile.mkdtemp(prefix="paramcheck-ranks-")


def said_of(outcome: Outcome) -> str:
    """Return what is to say of ranks that did not start, in lines."""
    return "\n".join(
        f"{ranks_text([rank])} {ending.said}" for rank, ending in sorted(outcome.endings.items())
    )
