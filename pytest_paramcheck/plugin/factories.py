"""What ``--param-model`` names: imported, and where it is written.

Tests: ``tests/integration/test_param_model.py`` and ``test_declare.py``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from ..messages.errors import ParamCheckUsageError
from ..model_checks.case import ModelCase
from ..model_checks.named import cases_named


def validate_names(cases: Sequence[ModelCase]) -> None:
    """Raise :class:`ParamCheckUsageError` for two cases of one name."""
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise ParamCheckUsageError(f"two cases are called {case.name!r}: give one a name=")
        seen.add(case.name)


def load_cases(specs: Sequence[str], folder: Path) -> dict[str, list[ModelCase]]:
    """Import what each ``--param-model`` names, relative to the folder pytest was started in.

    Raises :class:`pytest.UsageError` that says what cannot be found, imported or called.
    """
    cases: dict[str, list[ModelCase]] = {}
    for spec in dict.fromkeys(specs):
        origin = f"--param-model={spec}"
        try:
            cases[spec] = cases_named(spec, folder, origin)
        except ParamCheckUsageError as error:
            # What the user's module raised in its import is worth its traceback.
            raise pytest.UsageError(str(error)) from error.__cause__
        try:
            validate_names(cases[spec])
        except ParamCheckUsageError as error:
            raise pytest.UsageError(f"{origin}: {error}") from None
    return cases


def place_of(factory: object) -> tuple[Path | None, int]:
    """Return the file and line (from 0) where a factory is written; its file, or None."""
    found: Any = factory
    while isinstance(found, partial):
        found = found.func
    found = inspect.unwrap(found) if callable(found) else found
    code = getattr(found, "__code__", None)
    if isinstance(found, type):
        code = getattr(vars(found).get("__init__"), "__code__", None)
    if isinstance(code, CodeType):
        return Path(code.co_filename), code.co_firstlineno - 1
    file = getattr(sys.modules.get(getattr(found, "__module__", None) or ""), "__file__", None)
    return (Path(file), 0) if isinstance(file, str) else (None, 0)
