"""Optimizer state against a saved one: each parameter has what was saved under its own name."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import did_you_mean, join_words, plural, shorten
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.leaves import Opaque, leaves_of
from ..parameters.subject.optimizers import SavedSlot, Slot
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_name, shape_text
from ..parameters.tensors.digest import read_contents

Leaves = Mapping[str, Any]
#: How many keys of one state are named.
KEYS = 4


def state_saved(
    slots: Sequence[Slot],
    saved: Sequence[SavedSlot],
    current: Sequence[SavedSlot] | None,
    inventory: Inventory,
) -> list[Finding]:
    """Find the parameters whose state is not the one saved under their own name.

    ``current`` is what the optimizer would save now: what it keeps may be laid out otherwise.
    Where nothing but positions was saved, the state is compared with that of its position: a
    load goes by position too, so that a reorder among parameters of one shape cannot be seen.
    """
    named = any(slot.name for slot in saved)
    if not named and len(saved) != len(slots):
        return [
            Finding(
                (type(slots[0].optimizer).__name__,),
                "another number of parameters",
                expected=f"{plural(len(saved), 'parameter')} as saved",
                found=plural(len(slots), "parameter"),
                hint="build the optimizer over the parameters that it was saved with",
            )
        ]
    by_name = {_bare(slot.name): slot for slot in saved if slot.name}
    now = _Now(slots, current)
    lookup = _Lookup(saved)
    findings: list[Finding] = []
    met: set[int] = set()
    for slot in slots:
        entry = inventory.entry_of(slot.tensor)
        if entry is None:
            continue
        names = tuple(entry.names)
        state = now.of(slot, entry)
        twin = _twin(entry, by_name) if named else saved[slot.position]
        if twin is None:
            if state:
                owners = lookup.owners(state)
                unknown = [name for name in by_name if name not in inventory.named]
                findings.append(
                    Finding(
                        names,
                        "state not saved under its name",
                        found=_whose(owners) or "its state matches no saved state",
                        why="" if owners else did_you_mean(entry.name, unknown).strip(),
                        hint=_RENAME,
                    )
                )
            continue
        met.add(twin.position)
        findings += _compare(names, slot, state, twin, lookup)
    if named:
        findings += [
            Finding(
                (twin.name,),
                "saved, but not in the optimizer",
                found="its state is lost",
                hint=_RENAME,
            )
            for twin in saved
            if twin.position not in met and twin.state
        ]
    return findings


_LOAD = "load it again, and keep it from then on: optimizer.load_state_dict(saved)"
_RENAME = "if it was renamed, rename it in the saved state too: its param_names in param_groups"


class _Now:
    """The state of each slot as the optimizer would save it now."""

    def __init__(self, slots: Sequence[Slot], current: Sequence[SavedSlot] | None) -> None:
        self._by_position: dict[int, Leaves] = {}
        self._by_name: dict[str, Leaves] = {}
        if current is not None and any(isinstance(slot.name, str) for slot in current):
            self._by_name = {_bare(slot.name): slot.state for slot in current if slot.name}
        if current is not None and len(current) == len(slots):
            self._by_position = {slot.position: slot.state for slot in current}

    def of(self, slot: Slot, entry: Entry) -> Leaves:
        if slot.position in self._by_position:
            return self._by_position[slot.position]
        named = [self._by_name[n] for n in map(_bare, entry.names) if n in self._by_name]
        return named[0] if named else leaves_of(slot.state)


def _compare(
    names: tuple[str, ...], slot: Slot, state: Leaves, twin: SavedSlot, lookup: _Lookup
) -> list[Finding]:
    if not twin.state and not state:
        return []
    if not state:
        found = f"none, saved: {shorten([*twin.state], KEYS)}"
        return [Finding(names, "state lost", found=found, hint=_LOAD)]
    keys = list(dict.fromkeys((*twin.state, *state)))
    different = [key for key in keys if not _alike(state, twin.state, key)]
    label = twin.name or f"position {twin.position}"
    if different:
        owners = lookup.owners(state)
        if owners:
            hint = "state is loaded by position: build the optimizer in the order of the saved one"
            if twin.name:
                hint = (
                    "state is loaded by position: keep the order, or reorder the saved one by names"
                )
            return [Finding(names, "state of another parameter", found=_whose(owners), hint=hint)]
        shapes = [
            f"saved {key} is {shape_text(was)}, found {shape_text(now)}"
            for key in different
            if isinstance(was := twin.state.get(key), Tensor)
            and isinstance(now := state.get(key), Tensor)
            and shape_text(was) != shape_text(now)
        ]
        why = shapes[0] if shapes else ""
        found = f"{shorten(different, KEYS)} not as saved for {label}"
        return [Finding(names, "state not as saved", found=found, why=why, hint=_LOAD)]
    cast: dict[tuple[torch.dtype, torch.dtype], list[str]] = {}
    for key in keys:
        if _cast(state[key], twin.state[key], slot.tensor):
            cast.setdefault((twin.state[key].dtype, state[key].dtype), []).append(key)
    return [
        Finding(
            names,
            "state dtype not as saved",
            expected=f"{shorten(of_kind, KEYS)} {dtype_name(was)}",
            found=dtype_name(now),
            why="the dtype of its parameter" if now == slot.tensor.dtype else "",
            hint=f"a load casts it: load it into a model of {dtype_name(was)}",
        )
        for (was, now), of_kind in cast.items()
    ]


def _cast(now: Any, was: Any, parameter: Tensor) -> bool:
    """Whether one value is kept in two dtypes; a counter may be kept in any."""
    if not (isinstance(now, Tensor) and isinstance(was, Tensor)) or now.dtype == was.dtype:
        return False
    return bool(now.dim() or (not parameter.dim() and now.is_floating_point()))


def _alike(state: Leaves, saved: Leaves, key: str) -> bool:
    """Whether a leaf is there on both sides, with one content, whatever its dtype."""
    if key not in state or key not in saved:
        return False
    now, was = state[key], saved[key]
    if isinstance(now, Tensor) or isinstance(was, Tensor):
        return _same_tensors(now, was)
    if isinstance(now, Opaque) or isinstance(was, Opaque):
        return type(now) is type(was) and bool(now == was)
    return bool(now == was) or (now != now and was != was)


def _same_tensors(now: Any, was: Any) -> bool:
    # Loading makes tensors of the counters that older versions kept as numbers.
    if not isinstance(now, Tensor) or not isinstance(was, Tensor):
        tensor, number = (now, was) if isinstance(now, Tensor) else (was, now)
        plain = isinstance(number, (bool, int, float, complex))
        return plain and tensor.dim() == 0 and _same_tensors(tensor, tensor.new_tensor(number))
    if now.is_nested or was.is_nested:
        return now.is_nested and was.is_nested
    if now.shape != was.shape:
        return False
    with torch.no_grad():
        if now.dtype != was.dtype and not no_values(was):
            was = was.detach().to(now.dtype)
        same = same_bits(now.detach(), was.detach())
        if same is False and now.dim() == 0 and not no_values(now):
            return bool(now.detach().cpu() == was.detach().cpu())  # 0.0 and -0.0
    return same is not False


def _whose(owners: Sequence[str]) -> str:
    several = join_words(owners, "or") if len(owners) <= KEYS else shorten(owners, KEYS)
    return f"has the state saved for {several}" if owners else ""


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
        self._tables: dict[Hashable, dict[Hashable, list[str]]] = {}

    def owners(self, state: Leaves) -> list[str]:
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


def _fingerprint(state: Leaves, dtypes: Mapping[str, torch.dtype]) -> Hashable:
    return tuple((key, _token(state[key], dtypes.get(key))) for key in sorted(state))


def _token(value: Any, dtype: torch.dtype | None) -> Hashable:
    """Return something hashable: a tensor's digest in a dtype, a scalar as it is."""
    if not isinstance(value, Tensor):
        return value if isinstance(value, Hashable) else repr(value)
    if no_values(value):
        return describe(value)
    with torch.no_grad():
        plain = value.detach()
        if dtype is not None and plain.dtype != dtype:
            plain = plain.to(dtype)
        return tuple(plain.shape), read_contents([plain])[0].digest
