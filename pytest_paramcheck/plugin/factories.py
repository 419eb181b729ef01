"""What ``--param-model`` names: imported, and where it is written."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import did_you_mean
from ..model_checks.case import ModelCase, as_cases


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
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # what python -m pytest does as well
    cases: dict[str, list[ModelCase]] = {}
    for spec in dict.fromkeys(specs):
        origin = f"--param-model={spec}"
        try:
            cases[spec] = as_cases(_load(spec, origin, folder), origin)
        except ParamCheckUsageError as error:
            raise pytest.UsageError(str(error)) from None
        try:
            validate_names(cases[spec])
        except ParamCheckUsageError as error:
            raise pytest.UsageError(f"{origin}: {error}") from None
    return cases


def _load(spec: str, origin: str, folder: Path) -> Any:
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise pytest.UsageError(f"{origin}: expected package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises in its import
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (module_name + ".").startswith(missing + "."):
            problem = f"no module named {missing!r} from {folder} or on sys.path"
        else:
            problem = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise pytest.UsageError(f"{origin}: {problem}") from error
    found: Any = module
    where = module_name
    for name in path.split("."):
        if not hasattr(found, name):
            choices = [n for n in dir(found) if not n.startswith("_")]
            hint = did_you_mean(name, choices)
            raise pytest.UsageError(f"{origin}: {where} has no {name!r}{hint and ';' + hint}")
        found = getattr(found, name)
        where = f"{where}{':' if where == module_name else '.'}{name}"
    return found


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
