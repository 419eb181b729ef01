"""Tracebacks that end at the user's line, where an integration test would not come to."""

from __future__ import annotations

import traceback

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
