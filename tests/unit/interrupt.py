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
    """Return the lines that a call runs in the files wanted, in their order."""
    ran: list[Line] = []
    counts: dict[tuple[str, int], int] = {}

    def note(file: str, number: int) -> None:
        count = counts.get((file, number), 0)
        counts[file, number] = count + 1
        ran.append((file, number, count))

    with _traced(note, wanted):
        call()
    return ran


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
