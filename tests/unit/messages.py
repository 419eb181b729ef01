"""The message that a call raises, and expected messages as they read."""

from __future__ import annotations

import re
import textwrap
import traceback
from collections.abc import Callable

import pytest

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError


def demand_hidden(error: BaseException) -> None:
    """Demand that pytest hides the frames that say so, also where the plugin is not there."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        assert frame.f_locals.get("__tracebackhide__", True) is True, frame.f_code.co_name


def failure(call: Callable[..., object], *args: object, **options: object) -> str:
    """Return the message of the failure that a call raises."""
    with pytest.raises(ParamCheckError) as caught:
        call(*args, **options)
    demand_hidden(caught.value)
    return str(caught.value)


def usage(call: Callable[..., object], *args: object, **options: object) -> str:
    """Return the message of the usage error that a call raises."""
    with pytest.raises(ParamCheckUsageError) as caught:
        call(*args, **options)
    demand_hidden(caught.value)
    return str(caught.value)


def failure_lines(call: Callable[..., object], *args: object, **options: object) -> list[str]:
    """Return the lines of the failure that a call raises."""
    return failure(call, *args, **options).splitlines()


def whole(text: str) -> str:
    """Dedent a raw string; a backslash at the end of a line joins it to the next by one space."""
    return re.sub(r"\s*\\\n\s*", " ", textwrap.dedent(text)).strip("\n")
