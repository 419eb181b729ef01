"""Tracebacks that end at the user's line, where an integration test would not come to."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from pytest_paramcheck import ParamCheckError
from pytest_paramcheck.plugin.user_line import end_at_user

#: Of a module of ours: an assertion whose findings another function of ours says in other words.
OURS = """
def asserts():
    try:
        raise ParamCheckError([], "inner")
    except ParamCheckError:
        raise ParamCheckError([], "outer")
"""


def test_an_error_that_we_caught_ourselves() -> None:
    """Nothing of its traceback is the user's."""
    names = {"__name__": "pytest_paramcheck.asserts", "ParamCheckError": ParamCheckError}
    exec(OURS, names)
    try:
        names["asserts"]()
    except ParamCheckError as error:
        raised = error

    assert end_at_user(raised)
    shown = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert shown == ["test_an_error_that_we_caught_ourselves"]


#: Ours runs a library, which runs ours.
THROUGH = """
def asserts(call, raises):
    call(raises)

def raises():
    raise ParamCheckError([], "inner")
"""


@pytest.mark.parametrize(
    ("module", "kept"),
    [("torch.nn.modules.module", []), ("contextlib", []), ("my_model", ["call"])],
    ids=["torch", "standard-library", "the-users"],
)
def test_libraries_below_the_users_last_line_are_not_shown(module: str, kept: list[str]) -> None:
    names = {"__name__": "pytest_paramcheck.asserts", "ParamCheckError": ParamCheckError}
    exec(THROUGH, names)
    library: dict[str, Any] = {"__name__": module}
    exec("def call(raises): raises()", library)
    asserts: Any = names["asserts"]
    try:
        asserts(library["call"], names["raises"])
    except ParamCheckError as error:
        raised = error

    assert end_at_user(raised)
    shown = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert shown == ["test_libraries_below_the_users_last_line_are_not_shown", *kept]
