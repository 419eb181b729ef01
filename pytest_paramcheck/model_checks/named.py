"""What ``module:factory`` names, imported; also a call with literals: ``module:factory("x")``."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import did_you_mean
from .case import ModelCase, as_cases, placed

EXPECTED = "expected package.module:factory"


def cases_named(spec: str, folder: Path, origin: str) -> list[ModelCase]:
    """Import what a spec names, relative to a folder; return the cases that it stands for.

    Raises :class:`ParamCheckUsageError` that says what cannot be found, imported or called.
    """
    value, call = _named(spec, folder, origin)
    if call is None:
        return as_cases(value, origin, written=spec)
    name = spec.partition(":")[2].strip().replace("::", ": :")  # what splits the parts of an id
    return [placed(ModelCase(_call(value, *call, origin), name=name), origin)]


def one_named(spec: str, folder: Path, origin: str) -> tuple[ModelCase, bool]:
    """Return the one case that a spec names, and whether it is a :class:`ModelCase` by itself.

    Raises :class:`ParamCheckUsageError` for a list, of which each has to be named.
    """
    value, call = _named(spec, folder, origin)
    if call is None and isinstance(value, (list, tuple)):
        raise ParamCheckUsageError(f"{origin}: {type(value).__name__} of several: name one of them")
    return cases_named(spec, folder, origin)[0], call is None and isinstance(value, ModelCase)


_Call = tuple[list[Any], dict[str, Any]]


def _named(spec: str, folder: Path, origin: str) -> tuple[Any, _Call | None]:
    """Import what a spec names; return it with the arguments it is to be called with, if any."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # what python -m pytest does as well
    module_name, _, path = spec.partition(":")
    if not (module_name and path.strip()):
        raise ParamCheckUsageError(f"{origin}: {EXPECTED}")
    called, bracket, _ = path.partition("(")
    call = _literals(path, origin) if bracket else None
    module = _module(module_name, origin, folder)
    return _attribute(module, module_name, called.strip(), origin), call


def _module(name: str, origin: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises in its import
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name + ".").startswith(missing + "."):
            problem = f"no module named {missing!r} from {folder} or on sys.path"
            dotted = name.removesuffix(".py").replace("/", ".").replace("\\", ".").strip(".")
            problem += f"; did you mean {dotted}?" if dotted != name else ""
        else:
            problem = f"importing {name} failed: {type(error).__name__}: {error}"
        raise ParamCheckUsageError(f"{origin}: {problem}") from error


def _attribute(module: Any, module_name: str, path: str, origin: str) -> Any:
    found = module
    where = module_name
    for name in path.split("."):
        if not hasattr(found, name):
            choices = [n for n in dir(found) if not n.startswith("_")]
            hint = did_you_mean(name, choices)
            raise ParamCheckUsageError(f"{origin}: {where} has no {name!r}{hint and ';' + hint}")
        found = getattr(found, name)
        where = f"{where}{':' if where == module_name else '.'}{name}"
    return found


def _literals(path: str, origin: str) -> _Call:
    """Return the arguments of a call as it is written; nothing of it is run."""
    try:
        call = ast.parse(path.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ParamCheckUsageError(f"{origin}: {path} is not a call: {said}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, (ast.Name, ast.Attribute)):
        raise ParamCheckUsageError(
            f'{origin}: {EXPECTED}, or one call of it with literals: factory("name", size=3)'
        )
    arguments = [_literal(node, origin) for node in call.args]
    keywords: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _not_a_literal(f"**{ast.unparse(keyword.value)}", origin)
        keywords[keyword.arg] = _literal(keyword.value, origin)
    return arguments, keywords


def _literal(node: ast.expr, origin: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        raise _not_a_literal(ast.unparse(node), origin) from None


def _not_a_literal(written: str, origin: str) -> ParamCheckUsageError:
    return ParamCheckUsageError(
        f"{origin}: {written} is not a literal; only numbers, strings, True, False, None and "
        f"tuples, lists, sets and dicts of them can be written here: for anything else, write a "
        f"function without arguments and name that"
    )


def _call(found: Any, arguments: Sequence[Any], keywords: dict[str, Any], origin: str) -> Any:
    if not callable(found):
        raise ParamCheckUsageError(f"{origin}: {type(found).__name__} cannot be called")
    try:
        inspect.signature(found).bind(*arguments, **keywords)
    except TypeError as error:
        raise ParamCheckUsageError(f"{origin}: {error}") from None
    except ValueError:
        pass  # builtins without a signature: calling it will tell

    def build() -> Any:
        __tracebackhide__ = True
        # A factory may change a list that it is given: each call gets its own.
        return found(*copy.deepcopy(arguments), **copy.deepcopy(keywords))

    build.__wrapped__ = found  # type: ignore[attr-defined]  # where it is written
    return build
