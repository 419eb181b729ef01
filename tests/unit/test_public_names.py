"""The public names: what is imported, what is documented, and in which order."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pytest_paramcheck

from ..public import ASSERTIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(pytest_paramcheck.__file__).parent
NAMED = (type, types.FunctionType, types.ModuleType)
every_name = pytest.mark.parametrize("name", pytest_paramcheck.__all__)
every_assertion = pytest.mark.parametrize("name", ASSERTIONS)


def _first_line(name: str) -> str:
    return (inspect.getdoc(getattr(pytest_paramcheck, name)) or "").partition("\n")[0]


@every_name
def test_every_public_name_can_be_imported(name: str) -> None:
    found = getattr(pytest_paramcheck, name)

    # A table or a type alias has no name.
    assert not issubclass(type(found), NAMED) or found.__name__.rpartition(".")[2] == name


@every_name
def test_every_public_name_is_described(name: str) -> None:
    found = getattr(pytest_paramcheck, name)

    said = _first_line(name) if issubclass(type(found), NAMED) else _comment_above(name)
    assert said.endswith(".")


def _comment_above(name: str) -> str:
    """The ``#:`` line before an assignment, which can have no docstring."""
    module = importlib.import_module(f"pytest_paramcheck.{_imported_for_checkers()[name]}")
    lines = inspect.getsource(module).splitlines()
    at = next(
        number for number, line in enumerate(lines) if line.startswith((f"{name}:", f"{name} ="))
    )
    return lines[at - 1].partition("#: ")[2]


@every_assertion
def test_the_first_line_fits_one_line_of_pytest_fixtures(name: str) -> None:
    assert _first_line(name).endswith(".")
    assert len(_first_line(name)) <= 76


@every_assertion
def test_the_docstring_says_what_fails_what_is_raised_and_shows_an_example(name: str) -> None:
    doc = inspect.getdoc(getattr(pytest_paramcheck, name)) or ""

    assert ">>> " in doc
    assert "ParamCheckError" in doc
    assert "ParamCheckUsageError" in doc


def _fixtures() -> dict[str, ast.FunctionDef]:
    """The fixtures of the assertions, in the order in which they are written."""
    source = (PACKAGE / "plugin" / "fixtures.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in functions if node.name.startswith("assert_")}


def test_every_assertion_has_a_fixture_in_the_order_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(assert_\w+)` \|", readme, re.MULTILINE)

    assert list(_fixtures()) == listed
    assert sorted(listed) == sorted(ASSERTIONS)


@every_assertion
def test_the_fixture_says_what_the_function_says(name: str) -> None:
    assert ast.get_docstring(_fixtures()[name]) == _first_line(name)


@every_assertion
def test_the_fixture_has_the_type_of_the_function(name: str) -> None:
    """Its name is there three times: a copied line would give another function or type."""
    fixture = _fixtures()[name]
    typed, made = (ast.unparse(decorator) for decorator in fixture.decorator_list)

    assert typed == f"typed(lambda: public.{name})"
    if name != "assert_manifest":  # the fixture binds it to the test, and so to its scope
        assert made == "pytest.fixture(scope='session')"
        assert ast.unparse(fixture.body[-1]) == f"return public.{name}"


def test_all_and_dir_offer_every_public_name() -> None:
    assert set(pytest_paramcheck.__all__) == set(_imported_for_checkers())
    assert set(pytest_paramcheck.__all__) <= set(dir(pytest_paramcheck))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(
        AttributeError, match="module 'pytest_paramcheck' has no attribute 'assert_tide'"
    ):
        pytest_paramcheck.assert_tide  # noqa: B018


def _loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh interpreter after this code."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_neither_torch_nor_pytest() -> None:
    loaded = _loaded_after("import pytest_paramcheck; dir(pytest_paramcheck)")

    assert "pytest_paramcheck" in loaded
    assert not {"torch", "numpy", "pytest", "_pytest"} & loaded


def test_the_errors_are_loaded_without_torch() -> None:
    loaded = _loaded_after("from pytest_paramcheck import Finding, ParamCheckError; str(1)")

    assert not {"torch", "pytest", "_pytest"} & loaded


@pytest.mark.slow  # loads torch in a process of its own
def test_an_assertion_loads_torch_and_still_no_pytest() -> None:
    loaded = _loaded_after("from pytest_paramcheck import assert_finite")

    assert "torch" in loaded
    assert not {"pytest", "_pytest"} & loaded


def _imported_for_checkers() -> dict[str, str]:
    """What ``__init__`` imports for type checkers: public name -> module."""
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    (block,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        str(alias.asname): node.module or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    assert list(_imported_for_checkers().items()) == list(pytest_paramcheck._MODULE_OF.items())
