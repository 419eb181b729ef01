"""Reading optimizers: one slot per parameter they hold, with its group and its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError


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
                f"expected an optimizer or a list of optimizers, got {type(optimizer).__name__}; "
                f"the optimizer comes first"
            )
        title = type(optimizer).__name__ + (f" {number}" if len(several) > 1 else "")
        position = 0
        for group_number, group in enumerate(groups):
            names = group.get("param_names") or ()
            for place, tensor in enumerate(group["params"]):
                slots.append(
                    Slot(
                        f"{title} group {group_number}, parameter {place}",
                        position,
                        names[place] if place < len(names) else "",
                        tensor,
                        group,
                        getattr(optimizer, "state", {}).get(tensor) or {},
                        optimizer,
                    )
                )
                position += 1
    return slots


@dataclass(frozen=True, slots=True)
class SavedSlot:
    """The state one parameter had when an optimizer's state_dict() was taken."""

    position: int
    name: str  # "" where positions are all that was saved
    state: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name, or its position."""
        return self.name or f"position {self.position}"


def read_saved(saved: Any) -> list[SavedSlot]:
    """Return what an optimizer's state_dict() holds, in its order.

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
            slots.append(SavedSlot(len(slots), name, saved["state"].get(key) or {}))
    return slots


def _is_saved(value: Any) -> bool:
    return isinstance(value, Mapping) and "state" in value and "param_groups" in value
