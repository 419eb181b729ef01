"""What an object is made of: its tensors and plain values, each under a path.

Optimizers keep what they like for a parameter: a dict, a bare tensor, lists of tensors, an
object with slots. Two such states are compared leaf by leaf. A ``repr`` will not do: that of an
object is its address, and that of a large tensor leaves out its middle.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .held import key_text, pairs_of, storage_of

#: Compared as they are.
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A leaf of which no more is known than what it is: a function, an empty container."""

    kind: str


def leaves_of(held: Any) -> dict[str, Any]:
    """Return the leaves of an object by path: tensors, plain values and sets of them, and
    :class:`Opaque` ones.

    The path of an item of a mapping is its key, so that a state that is a dict has the leaves
    ``exp_avg`` and ``step``; below it ``exp_avg.codes`` (an attribute or a key) and
    ``history[0]``. A bare tensor is the leaf ``state``.
    """
    return dict(_walk(held, "", ()))


def _walk(held: Any, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    here = path or "state"
    if isinstance(held, (Tensor, *PLAIN)):
        yield here, held
        return
    array = as_tensor(held)
    if array is not None:
        yield here, array
        return
    if isinstance(held, (set, frozenset)) and all(isinstance(item, PLAIN) for item in held):
        yield here, frozenset(held)
        return
    if id(held) in above:
        yield here, Opaque("a reference back")
        return
    below = (*above, id(held))
    parts = list(_parts(held))
    # What it is matters too: an empty list is not a missing one.
    if path and (not parts or not isinstance(held, (Mapping, list, tuple, deque))):
        yield path, Opaque(type(held).__qualname__)
    for key, part in parts:
        yield from _walk(part, path + key if key[0] == "[" or not path else f"{path}.{key}", below)


def _parts(held: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a container or an object holds; of a class, a function or a set, nothing."""
    if isinstance(held, Mapping):
        for key, value in pairs_of(held):
            yield (key if isinstance(key, str) and key else f"[{key_text(key)}]"), value
        return
    if isinstance(held, (list, tuple, deque)):
        for number, value in enumerate(list(held)):
            yield f"[{number}]", value
        return
    if isinstance(held, (type, torch.nn.Module)) or callable(held):
        return
    for name, cell in storage_of(type(held)):
        try:
            value = cell.__get__(held)
        except (AttributeError, TypeError):
            continue  # a slot that was never filled
        if name is not None:
            yield name, value
        elif isinstance(value, dict):
            yield from ((str(key), part) for key, part in dict.items(value) if str(key))


def as_tensor(value: Any) -> Tensor | None:
    """Return a numpy array or number as a tensor of its dtype; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    try:
        return torch.from_numpy(numpy.array(value))
    except TypeError:
        return None  # an array of objects, of strings
