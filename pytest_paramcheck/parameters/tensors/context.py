"""What stands beside the bits of a tensor: kinds, shapes and the numbers of a flatten context.

A traceable wrapper subclass gives its inner tensors and a context, of any Python type: a scale,
a zero point, a block size, nested in tuples, dicts and objects. Its values follow from both. A
context is read as a list of facts that can be compared, hashed and searched like bits are.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from numbers import Complex, Integral, Real
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from .describe import dtype_name, layout_name
from .memory import PLAIN_TYPES, inner_tensors

#: How deep a context is followed; what lies deeper is known by its identity alone.
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: where it stands, and what it is; a number as it is, the rest as text.

    ``held`` keeps what the text names by its id, so that no other object gets that id.
    """

    path: str
    value: bool | int | float | complex | str
    held: object = None

    @property
    def key(self) -> tuple[str, str, object]:
        """Equal for equal facts: a NaN is one of the same bits, and 2 is 2.0 but not True."""
        value = self.value
        if isinstance(value, complex):
            return self.path, "complex", struct.pack("2d", value.real, value.imag)
        if isinstance(value, float):
            minus_zero = value == 0 and math.copysign(1.0, value) < 0
            if minus_zero or not value.is_integer():
                return self.path, "float", struct.pack("d", value)
        if isinstance(value, (bool, str)):
            return self.path, type(value).__name__, value
        return self.path, "int", int(value)


def facts_of(tensor: Tensor) -> list[Fact]:
    """Return what a tensor holds beside its bits; nothing where it holds them itself.

    The kinds and shapes of the inner tensors belong to it: the same bytes mean something else
    as int8 and as uint8. Devices and ``requires_grad`` do not.
    """
    if type(tensor) in PLAIN_TYPES and tensor.layout is torch.strided:
        return []
    with torch.no_grad():
        return [fact for fact, _ in _facts(tensor, "") if fact is not None]


def context_tensors(tensor: Tensor) -> list[Tensor]:
    """Return the tensors in a wrapper's own flatten context, which are content like inner ones."""
    if _wraps(tensor):
        return [held for _, held in _own(tensor, "") if held is not None]
    return []


def same_facts(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same beside their bits."""
    return [fact.key for fact in facts_of(a)] == [fact.key for fact in facts_of(b)]


def _wraps(tensor: Tensor) -> bool:
    return (
        type(tensor) not in PLAIN_TYPES
        and tensor.layout is torch.strided
        and inner_tensors(tensor) is not None
    )


#: A fact, or a tensor that stands in a context.
_Found = Iterator[tuple[Fact | None, Tensor | None]]


def _facts(tensor: Tensor, path: str) -> _Found:
    parts = inner_tensors(tensor)
    if parts is None:
        return
    if _wraps(tensor):
        yield Fact(f"{path}kind", type(tensor).__qualname__), None
        yield from _own(tensor, path)
    for number, part in enumerate([*parts, *context_tensors(tensor)]):
        shape = "x".join(map(str, part.shape))
        text = f"{shape} {dtype_name(part.dtype)} {layout_name(part.layout)}"
        yield Fact(f"{path}inner tensor {number}", text), None
        yield from _facts(part, f"{path}inner tensor {number}: ")


def _own(tensor: Tensor, path: str) -> _Found:
    """What a wrapper says of itself, without its inner tensors."""
    if isinstance(getattr(tensor, "_local_tensor", None), Tensor):
        # A DTensor: its context is the mesh and the global shape, and where its shards lie.
        placements = " ".join(map(str, getattr(tensor, "placements", ())))
        yield Fact(f"{path}placements", placements), None
        return
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if not callable(flatten):
        return  # a hook named its inner tensors
    with suppress(RuntimeError, TypeError):
        # Detached, so that requires_grad, which some contexts hold, is no content.
        flatten = getattr(tensor.detach(), "__tensor_flatten__", flatten)
    yield from _walk(f"{path}flatten context", flatten()[1], ())


def _walk(path: str, value: Any, above: tuple[int, ...]) -> _Found:
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, torch.device):
        return
    elif isinstance(value, bool):
        yield Fact(path, value), None
    elif isinstance(value, enum.Enum):
        yield Fact(path, f"{type(value).__qualname__}.{value.name}"), None
    elif isinstance(value, Integral):
        yield Fact(path, int(value)), None
    elif isinstance(value, Real):
        yield Fact(path, float(value)), None
    elif isinstance(value, Complex):
        yield Fact(path, complex(value)), None
    elif value is None or isinstance(value, _NAMED):
        yield Fact(path, repr(value)), None
    elif isinstance(value, (type, FunctionType, BuiltinFunctionType, ModuleType)):
        yield Fact(path, getattr(value, "__qualname__", value.__name__)), None
    elif id(value) in above:
        yield Fact(path, f"the one {above.index(id(value))} above"), None
    elif len(above) == _DEEPEST:
        yield Fact(path, f"object {id(value)}", value), None
    else:
        yield from _inside(path, value, (*above, id(value)))


_NAMED = (str, bytes, bytearray, torch.dtype, torch.layout, torch.memory_format, torch.SymInt)


def _inside(path: str, value: Any, above: tuple[int, ...]) -> _Found:
    if isinstance(value, Mapping):
        yield Fact(path, f"mapping of {len(value)}"), None
        for key in sorted(value, key=repr):
            yield from _walk(f"{path}[{key!r}]", value[key], above)
    elif isinstance(value, Set):
        yield Fact(path, f"set {sorted(map(repr, value))}"), None
    elif isinstance(value, Sequence):
        yield Fact(path, f"sequence of {len(value)}"), None
        for number, item in enumerate(value):
            yield from _walk(f"{path}[{number}]", item, above)
    else:
        state = _state(value)
        if state is None:
            yield Fact(path, f"object {id(value)}", value), None
            return
        yield Fact(path, type(value).__qualname__), None
        for name, held in state:
            yield from _walk(f"{path}{name}", held, above)


def _state(value: Any) -> list[tuple[str, Any]] | None:
    """What an object is made of: its attributes, or what a copy of it is made from."""
    names = [
        name
        for kind in type(value).__mro__
        for name in _listed(kind.__dict__.get("__slots__", ()))
        if name not in ("__dict__", "__weakref__") and hasattr(value, name)
    ]
    held = [(f".{name}", getattr(value, name)) for name in names]
    held += [(f".{name}", item) for name, item in sorted(getattr(value, "__dict__", {}).items())]
    if held:
        return held
    try:
        made = value.__reduce_ex__(4)
    except Exception:  # the object's own code, and a lock or a file has none
        return None
    if isinstance(made, str):
        return [("", made)]
    return [("", item) for item in made[1:3]]


def _listed(slots: str | Sequence[str]) -> Sequence[str]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
