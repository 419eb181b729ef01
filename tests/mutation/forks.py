"""Runs pytest in forks of a process that has loaded what the tests load, the package excepted.

Most of a short test run is imports: torch, pytest and hypothesis take longer than a file's tests.
Limits are of processor time where they can be: a machine that is busy makes no mutant slow.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import pytest

#: What test files import that takes long, each with what it imports itself.
LOADED = (
    *("numpy", "safetensors.torch"),
    *("torch._dynamo", "torch.export", "torch.distributed.checkpoint", "torch.distributed.fsdp"),
    *("torch.distributed.tensor.parallel", "torch.testing._internal.distributed.fake_pg"),
)

#: A process that waits for another one uses no processor.
WAITS = 20


def load() -> None:
    """Load what the forks would load each for themselves."""
    for name in LOADED:
        import_module(name)


class Costs:
    """A pytest plugin: processor time of each test file, None where a test of it failed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float | None] = {}
        self._last = _processor_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        now = _processor_time()
        file = report.nodeid.partition("::")[0]
        before = self.seconds.get(file, 0.0)
        failed = report.failed or before is None
        self.seconds[file] = None if failed else (before or 0.0) + now - self._last
        self._last = now


def costs_of(folder: Path, arguments: Sequence[str]) -> dict[str, float | None]:
    """Run test files as they are, and say what each costs; those with a failure cost None."""
    with tempfile.TemporaryDirectory() as kept:
        result = Path(kept, "costs.json")

        def run() -> int:
            costs = Costs()
            code = int(pytest.main([*arguments], plugins=[costs]))
            result.write_text(json.dumps(costs.seconds), encoding="utf-8")
            return code

        _, output = _forked(folder, run, processor=3600.0)
        if not result.exists():
            raise SystemExit(f"the tests do not run without a mutant:\n{output[-3000:]}")
        costs: dict[str, float | None] = json.loads(result.read_text(encoding="utf-8"))
        return costs


def passes(folder: Path, arguments: Sequence[str], processor: float) -> tuple[bool, str]:
    """Run tests, and say whether all passed within seconds of processor time."""

    def run() -> int:
        # A mutant's bytecode must not outlive it, here and in what the tests start themselves.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        return int(pytest.main([*arguments]))

    return _forked(folder, run, processor)


def _forked(folder: Path, run: Callable[[], int], processor: float) -> tuple[bool, str]:
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if not child:
            _become(folder, output.fileno(), processor)
            code = 70
            try:
                code = run()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = _wait(child, time.monotonic() + WAITS * (processor + 10))
        output.seek(0)
        return status == 0, output.read().decode(errors="replace")


def _become(folder: Path, output: int, processor: float) -> None:
    """Make a fork the process of a test run in a folder."""
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    limit = int(processor) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    here = Path(__file__).resolve().parents[2]
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path) != here)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]


def _wait(child: int, until: float) -> int:
    """Wait for a fork and end what it started."""
    pause = 0.01
    status = None
    try:
        while status is None and time.monotonic() < until:
            time.sleep(pause)
            pause = min(1.2 * pause, 0.5)
            done, ended = os.waitpid(child, os.WNOHANG)
            status = ended if done else None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            _, status = os.waitpid(child, 0)
    return status


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
