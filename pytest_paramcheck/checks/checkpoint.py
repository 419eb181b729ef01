"""A checkpoint against a model, and a model against what came back of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..findings import Finding, ParamCheckUsageError
from ..parameters.content import no_values, same_bits
from ..parameters.describe import describe, dtype_text, shape_text
from ..parameters.identity import shared_memory
from ..parameters.inventory import Entry, Inventory
from ..parameters.manifest_lines import manifest_lines
from ..parameters.memory import memory_of
from ..parameters.roundtrips import Returned
from .manifest import manifest_differences
from .renames import common_prefix, probable_renames
from .values import difference_text, differences


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
    given = {model.by_name[name] for name in key_names.values()}
    absent = [e for e in model.entries if e.persistent and e not in given and e not in missing]
    findings = _strangers(model, checkpoint, extra, absent)
    for key, name in key_names.items():
        if key not in unexpected:
            saved, held = checkpoint.named[key], model.named[name]
            if saved is not None and held is not None:
                findings += _compare(key, saved, held, in_memory)
    return findings + _lost_ties(model, checkpoint, key_names)


def _strangers(
    model: Inventory, checkpoint: Inventory, extra: Sequence[str], absent: Sequence[Entry]
) -> list[Finding]:
    """Return the findings for keys on one side only, near misses first."""
    # Only where every key is a stranger: a wrapped model's own keys carry its prefix rightly.
    every = len(extra) == len(checkpoint.named)
    prefix = common_prefix(checkpoint.named, model.named) if every else ""
    if prefix:
        return [_prefixed(prefix, extra, f"take it off: key.removeprefix({prefix!r})")]
    prefix = common_prefix(model.named, checkpoint.named) if every else ""
    if prefix:
        return [_prefixed(prefix, [e.name for e in absent], f"put it on: {prefix!r} + key", "lack")]
    came = {entry.name: _kind(entry.tensor) for entry in absent}
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
        if entry.name not in new
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


def _compare(key: str, saved: Tensor, held: Tensor, in_memory: bool) -> list[Finding]:
    for tensor, where in ((held, "of the model"), (saved, "of the checkpoint")):
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{key} {where}: {reason}; its values cannot be compared")
    if in_memory and (saved is held or memory_of(saved).overlaps(memory_of(held))):
        return [
            Finding(
                (key,),
                "the checkpoint shares memory with the model",
                found=describe(held),
                why="training the model changes the checkpoint",
                hint="keep a copy: {key: value.clone() for key, value in state.items()}",
            )
        ]
    # A (1,) entry goes into a 0-dim parameter by torch's own rule; nothing else is reshaped.
    scalar = held.dim() == 0 and tuple(saved.shape) == (1,)
    if saved.shape != held.shape and not scalar:
        return [
            Finding(
                (key,),
                "wrong shape",
                expected=f"{shape_text(saved)} as in the checkpoint",
                found=shape_text(held),
                why="equal after broadcasting, which is no match" if _fits(saved, held) else "",
            )
        ]
    if _family(saved.dtype) != _family(held.dtype):
        return [Finding((key,), "wrong dtype", f"{dtype_text(saved)}", f"{dtype_text(held)}")]
    with torch.no_grad():
        cast = saved.detach().reshape(held.shape) if scalar else saved.detach()
        cast = cast.to(device=held.device, dtype=held.dtype)
        if same_bits(cast, held.detach()):
            return []
        text = difference_text(held.detach(), cast)
    return [Finding((key,), "not the checkpoint's values", found=text)] if text else []


def _family(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    return "floating" if dtype.is_floating_point else str(dtype)


def _fits(a: Tensor, b: Tensor) -> bool:
    """Whether one of two tensors broadcasts to the other and then holds the same values."""
    try:
        return bool((a.to(b.device, torch.float64) == b.to(torch.float64)).all())
    except (RuntimeError, TypeError):
        return False


def _lost_ties(model: Inventory, checkpoint: Inventory, key_names: dict[str, str]) -> list[Finding]:
    """Find keys that are one tensor in the checkpoint and several parameters in the model."""
    keys = [key for key in key_names if checkpoint.named[key] is not None]
    tensors = [tensor for key in keys if (tensor := checkpoint.named[key]) is not None]
    by_id: dict[int, list[str]] = {}
    for key, tensor in zip(keys, tensors, strict=True):
        by_id.setdefault(id(tensor), []).append(key)
    unique = {id(tensor): tensor for tensor in tensors}
    found = shared_memory(list(unique.values()))
    groups = [group for group in by_id.values() if len(group) > 1]
    ids = list(unique)
    groups += [
        [key for i in indices for key in by_id[ids[i]]]
        for indices, exact in zip(found.groups, found.exact, strict=True)
        if exact
    ]
    return [
        Finding(
            tuple(group),
            "tie of the checkpoint lost",
            found="one tensor in the checkpoint, several parameters in the model",
            why="they part at the first optimizer step",
            hint="tie them in the model before loading",
        )
        for group in groups
        if len({model.by_name[key_names[key]] for key in group}) > 1
    ]


def lost_on_the_way(before: Inventory, after: Inventory, returned: Returned) -> list[Finding]:
    """Find what a model lost between saving and loading."""
    if returned.unsaved:
        return [Finding((), "cannot be saved", found=returned.unsaved)]
    if returned.refused:
        found, hint = returned.refused, returned.hint
        return [Finding((), "does not load back", found=found, hint=hint)]
    findings = [
        Finding((key,), "not saved", found="the file or state_dict has no such key")
        for key in returned.not_saved
    ]
    findings += [
        Finding((key,), "saved but not taken back", found="the model has no such name")
        for key in returned.not_taken
    ]
    findings += manifest_differences(manifest_lines(before), manifest_lines(after))
    lost = set(returned.not_saved)
    names = [
        name
        for name in before.named
        if name in after.named and before.by_name[name].persistent and name not in lost
    ]
    return findings + differences(before, after, names, rtol=0.0, atol=0.0)
