"""One line per model of which whole-model checks failed."""

from __future__ import annotations

import pytest

from ..messages.wording import shorten
from .properties import CHECK, MODEL, own_properties


class CaseReport:
    """Registered as a plugin where reports arrive; silent where no check failed."""

    def __init__(self) -> None:
        # By file and model: two files may have a model of the same name.
        self._checks: dict[tuple[str, str], dict[str, tuple[str, bool]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.user_properties:
            return
        properties = own_properties(report)
        model, check = properties.get(MODEL), properties.get(CHECK)
        if model is None or check is None:
            return
        key = report.nodeid.partition("::")[0], model
        items = self._checks.setdefault(key, {})
        _, failed = items.get(report.nodeid, (check, False))
        items[report.nodeid] = (check, failed or report.failed)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        models = [model for _, model in self._checks]
        for (file, model), items in self._checks.items():
            failed = [check for check, bad in items.values() if bad]
            if failed:
                names = shorten(list(dict.fromkeys(failed)), 8)
                shown = f"{model} ({file})" if models.count(model) > 1 else model
                terminalreporter.write_line(
                    f"{shown}: {len(failed)} of {len(items)} checks failed: {names}"
                )
