"""Float32 masters: which tensor an optimizer steps in the place of which parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.functions import demand_arguments
from ..messages.wording import did_you_mean
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.optimizers import Slot
from ..parameters.tensors.describe import describe, dtype_name, kind_in_words, size_text
from ..parameters.tensors.memory import memory_of
from ..parameters.tensors.wide import wide_copies

#: Which master is stepped for which parameter: the one with its values, by name or parameter,
#: or what a function of name and parameter returns (None: it is stepped itself).
Masters: TypeAlias = bool | Mapping[str, Tensor] | Mapping[Tensor, Tensor]
MasterOf: TypeAlias = Callable[[str, Tensor], "Tensor | None"]


_OF_ITS_OWN = "make each parameter a master of its own: parameter.detach().clone().float()"


def declared_masters(
    masters: Masters | MasterOf,
    inventory: Inventory,
    slots: Sequence[Slot],
) -> tuple[dict[int, Tensor], list[Finding]]:
    """Return the master of each parameter that has one, and those that cannot be its master."""
    wanted = [entry for entry in inventory.parameters if entry.trainable]
    if masters is True:
        return _by_values(wanted, inventory, slots), []
    if isinstance(masters, Mapping):
        found = _of_mapping(masters, inventory)
    elif callable(masters):
        said = "masters= is called with name and parameter: lambda name, parameter: ..."
        demand_arguments(masters, 2, said)
        found = {
            entry: master
            for entry in wanted
            if entry.tensor is not None
            and (master := masters(entry.name, entry.tensor)) is not None
        }
    else:
        raise ParamCheckUsageError(
            f"masters= is True, a mapping of names or parameters to masters, or a function of name "
            f"and parameter, not {kind_in_words(masters)}"
        )
    findings: list[Finding] = []
    stepped: dict[int, Tensor] = {}
    for entry, master in found.items():
        if not isinstance(master, Tensor):
            raise ParamCheckUsageError(
                f"the master of {entry.name} is {kind_in_words(master)}, not a tensor"
            )
        if entry.tensor is None:
            continue
        stepped[id(entry.tensor)] = master
        if master is not entry.tensor and master.shape != entry.tensor.shape:
            said = f"{size_text(master)}, the parameter {size_text(entry.tensor)}"
            findings.append(
                Finding(tuple(entry.names), "master of another shape", found=said, hint=_OF_ITS_OWN)
            )
        elif torch.promote_types(master.dtype, entry.tensor.dtype) != master.dtype:
            findings.append(
                Finding(
                    tuple(entry.names),
                    "master of a narrower dtype",
                    found=f"{dtype_name(master.dtype)}, "
                    f"the parameter {dtype_name(entry.tensor.dtype)}",
                    why="the copy back rounds it at every step",
                    hint=_OF_ITS_OWN,
                )
            )
    by_master: dict[int, list[str]] = {}
    for entry, master in found.items():
        by_master.setdefault(id(master), []).append(entry.name)
    findings += [
        Finding(
            tuple(names),
            "one master for several parameters",
            found=describe(next(m for e, m in found.items() if e.name == names[0])),
            why="each is overwritten with the values of the others",
            hint=_OF_ITS_OWN,
        )
        for names in by_master.values()
        if len(names) > 1
    ]
    return stepped, findings


def held_for(
    masters: Masters | MasterOf | None, inventory: Inventory, slots: Sequence[Slot]
) -> tuple[dict[int, Tensor], list[Finding]]:
    """Return by a parameter's id the tensor that the optimizer holds for it, its master or the flat
    one that its master is a part of; and those that cannot be its master."""
    if masters is None or masters is False:
        return {}, []
    stepped, findings = declared_masters(masters, inventory, slots)
    held = {id(slot.tensor): slot.tensor for slot in slots}
    memories = [(memory_of(tensor), tensor) for tensor in held.values()]
    for parameter, master in stepped.items():
        if id(master) not in held:
            memory = memory_of(master)
            stepped[parameter] = next((t for m, t in memories if memory.overlaps(m)), master)
    return stepped, findings


def as_stepped(inventory: Inventory, stepped: Mapping[int, Tensor]) -> Inventory:
    """Return what an optimizer steps, by the names of the parameters that it is stepped for."""
    if not stepped:
        return inventory
    instead = Inventory(inventory.title)
    instead.named = {n: stepped.get(id(tensor), tensor) for n, tensor in inventory.named.items()}
    return instead


def undeclared(
    entries: Sequence[Entry], inventory: Inventory, slots: Sequence[Slot]
) -> dict[Entry, Slot]:
    """Return those of some parameters of which the optimizer holds a copy in a wider dtype."""
    foreign = [slot for slot in slots if inventory.entry_of(slot.tensor) is None]
    alone = [entry for entry in entries if entry.tensor is not None]
    tensors = [entry.tensor for entry in alone if entry.tensor is not None]
    copies = wide_copies(tensors, [slot.tensor for slot in foreign])
    return {alone[number]: foreign[at] for number, at in copies.items()}


def held_as_copy(names: tuple[str, ...], slot: Slot, why: str = "") -> Finding:
    """Return the finding for a parameter that a copy in a wider dtype is stepped for."""
    return Finding(
        names,
        f"held as a {dtype_name(slot.tensor.dtype)} copy",
        found=f"{slot.where} has its values",
        why=why,
        hint="if code does (mixed precision with masters): masters=True"
        if why
        else "where these are masters (mixed precision): masters=True",
    )


def _by_values(
    wanted: Sequence[Entry], inventory: Inventory, slots: Sequence[Slot]
) -> dict[int, Tensor]:
    """Return by parameter the tensor held that has its values in a wider dtype."""
    held = {id(slot.tensor) for slot in slots}
    alone = [e.tensor for e in wanted if e.tensor is not None and id(e.tensor) not in held]
    foreign = {
        id(slot.tensor): slot.tensor for slot in slots if inventory.entry_of(slot.tensor) is None
    }
    candidates = list(foreign.values())
    copies = wide_copies(alone, candidates)
    return {id(alone[number]): candidates[at] for number, at in copies.items()}


def _of_mapping(
    masters: Mapping[str, Tensor] | Mapping[Tensor, Tensor], inventory: Inventory
) -> dict[Entry, Tensor]:
    found: dict[Entry, Tensor] = {}
    for key, master in masters.items():
        entry = inventory.entry_of(key) if isinstance(key, Tensor) else inventory.by_name.get(key)
        if entry is None or entry.kind == "buffer":
            shown = describe(key) if isinstance(key, Tensor) else repr(key)
            near = "" if isinstance(key, Tensor) else did_you_mean(str(key), inventory.named)
            raise ParamCheckUsageError(
                f"masters= names {shown}, which is not a parameter of {inventory.title}"
                f"{';' if near else ''}{near}"
            )
        found[entry] = master
    return found
