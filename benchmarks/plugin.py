"""What the plugin costs a test run: loading, collecting, and each marked test.

python benchmarks/plugin.py [--runs N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import Row, alternate, median, paired_ratio, show

TESTS = 10_000  # collected
RUN = 1_000  # of them are run
EMPTY = "def test_nothing(): pass\n"
MARKED = "import pytest, torch\n" + "".join(
    f"@pytest.mark.params\ndef test_{n}(): pass\n" for n in range(TESTS)
)
PLAIN = "import pytest, torch\n" + "".join(
    f'@pytest.mark.parametrize("device", ["cpu"])\ndef test_{n}(device): pass\n'
    for n in range(TESTS)
)
# The time of the session without the start of Python and the import of torch.
CLOCK = """
import time
def pytest_configure(config):
    import torch
    if config.pluginmanager.hasplugin("paramcheck"):
        import pytest_paramcheck.plugin.environment
def pytest_collection(session):
    global start
    start = time.perf_counter()
def pytest_collection_finish(session):
    print("COLLECTED", time.perf_counter() - start)
def pytest_runtestloop(session):
    global start
    start = time.perf_counter()
def pytest_sessionfinish(session):
    print("RAN", time.perf_counter() - start)
"""
# On top of pytest's own: everything that pytest loads anyway is there already. Time of the
# processor: a few milliseconds are less than other processes take away.
IMPORTS = """
import sys, time, pytest, _pytest, argparse, dataclasses, difflib, unittest, contextlib, re
pytest.Config, pytest.console_main
import _pytest.unittest, _pytest.assertion, _pytest.terminal
before = set(sys.modules)
start = time.process_time()
import pytest_paramcheck.plugin
print("TOOK", time.process_time() - start)
print("MODULES", *sorted(set(sys.modules) - before))
"""


def run(directory: Path, *args: str) -> str:
    """Run Python in a directory and return what it printed."""
    done = subprocess.run(
        [sys.executable, *args], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def told(output: str, word: str) -> float:
    """Return the number behind a word that starts a line (or follows pytest's dots)."""
    return float(output.rpartition(word)[2].split()[0])


def pytest_args(*args: str) -> list[str]:
    """The command line of a pytest with no plugin but ours."""
    return ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *args]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    ours = ("-p", "pytest_paramcheck.plugin")
    rows = []
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        # Bytecode as an installed package has it, whatever the surroundings say.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "pycache")
        for name, text in (("empty", EMPTY), ("marked", MARKED), ("plain", PLAIN)):
            (directory / name).mkdir()
            (directory / name / f"test_{name}.py").write_text(text, encoding="utf-8")
            if name != "empty":
                (directory / name / "conftest.py").write_text(CLOCK, encoding="utf-8")

        imports = run(directory, "-c", IMPORTS)
        (took,) = alternate(max(runs, 9), lambda: told(run(directory, "-c", IMPORTS), "TOOK"))
        milliseconds = median(took) * 1e3
        modules = imports.rpartition("MODULES")[2].split()
        rows.append(
            Row(
                f"loading the plugin: {len(modules)} modules on top of pytest's",
                f"{milliseconds:.2f} ms",
                "3 ms",
                milliseconds < 3,
            )
        )
        heavy = [name for name in modules if name.partition(".")[0] in ("torch", "numpy")]
        rows.append(
            Row("loading the plugin: torch or numpy", str(len(heavy)), "0 modules", not heavy)
        )
        # Beside a plugin that does nothing: -p makes pytest look through all that is installed,
        # which a run with plugins does once anyway.
        (directory / "empty" / "nothing.py").touch()
        with_ours, without = alternate(
            max(runs, 9),
            lambda: run(directory / "empty", *pytest_args(*ours)) and None,
            lambda: run(directory / "empty", *pytest_args("-p", "nothing")) and None,
        )
        ratio = paired_ratio(with_ours, without)
        rows.append(Row("a run of one unmarked test", f"{ratio:.3f}x", "1.10x", ratio < 1.10))

        def session(which: str, word: str, *args: str) -> float:
            # Both with the plugin loaded: the question is what the marker costs.
            return told(run(directory / which, *pytest_args(*ours, *args)), word)

        marked, plain = alternate(
            runs,
            lambda: session("marked", "COLLECTED", "--co", "-qqq"),
            lambda: session("plain", "COLLECTED", "--co", "-qqq"),
        )
        ratio = paired_ratio(marked, plain)
        rows.append(
            Row(f"collecting {TESTS:,} marked tests", f"{ratio:.3f}x", "1.10x", ratio < 1.10)
        )
        few = [f"test_{{which}}.py::test_{n}" for n in range(RUN)]

        def running(which: str) -> float:
            return session(which, "RAN", *(name.format(which=which) for name in few))

        marked, plain = alternate(runs, lambda: running("marked"), lambda: running("plain"))
        cost = median([a - b for a, b in zip(marked, plain, strict=True)]) / RUN * 1e6
        rows.append(Row("running a marked test", f"{cost:+.0f} us", "200 us", cost < 200))
    return show(rows)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
