"""A checkpoint against a model: what is on one side only, and what is different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import first_line
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_text, shape_text
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import inner_tensors, memory_of
from .renames import common_prefix, probable_renames
from .same_values import difference

#: Tensors of a model and of a checkpoint that share memory.
_Meeting: TypeAlias = tuple[list[Tensor], list[Tensor]]


def not_loaded(
    model: Inventory,
    checkpoint: Inventory,
    key_names: dict[str, str],
    *,
    missing: set[Entry],
    unexpected: set[str],
    in_memory: bool,
) -> list[Finding]:
    """Find what of a checkpoint is not in the model, and what of the model is not from it.

    ``key_names`` maps the checkpoint's keys to the model's names where both have them;
    ``missing`` and ``unexpected`` are what the caller declared.
    """
    extra = [key for key in checkpoint.named if key not in key_names and key not in unexpected]
    key_names = {key: name for key, name in key_names.items() if key not in unexpected}
    keys_of: dict[Entry, list[str]] = {}
    for key, name in key_names.items():
        keys_of.setdefault(model.by_name[name], []).append(key)
    absent = [e for e in model.entries if e.persistent and e not in keys_of and e not in missing]
    taken = set(key_names.values())
    findings = _strangers(model, checkpoint, extra, absent, taken=taken, missing=missing)
    held_tensors = [entry.tensor for entry in model.entries if entry.tensor is not None]
    saved_tensors = [tensor for tensor in checkpoint.named.values() if tensor is not None]
    # What was read from a file cannot share memory with the model.
    meetings = _meeting(held_tensors if in_memory else [], saved_tensors)
    sharing = _sharing(model, checkpoint, meetings) if in_memory else {}
    findings += _shared(model, sharing)
    for key, name in key_names.items():
        saved, held = checkpoint.named[key], model.named[name]
        if saved is None or name in sharing.get(key, ()):
            continue
        if held is None:
            findings.append(Finding((key,), "not the checkpoint's values", found="None"))
        else:
            wrong = _compare(key, saved, held)
            if wrong and (rival := _rival(checkpoint, keys_of[model.by_name[name]], saved)):
                wrong = [replace(finding, why=_RIVAL.format(rival)) for finding in wrong]
            findings += wrong
    return findings + _lost_ties(model, checkpoint, key_names, meetings)


def _meeting(held: Sequence[Tensor], saved: Sequence[Tensor]) -> list[_Meeting]:
    """Return the tensors connected by shared memory: those of the model, of the checkpoint."""
    tensors = list({id(tensor): tensor for tensor in (*held, *saved)}.values())
    ours, theirs = set(map(id, held)), set(map(id, saved))
    return [
        (
            [tensors[i] for i in group if id(tensors[i]) in ours],
            [tensors[i] for i in group if id(tensors[i]) in theirs],
        )
        for group in shared_memory(tensors).groups
    ]


def _sharing(
    model: Inventory, checkpoint: Inventory, meetings: Sequence[_Meeting]
) -> dict[str, list[str]]:
    """Return the names of the model that share memory with a key's tensor, where some do."""
    found: dict[int, list[str]] = {}
    for held, saved in meetings:
        for tensor in saved:
            memory = memory_of(tensor)  # a group is transitive, this question is not
            entries = [model.entry_of(t) for t in held if memory.overlaps(memory_of(t))]
            if entries:
                found[id(tensor)] = [name for e in entries if e is not None for name in e.names]
    sharing = {}
    for key, value in checkpoint.named.items():
        entry = model.entry_of(value)  # the very object
        names = found.get(id(value), []) if entry is None else entry.names
        if names:
            sharing[key] = names
    return sharing


def _shared(model: Inventory, sharing: dict[str, list[str]]) -> list[Finding]:
    findings = []
    for key, names in sharing.items():
        found = describe(model.named[names[0]])
        findings.append(
            Finding(
                (key,),
                "the checkpoint shares memory with the model",
                found=found if key in names else f"the memory of {names[0]}, {found}",
                why="training the model changes the checkpoint",
                hint="keep a copy: {key: value.clone() for key, value in state.items()}",
            )
        )
    return findings


def _strangers(
    model: Inventory,
    checkpoint: Inventory,
    extra: Sequence[str],
    absent: Sequence[Entry],
    *,
    taken: set[str],
    missing: set[Entry],
) -> list[Finding]:
    """Return the findings for keys on one side only, near misses first.

    ``taken`` are the model's names that have a key of the checkpoint.
    """
    # Only where every key is a stranger: a wrapped model's own keys carry its prefix rightly.
    every = not taken
    prefix = common_prefix(extra, model.named) if every else ""
    if prefix:
        return [_prefixed(prefix, extra, f"take it off: key.removeprefix({prefix!r})")]
    prefix = common_prefix(model.named, extra) if every else ""
    if prefix:
        return [_prefixed(prefix, [e.name for e in absent], f"put it on: {prefix!r} + key", "lack")]
    # A tied parameter may have come under its other name: the missing one is a near miss too.
    came = {
        name: _kind(entry.tensor)
        for entry in model.entries
        if entry.persistent and entry not in missing
        for name in entry.names
        if name not in taken
    }
    renames = probable_renames({key: _kind(checkpoint.named[key]) for key in extra}, came)
    old = {rename.old for rename in renames}
    new = {rename.new for rename in renames}
    findings = [
        Finding(
            (rename.old,),
            "probably renamed",
            found=rename.how,
            hint="rename the key before loading, or load what was saved from this model",
        )
        for rename in renames
    ]
    findings += [
        Finding(
            (key,),
            "not in the model",
            found=f"{describe(checkpoint.named[key])} in the checkpoint",
            why=_why_not_taken(model, key),
            hint="if it is meant to be left out: unexpected=[...]",
        )
        for key in extra
        if key not in old
    ]
    findings += [
        Finding(
            tuple(entry.names),
            "not in the checkpoint",
            found=f"{describe(entry.tensor)} as the model was built",
            hint="if it is meant to be new: missing=[...]",
        )
        for entry in absent
        if new.isdisjoint(entry.names)
    ]
    return findings


