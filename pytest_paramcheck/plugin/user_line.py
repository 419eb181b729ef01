"""The tracebacks of our errors end at the line that called us, in every style of pytest's.

The frames are taken out of the traceback itself: ``__tracebackhide__`` is not heard by
``--tb=native``, and a usage error can be raised in any function of ours.

Tests: ``tests/integration/test_user_line.py`` and ``test_reporting.py``.
"""

from __future__ import annotations

import sys
from types import TracebackType

from ..messages.errors import ParamCheckError, ParamCheckUsageError, chain

OURS = __name__.partition(".")[0]


def end_at_user(error: BaseException) -> bool:
    """Take our frames out of the tracebacks of our errors, in an error and all it came from.

    Says whether there was one of ours.
    """
    found = False
    for one in chain(error):
        if isinstance(one, (ParamCheckError, ParamCheckUsageError)):
            _take_out(one.__traceback__)
            found = True
    return found


def _take_out(traceback: TracebackType | None) -> None:
    """Link the frames that are not ours to one another, up to the last that called us."""
    frames: list[TracebackType] = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    ours = [_package(frame) == OURS for frame in frames]
    if not any(ours):
        return
    kept = [frame for frame, mine in zip(frames, ours, strict=True) if not mine]
    # What is below our first frame may be torch or a context manager that ran for us: the
    # last line of the user's own is above it.
    above = ours.index(True)
    while len(kept) > max(above, 1) and _is_library(kept[-1]):
        kept.pop()
    # None is kept of an error that we raised and caught ourselves, and raised another for.
    for frame, below in zip(kept, [*kept[1:], None], strict=False):
        frame.tb_next = below


def _package(frame: TracebackType) -> str:
    # The name of the module and not the file: a dataclass's __init__ has no file.
    return str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_library(frame: TracebackType) -> bool:
    package = _package(frame)
    return package == "torch" or package in sys.stdlib_module_names
