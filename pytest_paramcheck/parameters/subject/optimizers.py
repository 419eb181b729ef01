"""Reading optimizers: one slot per parameter they hold, with its group and its state.

Tests: ``tests/unit/test_optimizer_reader.py``, ``test_optimizer.py`` and
``test_optimizer_state.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ..tensors.describe import kind_in_words
from .leaves import leaves_of


class UnreadableError(Exception):
    """The groups of an optimizer are laid out in a way that is not torch's: nothing is known."""


def read_groups(optimizer: Any) -> Iterator[tuple[Mapping[str, Any], list[Tensor]]]:
    """Yield each group of an optimizer and the tensors in it.

    Raises :class:`UnreadableError` where the groups are not dicts with ``params``: an optimizer may
    replace what its base class made, and need not even be one.
    """
    title = type(optimizer).__name__
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, Sequence):
        raise UnreadableError(f"{title} has no list of param_groups")
    for number, group in enumerate(groups):
        held = group.get("params") if isinstance(group, Mapping) else None
        if isinstance(held, Tensor):
            held = [held]
        if not isinstance(held, Iterable) or isinstance(held, Iterator):
            raise UnreadableError(f"{title} group {number} is not a dict with 'params'")
        tensors = list(held)
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise UnreadableError(f"{title} group {number} holds something else than tensors")
        yield group, tensors


def state_of(optimizer: Any, tensor: Tensor) -> Mapping[str, Any]:
    """Return what an optimizer keeps for a tensor by key; empty where it keeps nothing.

    State that is not a mapping is taken apart: a bare tensor has the key ``state``, an object
    those of its attributes.
    """
    kept = getattr(optimizer, "state", None)
    try:
        held = kept.get(tensor) if isinstance(kept, Mapping) else None
    except Exception as error:
        raise UnreadableError(
            f"the state of {type(optimizer).__name__} does not say what it keeps for a tensor "
            f"({type(error).__name__})"
        ) from error
    if isinstance(held, Mapping):
        return held
    return {} if held is None else leaves_of(held)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in an optimizer: which tensor it steps, with what, and where the place is."""

    where: str
    position: int  # among all slots of its optimizer, as its state_dict() counts
    name: str  # what the optimizer was told (``param_names``), "" where it was told none
    tensor: Tensor
    group: Mapping[str, Any]
    state: Mapping[str, Any]
    optimizer: Any


def of_this_rank(optimizer: Any) -> Any:
    """Return the optimizer that steps this rank's parameters; None for one that steps all."""
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    kind = getattr(module, "ZeroRedundancyOptimizer", None)
    return optimizer.optim if kind is not None and isinstance(optimizer, kind) else None


def group_of(optimizer: Any) -> Any:
    """Return the process group that an optimizer spreads its state over."""
    return optimizer.process_group


def _instead(given: object) -> str:
    """Return what was given where an optimizer is asked for, and what to give."""
    if isinstance(given, torch.nn.Module):
        return f"{type(given).__name__}; the optimizer comes first"
    if isinstance(given, Mapping) and "param_groups" in given:
        return "its state_dict(); pass the optimizer itself"
    if isinstance(given, type):
        return f"the class {given.__name__}; build one: {given.__name__}(model.parameters())"
    return kind_in_words(given)


def read_slots(optimizers: Any) -> list[Slot]:
    """Return the slots of an optimizer, or of a sequence of optimizers."""
    several = list(optimizers) if isinstance(optimizers, (list, tuple)) else [optimizers]
    if not several:
        raise ParamCheckUsageError("an empty list of optimizers: there is nothing to check")
    slots = []
    for number, optimizer in enumerate(several):
        groups = getattr(optimizer, "param_groups", None)
        if not isinstance(groups, Sequence) or isinstance(optimizer, torch.nn.Module):
            raise ParamCheckUsageError(
                f"expected an optimizer or a list of optimizers, got {_instead(optimizer)}"
            )
        title = type(optimizer).__name__ + (f" {number}" if len(several) > 1 else "")
        try:
            slots += list(_slots_of(optimizer, title))
        except UnreadableError as reason:
            raise ParamCheckUsageError(
                f"what the optimizer holds cannot be read: {reason}"
            ) from None
    return slots


def _slots_of(optimizer: Any, title: str) -> Iterator[Slot]:
    position = 0
    for number, (group, tensors) in enumerate(read_groups(optimizer)):
        names = group.get("param_names") or ()
        for place, tensor in enumerate(tensors):
            yield Slot(
                f"{title} group {number}, parameter {place}",
                position,
                names[place] if place < len(names) else "",
                tensor,
                group,
                state_of(optimizer, tensor),
                optimizer,
            )
            position += 1


def orphans(optimizer: Any, slots: Sequence[Slot]) -> list[tuple[Tensor, Mapping[str, Any]]]:
    """Return the tensors that an optimizer keeps state for though no group holds them."""
    kept = getattr(optimizer, "state", None)
    held = {id(slot.tensor) for slot in slots}
    lost = [] if not isinstance(kept, Mapping) else [k for k in kept if isinstance(k, Tensor)]
    found = [(k, state_of(optimizer, k)) for k in lost if id(k) not in held]
    return [(tensor, state) for tensor, state in found if state]


@dataclass(frozen=True, slots=True)
class SavedSlot:
    """The state one parameter has in an optimizer's state_dict()."""

    position: int
    name: str  # "" where positions are all that was saved
    state: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name, or its position."""
        return self.name or f"position {self.position}"


def read_saved(saved: Any) -> list[SavedSlot]:
    """Return what an optimizer's state_dict() holds, in its order, taken apart into leaves.

    Names come from ``param_names`` (an optimizer built from ``named_parameters()``) or are the
    keys themselves (torch.distributed.checkpoint).
    """
    if not _is_saved(saved):
        hint = ""
        if isinstance(saved, Mapping):
            inside = [key for key, value in saved.items() if _is_saved(value)]
            hint = f"; did you mean saved[{inside[0]!r}]?" if inside else ""
        raise ParamCheckUsageError(
            f"saved= is an optimizer's state_dict() with 'state' and 'param_groups', "
            f"not {type(saved).__name__}{hint}"
        )
    slots: list[SavedSlot] = []
    for group in saved["param_groups"]:
        names = group.get("param_names") or ()
        for place, key in enumerate(group["params"]):
            name = key if isinstance(key, str) else names[place] if place < len(names) else ""
            held = saved["state"].get(key)
            leaves = {} if held is None else leaves_of(held)
            slots.append(SavedSlot(len(slots), name, leaves))
    return slots


def read_current(optimizer: Any) -> list[SavedSlot] | None:
    """Return what the optimizer would save now, in the order of its slots; None if it cannot.

    What it keeps and what it saves need not look alike: some pack their state on saving.
    torch's own state_dict() raises where state hangs on a tensor that no group holds.
    """
    try:
        current = optimizer.state_dict()
    except Exception:
        return None
    if not _is_saved(current) and isinstance(current, Mapping):
        # A wrapper that saves what it wraps: the only such dict in what it saves.
        inside = [value for value in current.values() if _is_saved(value)]
        current = inside[0] if len(inside) == 1 else None
    return read_saved(current) if _is_saved(current) else None


def _is_saved(value: Any) -> bool:
    """Whether it is laid out as an optimizer's state_dict()."""
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, (list, tuple)) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))
        for group in groups
    )
