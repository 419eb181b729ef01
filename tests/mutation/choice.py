"""Says which test files a file of the package has.

Those that its docstring names ("Tests: ..."), or its package's; else those that bear its name or
import it or what it makes public; else those of the files that import it, and those whose name its
own begins with. Where nobody has any, all of them. The plugin shows in whole runs: of its files
those that a rule finds come first, and then, where no docstring says which, all of
``tests/integration``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from ..house import House, imports_of

#: Where tests of the package stand that a mutant can be held against.
FOLDERS = ("tests/unit", "tests/integration", "tests/planted_bugs")

NAMED = re.compile(r"test_\w+\.py")


class Choice:
    """The test files of each module of a package, by the rule above."""

    def __init__(self, house: House, project: Path) -> None:
        self._house = house
        self._files = [
            path
            for folder in FOLDERS
            for path in sorted((project / folder).glob("test_*.py"))
            # Their subject is the source as text; a mutant is no matter of style.
            if path.name != "test_architecture.py"
        ]
        self._project = project
        self._imported = {path: self._imports(path) for path in self._files}
        self._importers: dict[str, set[str]] = {module: set() for module in house.files}
        for module, arrows in house.arrows.items():
            for arrow in arrows:
                self._importers[arrow].add(module)

    def tests_of(self, module: str) -> tuple[str, ...]:
        """Name the test files of a module, relative to the project, its nearest first."""
        if module not in self._house.trees:
            return self.all_tests()  # it is gone since the mutants were drawn
        nearest = self._nearest(module)
        if self._house.room(module) != "plugin" or self._named(module):
            return nearest
        runs = (path for path in self._files if path.parent.name == "integration")
        return tuple(dict.fromkeys([*nearest, *self._relative(runs)]))

    def _nearest(self, module: str) -> tuple[str, ...]:
        named = self._named(module)
        if named:
            return self._relative(path for path in self._files if path.name in named)
        seen = {module}
        level = [module]
        # A part of what a test file is about, by its name: whoever uses the part knows it better.
        stem = module.rpartition(".")[2]
        nearby = [path for path in self._files if bears(stem, path.stem.removeprefix("test_"))]
        while level:
            found = [path for one in level for path in self._known_by(one)]
            if found:
                return self._relative(found + nearby)
            level = sorted({up for one in level for up in self._importers[one]} - seen)
            seen.update(level)
        return self.all_tests()

    def all_tests(self) -> tuple[str, ...]:
        """Name all test files."""
        return self._relative(self._files)

    def _known_by(self, module: str) -> list[Path]:
        named = self._named(module)
        if named:
            return [path for path in self._files if path.name in named]
        stem = module.rpartition(".")[2]
        bearing = [path for path in self._files if bears(path.stem.removeprefix("test_"), stem)]
        return bearing + [path for path in self._files if module in self._imported[path]]

    def _named(self, module: str) -> set[str]:
        """The files that a module's docstring names; else those that its package's does."""
        _, _, tests = (ast.get_docstring(self._house.trees[module]) or "").partition("Tests:")
        package = module.rpartition(".")[0]
        if not tests and package in self._house.trees:
            return self._named(package)
        return set(NAMED.findall(tests))

    def _imports(self, path: Path) -> set[str]:
        """The modules that a test file names, and those that define the names it takes."""
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {found.name for found in imports_of(tree, "tests")}
        public = {
            name.removeprefix(self._house.package + ".")
            for name in names
            if name.startswith(self._house.package + ".")
        }
        return names | {
            module for module, tree in self._house.trees.items() if public & set(defined(tree))
        }

    def _relative(self, paths: Iterable[Path]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path.relative_to(self._project).as_posix() for path in paths))


def bears(test: str, module: str) -> bool:
    """Say whether a test file's name is that of a module, or begins with it."""
    return test == module or test.startswith(module + "_")


def defined(tree: ast.Module) -> Iterable[str]:
    """Name the functions and classes that a module defines at its top."""
    return (node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
