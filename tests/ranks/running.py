"""How these tests run pytest: in a process of its own, whose reports and children are looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

#: Writes what each report says, one a line.
RECORDER = """
import json, os, pathlib

def pytest_runtest_logreport(report):
    import pytest
    if "RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    said = {
        "id": report.nodeid.partition("::")[2], "file": report.nodeid.partition("::")[0],
        "when": report.when, "outcome": report.outcome,
        "text": report.longreprtext, "summary": crash and crash.message,
        "sections": [list(section) for section in report.sections],
        "xfail": getattr(report, "wasxfail", None), "properties": list(report.user_properties),
        "duration": report.duration,
    }
    name = "reports" + os.environ.get("RANK", "")
    with pathlib.Path(os.environ["RECORDED"], name).open("a") as file:
        file.write(json.dumps(said) + "\\n")
"""
_TOKEN = "PARAMCHECK_TESTS_TOKEN"


@dataclass
class Ran:
    """A run that has ended."""

    folder: Path
    code: int
    out: str
    seconds: float
    reports: list[dict[str, Any]] = field(default_factory=list)
    #: The command lines of processes that are still there.
    left: list[str] = field(default_factory=list)

    def of(self, name: str) -> dict[str, Any]:
        """Return the reports of a test that is not skipped in its set-up, by phase."""
        found = {report["when"]: report for report in self.reports if report["id"] == name}
        assert found, f"no report of {name} in\n{self.out}"
        return found

    def failure(self, name: str) -> str:
        """Return the text of the phase in which a test failed."""
        (text,) = [
            report["text"] for report in self.of(name).values() if report["outcome"] == "failed"
        ]
        return str(text)

    def outcomes(self, file: str = "") -> dict[str, int]:
        """Return how many tests, of a file or of all, came to each end, as pytest counts them."""
        counts: dict[str, int] = {}
        for report in self.reports:
            if file not in ("", report["file"]):
                continue
            word = report["outcome"]
            if report["xfail"] is not None:
                word = "xfailed" if word == "skipped" else "xpassed"
            elif word == "failed" and report["when"] != "call":
                word = "error"
            elif word == "passed" and report["when"] != "call":
                continue
            counts[word] = counts.get(word, 0) + 1
        return counts


class Running:
    """A run of pytest in a folder, and whatever it starts."""

    def __init__(
        self,
        folder: Path,
        args: Sequence[str],
        environment: Mapping[str, str] = {},
        command: Sequence[str] = (sys.executable, "-m", "pytest"),
        says: str = "",
    ) -> None:
        """``says``: what a user types while it runs."""
        self.folder = folder
        self.token = uuid.uuid4().hex
        self.recorded = folder / "recorded"
        self.recorded.mkdir(exist_ok=True)
        self._started = time.monotonic()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
        self.process = subprocess.Popen(
            [*command, "-p", "no:hypothesispytest", *args],
            cwd=folder,
            env={
                **kept,
                _TOKEN: self.token,
                "RECORDED": str(self.recorded),
                "COLUMNS": "200",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # As from a terminal: a shell's background jobs ignore it, and so do their children.
            preexec_fn=_heed_interrupts,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(says)
        self.process.stdin.close()
        self.process.stdin = None  # there is nothing left to communicate

    def wait_for(self, file: str, seconds: float = 60) -> None:
        """Wait until a test of the run has written a file."""
        end = time.monotonic() + seconds
        while not (self.folder / file).exists():
            assert time.monotonic() < end
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)

    def children(self) -> list[str]:
        """Return the command lines of all that this run has started and that is there."""
        return processes_with(self.token)

    def end(self, seconds: float = 180) -> Ran:
        """Wait for the end of the run, and some seconds for that of all it has started.

        Two on a quiet machine: the server that ranks are forked from has torch to take down.
        """
        out, _ = self.process.communicate(timeout=seconds)
        took = time.monotonic() - self._started
        end = time.monotonic() + 15
        while (left := self.children()) and time.monotonic() < end:
            time.sleep(0.05)
        reports = [
            json.loads(line)
            for file in sorted(self.recorded.iterdir())
            for line in file.read_text(encoding="utf-8").splitlines()
        ]
        return Ran(self.folder, self.process.returncode, out, took, reports, left)


def _heed_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_with(token: str) -> list[str]:
    """Return the command lines of the living processes whose environment has the token."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"{_TOKEN}={token}".encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line:  # a zombie has none
                        found.append(line)
            except OSError:
                continue
    return found


def write(folder: Path, **sources: str) -> None:
    """Write test files, and the conftest that records reports."""
    for name, source in {"conftest": RECORDER, **sources}.items():
        text = dedent(source)
        (folder / f"{name}.py").write_text(
            text if name != "conftest" or source is RECORDER else RECORDER + text, encoding="utf-8"
        )
    if not (folder / "pytest.ini").exists():
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")


def run(folder: Path, *args: str, environment: Mapping[str, str] = {}, **sources: str) -> Ran:
    """Write sources, run pytest on the folder, and return how that ended."""
    write(folder, **sources)
    return Running(folder, ["-p", "no:cacheprovider", "-ra", *args], environment).end()
