"""Which modules keep more than their registrations, without a look at what it is.

Tests: ``tests/unit/test_registered.py``.
"""

from __future__ import annotations

import operator
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

#: The attributes that every module has.
STANDARD = frozenset(nn.Module().__dict__)
HOOKS = tuple(sorted(key for key in STANDARD if key.endswith("_hooks")))
_hooks_of = operator.itemgetter(*HOOKS)
#: What no tensor can be in.
ATOMIC = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, bytearray, range, slice, type,
        type(Ellipsis), types.ModuleType, types.FrameType, types.TracebackType,
        types.CodeType, property, weakref.ReferenceType, torch.device, torch.dtype, torch.Size,
        torch.layout, torch.memory_format, torch.Generator,
    }
)  # fmt: skip


class Layouts:
    """The attributes of modules: which are more than registrations, numbers and strings.

    Asked of each of thousands of layers that keep nothing else, so nearly without Python's own
    loops. Modules of one class have the same attributes, mostly: what to look at is found once.
    """

    def __init__(self) -> None:
        self._last: dict[type, tuple[list[str], Callable[[Any], tuple[Any, ...]] | None]] = {}

    def keep_objects(self, module: nn.Module) -> bool:
        """Whether a module keeps anything that a tensor could be in."""
        state = module.__dict__
        keys = list(state)
        known = self._last.get(type(module))
        if known is None or known[0] != keys:
            known = self._last[type(module)] = (keys, _own_values(keys))
        values_of = known[1]
        if values_of is None or any(_hooks_of(state)):
            return True
        for value in values_of(state):  # noqa: SIM110 - any() of a generator takes twice as long
            if type(value) not in ATOMIC:
                return True
        return False


def _own_values(keys: list[str]) -> Callable[[Any], tuple[Any, ...]] | None:
    """What reads the values that are not nn.Module's own; None where one of its own is gone."""
    if not STANDARD.issubset(keys):
        return None
    own = [key for key in keys if key not in STANDARD]
    return operator.itemgetter("training", "training", *own)  # of one key it makes no tuple
