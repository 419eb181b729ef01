"""Where a Python object stores things, and what a path to them is called.

Reads ``__dict__``, slots and built-in containers through the descriptors and methods of the
built-in types: a property, ``__getattr__`` or ``__iter__`` of the object's own class would run
the user's code.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn


def pairs_of(held: Any) -> Iterable[tuple[Any, Any]]:
    """Return the items of a mapping, past the overrides of a ``dict``; of all else, nothing."""
    if isinstance(held, dict):
        return list(dict.items(held))
    return list(held.items()) if isinstance(held, Mapping) else ()


def key_text(key: Any) -> str:
    """A key as it would be written; an object's own repr is code that may raise."""
    if type(key) in (str, int, float, bool, type(None)):
        return repr(key)
    if type(key) is tuple:
        return ", ".join(key_text(part) for part in key)
    return f"<{type(key).__name__}>"


def callable_name(function: Any) -> str:
    """Return what a callable is called: of a partial and a method, the function's name."""
    inner = function
    while type(inner) is functools.partial:
        inner = inner.func
    if isinstance(inner, types.MethodType):
        inner = inner.__func__
    if isinstance(inner, types.FunctionType):
        return inner.__name__
    return type(inner).__name__


#: A SimpleNamespace has its __dict__ behind a member, other objects behind a getset.
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)


def storage_of(cls: type) -> list[tuple[str | None, Any]]:
    """The descriptors of a class behind which an object stores things; None: its ``__dict__``."""
    cells: list[tuple[str | None, Any]] = []
    for klass in type.__dict__["__mro__"].__get__(cls):
        for name, value in list(type.__dict__["__dict__"].__get__(klass).items()):
            if name == "__dict__" and type(value) in _DESCRIPTORS:
                cells.append((None, value))
            elif type(value) is types.MemberDescriptorType and not name.startswith("__"):
                cells.append((name, value))
    return cells


def derived_names(module: nn.Module) -> set[str]:
    """Attributes that a hook of torch's own computes from parameters at every forward.

    weight_norm, spectral_norm and pruning leave the computed weight in a plain attribute.
    """
    names: set[str] = set()
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils."):
            state = getattr(hook, "__dict__", {})
            names.update(n for k in ("name", "_tensor_name") if isinstance(n := state.get(k), str))
    return names


def carried_by(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function, a bound method or a partial carries, and the path to it."""
    if isinstance(function, functools.partial):
        yield ".func", function.func
        for number, argument in enumerate(function.args):
            yield f".args[{number}]", argument
        for key, argument in function.keywords.items():
            yield f".keywords[{key!r}]", argument
        return
    if isinstance(function, types.MethodType):
        yield ".__self__", function.__self__
        function = function.__func__
        if not isinstance(function, types.FunctionType):
            return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:
            continue  # a variable that is not bound yet
    for number, default in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{number}]", default
    for key, default in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{key!r}]", default
    for key, inner in list(function.__dict__.items()):
        yield f".{key}", inner


def objects_of_array(value: Any) -> Any | None:
    """Return a numpy array's objects, flat; one of numbers has none, and None is no array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not issubclass(type(value), numpy.ndarray):
        return None
    if not numpy.ndarray.dtype.__get__(value).hasobject:
        return numpy.empty(0, dtype=object)
    return numpy.ndarray.ravel(value).view(numpy.ndarray)


def referred_by(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object of a type written in C refers to, and the path to it.

    Iterators, generators, cells, views and caches store things where Python has no name for
    them. Advancing one would be felt by the user: the garbage collector is asked instead.
    """
    for attribute in ("gi_frame", "cr_frame", "ag_frame"):
        frame = getattr(value, attribute, None) if isinstance(value, _SUSPENDED) else None
        if frame is not None:
            yield from ((f".{name}", inner) for name, inner in list(frame.f_locals.items()))
            return
    if isinstance(value, types.BuiltinFunctionType):
        yield ".__self__", value.__self__
        return
    label = f"<{type(value).__name__}>"
    for inner in gc.get_referents(value):
        if not isinstance(inner, (type, types.ModuleType)):
            yield label, inner


_SUSPENDED = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
#: Their types have a storage of their own, and refer to more than what is in it.
_C_MODULES = frozenset({"builtins", "functools", "itertools", "collections", "types", "operator"})


def is_opaque(cls: type, cells: Iterable[object]) -> bool:
    """Whether objects of a class store things where no descriptor leads to."""
    return cls.__module__ in _C_MODULES or not any(True for _ in cells)
