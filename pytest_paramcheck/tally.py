"""Which devices a run really tested, so that a green run cannot lie. No torch, no pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .devices import meets
from .wording import plural


class Tally:
    """How many marked tests ran on each device, and how many were skipped, with the reasons."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    def add(self, report: Any) -> None:
        """Count a test report: xdist sends the workers' ones home with their properties."""
        device = dict(report.user_properties).get("param_device")
        if not isinstance(device, str):
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call" or report.failed:
            self.ran[device] += 1

    def silent(self, asked: Sequence[str]) -> list[str]:
        """Return a line for each asked device on which no marked test ran though some were due.

        A suite without marked tests has none due: that is not a lie.
        """
        if not self.skipped and not self.ran:
            return []
        marked = plural(sum((self.skipped + self.ran).values()), "marked test")
        reasons = "; ".join(f"{n} skipped: {reason}" for reason, n in self.skipped.most_common(3))
        return [
            f"--param-device={device}: not one of {marked} ran on it"
            f"{f' ({reasons})' if reasons else ''}"
            for device in asked
            if not any(meets(device, ran) or meets(ran, device) for ran in self.ran)
        ]
