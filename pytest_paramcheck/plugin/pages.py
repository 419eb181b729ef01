"""``--param-page=DIR``: a page of each model whose checks run, and an index of them.

Where a check runs, its model is measured once, after the first check that runs on it; where
reports arrive, findings are added and the pages are written. With xdist these are two processes.

Tests: ``tests/integration/test_param_page.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import cut, first_line, plural, printable
from .marked import params_of
from .model_items import BoundCheck
from .results import Result, Results

#: xdist's workers send what they measured under this key.
OUTPUT = "paramcheck_pages"
#: How much of the text of a failure a page holds; its findings are shown in full.
MOST_TEXT = 4000


def page_folder(config: pytest.Config) -> Path | None:
    """Return the folder that pages go to, made; None where none are asked for.

    Raises :class:`pytest.UsageError` for one that cannot be.
    """
    given: str | None = config.getoption("--param-page")
    if given is None:
        return None
    folder = config.invocation_params.dir / given
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise pytest.UsageError(f"--param-page={given}: {reason}") from None
    return folder


class Measurements:
    """Registered where tests run: the data of each model's page, as JSON, by file and model."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self._without_values: set[str] = set()

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside all that surrounds the test
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            bound = getattr(item, "bound", None)
            if isinstance(item, pytest.Function):
                bound = params_of(item).get("check")
            if isinstance(bound, BoundCheck):
                self._measure(_key(item.nodeid, bound.model), bound)

    def _measure(self, key: str, bound: BoundCheck) -> None:
        if key in self.data and key not in self._without_values:
            return
        from ..parameters.running.randomness import random_states
        from ..showing.cases import gather_case
        from ..showing.page_data import page_data

        try:
            run = bound.case_run
            on_meta = run.device.type == "meta"
            if on_meta and key in self.data:
                return
            self._without_values.discard(key)
            if on_meta:  # shown as it is on another device, where there is one
                self._without_values.add(key)
            with random_states([run.device]):
                self.data[key] = json.dumps(page_data(gather_case(run)))
        except Exception as error:  # whatever the user's factory raises: its checks say so
            said = f"{type(error).__name__}: {first_line(error, 200)}"
            self.data[key] = json.dumps({"error": printable(said)})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send home what this worker measured."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[OUTPUT] = self.data


class Pages(Results):
    """Registered where reports arrive: writes the pages at the end."""

    def __init__(self, folder: Path, measured: Measurements) -> None:
        super().__init__()
        self._folder = folder
        self._measured = measured
        self._said = ""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in what a worker measured; a crashed worker sends nothing."""
        sent = (getattr(node, "workeroutput", None) or {}).get(OUTPUT, {})
        for key, data in sent.items():
            self._measured.data.setdefault(key, data)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write a page of each model, and the index."""
        from ..showing.page import written
        from ..showing.templates import index_html, page_html

        results: dict[str, list[Result]] = {}
        for nodeid, result in self.checks.items():
            results.setdefault(_key(nodeid, result.model), []).append(result)
        entries: list[dict[str, Any]] = []
        taken = {"index"}
        try:
            for key, own in results.items():
                data = json.loads(self._measured.data.get(key, "{}"))
                entry = _entry(own, data)
                if "parameters" in data:
                    entry["file"] = _file_name(own[0].model, taken)
                    written(self._folder / entry["file"], page_html(_with_results(data, own)))
                entries.append(entry)
            if entries:
                index = written(self._folder / "index.html", index_html(entries=entries))
                pages = sum(bool(entry["file"]) for entry in entries)
                self._said = f"{plural(pages, 'page')}: {index}"
        except ParamCheckUsageError as error:
            self._said = f"no pages: {error}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._said:
            terminalreporter.write_line(f"paramcheck: {self._said}")


def _key(nodeid: str, model: str) -> str:
    return f"{nodeid.partition('::')[0]}::{model}"


def _with_results(data: dict[str, Any], results: list[Result]) -> dict[str, Any]:
    from ..showing.page_checks import add_checks

    findings = [
        (result.check, Finding(**{**one, "names": tuple(one["names"])}))
        for result in results
        for one in result.findings
    ]
    checks = [
        {"name": one.check, "outcome": one.outcome, "text": cut(one.reason, MOST_TEXT)}
        for one in results
    ]
    add_checks(data, findings, checks)
    return data


def _entry(results: list[Result], data: dict[str, Any]) -> dict[str, Any]:
    """What the index says of a model."""
    rows = data.get("parameters", ())
    return {
        "name": results[0].model,
        "where": results[0].file,
        "file": "",
        "error": data.get("error", "" if rows else "not measured"),
        "model": data.get("model", ""),
        "parameters": sum(row[2] != 1 for row in rows),
        "elements": sum(row[7] or 0 for row in rows if row[2] != 1 and len(row) > 7),
        "outcomes": {
            outcome: [one.check for one in results if one.outcome == outcome]
            for outcome in ("failed", "expected", "skipped", "passed")
        },
    }


def _file_name(model: str, taken: set[str]) -> str:
    """Return a name for a file: two models may have one name, and any characters in it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-.")[:80] or "model"
    name, number = plain, 1
    while name.lower() in taken:
        number += 1
        name = f"{plain}-{number}"
    taken.add(name.lower())
    return f"{name}.html"
