"""Which devices a run really tested, so that a green run cannot lie. No torch, no pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..messages.wording import plural
from .devices import meets


class Tally:
    """How many marked tests ran on each device, and how many were skipped, with the reasons."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, report: Any) -> None:
        """Count a test report: xdist sends the workers' ones home with their properties."""
        device = dict(report.user_properties).get("param_device")
        if not isinstance(device, str):
            return
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[device] += 1
            self.reasons[reason.removeprefix("Skipped: ")] += 1
        elif report.when == "call" or report.failed:
            self.ran[device] += 1

    def silent(self, asked: Sequence[str], *, selected: bool = False) -> list[str]:
        """Return a line for each asked device on which no marked test ran though some were due.

        A suite without marked tests has none due: that is not a lie. Where the user ``selected``
        tests, those that are not in the run are missing on purpose: only skipped ones were due.
        """
        count = sum((self.skipped + self.ran).values())
        if not count:
            return []
        reasons = "; ".join(f"{n} skipped: {reason}" for reason, n in self.reasons.most_common(3))
        return [
            f"--param-device={device}: not one of {plural(count, 'marked test')} ran on it"
            f"{f' ({reasons})' if reasons else ''}"
            for device in asked
            if not _any_on(device, self.ran) and (not selected or self._skipped(device, asked))
        ]

    def _skipped(self, device: str, asked: Sequence[str]) -> bool:
        """Whether tests were skipped on a device, or because no asked device suited them."""
        unsuited = (d for d in self.skipped if not any(_any_on(name, [d]) for name in asked))
        return _any_on(device, self.skipped) or any(unsuited)


def _any_on(device: str, others: Iterable[str]) -> bool:
    return any(meets(device, other) or meets(other, device) for other in others)
