"""Ranks that stay alive between tests: a function runs on all of them at once."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds that importing torch's distributed parts may take on a machine that does more than this.
STARTING = 240.0


class Ranks:
    """``world`` processes; one that does not answer in time ends them all."""

    def __init__(self, world: int = 2) -> None:
        self.world = world
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def run(self, what: str, timeout: float = 60.0) -> list[dict[str, Any]]:
        """Run ``module:name`` on all ranks; return what each says, ``hangs`` or ``died`` too."""
        if not self._processes or self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
            self._start()
            timeout += STARTING
        self._count += 1
        store = str(Path(self._folder.name) / f"store{self._count}")
        for process in self._processes:
            assert process.stdin
            process.stdin.write(json.dumps({"what": what, "store": store}).encode() + b"\n")
            process.stdin.flush()
        end = time.monotonic() + timeout
        said = [self._answer(process, end) for process in self._processes]
        if any(one["outcome"] in ("hangs", "died") for one in said):
            self.close()
        return said

    def _answer(self, process: subprocess.Popen[bytes], end: float) -> dict[str, Any]:
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return {"outcome": "hangs", "text": ""}
        line = process.stdout.readline()
        return json.loads(line) if line else {"outcome": "died", "text": ""}

    def _start(self) -> None:
        environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **os.environ}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.ranks.rank", str(rank), str(self.world)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=environment,
            )
            for rank in range(self.world)
        ]

    def close(self) -> None:
        """End the processes and wait for them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        self._processes = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
