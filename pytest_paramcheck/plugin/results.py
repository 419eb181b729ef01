"""What each whole-model check came to, read from the reports of its item.

Tests: ``tests/integration/test_param_page.py``, ``test_model_cases.py``, ``test_param_model.py``
and ``tests/unit/test_command_line.py``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from .finding_properties import KEY
from .properties import CHECK, MODEL, own_properties


@dataclass
class Result:
    """What one check of one model came to; ``file`` is where the test stands."""

    file: str
    model: str
    check: str
    outcome: str = "passed"
    reason: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {key: value for key, value in asdict(self).items() if key != "file"}


class Results:
    """Registered as a plugin where reports arrive."""

    def __init__(self) -> None:
        self.checks: dict[str, Result] = {}
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = own_properties(report)
        model, check = properties.get(MODEL), properties.get(CHECK)
        if model is None or check is None:
            return
        if report.when == "setup":  # a test that is run again begins anew
            self.checks[report.nodeid] = Result(report.nodeid.partition("::")[0], model, check)
        noted = self.checks[report.nodeid]
        if report.passed:
            return
        noted.outcome = "failed" if report.failed else "skipped"
        if isinstance(report.longrepr, tuple):
            noted.reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            noted.reason = report.longreprtext
        else:  # an expected failure is one that is known
            noted.outcome = "expected"
            noted.reason = str(getattr(report, "wasxfail", "")).removeprefix("reason: ")
        for entry in report.user_properties:
            pair: object = entry
            if isinstance(pair, tuple) and len(pair) == 2 and pair[0] == KEY:
                failures = json.loads(str(pair[1]))
                noted.findings = [one for failure in failures for one in failure["findings"]]
