"""The house rules, held by reading the source: who may import what, and what no module does.

One test per rule; each shows all that break it together. ``tests/house.py`` reads the source and
has the table of who may import whom.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import pytest_paramcheck

from ..house import MAY_IMPORT, House, imports_of, is_below

HOUSE = House(Path(pytest_paramcheck.__file__).parent)

#: What stands at the top of the package, nine entries, and what may join them.
TOP = {
    "__init__.py",
    "init.py",
    *("plugin", "assertions", "model_checks", "checks", "manifest", "parameters", "messages"),
}
MAY_JOIN = {"showing", "values.py", "__main__.py"}

#: The only check files that are given a model and walk it: one runs a factory, the other
#: operations on copies.
WALKS = {"checks.init_complete", "checks.ties_survive"}

#: The words that people read, by the names they bear in the code.
TEXTS = {"problem", "hint", "why", "title", "lead", "wrong"}


def nobody(found: Iterable[str]) -> None:
    """Fail with the whole list of those who break a rule."""
    __tracebackhide__ = True
    listed = sorted(set(found))
    assert not listed, "\n".join(["", *listed])


def lightweight() -> list[str]:
    """What pytest loads in every run, whether it has a model test or not, and what those load."""
    return [
        module
        for module in HOUSE.files
        if module == HOUSE.package
        or HOUSE.short(module)
        in ("parameters.subject.record", "model_checks.case", "model_checks.run")
        or HOUSE.room(module) in ("messages", "manifest")
        or (HOUSE.room(module) == "plugin" and HOUSE.short(module) != "plugin.environment")
    ]


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """All nodes of a kind, with the module each stands in."""
    for module, tree in HOUSE.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield HOUSE.short(module), node


def importing(package: str, *, outside: str = "") -> list[str]:
    """The modules that import something of a package, those in a room of ours left out."""
    return [
        f"{HOUSE.short(module)}: {found.name}"
        for module, imports in HOUSE.imports.items()
        for found in imports
        if is_below(found.name, package) and HOUSE.room(module) != outside
    ]


# -- who imports what ---------------------------------------------------------------------------


def test_nobody_imports_from_a_higher_floor_or_a_neighbor() -> None:
    nobody(HOUSE.not_allowed())


def test_the_table_of_floors_has_no_way_up() -> None:
    """Whatever a room may import stands before it in the table."""
    seen: list[str] = []
    for room, allowed in MAY_IMPORT.items():
        for other in allowed:
            assert any(is_below(below, other) or is_below(other, below) for below in seen), other
        seen.append(room)


def test_no_circle_of_files() -> None:
    nobody(" ".join(circle) for circle in HOUSE.circles())


def test_only_the_plugin_imports_pytest() -> None:
    nobody(importing("pytest", outside="plugin"))


def test_nobody_imports_what_is_private_to_pytest() -> None:
    nobody(importing("_pytest"))


def test_what_every_run_loads_loads_neither_torch_nor_numpy() -> None:
    nobody(
        f"{HOUSE.short(module)}: {library}"
        for module in lightweight()
        for library in ("torch", "numpy")
        if library in HOUSE.loaded_with(module)
    )


def test_every_import_of_ours_exists() -> None:
    nobody(
        f"{HOUSE.short(module)}: {found.name}"
        for module, imports in HOUSE.imports.items()
        for found in imports
        # What is no module is a name in one (from .x import y).
        if is_below(found.name, HOUSE.package)
        and not {found.name, found.name.rpartition(".")[0]} & {*HOUSE.files}
    )


# -- where things stand -------------------------------------------------------------------------


def test_what_stands_at_the_top() -> None:
    entries = {path.name for path in HOUSE.root.iterdir()} - {"py.typed", "__pycache__"}

    nobody(entries - TOP - MAY_JOIN)
    nobody(TOP - entries)


def test_every_module_says_what_it_is_for() -> None:
    nobody(
        HOUSE.short(module)
        for module, tree in HOUSE.trees.items()
        if not (ast.get_docstring(tree) or "").partition("\n")[0].endswith((".", "?", "``", ":"))
    )


def test_every_folder_says_what_its_files_are_for() -> None:
    """The docstring of each folder names each of its files and folders, in double backticks."""
    missing = []
    for module in HOUSE.files:
        folder, _, name = module.rpartition(".")
        if folder:
            doc = ast.get_docstring(HOUSE.trees[folder]) or ""
            if name not in re.findall(r"``(\w+)(?:\.py|/)?``", doc):
                missing.append(f"{HOUSE.short(folder)}: {name}")
    nobody(missing)


# -- what no module does ------------------------------------------------------------------------


def test_no_assert_statement() -> None:
    # An editable install is not rewritten by pytest: a bare assert there says nothing.
    nobody(f"{module}:{node.lineno}" for module, node in nodes(ast.Assert))


def test_no_global_statement() -> None:
    nobody(f"{module}:{node.lineno}" for module, node in nodes(ast.Global))


def test_no_container_of_a_module_changes_once_it_is_loaded() -> None:
    nobody(
        f"{HOUSE.short(module)}: {change}"
        for module, tree in HOUSE.trees.items()
        for change in changes_of_module_names(tree)
    )


MUTATORS = {
    *("append", "extend", "insert", "remove", "clear", "pop", "popitem", "update", "setdefault"),
    *("add", "discard", "sort", "reverse", "appendleft", "popleft"),
}


def changes_of_module_names(tree: ast.Module) -> list[str]:
    """What functions do to names of their module: ``NAME[k] = v``, ``NAME.append(x)``, ``del``."""
    bound = module_names(tree)
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            changed = {name for node in ast.walk(function) for name in changed_by(node)}
            found |= {name for name in changed & bound if name not in local_names(function)}
    return sorted(found)


def module_names(tree: ast.Module) -> set[str]:
    """The names that a module binds when it is loaded, imported ones among them."""
    bound = set()
    for statement in tree.body:
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    bound.add(node.id)
                elif isinstance(node, ast.alias):
                    bound.add(node.asname or node.name.partition(".")[0])
    return bound


def local_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names that a function binds itself: its arguments and what it assigns."""
    names = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    return names | {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def changed_by(node: ast.AST) -> Iterator[str]:
    """The names whose object a node changes in place."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        targets = [node.value]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MUTATORS
    ):
        targets = [node.func.value]
    else:
        targets = []
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def test_no_text_decides_what_happens() -> None:
    """Text is for people: who asks about it gets a constant, an argument or a kind."""
    nobody(
        f"{HOUSE.short(module)}: {question}"
        for module, tree in HOUSE.trees.items()
        for question in questions_about_text(tree)
    )


def questions_about_text(tree: ast.AST) -> list[str]:
    """Where a text is compared, searched or looked up: ``f.problem == "x"``, ``"x" in f.hint``."""
    found = []
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            if any(isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) for op in node.ops):
                asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Match):
            asked = [node.subject]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("startswith", "endswith", "find", "index", "count", "partition"):
                asked = [node.func.value]
            elif node.func.attr == "get" or ast.unparse(node.func.value) == "re":
                asked = node.args
        if any(is_text(part) for part in asked):
            found.append(ast.unparse(node).partition("\n")[0])
    return found


def is_text(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr in TEXTS) or (
        isinstance(node, ast.Name) and node.id in TEXTS
    )


def test_a_check_walks_no_model() -> None:
    """A check is given an inventory or records: who reads them stands below, in parameters/."""
    nobody(
        f"{HOUSE.short(module)}: {walk}"
        for module, tree in HOUSE.trees.items()
        if HOUSE.room(module) == "checks" and HOUSE.short(module) not in WALKS
        for walk in walks(tree)
    )


WALKING = {
    *("modules", "named_modules", "children", "named_children", "parameters", "named_parameters"),
    *("buffers", "named_buffers", "state_dict"),
}


def walks(tree: ast.AST) -> list[str]:
    """Functions that take a module, and calls that walk one."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg) and argument.annotation is not None:
                    said = ast.unparse(argument.annotation).split(" | ")
                    if {"nn.Module", "Module"} & {*said}:
                        found.append(f"{node.name}({argument.arg}: nn.Module)")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")
            if name[2] == "take_inventory" or (name[0] and name[2] in WALKING):
                found.append(ast.unparse(node.func))
    return found


def test_what_an_assertion_raises_through_is_hidden() -> None:
    """A public assertion says ``__tracebackhide__`` so that pytest shows the user's line."""
    hidden_from = []
    for module, function in nodes(ast.FunctionDef):
        is_check = module.startswith("model_checks") and function.name.startswith("check_")
        decorators = {ast.unparse(d).partition("(")[0] for d in function.decorator_list}
        if (
            (function.name.startswith("assert_") or is_check)
            and not decorators & {"overload", "pytest.fixture"}
            and "__tracebackhide__" not in local_names(function)
        ):
            hidden_from.append(f"{module}: {function.name}")
    nobody(hidden_from)


# The rules are worth what their readers see.


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
        ("if typing.TYPE_CHECKING:\n    import torch", {"torch"}, set()),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"a", "b"}, {"b"}),
        ("from . import x", {"p.q", "p.q.x"}, {"p.q", "p.q.x"}),
        ("from .x import y", {"p.q.x", "p.q.x.y"}, {"p.q.x", "p.q.x.y"}),
        ("from ..x import y", {"p.x", "p.x.y"}, {"p.x", "p.x.y"}),
        ("from .. import y", {"p", "p.y"}, {"p", "p.y"}),
    ],
)
def test_the_reader_sees_imports(source: str, everything: set[str], loading: set[str]) -> None:
    found = imports_of(ast.parse(source), "p.q")

    assert {one.name for one in found} == everything
    assert {one.name for one in found if one.loading} == loading


