"""Everything that modules hold: found by one walk, noted as it is found.

Goes through registered and unregistered modules, their attributes, and the containers, plain
objects and generators in these. Looks only where Python objects store things (``__dict__``,
slots, the items of built-in containers): a property would run the user's code.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import UserDict, UserList
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..subject.held import carried_by, key_text, storage_of
from ..subject.wrappers import wrapped_child
from .containers import CONTAINERS, container_type, is_array, keep_array, keep_container
from .randomness import keep_generator
from .undo import Restore

#: Longer containers are neither looked into nor put back: data, not the state of a model.
LARGE = 100_000
#: How many containers and objects deep what a loss function brings along is looked for.
DEPTH = 3

_ATOMIC = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, range, slice, type, type(Ellipsis),
        types.ModuleType, types.BuiltinFunctionType, types.GeneratorType, types.CodeType,
        property, torch.device, torch.dtype, torch.Size, torch.layout, torch.memory_format,
    }
)  # fmt: skip
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_STANDARD = frozenset(nn.Module().__dict__)
#: Of the standard library these are plain holders; the others are machinery.
_HOLDERS = (types.SimpleNamespace, UserDict, UserList)


class HeldState:
    """The tensors that some modules hold, and how to put everything else of theirs back."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._empty: list[Any] = []
        self.restores: list[Restore] = [partial(_empty_again, self._empty)]
        self.parameters: list[tuple[Tensor, str]] = []
        self.tensors: list[tuple[Tensor, str]] = []
        self.wrapped = False
        self._seen: set[int] = set()
        self._keep: list[Any] = []  # keeps what was visited alive, so that no id is used twice
        self._stack: list[tuple[Any, str]] = [(module, "") for module in modules]
        while self._stack:
            self._visit(*self._stack.pop())

    def _visit(self, value: Any, path: str) -> None:
        cls = type(value)
        if cls in _ATOMIC or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._keep.append(value)
        if issubclass(cls, Tensor):
            places = self.parameters if isinstance(value, nn.Parameter) else self.tensors
            places.append((value, path))
            if attributes := value.__dict__:  # gradients that are kept elsewhere than in .grad
                self._stack += [(held, f"{path}.{name}") for name, held in attributes.items()]
        elif issubclass(cls, nn.Module):
            self._module(value, path)
        elif issubclass(cls, tuple):
            self._stack += [(held, f"{path}[{n}]") for n, held in enumerate(tuple.__iter__(value))]
        elif (base := container_type(cls)) is not None:
            if base.__len__(value) <= LARGE:
                self.restores.append(keep_container(value))
                self._stack += _items(base, value, path)
                self._object(value, cls, path)
        elif is_array(cls):
            if (restore := keep_array(value)) is not None:
                self.restores.append(restore)
        elif (generator := keep_generator(value)) is not None:
            self.restores.append(generator)
        elif _entered(cls):
            self._object(value, cls, path)

    def _module(self, module: nn.Module, path: str) -> None:
        prefix = f"{path}." if path else ""
        training, cls = module.training, type(module)
        if isinstance(module, torch.jit.ScriptModule):
            members: list[tuple[str, Any]] = list(module._buffers.items())
            self.restores.append(partial(_restore_scripted, module, training, members))
            members += [*module._parameters.items(), *module.named_children()]
            self._stack += [(held, prefix + name) for name, held in reversed(members)]
            return
        attributes = vars(module)
        if wrapped_child(module) is not None:
            # A wrapper (DDP, FSDP, compiled) keeps the state of its own machinery in its
            # attributes: to turn that back under its feet would break it.
            self.wrapped = True
            names: Iterable[str] = _STANDARD & attributes.keys()
        else:
            names = list(attributes)
            self.restores.append(keep_container(attributes))
        self.restores.append(partial(_restore_module, module, cls, training))
        for name in names:
            value = attributes[name]
            if type(value) in _ATOMIC:
                continue
            if name in _STANDARD:
                self._table(name, value, prefix)
            else:
                self._stack.append((value, prefix + name))

    def _table(self, name: str, value: Any, prefix: str) -> None:
        """One of the dicts in which ``nn.Module`` itself keeps members and hooks."""
        if container_type(type(value)) is None:
            return
        if not value and type(value) in CONTAINERS:
            self._empty.append(value)
            return
        self.restores.append(keep_container(value))
        if value and name in ("_parameters", "_buffers", "_modules"):
            self._stack += [(held, prefix + key) for key, held in reversed(value.items())]

    def _object(self, value: Any, cls: type, path: str) -> None:
        for name, cell in storage_of(cls):
            try:
                held = cell.__get__(value, cls)
            except AttributeError:
                self.restores.append(partial(_empty_slot, cell, value, cls))
                continue
            if name is not None:
                self.restores.append(partial(_fill_slot, cell, value, cls, held))
                self._stack.append((held, f"{path}.{name}"))
            elif type(held) is dict:
                self.restores.append(keep_container(held))
                self._stack += [(inner, f"{path}.{key}") for key, inner in held.items()]