def _prefixed(prefix: str, names: Sequence[str], remedy: str, verb: str = "carry") -> Finding:
    return Finding(
        tuple(names),
        "not loaded",
        found=f"all keys of the checkpoint {verb} the prefix {prefix!r}",
        hint=remedy,
    )


def _why_not_taken(model: Inventory, key: str) -> str:
    if model.buffer_names.get(key) is False:
        return "the model's buffer of this name is not persistent, so nothing is loaded into it"
    return ""


def _kind(tensor: Tensor | None) -> tuple[str, str]:
    if tensor is None:
        return "None", ""
    return shape_text(tensor), "floating" if tensor.is_floating_point() else dtype_text(tensor)


_RIVAL = "tied to {}, of which the checkpoint has another value: the last one loaded stays"


def _rival(checkpoint: Inventory, keys: Sequence[str], saved: Tensor) -> str:
    """Return the one of a parameter's keys that has other values in the checkpoint, or ``""``."""
    for key in keys:
        other = checkpoint.named[key]
        if other is not None and other.shape == saved.shape and same_bits(other, saved) is False:
            return key
    return ""


def _compare(key: str, saved: Tensor, held: Tensor) -> list[Finding]:
    for tensor, where in ((held, "of the model"), (saved, "of the checkpoint")):
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{key} {where}: {reason}; its values cannot be compared")
    # A (1,) entry goes into a 0-dim parameter by torch's own rule; nothing else is reshaped.
    scalar = held.dim() == 0 and tuple(saved.shape) == (1,)
    if saved.shape != held.shape and not scalar:
        fits = _fits(saved, held)
        return [
            Finding(
                (key,),
                "wrong shape",
                expected=f"{shape_text(saved)} as in the checkpoint",
                found=shape_text(held),
                why="equal after broadcasting, which is no match" if fits else "",
                hint="" if fits else "if it is meant to be new: missing=[...], unexpected=[...]",
            )
        ]
    if _family(saved.dtype) != _family(held.dtype):
        return [Finding((key,), "wrong dtype", f"{dtype_text(saved)}", f"{dtype_text(held)}")]
    with torch.no_grad():
        text = _difference_after_cast(key, saved.detach(), held.detach())
    return [Finding((key,), "not the checkpoint's values", found=text)] if text else []


def _difference_after_cast(key: str, saved: Tensor, held: Tensor) -> str:
    """Return how the model's values differ from the checkpoint's, cast as a load casts them."""
    if same_bits(saved, held):
        return ""
    strided = saved.layout is held.layout is torch.strided
    if strided and (inner_tensors(saved) is None) != (inner_tensors(held) is None):
        # A whole tensor against a shard or a packed weight: neither is the other's values.
        raise ParamCheckUsageError(
            f"{key} is {describe(saved)} in the checkpoint and {describe(held)} in the model: "
            f"they do not hold their values in the same way and cannot be compared"
        )
    try:
        if saved.shape != held.shape:
            saved = saved.reshape(held.shape)
        saved = saved.to(held.device)
        if _family(held.dtype) == "integer":
            # A cast to a narrower integer wraps round: the wide ones are compared.
            saved, held = saved.to(torch.int64), held.to(torch.int64)
        saved = saved.to(held.dtype)
        return "" if same_bits(saved, held) else difference(held, saved)
    except (RuntimeError, TypeError) as error:
        # Subclasses compute what they know to: a DTensor and a plain tensor do not mix.
        raise ParamCheckUsageError(
            f"{key}: {describe(saved)} of the checkpoint and {describe(held)} of the model cannot "
            f"be compared ({type(error).__name__}: {first_line(error)})"
        ) from None


def _family(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "floating"
    return "integer" if dtype in _INTEGERS else str(dtype)


_INTEGERS = frozenset(
    getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
)


def _fits(a: Tensor, b: Tensor) -> bool:
    """Whether one of two tensors broadcasts to the other and then holds the same values."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    try:
        return bool((a.to(b.device, wide) == b.to(wide)).all())
    except (RuntimeError, TypeError):
        return False


def _lost_ties(
    model: Inventory,
    checkpoint: Inventory,
    key_names: dict[str, str],
    meetings: Sequence[_Meeting],
) -> list[Finding]:
    """Find keys that are one tensor in the checkpoint and several parameters in the model."""
    places = {id(t): memory_of(t).key for _, saved in meetings for t in saved}
    groups: dict[object, list[str]] = {}
    for key in key_names:
        address = id(checkpoint.named[key])
        groups.setdefault(places.get(address, address), []).append(key)
    return [
        Finding(
            tuple(group),
            "tie of the checkpoint lost",
            found="one tensor in the checkpoint, several parameters in the model",
            why="they part at the first optimizer step",
            hint="tie them in the model before loading",
        )
        for group in groups.values()
        if len(group) > 1 and not _together(model, [key_names[key] for key in group])
    ]


def _together(model: Inventory, names: Sequence[str]) -> bool:
    """Whether names of the model are one parameter, or several on the very same memory."""
    unique = {id(t): t for name in names if (t := model.named[name]) is not None}
    if len(unique) == 1:
        return True
    found = shared_memory(list(unique.values()))
    return found.relations == [Relation.ALIASED] and len(found.groups[0]) == len(unique)
