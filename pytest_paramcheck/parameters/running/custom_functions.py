"""Which custom autograd function runs: read from the frames of what its author wrote.

Since torch 2.14 ``torch.autograd.Function.apply`` is a C method, and no frame of torch's own is
on the stack; the author's ``forward`` and ``backward`` are there in every version.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


class CustomFunctions:
    """Tells the custom functions among the frames of a call stack."""

    def __init__(self) -> None:
        self._without_ctx: dict[CodeType, str] = {}  # code -> the function whose forward it is

    def running(self, frame: FrameType) -> tuple[str, bool]:
        """Return the name of the function that a frame is part of (``""``: of none), and whether
        it is its backward.

        The first argument of both is ``ctx``, which is the node: in backward it is the one that
        the engine runs now. A forward beside a ``setup_context`` gets no ``ctx`` and is known
        by its code.
        """
        first = _first_argument(frame)
        # By class: isinstance asks an object for its __class__, which a proxy computes.
        if issubclass(type(first), FunctionCtx):
            return type(first).__name__.removesuffix("Backward"), first is _current_node()
        return self._forward_without_ctx(frame.f_code), False

    def _forward_without_ctx(self, code: CodeType) -> str:
        if code not in self._without_ctx:
            # Asked anew for each code: a class may be defined in the very pass that is followed.
            known = {_code_of(cls.forward): cls.__name__ for cls in _with_setup_context(Function)}
            self._without_ctx[code] = known.get(code, "")
        return self._without_ctx[code]


def _first_argument(frame: FrameType) -> Any:
    code = frame.f_code
    if code.co_argcount:
        return frame.f_locals.get(code.co_varnames[0])
    if code.co_flags & inspect.CO_VARARGS:
        given = frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount])
        return given[0] if type(given) is tuple and given else None
    return None


def _with_setup_context(base: Any) -> Iterator[Any]:
    for cls in base.__subclasses__():
        if cls.setup_context is not Function.setup_context:
            yield cls
        yield from _with_setup_context(cls)


def _code_of(function: Any) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


def _current_node() -> Any:
    """The node that the engine runs on this thread; None where torch does not tell."""
    ask = getattr(torch._C, "_current_autograd_node", None)
    return ask() if ask is not None else None
