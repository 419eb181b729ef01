"""Names on one side only: what was loaded under another name, and what was not loaded at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import shorten
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.describe import describe, dtype_text, shape_text
from .loaded_values import is_constant
from .renames import Rename, common_prefix, probable_renames

#: The first line where nothing of a checkpoint is in the model.
NOTHING = "nothing loaded"
#: Names that a hint writes out; of more, the reader writes a pattern.
_WRITTEN_OUT = 4


def loaded_under_other_names(
    model: Inventory,
    checkpoint: Inventory,
    extra: Sequence[str],
    free: Mapping[str, Entry],
    *,
    every: bool,
    same: Callable[[str, str], bool],
) -> dict[str, str]:
    """Return the strangers among the keys whose values are in the model -> under which name.

    A loader that takes a prefix off or renames a component on its way did nothing wrong. Values
    that every model starts with (zeros, ones) prove nothing by themselves. ``free`` are the
    names of the model that no key stands for, ``every`` says that all keys are strangers, and
    ``same`` whether a key's values are a name's.
    """
    if every:
        for pairs in _by_prefix(extra, model).values():
            pairs = {key: name for key, name in pairs.items() if name in free}
            equal = [key for key, name in pairs.items() if same(key, name)]
            proof = any(not _is_constant(checkpoint.named[key]) for key in equal)
            return pairs if proof or len(equal) == len(pairs) else {}
    groups: dict[str, list[Rename]] = {}
    for rename in _renames(checkpoint, extra, free):
        groups.setdefault(rename.how, []).append(rename)
    return {
        rename.old: rename.new
        for group in groups.values()
        if all(same(rename.old, rename.new) for rename in group)
        for rename in group
    }


def strangers(
    model: Inventory,
    checkpoint: Inventory,
    extra: Sequence[str],
    absent: Sequence[Entry],
    free: Mapping[str, Entry],
    *,
    every: bool,
) -> list[Finding]:
    """Return the findings for keys and names on one side only, near misses first."""
    # Only where every key is a stranger: a wrapped model's own keys carry its prefix rightly.
    if every:
        prefixes = _by_prefix(extra, model)
        for prefix in prefixes:
            if all(key.startswith(prefix) for key in extra):
                return [_prefixed(prefix, extra, f"strip it: key.removeprefix({prefix!r})")]
            lacking = [entry.name for entry in absent]
            return [_prefixed(prefix, lacking, f"add it: {prefix!r} + key", "lack")]
    renames = _renames(checkpoint, extra, free)
    if every and extra and absent and not renames:
        return [_nothing_known(model, extra)]
    old = {rename.old for rename in renames}
    new = {rename.new for rename in renames}
    unknown = [key for key in extra if key not in old]
    lost = [entry for entry in absent if new.isdisjoint(entry.names)]
    findings = [
        Finding(
            (rename.old,),
            "probably renamed",
            found=rename.how,
            hint="rename the key before loading, or load what was saved from this model",
        )
        for rename in renames
    ]
    declared = _declared("unexpected", unknown)
    findings += [
        Finding(
            (key,),
            "not in the model",
            found=f"{describe(checkpoint.named[key])} in the checkpoint",
            why=_why_not_taken(model, key),
            hint=f"if it belongs to the model, register it before the load; if it is meant to be "
            f"left out: {declared}",
        )
        for key in unknown
    ]
    repairs = {entry: _repair(model, entry, lost) for entry in lost}
    hints = {
        repair: f"{repair}if it is meant to be new: "
        + _declared("missing", [entry.name for entry in lost if repairs[entry] == repair])
        for repair in dict.fromkeys(repairs.values())
    }
    return findings + [
        Finding(
            tuple(entry.names),
            "not in the checkpoint",
            found=f"{describe(entry.tensor)} as the model was built",
            hint=hints[repairs[entry]],
        )
        for entry in lost
    ]


def _by_prefix(extra: Sequence[str], model: Inventory) -> dict[str, dict[str, str]]:
    """Return the one prefix that all keys carry, or all names -> the keys and names it parts."""
    if prefix := common_prefix(extra, model.named):
        return {prefix: {key: key[len(prefix) :] for key in extra}}
    if prefix := common_prefix(model.named, extra):
        return {prefix: {key: prefix + key for key in extra}}
    return {}


def _renames(
    checkpoint: Inventory, extra: Sequence[str], free: Mapping[str, Entry]
) -> list[Rename]:
    return probable_renames(
        {key: _kind(checkpoint.named[key]) for key in extra},
        {name: _kind(entry.tensor) for name, entry in free.items()},
    )


def _prefixed(prefix: str, names: Sequence[str], remedy: str, verb: str = "carry") -> Finding:
    return Finding(
        tuple(names),
        "not loaded",
        found=f"all keys of the checkpoint {verb} the prefix {prefix!r}",
        hint=remedy,
    )


def _nothing_known(model: Inventory, extra: Sequence[str]) -> Finding:
    return Finding(
        tuple(extra),
        NOTHING,
        found="no key of the checkpoint is a name of the model",
        why=f"it has {shorten(fold_names(model.named), 3)}",
        hint="load what was saved from this model, or the level of the file that has its names",
    )


def _declared(option: str, names: Sequence[str]) -> str:
    """Return the argument that a reader has to write: its names, where they are few."""
    shown = ", ".join(map(repr, names)) if len(names) <= _WRITTEN_OUT else "..."
    return f"{option}=[{shown}]"


def _repair(model: Inventory, entry: Entry, lost: Sequence[Entry]) -> str:
    """Return what mends it, where something is likely to, before what only declares it."""
    if entry.kind == "buffer":
        return "if it can be computed: register_buffer(..., persistent=False); "
    twins = [
        other
        for other in model.parameters
        if other is not entry and _kind(other.tensor) == _kind(entry.tensor)
    ]
    matrix = entry.tensor is not None and entry.tensor.dim() > 1
    if not matrix or len(twins) != 1 or twins[0] in lost or model.root is None:
        return ""
    ours, theirs = f"model.{entry.name}", f"model.{twins[0].name}"
    return f"if it is tied to {twins[0].name}, tie before the load: {ours} = {theirs}; "


def _why_not_taken(model: Inventory, key: str) -> str:
    if model.buffer_names.get(key) is False:
        return "the model's buffer of this name is not persistent, so nothing is loaded into it"
    return ""


def _is_constant(tensor: Tensor | None) -> bool:
    return tensor is None or is_constant(tensor)


def _kind(tensor: Tensor | None) -> tuple[str, str]:
    if tensor is None:
        return "None", ""
    return shape_text(tensor), "floating" if tensor.is_floating_point() else dtype_text(tensor)
