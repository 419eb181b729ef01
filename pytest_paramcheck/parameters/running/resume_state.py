"""What training consists of at one moment: the saved state of its objects, and the rest.

Objects are what a training run goes on with, by key: a model, its optimizers, a scheduler. Their
state is what ``state_dict()`` says; what lies in plain attributes beside it no checkpoint has.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..subject.leaves import PLAIN, leaves_of
from ..subject.optimizers import UnreadableError, read_groups
from ..subject.reading import take_inventory

Objects: TypeAlias = Mapping[str, Any]
Same: TypeAlias = Callable[[Any, Any], bool]
#: What stands for a leaf that the other side does not have.
MISSING = object()
_STANDARD = frozenset(nn.Module().__dict__) - {"training"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of an object's state.

    ``key`` is the object's, ``path`` where in its state the value lies, ``names`` the parameter
    that it is, or that an optimizer keeps it for.
    """

    key: str
    path: str
    names: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """A leaf that two runs have otherwise; ``before`` and ``after`` may be :data:`MISSING`."""

    key: str
    path: str
    names: tuple[str, ...]
    before: Any
    after: Any
    is_entry: bool  # a parameter or buffer itself, and not what is kept beside it


def differences(one: Objects, other: Objects, same: Same) -> Iterator[Difference]:
    """Yield where the states of the objects of two runs are not the same."""
    for key in one:
        before, after = (_leaves(key, objects) for objects in (one, other))
        for path in dict.fromkeys((*before, *after)):
            ours, theirs = before.get(path), after.get(path)
            known = ours or theirs
            if known is None or (ours and theirs and same(ours.value, theirs.value)):
                continue
            yield Difference(
                key,
                known.path,
                known.names,
                ours.value if ours else MISSING,
                theirs.value if theirs else MISSING,
                isinstance(one[key], nn.Module) and bool(known.names),
            )


def _leaves(key: str, objects: Objects) -> dict[tuple[tuple[str, ...], str], Leaf]:
    is_model = isinstance(objects[key], nn.Module)
    found = _of_module(key, objects) if is_model else _of_other(key, objects)
    return {(leaf.names, leaf.path): leaf for leaf in found}


def _prefix(key: str, objects: Objects) -> str:
    """Return what stands before names of a model: nothing where it is the only one."""
    several = sum(isinstance(held, nn.Module) for held in objects.values()) > 1
    return f"{key}." if several else ""


def _of_module(key: str, objects: Objects) -> Iterator[Leaf]:
    """A model's parameters and persistent buffers, and what else it would save."""
    model, prefix = objects[key], _prefix(key, objects)
    inventory = take_inventory(model, allow_empty=True)
    known = set()
    for entry in inventory.entries:
        known.update(entry.names)
        # What is registered persistent=False is not meant to come back.
        if entry.persistent and entry.tensor is not None:
            names = tuple(prefix + name for name in entry.names)
            yield Leaf(key, entry.name, names, entry.tensor)
    saved = model.state_dict()
    rest = {name: value for name, value in saved.items() if name not in known}
    for path, value in leaves_of(rest).items():
        yield Leaf(key, path, (), value)


def _of_other(key: str, objects: Objects) -> Iterator[Leaf]:
    """What anything but a model would save; an optimizer's by the parameter it is kept for."""
    saved = state_of(objects[key])
    kept = saved.get("state") if isinstance(saved, Mapping) else None
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    if not isinstance(kept, Mapping) or not isinstance(groups, (list, tuple)):
        for path, value in leaves_of(saved).items():
            yield Leaf(key, path, (), value)
        return
    owners = _owners(objects[key], objects)
    for number, held in kept.items():
        for path, value in leaves_of(held).items():
            yield Leaf(key, path, owners.get(number, (f"parameter {number}",)), value)
    for number, group in enumerate(groups):
        rest = {k: v for k, v in group.items() if k != "params"}
        for path, value in leaves_of(rest).items():
            yield Leaf(key, f"param_groups[{number}].{path}", (), value)
    beside = {k: v for k, v in saved.items() if k not in ("state", "param_groups")}
    for path, value in leaves_of(beside).items():
        yield Leaf(key, path, (), value)


def state_of(held: Any) -> Any:
    """Return what an object saves of itself; None for one that has no ``state_dict``."""
    saves = getattr(held, "state_dict", None)
    return saves() if callable(saves) else None


