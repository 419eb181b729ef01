"""Every example in a docstring runs and shows what it says."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil

import pytest

import pytest_paramcheck

from ..public import ASSERTIONS

MODULES = [
    found.name
    for found in pkgutil.walk_packages(pytest_paramcheck.__path__, "pytest_paramcheck.")
    if not found.ispkg
]


def examples_of(module: str) -> list[doctest.DocTest]:
    loaded = importlib.import_module(module)
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(loaded, module) if test.examples]


def run(test: doctest.DocTest) -> str:
    """Run the examples of one docstring; return what went wrong."""
    out = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=out.write)
    return out.getvalue()


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    for test in examples_of(module):
        assert run(test) == ""


@pytest.mark.parametrize("name", ASSERTIONS)
def test_every_assertion_has_an_example_that_runs(name: str) -> None:
    function = getattr(pytest_paramcheck, name)

    found = {test.name for test in examples_of(function.__module__)}
    assert f"{function.__module__}.{name}" in found


def test_a_wrong_example_is_noticed() -> None:
    parser = doctest.DocTestParser()
    wrong = parser.get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    raising = parser.get_doctest(">>> 1 / 0\n", {}, "raising", None, None)

    assert "Expected:\n    3\nGot:\n    2" in run(wrong)
    assert "ZeroDivisionError" in run(raising)
