"""KeyboardInterrupt at a chosen line, as Ctrl-C may come at any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: A line that ran: file, number, and how often it had run before.
Line = tuple[str, int, int]


def lines_of(call: Callable[[], object], wanted: Callable[[str], bool]) -> list[Line]:
    """Return the lines that a call runs in the files wanted, in their order.

    Where Python loses what is raised in a line that ran before, each line's first time only.
    """
    ran = _ran(call, wanted)
    return [line for line in ran if line[2] == 0] if _python_loses_handlers() else ran


def _ran(call: Callable[[], object], wanted: Callable[[str], bool]) -> list[Line]:
    ran: list[Line] = []
    counts: dict[tuple[str, int], int] = {}

    def note(file: str, number: int) -> None:
        count = counts.get((file, number), 0)
        counts[file, number] = count + 1
        ran.append((file, number, count))

    with _traced(note, wanted):
        call()
    return ran


def _python_loses_handlers() -> bool:
    """Whether ``finally`` is passed over where a trace raises at a jump back to a line.

    Python 3.12.1 and 3.13.0 do so, and 3.10 and 3.11 do not. An interrupt that a signal brings
    takes another way.
    """
    taken: list[int] = []

    def loop() -> list[str]:
        try:
            return [str(number) for number in range(3)]
        finally:
            taken.append(1)

    lost = False
    for line in _ran(loop, __file__.__eq__):
        taken.clear()
        if line[2] == 1 and interrupted(loop, line):
            lost = lost or not taken
    return lost


def interrupted(call: Callable[[], object], line: Line) -> bool:
    """Run a call, raise KeyboardInterrupt before that line; return whether it came through."""
    file, number, left = line

    def strike(_: str, at: int) -> None:
        nonlocal left
        if at == number:
            left -= 1
            if left == -1:
                raise KeyboardInterrupt

    try:
        with _traced(strike, file.__eq__):
            next(_apart(call))
    except KeyboardInterrupt:
        return True
    return False


def _apart(call: Callable[[], object]) -> Iterator[None]:
    """Call with a stack of handled exceptions of its own, which a generator has: what is raised
    by a trace in the line of a handler leaves the exception handled there on it for good."""
    call()
    yield


@contextmanager
def _traced(see: Callable[[str, int], None], wanted: Callable[[str], bool]) -> Iterator[None]:
    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if wanted(frame.f_code.co_filename) else None

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            see(frame.f_code.co_filename, frame.f_lineno)
        return local

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
