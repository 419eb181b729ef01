"""Which methods of a model's modules a run calls, and which of their arguments it leaves out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..subject.walk import first_places

#: torch's own way to a forward, and its lists of modules: they run whatever a model does.
_ON_THE_WAY = frozenset(
    inspect.getfile(way) for way in (nn.Module.__call__, nn.ModuleList.__iter__)
)


@dataclass(slots=True)
class Arguments:
    """What all calls of one method of one module had in common.

    ``values``: the arguments that were None, a bool, a number or text, alike in each call.
    ``keys``: the keys of those that were mappings, of all calls together.
    """

    values: dict[str, object]
    keys: dict[str, frozenset[str]]

    def merge(self, other: Arguments) -> None:
        """Take in another call."""
        self.values = {
            name: value
            for name, value in self.values.items()
            if name in other.values and _same(other.values[name], value)
        }
        self.keys = {
            name: keys | other.keys[name] for name, keys in self.keys.items() if name in other.keys
        }


@dataclass(slots=True)
class Calls:
    """By the name of a module: its methods that ran, by their code, and whether on anything.

    ``on_nothing``: the modules that were given tensors without elements only.
    """

    ran: dict[str, dict[CodeType, Arguments]] = field(default_factory=dict)
    on_nothing: set[str] = field(default_factory=set)


def calls_of(model: nn.Module, run: Callable[[], object]) -> Calls:
    """Run something; return what it called of a model's modules. No tensor is kept."""
    names = {id(module): prefix[:-1] for prefix, _, module in reversed(list(first_places(model)))}
    calls = Calls()
    on_something: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_argcount or code.co_filename in _ON_THE_WAY:
            return
        given = frame.f_locals
        name = names.get(id(given.get(code.co_varnames[0])))
        if name is None or code.co_name.startswith("<"):
            return
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
        said = {key: given[key] for key in code.co_varnames[1:count] if key in given}
        arguments = _arguments(said)
        known = calls.ran.setdefault(name, {}).setdefault(code, arguments)
        if known is not arguments:
            known.merge(arguments)
        if code.co_name == "forward":
            tensors = [one for one in said.values() if isinstance(one, Tensor)]
            if not tensors or any(tensor.numel() for tensor in tensors):
                on_something.add(name)
            else:
                calls.on_nothing.add(name)

    with _profiled(note):
        run()
    calls.on_nothing -= on_something
    return calls


@contextmanager
def _profiled(note: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def _arguments(given: Mapping[str, object]) -> Arguments:
    values: dict[str, object] = {}
    keys: dict[str, frozenset[str]] = {}
    for name, value in given.items():
        if value is None or isinstance(value, (bool, int, float, str)):
            values[name] = value
        elif isinstance(value, (tuple, list)) and not value and not isinstance(value, torch.Size):
            values[name] = ()
        elif isinstance(value, Mapping):
            keys[name] = frozenset(key for key in value if isinstance(key, str))
    return Arguments(values, keys)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other
