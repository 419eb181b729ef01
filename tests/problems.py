"""Every problem that the package can report, read from its code: what a Finding is made with.

A problem that is put together (``gradient norm 5 is above at_most=3``) is a pattern with ``*`` for
what is not the same each time.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest_paramcheck
from pytest_paramcheck.messages.findings import Finding

PACKAGE = Path(pytest_paramcheck.__file__).parent
#: The arguments of a finding, in order.
FIELDS = [field.name for field in dataclasses.fields(Finding)]


class Code:
    """The package's functions and constants, by their names."""

    def __init__(self) -> None:
        paths = sorted(PACKAGE.rglob("*.py"))
        self.modules = [ast.parse(path.read_text("utf-8")) for path in paths]
        self.stems = {module: path.stem for module, path in zip(self.modules, paths, strict=True)}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.constants: dict[str, list[tuple[ast.Module, ast.expr]]] = {}
        self.home: dict[ast.AST, ast.Module] = {}
        self.calls: list[ast.Call] = []
        self.called: dict[str, list[ast.Call]] = {}
        self.inside: dict[ast.AST, ast.FunctionDef] = {}
        self._known: dict[ast.expr, set[str]] = {}
        for module in self.modules:
            for node in module.body:
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                        if isinstance(target, ast.Name):
                            self.constants.setdefault(target.id, []).append((module, node.value))
            for node in ast.walk(module):
                self.home[node] = module
                if isinstance(node, ast.FunctionDef):
                    self.functions.setdefault(node.name, []).append(node)
                    for below in ast.walk(node):
                        self.inside[below] = node  # the innermost comes last
                elif isinstance(node, ast.Call):
                    self.calls.append(node)
                    name = ast.unparse(node.func)
                    self.called.setdefault(name.rpartition(".")[2], []).append(node)

    def problems(self) -> set[str]:
        """Return what every finding in the code can have as its problem."""
        return self.given("problem")

    def hints(self) -> set[str]:
        """Return what every finding in the code can have as its hint."""
        return self.given("hint")

    def given(self, field: str) -> set[str]:
        """Return what findings are made with as a field."""
        found: set[str] = set()
        place = FIELDS.index(field)
        for call in (*self.called["Finding"], *self.called["replace"]):
            for keyword in call.keywords:
                if keyword.arg == field:
                    found |= self.texts(keyword.value, call)
            if call in self.called["Finding"] and len(call.args) > place:
                found |= self.texts(call.args[place], call)
        return found - {""}

    def texts(self, value: ast.expr, at: ast.AST, seen: tuple[ast.expr, ...] = ()) -> set[str]:
        """Return what an expression can be, as patterns."""
        if value in seen:
            return set()
        if value not in self._known:
            # What a cycle leaves out of its own members is in the one that it was entered by.
            self._known[value] = set()
            self._known[value] = self._texts(value, at, (*seen, value))
        return self._known[value]

    def _texts(self, value: ast.expr, at: ast.AST, seen: tuple[ast.expr, ...]) -> set[str]:
        if isinstance(value, ast.Constant):
            return {str(value.value)}
        if isinstance(value, ast.IfExp):
            return self.texts(value.body, at, seen) | self.texts(value.orelse, at, seen)
        if isinstance(value, ast.BoolOp):
            return set().union(*(self.texts(one, at, seen) for one in value.values))
        if isinstance(value, ast.JoinedStr):
            written = {""}
            for part in value.values:
                texts = {"*"}
                if isinstance(part, ast.Constant):
                    texts = {str(part.value)}
                elif isinstance(part, ast.FormattedValue):
                    texts = self.texts(part.value, at, seen)
                    if "*" in "".join(texts) or isinstance(part.value, ast.Call):
                        texts = {"*"}
                written = {before + text for before in written for text in texts}
            return written
        several: list[tuple[ast.expr, ast.AST]] = []
        if isinstance(value, ast.Name):
            several = list(self.values_of(value.id, at))
        elif isinstance(value, ast.Attribute) and value.attr == "problem":
            return {"*"}  # of another finding
        elif isinstance(value, ast.Attribute):  # a field: what instances were made with
            several = [
                (keyword.value, call)
                for call in self.calls
                for keyword in call.keywords
                if keyword.arg == value.attr
                and isinstance(call.func, ast.Name)
                and call.func.id[0].isupper()
            ]
        elif isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name):
            several = [
                (one, at)
                for constant in self.constant(value.value.id, at)
                if isinstance(constant, ast.Dict)
                for one in constant.values
            ]
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            several = [
                (node.value, node)
                for function in self.functions.get(value.func.id, ())
                for node in ast.walk(function)
                if isinstance(node, ast.Return) and node.value is not None
            ]
        elif isinstance(value, ast.Call) and value.args and ast.unparse(value.func) == "replace":
            several = [(value.args[0], at)]
        found = set().union(*(self.texts(one, where, seen) for one, where in several), set())
        return found or {"*"}

    def elements(
        self, value: ast.expr, place: int, at: ast.AST, seen: tuple[ast.AST, ...]
    ) -> Iterator[tuple[ast.expr, ast.AST]]:
        """Yield what stands at a place of the tuples that an expression can be."""
        if value in seen:
            return
        seen = (*seen, value)
        if isinstance(value, ast.Tuple):
            if place < len(value.elts) and not isinstance(value.elts[place], ast.Starred):
                yield value.elts[place], at
        elif isinstance(value, ast.IfExp):
            yield from self.elements(value.body, place, at, seen)
            yield from self.elements(value.orelse, place, at, seen)
        elif isinstance(value, ast.BoolOp):
            for one in value.values:
                yield from self.elements(one, place, at, seen)
        elif isinstance(value, ast.Name):
            for one, where in self.values_of(value.id, at):
                yield from self.elements(one, place, where, seen)
        elif isinstance(value, (ast.Subscript, ast.Call)):
            table = value.value if isinstance(value, ast.Subscript) else value.func
            if isinstance(table, ast.Attribute) and table.attr == "get":
                table = table.value
            if not isinstance(table, ast.Name):
                return
            for constant in self.constant(table.id, at):
                if isinstance(constant, ast.Dict):
                    for one in constant.values:
                        yield from self.elements(one, place, at, seen)
            if isinstance(value, ast.Call):
                called = self.functions.get(table.id, ())
                for function in called:
                    for node in ast.walk(function):
                        if isinstance(node, ast.Return) and node.value is not None:
                            yield from self.elements(node.value, place, node, seen)

    def constant(self, name: str, at: ast.AST) -> list[ast.expr]:
        """Return what a name is in the module of a place, or in those that it may come from."""
        known = self.constants.get(name, [])
        home = self.home.get(at)
        own = [value for module, value in known if module is home]
        stem = next(
            (
                node.module.rpartition(".")[2]
                for node in (home.body if home is not None else ())
                if isinstance(node, ast.ImportFrom) and node.module
                if any(alias.name == name for alias in node.names)
            ),
            "",
        )
        return own or [value for module, value in known if self.stems[module] == stem]

    def values_of(self, name: str, at: ast.AST) -> Iterator[tuple[ast.expr, ast.AST]]:
        """Yield what a name is given: in its function, by those who call it, in a module."""
        function = self.inside.get(at)
        if function is None:
            yield from ((value, at) for value in self.constant(name, at))
            return
        given = False
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name) and target.id == name:
                        given = True
                        yield node.value, node
                    elif isinstance(target, ast.Tuple):
                        for place, one in enumerate(target.elts):
                            if isinstance(one, ast.Name) and one.id == name:
                                for text in self.elements(node.value, place, node, ()):
                                    given = True
                                    yield text
            elif isinstance(node, ast.For):
                listed = [node.iter]
                if isinstance(node.iter, ast.Name):
                    listed = [
                        one.value
                        for one in ast.walk(function)
                        if isinstance(one, ast.Assign)
                        and ast.unparse(one.targets[0]) == node.iter.id
                    ]
                for row in (row for value in listed for row in _rows(value)):
                    if isinstance(node.target, ast.Tuple) and isinstance(row, ast.Tuple):
                        for one, text in zip(node.target.elts, row.elts, strict=False):
                            if isinstance(one, ast.Name) and one.id == name:
                                given = True
                                yield text, node
        arguments = [*function.args.posonlyargs, *function.args.args]
        places = {argument.arg: place for place, argument in enumerate(arguments)}
        keywords = {argument.arg for argument in function.args.kwonlyargs}
        if name in places or name in keywords:
            given = True
            defaults = function.args.defaults
            place = places.get(name)
            if place is not None and place >= len(arguments) - len(defaults):
                yield defaults[place - len(arguments)], function
            for call in self.called.get(function.name, ()):
                if place is not None and place < len(call.args):
                    yield call.args[place], call
                for keyword in call.keywords:
                    if keyword.arg == name:
                        yield keyword.value, call
        if not given:
            yield from ((value, function) for value in self.constant(name, at))


def _rows(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the rows of a literal tuple of tuples, those of ``*(rows if it else ())`` too."""
    if isinstance(value, (ast.Tuple, ast.List)):
        for row in value.elts:
            yield from _rows(row) if isinstance(row, ast.Starred) else [row]
    elif isinstance(value, ast.Starred):
        yield from _rows(value.value)
    elif isinstance(value, ast.IfExp):
        yield from _rows(value.body)
        yield from _rows(value.orelse)


def problems() -> list[str]:
    """Return the problems of the package, in the order of the alphabet."""
    return sorted(Code().problems())


def hints() -> list[str]:
    """Return the hints of the package, in the order of the alphabet."""
    return sorted(Code().hints())


def matches(pattern: str, problem: str) -> bool:
    """Whether a problem that was reported is the one of the pattern."""
    return fnmatchcase(problem, re.sub(r"([\[\]?])", r"[\1]", pattern))