def test_the_reader_sees_what_breaks_the_house(tmp_path: Path) -> None:
    """A package with each kind of wrong import, however lazily it is made."""
    files = {
        "__init__.py": "from .plugin import everything",  # the one arrow that runs back up
        "messages/__init__.py": "",
        "messages/words.py": "def f():\n    from ..checks import first",
        "checks/__init__.py": "",
        "checks/first.py": "from .second import x\nfrom ..manifest.text import y",
        "checks/second.py": (
            "from ..messages import words\nif TYPE_CHECKING:\n    from . import first"
        ),
        "parameters/__init__.py": "",
        "parameters/running/__init__.py": "import torch",
        "parameters/saving/__init__.py": "from ..running import x",
        "manifest/__init__.py": "",
        "manifest/text.py": "from ..messages.words import f",
        "cellar.py": "from .messages.words import f",
    }
    root = tmp_path / "house"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    house = House(root)

    assert house.not_allowed() == [
        "cellar -> messages.words",
        "checks.first -> manifest.text",
        "messages.words -> checks.first",
        "parameters.saving -> parameters.running",
    ]
    assert house.circles() == [["checks.first", "checks.second", "manifest.text", "messages.words"]]
    assert "torch" in house.loaded_with("house.parameters.saving")
    assert "torch" not in house.loaded_with("house.checks.second")