def _owners(optimizer: Any, objects: Objects) -> dict[Any, tuple[str, ...]]:
    """The names of an optimizer's parameters, by the numbers that its state_dict() has."""
    names = {}
    for key, model in objects.items():
        if isinstance(model, nn.Module):
            prefix = _prefix(key, objects)
            for entry in take_inventory(model, allow_empty=True).parameters:
                names[id(entry.tensor)] = tuple(prefix + name for name in entry.names)
    try:
        held = [tensor for _, tensors in read_groups(optimizer) for tensor in tensors]
    except UnreadableError:
        return {}
    return {n: names[id(tensor)] for n, tensor in enumerate(held) if id(tensor) in names}


@dataclass(frozen=True, slots=True)
class Beside:
    """What an object holds beside its state: where, what it is, and how it is put elsewhere."""

    path: str
    value: Any
    write: Callable[[Any], None]
    in_model: bool = False


def held_beside(objects: Objects) -> dict[str, Beside]:
    """Return what objects hold in plain attributes and in buffers that nobody saves, by path.

    Numbers, strings and tensors, containers of them, and generators of random numbers.
    """
    found = {}
    for key, held in objects.items():
        if not isinstance(held, nn.Module):
            attributes = getattr(held, "__dict__", {})
            found.update(_defaults_of(held, f"{key}.", attributes))
            found.update(_held_by(f"{key}.", attributes, list(attributes)))
            found.update(_kept_for_parameters(key, objects))
            continue
        for path, module in held.named_modules():
            prefix = _prefix(key, objects) + (f"{path}." if path else "")
            attributes = vars(module)
            names = [name for name in attributes if name not in _STANDARD]
            found.update(_defaults_of(module, prefix, attributes, in_model=True))
            found.update(_held_by(prefix, attributes, names, in_model=True))
            unsaved = module._non_persistent_buffers_set & module._buffers.keys()
            found.update(_held_by(prefix, module._buffers, unsaved, in_model=True))
    return found


def _defaults_of(
    held: object, prefix: str, attributes: dict[str, Any], *, in_model: bool = False
) -> dict[str, Beside]:
    """What an object's class says until it sets one of its own: ``count = 0``."""
    found: dict[str, Beside] = {}
    for cls in type(held).__mro__:
        if cls.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, value in vars(cls).items():
            path = (prefix + name).removeprefix(".")
            if name.startswith("__") or path in found or not _is_plain(value):
                continue
            found[path] = Beside(path, value, partial(_set_item, attributes, name), in_model)
    return found


def _held_by(
    prefix: str, held: dict[str, Any], names: Iterable[str], *, in_model: bool = False
) -> dict[str, Beside]:
    found = {}
    for name in names:
        value, path = held[name], (prefix + name).removeprefix(".")
        state = generator_state(value)
        if state is not None:
            found[path] = Beside(path, state, partial(_set_state, value), in_model)
        elif _is_plain(value):
            found[path] = Beside(path, value, partial(_set_item, held, name), in_model)
    return found


def _kept_for_parameters(key: str, objects: Objects) -> dict[str, Beside]:
    """What an optimizer really keeps: a state_dict of its own may leave some of it out."""
    optimizer = objects[key]
    if not isinstance(getattr(optimizer, "state", None), MutableMapping):
        return {}
    try:
        tensors = [tensor for _, tensors in read_groups(optimizer) for tensor in tensors]
    except UnreadableError:
        return {}
    owners = _owners(optimizer, objects)
    kept = {}
    for number, tensor in enumerate(tensors):
        if isinstance(held := optimizer.state.get(tensor), Mapping):
            kept[owners.get(number, (f"parameter {number}",))[0]] = dict(held)

    def write(states: dict[str, Any]) -> None:
        for tensor, state in zip(tensors, states.values(), strict=False):
            optimizer.state[tensor] = copy.deepcopy(state)

    path = f"{key}.state".removeprefix(".")
    return {path: Beside(path, kept, write)}


def _set_item(held: dict[str, Any], name: str, value: Any) -> None:
    held[name] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


#: More members are data, and no state of a training run.
_MANY = 1000


def _is_plain(value: Any) -> bool:
    if isinstance(value, (Tensor, *PLAIN)):
        return True
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, (list, tuple, set, deque)) or len(value) > _MANY:
        return False
    # A tensor with a graph in a container cannot be copied, and is the work of one step.
    return all(
        part.grad_fn is None if isinstance(part, Tensor) else isinstance(part, PLAIN)
        for part in value
    )


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """Where a generator of random numbers is."""

    state: Any


def generator_state(value: Any) -> GeneratorState | None:
    """Return the state of a generator of random numbers; None for everything else."""
    if isinstance(value, torch.Generator):
        return GeneratorState(value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return GeneratorState(value.getstate())
    return None


def _set_state(generator: Any, held: GeneratorState) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(held.state)
    else:
        generator.setstate(held.state)
