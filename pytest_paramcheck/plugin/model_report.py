"""The last lines: per model what was checked, what failed, and what was left out and why.

Tests: ``tests/integration/test_model_cases.py``, ``test_param_model.py`` and ``test_workers.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from ..messages.wording import plural, shorten
from .properties import CHECK, INPUTS, LEFT_OUT, MODEL, NOT_DECLARED, WANT_INPUTS, own_properties

#: How many models one line names: of 200 that went alike, the first.
_MODELS = 3
#: From the least to the most that is known of an item, whose phases report one by one.
_RANK = ("passed", "skipped", "failed")


class CaseReport:
    """Registered as a plugin where reports arrive; ``-q`` leaves out what did not fail."""

    def __init__(self) -> None:
        # By file and model: two files may have a model of the same name.
        self._checks: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
        self._said: dict[tuple[str, str], dict[str, str]] = {}
        # The checks that had no inputs, by item.
        self._wanting: dict[tuple[str, str], dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.user_properties:
            return
        properties = own_properties(report)
        model, check = properties.get(MODEL), properties.get(CHECK)
        if model is None or check is None:
            return
        key = report.nodeid.partition("::")[0], model
        items = self._checks.setdefault(key, {})
        self._said.setdefault(key, {}).update(properties)
        if WANT_INPUTS in properties:
            self._wanting.setdefault(key, {})[report.nodeid] = check
        outcome = "failed" if report.failed else "skipped" if report.skipped else "passed"
        _, before = items.get(report.nodeid, (check, "passed"))
        items[report.nodeid] = check, max(outcome, before, key=_RANK.index)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        models = [model for _, model in self._checks]
        right: dict[str, list[str]] = {}
        wanting: dict[str, list[str]] = {}
        missing: dict[str, list[str]] = {}
        for key, items in self._checks.items():
            file, model = key
            shown = f"{model} ({file})" if models.count(model) > 1 else model
            if left_out := self._said[key].get(LEFT_OUT):
                text = f"not reached by the {self._said[key].get(INPUTS, 'inputs')}: {left_out}"
                missing.setdefault(f"{text}: ModelCase(inputs=...)", []).append(shown)
            failed = [check for check, outcome in items.values() if outcome == "failed"]
            if failed:
                names = shorten(list(dict.fromkeys(failed)), 8)
                terminalreporter.write_line(
                    f"{shown}: {len(failed)} of {len(items)} checks failed: {names}"
                )
                continue
            said, without = self._said[key], self._wanting.get(key, {})
            outcomes = [outcome for name, (_, outcome) in items.items() if name not in without]
            right.setdefault(_went(outcomes, said), []).append(shown)
            if without:
                checks = list(dict.fromkeys(without.values()))
                text = _left_out(checks, said[WANT_INPUTS])
                wanting.setdefault(text, []).append(shown)
        if terminalreporter.verbosity >= 0:
            for lines in (right, wanting, missing):
                for text, those in lines.items():
                    terminalreporter.write_line(f"{_named(those)}: {text}")


def _went(outcomes: Iterable[str], said: dict[str, str]) -> str:
    count = Counter(outcomes)
    parts = [f"{plural(count['passed'], 'check')} passed"]
    if count["skipped"]:
        parts.append(f"{count['skipped']} skipped")
    if by := said.get(INPUTS):
        parts.append(f"run on {by}")
    text = ", ".join(parts)
    fields = [name for name in said.get(NOT_DECLARED, "").split(",") if name]
    return f"{text}; not declared: {', '.join(fields)}" if fields else text


def _left_out(checks: list[str], to_write: str) -> str:
    need = "checks need" if len(checks) > 1 else "check needs"
    return f"{len(checks)} {need} inputs ({shorten(checks, 2)}): {to_write}"


def _named(models: list[str]) -> str:
    return shorten(models, _MODELS)