def test_the_reader_reads_this_package() -> None:
    assert "torch" in HOUSE.loaded_with(f"{HOUSE.package}.assertions.values")
    assert len(HOUSE.files) > 90
    assert {HOUSE.room(module) for module in HOUSE.files} >= {*MAY_IMPORT} - MAY_JOIN


def test_the_readers_see_what_functions_do() -> None:
    tree = ast.parse(
        "import other\n"
        "SEEN, TABLE = [], {}\n"
        "TABLE['at load'] = 1\n"
        "def f(x):\n"
        "    SEEN.append(x)\n"
        "    TABLE[x] = x\n"
        "    del other[x]\n"
        "    x.append(x)\n"
        "    local = []\n"
        "    local.append(TABLE[x])\n"
        "def g(SEEN):\n"
        "    SEEN.append(1)\n"
    )
    assert changes_of_module_names(tree) == ["SEEN", "TABLE", "other"]
    assert questions_about_text(
        ast.parse(
            "f.problem == 'x'\n'x' in f.hint\n{'x': 'y'}[f.why]\nNAMES.get(problem, '')\n"
            "f.why.startswith('x')\nre.search('x', f.hint)\n"
            "f.problem is None\nf.kind == 'x'\nshow(f.problem, f'{f.why}')"
        )
    ) == [
        "f.problem == 'x'",
        "'x' in f.hint",
        "{'x': 'y'}[f.why]",
        "NAMES.get(problem, '')",
        "f.why.startswith('x')",
        "re.search('x', f.hint)",
    ]
    assert walks(
        ast.parse(
            "def a(model: nn.Module | None, by: Mapping[str, nn.Module]): ...\n"
            "model.named_parameters()\ntake_inventory(x)\nentry.names()\nparameters(x)"
        )
    ) == ["a(model: nn.Module)", "model.named_parameters", "take_inventory"]
