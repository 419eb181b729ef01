"""One line per model of which whole-model checks failed. No torch, no pytest."""

from __future__ import annotations

from typing import Any

from .wording import shorten


class CaseReport:
    """Registered as a plugin where reports arrive; silent where no check failed."""

    def __init__(self) -> None:
        self._checks: dict[str, dict[str, tuple[str, bool]]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not report.user_properties:
            return
        properties = dict(report.user_properties)
        model, check = properties.get("param_model"), properties.get("param_check")
        if not isinstance(model, str) or not isinstance(check, str):
            return
        items = self._checks.setdefault(model, {})
        _, failed = items.get(report.nodeid, (check, False))
        items[report.nodeid] = (check, failed or report.failed)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for model, items in self._checks.items():
            failed = [check for check, bad in items.values() if bad]
            if failed:
                names = shorten(list(dict.fromkeys(failed)), 8)
                terminalreporter.write_line(
                    f"{model}: {len(failed)} of {len(items)} checks failed: {names}"
                )
