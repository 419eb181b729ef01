"""The table of public names: what is imported, what is documented, and in which order."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pytest_paramcheck
from pytest_paramcheck.catalogue import ASSERTIONS, PUBLIC

#: The order of the README and of ``pytest --fixtures``.
ORDER = (
    # ties
    "assert_tied",
    "assert_untied",
    "assert_distinct",
    "assert_ties",
    "assert_same_ties",
    "assert_ties_survive",
    # gradients
    "assert_grads_none",
    "assert_grads_present",
    "assert_grads_finite",
    "assert_grad_norm",
    "assert_grads_reach",
    "assert_tied_grads_sum",
    # training
    "assert_frozen",
    "assert_trainable",
    "assert_unchanged",
    "assert_changed",
    "assert_updated",
    "assert_optimizer_covers",
    "assert_optimizer_state",
    "assert_param_groups",
    # structure
    "assert_shapes",
    "assert_dtypes",
    "assert_devices",
    "assert_param_count",
    "assert_materialized",
    "assert_registered",
    # values
    "assert_finite",
    "assert_same_values",
    "assert_init",
    "assert_init_complete",
    # checkpoints
    "assert_roundtrip",
    "assert_loaded",
    "assert_manifest",
)
every_name = pytest.mark.parametrize("name", list(PUBLIC))


@every_name
def test_every_public_name_can_be_imported(name: str) -> None:
    found = getattr(pytest_paramcheck, name)

    # CHECKS is a dict: it has no name, and its summary is the comment above it.
    assert isinstance(found, (types.ModuleType, dict)) or found.__name__ == name


@every_name
def test_the_summary_is_the_first_line_of_the_docstring(name: str) -> None:
    found = getattr(pytest_paramcheck, name)
    doc = _comment_above(name) if isinstance(found, dict) else inspect.getdoc(found) or ""

    assert PUBLIC[name].summary == doc.partition("\n")[0]


def _comment_above(name: str) -> str:
    """The ``#:`` line before the assignment of a table, which can have no docstring."""
    module = importlib.import_module(f"pytest_paramcheck.{PUBLIC[name].module}")
    lines = inspect.getsource(module).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
    return lines[at - 1].removeprefix("#: ")


@pytest.mark.parametrize("name", ASSERTIONS)
def test_the_summary_fits_one_line_of_pytest_fixtures(name: str) -> None:
    assert PUBLIC[name].summary.endswith(".")
    assert len(PUBLIC[name].summary) <= 76


@pytest.mark.parametrize("name", ASSERTIONS)
def test_the_docstring_says_what_fails_what_is_raised_and_shows_an_example(name: str) -> None:
    doc = inspect.getdoc(getattr(pytest_paramcheck, name)) or ""

    assert ">>> " in doc
    assert "ParamCheckError" in doc
    assert "ParamCheckUsageError" in doc


def test_the_order_is_the_one_of_the_readme() -> None:
    assert list(ASSERTIONS) == [name for name in ORDER if name in PUBLIC]


def test_all_and_dir_offer_every_public_name() -> None:
    assert set(pytest_paramcheck.__all__) == set(PUBLIC)
    assert set(PUBLIC) <= set(dir(pytest_paramcheck))


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


def test_an_assertion_loads_torch_and_still_no_pytest() -> None:
    loaded = _loaded_after("from pytest_paramcheck import assert_finite")

    assert "torch" in loaded
    assert not {"pytest", "_pytest"} & loaded


def test_type_checkers_see_the_same_names() -> None:
    """The names that ``__init__`` imports for type checkers are the catalogue's."""
    source = Path(pytest_paramcheck.__file__).read_text(encoding="utf-8")
    (block,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.asname: (node.module or alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: entry.module for name, entry in PUBLIC.items()}
