"""Putting back: steps noted before anything is touched, all taken, whatever interrupts.

A step is noted first and then what it undoes is done, so that a failure half way through a
set-up loses nothing. A step may be taken twice, and one that fails keeps no other from being
taken. An interrupt (Ctrl-C, a time limit) may come at any line, so the steps get two turns:

    with Undo() as undo, undo:
        ...

Where it comes in the middle of the first turn, or before its first line, the second one takes
the rest. Ctrl-C while steps are taken waits until all are, and is raised then.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line

Restore: TypeAlias = Callable[[], object]


class Undo:
    """The steps that put things back, last noted first taken. Entered twice in one ``with``.

    A step that fails is named in a :class:`ParamCheckUsageError` after all the others; where
    another error is on its way, that one gets a note instead.
    """

    def __init__(self) -> None:
        self._steps: list[Restore] = []
        self._failed: dict[str, None] = {}
        self._handler: Any = None
        self._waiting: list[tuple[Any, ...]] = []

    def push(self, *steps: Restore) -> None:
        """Note how something is put back; do what these steps undo only afterwards."""
        self._steps.extend(steps)

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        if self._steps:
            self._hold_interrupts()
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as failure:
                said = first_line(str(failure)) or type(failure).__name__
                self._failed[said] = None
            self._steps.pop()
        self._let_interrupts()
        failed, self._failed = list(self._failed), {}
        if not failed:
            return
        text = f"not everything could be put back: {'; '.join(failed)}"
        if error is None:
            raise ParamCheckUsageError(text)
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(text)

    def _hold_interrupts(self) -> None:
        # Python calls handlers in the main thread only, and only there they can be set.
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and handler != self._wait:
            self._handler = handler  # noted before it is replaced: the second turn needs it
            signal.signal(signal.SIGINT, self._wait)

    def _wait(self, *interrupt: Any) -> None:
        self._waiting.append(interrupt)

    def _let_interrupts(self) -> None:
        __tracebackhide__ = True
        if self._handler is None:
            return
        handler = self._handler
        signal.signal(signal.SIGINT, handler)
        self._handler = None
        if self._waiting:
            interrupt = self._waiting[0]
            self._waiting.clear()
            handler(*interrupt)
