"""What a rank writes outside of pytest: shown with ``-s``, kept to be shown where it died."""

from __future__ import annotations

import sys
import threading
from collections import deque
from multiprocessing.connection import Connection
from os import dup, fdopen

_LINES = 40


class Output:
    """Reads what one rank writes to its standard output and error."""

    def __init__(self, end: Connection, prefix: str) -> None:
        self._prefix = prefix
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._file = fdopen(dup(end.fileno()), encoding="utf-8", errors="replace")
        end.close()
        self._thread = threading.Thread(target=self._read, daemon=True, name="output of a rank")
        self._thread.start()

    def _read(self) -> None:
        with self._file:
            for line in self._file:
                self._lines.append(line)
                if self._prefix:
                    sys.stdout.write(self._prefix + line)
                    sys.stdout.flush()

    def text(self) -> str:
        """Return its last lines, once the rank has ended."""
        self._thread.join(0.5)
        return "".join(list(self._lines))
