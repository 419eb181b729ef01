"""Time alternatives in turn, in one process, and print them as ratios.

Ratios and not times: machines differ and drift, and a ratio of runs that alternate does not.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def alternate(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 15, warmup: int = 2
) -> dict[str, float]:
    """Return the median seconds of each candidate over rounds that run all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warmup + rounds):
        for name, run in candidates.items():
            gc.collect()
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            if number >= warmup:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(
    title: str, medians: Mapping[str, float], *, against: str, budget: Mapping[str, float] = {}
) -> None:
    """Print one block: milliseconds, the ratio to ``against``, and the budget if any."""
    print(f"\n{title}")
    width = max(map(len, medians))
    for name, median in medians.items():
        ratio = median / medians[against]
        line = f"  {name:<{width}}  {median * 1e3:10.3f} ms  {ratio:8.2f}x"
        if name in budget:
            verdict = "within" if ratio <= budget[name] else "OVER"
            line += f"  budget {budget[name]:g}x: {verdict}"
        print(line)
