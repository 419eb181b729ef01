"""Optimizer state: it fits its parameter, and it is the one saved under its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import did_you_mean, plural
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.optimizers import SavedSlot, Slot
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe, shape_text
from ..parameters.tensors.digest import read_contents

Fingerprint = tuple[tuple[str, object], ...]


def state_fits(slots: Sequence[Slot], inventory: Inventory) -> list[Finding]:
    """Find state whose shape, dtype or device is not its parameter's.

    torch's own optimizers keep state of exactly the parameter's dtype. Of others a wider float
    (a float32 copy for bfloat16) fits too, and a key counts only where it has the parameter's
    shape for most parameters: quantized optimizers keep tables beside their states.
    """
    findings = []
    by_element = _keys_by_element(slots)
    for slot in slots:
        entry = inventory.entry_of(slot.tensor)
        if entry is None:
            continue
        for key, value in slot.state.items():
            if not isinstance(value, Tensor) or value.dim() == 0 or key not in by_element:
                continue  # scalars such as Adam's step live where they are fastest
            misfit = _misfit(key, value, slot)
            if misfit is not None:
                why, hint = misfit
                findings.append(
                    Finding(
                        tuple(entry.names),
                        "state does not fit",
                        expected=f"{key} {_form(slot.tensor)}",
                        found=_form(value),
                        why=why,
                        hint=hint,
                    )
                )
    return findings


def _form(tensor: Tensor) -> str:
    return describe(tensor).partition(" ")[2]


def _native(slot: Slot) -> bool:
    return type(slot.optimizer).__module__.startswith("torch.optim.")


def _keys_by_element(slots: Sequence[Slot]) -> set[str]:
    """Return the keys under which a state has one value per element of its parameter."""
    votes: dict[str, int] = {}
    keys: set[str] = set()
    for slot in slots:
        for key, value in slot.state.items():
            if isinstance(value, Tensor):
                if _native(slot):
                    keys.add(key)
                votes[key] = votes.get(key, 0) + (1 if value.shape == slot.tensor.shape else -1)
    return keys | {key for key, vote in votes.items() if vote > 0}


def _misfit(key: str, value: Tensor, slot: Slot) -> tuple[str, str] | None:
    """Return what of a state does not fit its parameter and what to do, or None."""
    parameter = slot.tensor
    shape = tuple(parameter.shape)
    fitting = {shape}
    if isinstance(slot.optimizer, torch.optim.LBFGS):
        # One state for all: vectors over the elements of every parameter.
        fitting = {(sum(p.numel() for p in slot.group["params"]),)}
    elif "row" in key or "col" in key:  # Adafactor: one value per row, one per column
        fitting |= {(*shape[:-1], 1), shape[:-1], (*shape[:-2], 1, *shape[-1:])}
        fitting |= {shape[:-2] + shape[-1:]}
    if tuple(value.shape) not in fitting:
        return "wrong shape", "it belongs to another parameter, or the parameter was resized"
    if value.dtype != parameter.dtype:
        wider = value.is_floating_point() and value.element_size() > parameter.element_size()
        if _native(slot) or not (wider or not value.is_floating_point()):
            return "wrong dtype", "convert the model before the optimizer is built"
    if value.device != parameter.device:
        return "wrong device", "move the model before the optimizer loads or makes its state"
    return None


def state_saved(
    slots: Sequence[Slot], saved: Sequence[SavedSlot], inventory: Inventory
) -> list[Finding]:
    """Find the parameters whose state is not the one saved under their own name.

    Where nothing but positions was saved, the state is compared with that of its position: a
    reorder among parameters of one shape cannot be seen then.
    """
    named = any(slot.name for slot in saved)
    if not named and len(saved) != len(slots):
        return [
            Finding(
                (type(slots[0].optimizer).__name__,),
                "another number of parameters",
                expected=f"{plural(len(saved), 'parameter')} as saved",
                found=plural(len(slots), "parameter"),
            )
        ]
    by_name = {_bare(slot.name): slot for slot in saved if slot.name}
    lookup = _Lookup(saved)
    findings: list[Finding] = []
    met: set[int] = set()
    for slot in slots:
        entry = inventory.entry_of(slot.tensor)
        if entry is None:
            continue
        names = tuple(entry.names)
        twin = _twin(entry, by_name) if named else saved[slot.position]
        if twin is None:
            if slot.state:
                owners = lookup.owners(slot.state)
                unknown = [name for name in by_name if name not in inventory.named]
                findings.append(
                    Finding(
                        names,
                        "state not saved under its name",
                        found=_whose(owners) or "its state is no saved one",
                        why="" if owners else did_you_mean(entry.name, unknown).strip(),
                    )
                )
            continue
        met.add(twin.position)
        findings += _compare(names, slot, twin, lookup)
    if named:
        findings += [
            Finding((twin.name,), "saved, but not in the optimizer", found="its state is lost")
            for twin in saved
            if twin.position not in met and twin.state
        ]
    return findings


def _compare(names: tuple[str, ...], slot: Slot, twin: SavedSlot, lookup: _Lookup) -> list[Finding]:
    if not twin.state and not slot.state:
        return []
    if not slot.state:
        return [Finding(names, "state lost", found=f"none, saved: {', '.join(twin.state)}")]
    different = [
        key
        for key in dict.fromkeys((*twin.state, *slot.state))
        if _value(slot.state.get(key), None) != _value(twin.state.get(key), slot.state.get(key))
    ]
    if not different:
        return []
    owners = lookup.owners(slot.state)
    if owners:
        hint = (
            "state is loaded by position: keep the order, or reorder the saved one by names"
            if twin.name
            else ""
        )
        return [Finding(names, "state of another parameter", found=_whose(owners), hint=hint)]
    shapes = [
        f"{key} is {shape_text(value)}, the parameter {shape_text(slot.tensor)}"
        for key, value in twin.state.items()
        if key in different
        and isinstance(value, Tensor)
        and value.dim()
        and value.shape != slot.tensor.shape
    ]
    why = f"saved {shapes[0]}" if shapes else ""
    label = twin.name or f"position {twin.position}"
    found = f"{', '.join(different)} not as saved for {label}"
    return [Finding(names, "state not as saved", found=found, why=why)]


def _whose(owners: Sequence[str]) -> str:
    return f"has the state saved for {' or '.join(owners)}" if owners else ""


def _twin(entry: Entry, by_name: Mapping[str, SavedSlot]) -> SavedSlot | None:
    return next((by_name[n] for n in map(_bare, entry.names) if n in by_name), None)


def _bare(name: str) -> str:
    """Leave out what a compiled or data-parallel wrapper put in front."""
    bare = name.replace("_orig_mod.", "")
    return bare.removeprefix("module.")


class _Lookup:
    """Which saved states equal a given one; read once per set of dtypes."""

    def __init__(self, saved: Iterable[SavedSlot]) -> None:
        self._saved = [slot for slot in saved if slot.state]
        self._tables: dict[object, dict[Fingerprint, list[str]]] = {}

    def owners(self, state: Mapping[str, Any]) -> list[str]:
        """Return the labels of the saved parameters that had this very state."""
        # Loading casts state to its parameter's dtype: the saved one is cast alike.
        kinds = {key: v.dtype for key, v in state.items() if isinstance(v, Tensor)}
        table = self._tables.get(tuple(kinds.items()))
        if table is None:
            table = {}
            for slot in self._saved:
                table.setdefault(_fingerprint(slot.state, kinds), []).append(slot.label)
            self._tables[tuple(kinds.items())] = table
        return table.get(_fingerprint(state, kinds), [])


def _fingerprint(state: Mapping[str, Any], dtypes: Mapping[str, torch.dtype]) -> Fingerprint:
    return tuple((key, _cast(state[key], dtypes.get(key))) for key in sorted(state, key=str))


def _value(value: Any, like: Any) -> object:
    return _cast(value, like.dtype if isinstance(like, Tensor) else None)


def _cast(value: Any, dtype: torch.dtype | None) -> object:
    """Return something comparable: a tensor's digest in a dtype, a scalar as it is."""
    if not isinstance(value, Tensor):
        return value if isinstance(value, (int, float, bool, str, type(None))) else repr(value)
    if no_values(value):
        return describe(value)
    with torch.no_grad():
        plain = value.detach()
        if dtype is not None and plain.dtype != dtype:
            plain = plain.to(dtype)
        return tuple(plain.shape), read_contents([plain])[0].digest
