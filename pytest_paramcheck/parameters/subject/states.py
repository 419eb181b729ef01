"""Selecting by state: everything frozen, everything trainable, every buffer, every parameter."""

from __future__ import annotations

import enum

from ...messages.errors import ParamCheckUsageError
from .inventory import Entry, Inventory


class State(enum.Enum):
    """What stands where a pattern stands, and selects by what an entry is.

    Asked when the assertion is called (a block: when it is entered).
    """

    FROZEN = "FROZEN"
    TRAINABLE = "TRAINABLE"
    BUFFERS = "BUFFERS"
    PARAMETERS = "PARAMETERS"

    def __repr__(self) -> str:
        return self.value


#: Every parameter that asks for no gradient.
FROZEN = State.FROZEN
#: Every parameter that asks for one.
TRAINABLE = State.TRAINABLE
#: Every buffer, persistent or not.
BUFFERS = State.BUFFERS
#: Every parameter.
PARAMETERS = State.PARAMETERS


def names_in_state(inventory: Inventory, state: State) -> list[str]:
    """Return the names of the entries in a state; raise where the subject cannot say it."""
    if inventory.root is None:
        _demand_answer(inventory, state)
    return [name for name, entry in inventory.by_name.items() if _is_in(entry, state)]


def _is_in(entry: Entry, state: State) -> bool:
    if state is State.BUFFERS:
        return entry.kind == "buffer"
    if not is_registered_parameter(entry):
        return False
    return state is State.PARAMETERS or entry.trainable is (state is State.TRAINABLE)


def is_registered_parameter(entry: Entry) -> bool:
    """Whether an entry is known to be a parameter; of a mapping, a Parameter or a leaf that
    requires grad is."""
    if entry.kind != "tensor":
        return entry.kind == "parameter"
    tensor = entry.tensor
    return tensor is not None and tensor.requires_grad and tensor.is_leaf


def _demand_answer(inventory: Inventory, state: State) -> None:
    held = "a state_dict holds" if inventory.saved else f"{inventory.title} holds"
    if inventory.from_pairs:
        held = "these pairs hold"
    if state is State.BUFFERS:
        raise ParamCheckUsageError(
            f"BUFFERS asks a module: {held} tensors, and nothing says which are buffers"
        )
    if inventory.saved or not any(is_registered_parameter(entry) for entry in inventory.entries):
        raise ParamCheckUsageError(
            f"{state.value} asks the model, or its named_parameters(): {held} values, detached "
            f"from the model"
        )
