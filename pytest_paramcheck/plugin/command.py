"""``python -m pytest_paramcheck check``: pytest with ``--param-model``, or the results as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from .finding_properties import KEY
from .properties import CHECK, MODEL, own_properties


class Results:
    """Notes what each check came to."""

    def __init__(self) -> None:
        self.checks: dict[str, dict[str, Any]] = {}
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = own_properties(report)
        noted = self.checks.setdefault(
            report.nodeid,
            {
                "model": properties.get(MODEL, ""),
                "check": properties.get(CHECK, ""),
                "outcome": "passed",
                "reason": "",
                "findings": [],
            },
        )
        if report.passed:
            return
        noted["outcome"] = "failed" if report.failed else "skipped"
        if isinstance(report.longrepr, tuple):
            noted["reason"] = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            noted["reason"] = report.longreprtext
        for name, value in report.user_properties:
            if name == KEY:
                noted["findings"] = [
                    finding for failure in json.loads(str(value)) for finding in failure["findings"]
                ]


def check(spec: str, arguments: Sequence[str], *, as_json: bool) -> int:
    """Run the whole-model checks of what a spec names; 1 where one fails, 2 where none can run."""
    options = [f"--param-model={spec}", *arguments]
    if not as_json:
        return _status(pytest.main(options))
    results = Results()
    status = _status(pytest.main([*options, "-p", "no:terminal"], plugins=[results]))
    written = {"checks": list(results.checks.values()), "errors": results.errors}
    sys.stdout.write(json.dumps(written, indent=2) + "\n")
    return status


def _status(code: int | pytest.ExitCode) -> int:
    return int(code) if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else 2