def brought_along(held: Iterable[Any]) -> Iterator[Any]:
    """Yield the modules, generators and leaves that what a loss function holds leads to.

    Its lists and counters are left alone: what a loss writes down there is meant to stay.
    """
    seen: set[int] = set()
    keep = []
    level = list(held)
    for _ in range(DEPTH + 1):
        below: list[Any] = []
        for value in level:
            cls = type(value)
            if cls in _ATOMIC or id(value) in seen:
                continue
            seen.add(id(value))
            keep.append(value)
            if issubclass(cls, (Tensor, nn.Module)):
                yield value
            elif issubclass(cls, _FUNCTIONS):
                below += [inner for _, inner in carried_by(value)]
            elif issubclass(cls, tuple):
                below += tuple.__iter__(value)
            elif (base := container_type(cls)) is not None:
                if base.__len__(value) <= LARGE:
                    below += [inner for inner, _ in _items(base, value, "")]
            elif keep_generator(value) is not None:
                yield value
            elif _entered(cls):
                for _, cell in storage_of(cls):
                    inner = getattr_cell(cell, value, cls)
                    below += inner.values() if type(inner) is dict else [inner]
        level = below


def getattr_cell(cell: Any, value: Any, cls: type) -> Any:
    """What an object stores behind a descriptor; None for a slot that was never filled."""
    try:
        return cell.__get__(value, cls)
    except AttributeError:
        return None


def _items(base: Any, value: Any, path: str) -> list[tuple[Any, str]]:
    if base is bytearray:
        return []
    if not issubclass(base, dict):
        items = enumerate(base.__iter__(value))
        return [(held, f"{path}[{n}]") for n, held in items if type(held) not in _ATOMIC]
    return [
        (held, f"{path}[{key_text(key)}]")
        for key, held in list(dict.items(value))
        if type(held) not in _ATOMIC
    ]


def _entered(cls: type) -> bool:
    """Whether the attributes of a plain object of this class are state that a loss may change."""
    if issubclass(cls, (type, *_FUNCTIONS)):
        return False
    if issubclass(cls, _HOLDERS):
        return True
    package = str(getattr(cls, "__module__", "")).partition(".")[0]
    if package in sys.stdlib_module_names or package in ("torch", "numpy"):
        return False
    # Optimizers are asserted about elsewhere; a data set is no state, and may be huge.
    machinery = [("torch.optim", "Optimizer"), ("torch.utils.data", "Dataset")]
    return not any(issubclass(cls, getattr(sys.modules.get(m), name, ())) for m, name in machinery)


def _empty_again(tables: list[Any]) -> None:
    for table in tables:
        if table:
            table.clear()


def _restore_module(module: nn.Module, cls: type, training: bool) -> None:
    if type(module) is not cls:
        module.__class__ = cls
    if module.training is not training:
        module.training = training


def _restore_scripted(module: Any, training: bool, buffers: list[tuple[str, Any]]) -> None:
    if module.training is not training:
        module.training = training
    now = dict(module._buffers.items())
    for name, buffer in buffers:
        if now.get(name) is not buffer:
            setattr(module, name, buffer)


def _fill_slot(cell: Any, value: Any, cls: type, held: Any) -> None:
    if getattr_cell(cell, value, cls) is not held:
        cell.__set__(value, held)


def _empty_slot(cell: Any, value: Any, cls: type) -> None:
    if getattr_cell(cell, value, cls) is not None:
        cell.__delete__(value)
