"""A test file that declares a model as it was measured to be, ready to be read and committed."""

from __future__ import annotations

import json
import keyword
import shlex
from collections.abc import Iterable
from pathlib import Path

from ..messages.wording import cut, join_words, printable
from .case import DECLARED
from .measured import SEEDS, Line, Measured, measure
from .named import one_named

WIDTH = 100
#: What the file has names for already.
_TAKEN_FROM_US = {"ModelCase", "parametrize_with_param_checks"}
_TAKEN = {*_TAKEN_FROM_US, "replace", "torch", "build", "CASE", "test_parameters"}


def declaration(spec: str, folder: Path) -> str:
    """Measure what a spec names; return the text of a test file that passes as it is.

    Raises :class:`ParamCheckUsageError` for a spec that names several cases, or nothing.
    """
    case, declared = one_named(spec, folder, spec)
    measured = measure(case)
    module, _, path = spec.partition(":")
    importing, factory = _reached_by(module.strip(), path.strip())
    arguments = path.strip().partition("(")[1:]
    lines = [*_head(spec, case.name), *_imports(importing, measured, declared)]
    if arguments[0]:
        lines += ["def build():", f"    return {factory}{''.join(arguments)}", "", ""]
        lines += ["CASE = ModelCase(", "    build,", f"    name={_string(case.name)},"]
    else:
        lines += [f"CASE = {'replace' if declared else 'ModelCase'}(", f"    {factory},"]
    lines += [*_fields(measured), ")", "", ""]
    lines += ["@parametrize_with_param_checks(CASE)", "def test_parameters(check):"]
    return "\n".join([*lines, "    check()", ""])


def _head(spec: str, name: str) -> list[str]:
    seeds = join_words([str(seed) for seed in SEEDS])
    return [
        f'"""What holds of the parameters of {_plain(name)}, measured from the seeds {seeds} by',
        "",
        f"    python -m pytest_paramcheck declare {_plain(shlex.quote(spec))}",
        "",
        "Correct what is not meant to be so, and commit the rest: it is checked from here on.",
        '"""',
        "",
    ]


def _plain(text: str) -> str:
    """Return a text as it can stand in a docstring."""
    return printable(text).replace("\\", "\\\\").replace('"""', "'''")


def _string(text: str) -> str:
    """Return a string as a formatter writes it: in the quotes that it does not hold."""
    bare = text.replace('"', "")
    if '"' in text and "'" not in text and json.dumps(bare) == f'"{bare}"':
        return f"'{text}'"
    return json.dumps(text)


def _reached_by(module: str, path: str) -> tuple[str, str]:
    """Return the import line of what a spec names, and the expression for it."""
    called = path.partition("(")[0].strip()
    first = called.partition(".")[0]
    if first in _TAKEN or keyword.iskeyword(first):
        return f"import {module}", f"{module}.{called}"
    return f"from {module} import {first}", called


def _imports(importing: str, measured: Measured, declared: bool) -> list[str]:
    lines = ["from dataclasses import replace", ""] if declared else []
    third = ["import torch"] if "torch." in _inputs_code(measured) else []
    used = ["parametrize_with_param_checks"] if declared else sorted(_TAKEN_FROM_US)
    third.append(f"from pytest_paramcheck import {', '.join(used)}")
    third.append(importing)
    # As a formatter sorts them: plain imports first, each by its module.
    third.sort(key=lambda line: (line.startswith("from"), line.split()[1]))
    return [*lines, *third, "", ""]


def _fields(measured: Measured) -> list[str]:
    lines = [f"    # {cut(printable(doubt), WIDTH - 6)}" for doubt in measured.doubts]
    lines += _inputs(measured)
    lines += _ties(measured.ties)
    lines += _patterns("frozen", measured.frozen)
    lines += _patterns("unreached", measured.unreached)
    lines += _patterns("alike", measured.alike)
    if measured.failing:
        lines.append("    # Findings: correct the model, and take them out here.")
        lines.append("    expected_failures={")
        lines += [f"        {_string(n)}: {_string(s)}," for n, s in measured.failing.items()]
        lines.append("    },")
    return lines


def _inputs_code(measured: Measured) -> str:
    return "" if measured.inputs_from == DECLARED else measured.inputs_code


def _inputs(measured: Measured) -> list[str]:
    source = measured.inputs_from
    if source == DECLARED or measured.case.loss is not None:
        return []
    if code := _inputs_code(measured):
        line = f"    inputs=lambda: {code},"
        beside = f"{line}  # {source}"
        return [beside] if len(beside) <= WIDTH else [f"    # {source}", line]
    if source:
        return [f"    # inputs=...: run on {source}; write them here to hold them fast"]
    return [
        "    # inputs=...: nobody says what it takes, so that nothing below is said of training"
    ]


def _ties(groups: Iterable[Iterable[str]]) -> list[str]:
    shown = ["{" + ", ".join(_string(name) for name in group) + "}" for group in groups]
    return _listed("ties", [(one, "") for one in shown])


def _patterns(field: str, lines: Iterable[Line]) -> list[str]:
    return _listed(field, [(_string(line.pattern), line.reason) for line in lines])


def _listed(field: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return [f"    {field}=[],"]
    if len(rows) == 1 and not rows[0][1]:
        return [f"    {field}=[{rows[0][0]}],"]
    shown = []
    for row, reason in rows:
        if reason:
            shown.append(f"        # {cut(printable(reason), WIDTH - 10)}")
        shown.append(f"        {row},")
    return [f"    {field}=[", *shown, "    ],"]
