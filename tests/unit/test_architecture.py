"""The house rules, held by reading the source: who may import what, and what no module does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_paramcheck

PACKAGE = "pytest_paramcheck"
ROOT = Path(pytest_paramcheck.__file__).parent


def _name(path: Path) -> str:
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
every_module = pytest.mark.parametrize("module", list(SOURCES))

#: What pytest loads in every run, whether it has a model test or not; and what those load.
NEVER_TORCH = [
    name
    for name in (
        PACKAGE,
        *(
            f"{PACKAGE}.{leaf}"
            for leaf in (
                "messages.errors",
                "messages.findings",
                "messages.rendering",
                "messages.wording",
                "manifest.paths",
                "manifest.text",
                "parameters.subject.record",
                "catalogue",
                "model_checks.case",
                "model_checks.run",
            )
        ),
        *(
            name
            for name in SOURCES
            if name.startswith(f"{PACKAGE}.plugin") and name != f"{PACKAGE}.plugin.environment"
        ),
    )
    if name in SOURCES
]


def imports_of(
    tree: ast.AST, module: str, *, is_package: bool = False, loading: bool = False
) -> set[str]:
    """Return the full names of the modules that a module imports.

    ``loading``: only those imported when the module is, not in functions or for type checkers.
    A ``from x import y`` gives both ``x`` and ``x.y``, because ``y`` may be a module.
    """
    package = module if is_package else module.rpartition(".")[0]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if loading and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if loading and isinstance(node, ast.If) and _is_type_checking(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - (node.level - 1)]
                base = ".".join([*above, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _imports(module: str, *, loading: bool = False) -> set[str]:
    is_package = SOURCES[module].name == "__init__.py"
    return imports_of(TREES[module], module, is_package=is_package, loading=loading)


def _is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _loaded_with(module: str) -> set[str]:
    """Every module that importing this one imports, ours followed to their own imports."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in SOURCES:
            todo += _imports(name, loading=True)
        parent = name.rpartition(".")[0]
        if parent:
            todo.append(parent)
    return seen


@every_module
def test_who_imports_pytest(module: str) -> None:
    if not _is_below(module, f"{PACKAGE}.plugin"):
        found = {name for name in _imports(module) if _is_below(name, "pytest")}
        assert found == set()


@every_module
def test_nobody_imports_what_is_private_to_pytest(module: str) -> None:
    assert {name for name in _imports(module) if _is_below(name, "_pytest")} == set()


@pytest.mark.parametrize("module", NEVER_TORCH)
def test_what_every_run_loads_does_not_load_torch(module: str) -> None:
    loaded = _loaded_with(module)

    assert {name for name in loaded if _is_below(name, "torch")} == set()
    assert {name for name in loaded if _is_below(name, "numpy")} == set()


@every_module
def test_the_layers(module: str) -> None:
    forbidden = {
        f"{PACKAGE}.parameters": (f"{PACKAGE}.checks", f"{PACKAGE}.assertions"),
        f"{PACKAGE}.checks": (f"{PACKAGE}.assertions",),
    }
    for layer, above in forbidden.items():
        if _is_below(module, layer):
            found = {n for n in _imports(module) if any(_is_below(n, layer) for layer in above)}
            assert found == set()


@every_module
def test_no_assert_statement(module: str) -> None:
    # An editable install is not rewritten by pytest: a bare assert there says nothing.
    assert [n.lineno for n in ast.walk(TREES[module]) if isinstance(n, ast.Assert)] == []


@every_module
def test_no_global_statement(module: str) -> None:
    assert [n.lineno for n in ast.walk(TREES[module]) if isinstance(n, ast.Global)] == []


@every_module
def test_every_module_says_what_it_is_for(module: str) -> None:
    doc = ast.get_docstring(TREES[module])

    assert doc
    assert doc.partition("\n")[0].endswith((".", "?", "``", ":"))


@every_module
def test_every_import_of_ours_exists(module: str) -> None:
    ours = {name for name in _imports(module) if _is_below(name, PACKAGE)}
    modules = {name for name in ours if name in SOURCES}
    # What is left are names inside modules (from .x import y).
    assert {name for name in ours - modules if name.rpartition(".")[0] not in SOURCES} == set()


@every_module
def test_what_an_assertion_raises_through_is_hidden(module: str) -> None:
    """A public assertion says ``__tracebackhide__`` so that pytest shows the user's line."""
    functions = [
        node
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef)
        and (
            node.name.startswith("assert_")
            or (module.startswith(f"{PACKAGE}.model_checks") and node.name.startswith("check_"))
        )
        and not {ast.unparse(d) for d in node.decorator_list} & {"overload", "pytest.fixture"}
    ]
    for function in functions:
        assigned = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__tracebackhide__" in assigned, function.name


# The rules are worth what the reader sees.


@pytest.mark.parametrize(
    ("source", "everything", "loading"),
    [
        ("import torch", {"torch"}, {"torch"}),
        ("import torch.nn as nn", {"torch.nn"}, {"torch.nn"}),
        ("from torch import nn", {"torch", "torch.nn"}, {"torch", "torch.nn"}),
        ("def f():\n    import torch", {"torch"}, set()),
        ("class A:\n    import torch", {"torch"}, {"torch"}),
        ("try:\n    import torch\nexcept ImportError:\n    pass", {"torch"}, {"torch"}),
        ("if TYPE_CHECKING:\n    import torch", {"torch"}, set()),
        (
            "if TYPE_CHECKING:\n    import a\nelse:\n    import b",
            {"a", "b"},
            {"b"},
        ),
        ("from . import x", {"p.q", "p.q.x"}, {"p.q", "p.q.x"}),
        ("from .x import y", {"p.q.x", "p.q.x.y"}, {"p.q.x", "p.q.x.y"}),
        ("from ..x import y", {"p.x", "p.x.y"}, {"p.x", "p.x.y"}),
    ],
)
def test_the_reader_sees_imports(source: str, everything: set[str], loading: set[str]) -> None:
    tree = ast.parse(source)

    assert imports_of(tree, "p.q.module") == everything
    assert imports_of(tree, "p.q.module", loading=True) == loading


def test_the_reader_follows_our_own_imports() -> None:
    assert f"{PACKAGE}.messages.wording" in _loaded_with(f"{PACKAGE}.messages.errors")
    assert "torch" in _loaded_with(f"{PACKAGE}.assertions.values")
    assert len(SOURCES) > 20
