"""Ratios measured side by side: alternating runs, medians, one table."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement: what, against what, and what was promised."""

    name: str
    value: str
    budget: str
    kept: bool


def keep_memory() -> None:
    """Start over with an allocator that keeps what it is given back, where it is glibc's.

    Memory new from the system costs 6 to 20 times what is written to it, and by no rule that a
    benchmark could follow: whoever makes copies is measured by the copies.
    """
    kept = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    if sys.platform == "linux" and not kept.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **kept})


def alternate(runs: int, *functions: Callable[[], object]) -> list[list[float]]:
    """Run the functions in turn, so that a slow moment of the machine meets all of them.

    A function that returns a float, seconds, is taken at its word, any other is timed. The first
    round only warms up.
    """
    times: list[list[float]] = [[] for _ in functions]
    for number in range(runs + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            told = function()
            elapsed = time.perf_counter() - start
            seconds = told if isinstance(told, float) else elapsed
            if number:
                taken.append(seconds)
    return times


def median(times: list[float]) -> float:
    """Return the median of some seconds."""
    return statistics.median(times)


def milliseconds(*functions: Callable[[], object], runs: int = 7) -> list[float]:
    """Return the median milliseconds of functions that run in turn."""
    return [median(times) * 1e3 for times in alternate(runs, *functions)]


def paired_ratio(times: list[float], baseline: list[float]) -> float:
    """Return the median of the ratios of runs that lie beside each other."""
    return statistics.median(a / b for a, b in zip(times, baseline, strict=True))


def show(rows: list[Row]) -> bool:
    """Print the table, and return whether every budget was kept."""
    headers = ("work", "measured", "budget", "")
    lines = [(row.name, row.value, row.budget, "ok" if row.kept else "MISSED") for row in rows]
    widths = [max(len(line[i]) for line in (headers, *lines)) for i in range(4)]
    for line in (headers, *lines):
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    return all(row.kept for row in rows)
