"""Who imports whom in the package, read from the source and held against one table.

``python tests/house.py [PACKAGE]`` prints the circles of files and the imports that the table
does not allow, and nothing where there are none. ``tests/unit/test_architecture.py`` holds the
package to the same table.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What each room may import of ours besides itself, from the ground up: a room is a folder (a
#: folder of ``parameters/``) or a file at the top, and stands above all that it may import.
#: ``parameters.subject.record`` and ``parameters.files.whole`` are one file each: the manifest
#: never loads torch.
MAY_IMPORT = {
    "messages": (),
    "parameters.tensors": ("messages",),
    "parameters.files": ("parameters.tensors", "messages"),
    "parameters.subject": ("parameters.tensors", "parameters.files", "messages"),
    "parameters.running": ("parameters.subject", "parameters.tensors", "messages"),
    "parameters.saving": (
        "parameters.subject",
        "parameters.tensors",
        "parameters.files",
        "messages",
    ),
    "manifest": ("parameters.subject.record", "parameters.files.whole", "messages"),
    "init": ("messages",),
    "values": ("messages",),
    "checks": ("parameters", "init", "values", "messages"),
    "assertions": ("checks", "manifest", "init", "values", "parameters", "messages"),
    "model_checks": ("assertions", "checks", "parameters", "messages"),
    "showing": ("model_checks", "checks", "parameters", "messages"),
    "plugin": (
        "model_checks",
        "assertions",
        "showing",
        "checks",
        "manifest",
        "init",
        "parameters",
        "messages",
    ),
    "__main__": ("plugin", "model_checks", "showing", "assertions", "messages"),
}


@dataclass(frozen=True)
class Import:
    """One imported name, in full; ``loading``: not in a function or for type checkers only.

    ``from x import y`` is two of them, ``x`` and ``x.y``, because ``y`` may be a module.
    """

    name: str
    loading: bool


def imports_of(tree: ast.AST, package: str) -> list[Import]:
    """Return what a module imports; ``package`` is what its relative imports begin at."""

    def visit(node: ast.AST, loading: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, loading)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            yield Import(base, loading)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", loading)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, loading)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from visit(child, loading and not inside)

    return list(visit(tree, True))


class House:
    """The source of a package: its files by module name, and which imports which."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root.name
        self.files = {self._module(path): path for path in sorted(root.rglob("*.py"))}
        self.trees = {
            module: ast.parse(path.read_text(encoding="utf-8"))
            for module, path in self.files.items()
        }
        self.imports = {
            module: imports_of(
                tree,
                module if self.files[module].name == "__init__.py" else module.rpartition(".")[0],
            )
            for module, tree in self.trees.items()
        }
        self.arrows = {module: self._arrows(module) for module in self.files}

    def _module(self, path: Path) -> str:
        parts = [self.package, *path.relative_to(self.root).with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def short(self, module: str) -> str:
        """The name without the package's."""
        return module.removeprefix(self.package + ".")

    def room(self, module: str) -> str:
        """The room that a module stands in: the folder, below ``parameters`` the next one too."""
        parts = self.short(module).split(".")
        return ".".join(parts[: 2 if parts[0] == "parameters" else 1])

    def _arrows(self, module: str) -> set[str]:
        """The modules of ours that one imports, wherever in it.

        The package itself is left out: it names everything, and loads it on first use.
        """
        if module == self.package:
            return set()
        names = {found.name for found in self.imports[module]}
        modules = {name for name in names if name in self.files}
        # "from .x import y" of a module x.y is an import of y alone.
        folders = {name.rpartition(".")[0] for name in modules}
        return {
            name
            for name in modules - {module, self.package}
            if self.files[name].name != "__init__.py" or name not in folders
        }

    def circles(self) -> list[list[str]]:
        """The groups of files that import one another, however lazily."""
        below = {module: self._reach(module) for module in self.files}
        groups = {
            frozenset(b for b in below[a] if a in below[b]) for a in self.files if a in below[a]
        }
        return sorted(sorted(map(self.short, group)) for group in groups)

    def _reach(self, start: str) -> set[str]:
        seen: set[str] = set()
        todo = [*self.arrows[start]]
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += self.arrows[module]
        return seen

    def not_allowed(self) -> list[str]:
        """The imports that the table does not allow, ``a -> b``."""
        return [
            f"{self.short(a)} -> {self.short(b)}"
            for a in self.files
            for b in sorted(self.arrows[a])
            if not self._allowed(a, b)
        ]

    def _allowed(self, a: str, b: str) -> bool:
        room = self.room(a)
        if room not in MAY_IMPORT:
            return False
        return any(is_below(self.short(b), other) for other in (room, *MAY_IMPORT[room]))

    def loaded_with(self, module: str) -> set[str]:
        """Every module that importing this one imports, ours followed to their own imports."""
        seen: set[str] = set()
        todo = [module]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += [found.name for found in self.imports.get(name, ()) if found.loading]
                todo += filter(None, [name.rpartition(".")[0]])
        return seen


def is_below(name: str, package: str) -> bool:
    """Say whether a dotted name is the package's or that of something in it."""
    return name == package or name.startswith(package + ".")


if __name__ == "__main__":
    house = House(Path(sys.argv[1] if len(sys.argv) > 1 else "pytest_paramcheck"))
    for circle in house.circles():
        print("circle:", *circle)
    for arrow in house.not_allowed():
        print("not allowed:", arrow)
