"""``python -m pytest_paramcheck check``: pytest with ``--param-model``, or the results as JSON.

Tests: ``tests/unit/test_command_line.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import pytest

from .results import Results


def check(spec: str, arguments: Sequence[str], *, as_json: bool) -> int:
    """Run the whole-model checks of what a spec names; 1 where one fails, 2 where none can run."""
    options = [f"--param-model={spec}", *arguments]
    if not as_json:
        return _status(pytest.main(options))
    results = Results()
    status = _status(pytest.main([*options, "-p", "no:terminal"], plugins=[results]))
    written = {"checks": [one.data() for one in results.checks.values()], "errors": results.errors}
    sys.stdout.write(json.dumps(written, indent=2) + "\n")
    return status


def _status(code: int | pytest.ExitCode) -> int:
    return int(code) if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else 2
