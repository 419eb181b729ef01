"""The thread of a rank that goes on while the main one waits: for the parent, in both senses."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from contextlib import suppress
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

import pytest


class Watcher:
    """Ends this process with the one that started it, and says what it has captured."""

    def __init__(self, questions: Connection, folder: str) -> None:
        self._folder = folder
        self._questions = questions
        #: Once there is one.
        self.config: pytest.Config | None = None
        threading.Thread(target=self._watch, daemon=True, name="watcher of a rank").start()

    def _watch(self) -> None:
        parent = parent_process()
        if parent is None:
            return
        waiting: list[Connection | int] = [parent.sentinel, self._questions]
        while True:
            ready = connection.wait(waiting)
            if parent.sentinel in ready:
                # However it has ended; and with all that this process has started.
                shutil.rmtree(self._folder, ignore_errors=True)
                os.killpg(os.getpgrp(), signal.SIGKILL)
            try:
                self._questions.recv()
                self._questions.send(self._captured())
            except (EOFError, OSError):
                waiting.remove(self._questions)

    def _captured(self) -> tuple[str, str]:
        """What the test that runs has written so far."""
        manager = self.config and self.config.pluginmanager.get_plugin("capturemanager")
        with suppress(Exception):  # whatever state the main thread has left it in
            out, err = manager.read_global_capture()  # type: ignore[union-attr]
            return out, err
        return "", ""
