"""What a command is doing, on a terminal; in a pipe, nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show what is being done, in a line of standard error that is gone when it is done."""
    try:
        shown = sys.stderr.isatty()
    except (AttributeError, ValueError):  # none at all (pythonw), or a closed one
        shown = False
    if not shown:
        yield
        return
    sys.stderr.write(f"{what} ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
