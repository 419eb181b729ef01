"""No process outlives the run, however that ends; and what stays alive between tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .running import Running, run, write
from .suites import HEAD, PASSING, PASSING_COUNT

WAITS = (
    HEAD
    + """
def test_first():
    dist.barrier()

def test_waits():
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    dist.barrier()
    open(f"waiting{R}", "w").close()
    time.sleep(1000)
"""
)
ENDS = {
    "interrupted": (signal.SIGINT, 2),
    "terminated": (signal.SIGTERM, -signal.SIGTERM),
    "killed": (signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_is_ended(tmp_path: Path, how: str) -> None:
    ending, code = ENDS[how]
    write(tmp_path, test_it=WAITS)
    running = Running(tmp_path, ["-p", "no:cacheprovider"])
    for rank in (0, 1):
        running.wait_for(f"waiting{rank}")
    assert len(running.children()) >= 5  # the two ranks, what each has started, and pytest
    os.kill(running.process.pid, ending)
    ran = running.end()

    assert (ran.code, ran.left) == (code, [])


def test_workers_that_are_killed(tmp_path: Path) -> None:
    """With the process that started them, and their ranks."""
    write(tmp_path, test_it=WAITS)
    running = Running(tmp_path, ["-p", "no:cacheprovider", "-n", "2"])
    for rank in (0, 1):
        running.wait_for(f"waiting{rank}")
    assert len(running.children()) >= 7  # two workers more
    os.kill(running.process.pid, signal.SIGKILL)
    ran = running.end()

    assert (ran.code, ran.left) == (-signal.SIGKILL, [])


def test_a_run_that_passes(tmp_path: Path) -> None:
    """And all that a test may expect of its ranks, in one suite."""
    ran = run(tmp_path, "--strict-markers", "--strict-config", "-W", "error", test_it=PASSING)

    assert ran.outcomes() == {"passed": PASSING_COUNT}, ran.out
    assert (ran.code, ran.left) == (0, [])


def test_a_run_that_stops_early(tmp_path: Path) -> None:
    source = HEAD + (
        "def test_a(): pass\n"
        "def test_b(): assert R < 0\n"
        "def test_c(): assert R < 0\n"
        "def test_d(): pass\n"
    )
    ran = run(tmp_path, "--maxfail=2", test_it=source)

    assert ran.outcomes() == {"passed": 1, "failed": 2}
    assert (ran.code, ran.left) == (1, [])


def test_a_run_that_crashes(tmp_path: Path) -> None:
    conftest = """
def pytest_runtest_teardown(item):
    if "RANK" not in os.environ and item.name.startswith("test_b"):
        raise KeyboardInterrupt
"""
    source = HEAD + "def test_a(): pass\ndef test_b(): pass\n"
    ran = run(tmp_path, conftest=conftest, test_it=source)

    assert (ran.code, ran.left) == (2, [])


def test_a_teardown_that_belongs_to_no_test_any_more(tmp_path: Path) -> None:
    """It fails the run, in a line of the summary."""
    source = HEAD + (
        "@pytest.fixture(scope='module')\n"
        "def late():\n"
        "    yield\n"
        "    if R == 1: raise RuntimeError('too late')\n"
        "def test_a(late): pass\n"
        "@pytest.mark.skipif(R < 0, reason='not chosen')\n"
        "def test_b(): pass\n"
    )
    ran = run(tmp_path, test_it=source)

    assert ran.code == 1, ran.out
    assert "RuntimeError: too late" in ran.out
    assert any(line.startswith("ERROR: rank 1 of 2, as it ended: ") for line in ran.out.split("\n"))


def test_fixtures_of_two_modules_where_the_last_test_of_the_first_is_skipped(
    tmp_path: Path,
) -> None:
    """What was kept for it is torn down before the other module's are set up."""
    source = HEAD + (
        "@pytest.fixture(scope='module', autouse=True)\n"
        "def noted():\n"
        "    with open(f'noted{R}', 'a') as file: file.write(f'up {__name__}\\n')\n"
        "    yield\n"
        "    with open(f'noted{R}', 'a') as file: file.write(f'down {__name__}\\n')\n"
        "def test_a(): pass\n"
        "@pytest.mark.skipif(R < 0, reason='not chosen')\n"
        "def test_b(): pass\n"
    )
    ran = run(tmp_path, test_one=source, test_two=source)

    assert ran.outcomes() == {"passed": 2, "skipped": 2}, ran.out
    for rank in (0, 1):
        assert (tmp_path / f"noted{rank}").read_text().splitlines() == [
            "up test_one",
            "down test_one",
            "up test_two",
            "down test_two",
        ]
