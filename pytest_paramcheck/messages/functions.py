"""Whether a function that a user passes takes what it is called with, asked before the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .errors import ParamCheckUsageError


def demand_arguments(function: Callable[..., Any], count: int, said: str) -> None:
    """Raise ``said`` where a function cannot be called with so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        raise ParamCheckUsageError(said) from None
    except ValueError:
        pass  # a builtin that does not say what it takes


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments; where it does not say, it can."""
    try:
        demand_arguments(function, count, "")
    except ParamCheckUsageError:
        return False
    return True
