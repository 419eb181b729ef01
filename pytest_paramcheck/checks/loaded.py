"""A checkpoint against a model: what is on one side only, and what is different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..messages.findings import Finding
from ..parameters.saving.asked import Asked
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import same_bits
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import memory_of
from .loaded_names import NOTHING, loaded_under_other_names, strangers
from .loaded_own import is_taken, not_arrived, other_than_saved, right_after_all
from .loaded_values import (
    Difference,
    are_unrelated,
    different,
    fingerprint,
    is_constant,
    other_dtypes,
    without_values,
)


def not_loaded(
    model: Inventory,
    checkpoint: Inventory,
    key_names: Mapping[str, str],
    *,
    missing: set[Entry],
    unexpected: set[str],
    others: Mapping[str, Any],
    origins: Mapping[str, str],
    dtypes: bool,
    asked: Asked | None = None,
) -> list[Finding]:
    """Find what of a checkpoint is not in the model, and what of the model is not from it.

    ``key_names`` maps the checkpoint's keys to the model's names where both have them;
    ``missing`` and ``unexpected`` are what the caller declared, ``others`` what is no tensor,
    ``origins`` the keys before they were translated; ``dtypes`` asks for the checkpoint's own.
    ``asked`` is what the model itself says of the rest, where it was asked.
    """
    asked = asked or Asked()
    extra = [key for key in checkpoint.named if key not in key_names and key not in unexpected]
    key_names = {key: name for key, name in key_names.items() if key not in unexpected}
    every = not key_names
    taken = [key for key in extra if is_taken(key, asked)]
    extra = [key for key in extra if not is_taken(key, asked)]
    spoken = {key: checkpoint.named[key] for key in taken if key in asked.own} | dict(others)
    own = [
        finding for key, value in spoken.items() for finding in other_than_saved(key, value, asked)
    ]
    wrong = {key: different(key, *_both(model, checkpoint, key, key_names)) for key in key_names}
    if extra:

        def same(key: str, name: str) -> bool:
            if without_values(checkpoint.named[key], model.named[name]):
                return False  # nothing tells that it came under another name
            wrong[key] = different(key, checkpoint.named[key], model.named[name])
            return wrong[key] is None

        free = _free(model, set(key_names.values()), missing)
        renamed = loaded_under_other_names(model, checkpoint, extra, free, every=every, same=same)
        key_names |= renamed
        extra = [key for key in extra if key not in renamed]
    came = {model.by_name[name] for name in key_names.values()}
    absent = [e for e in model.entries if e.persistent and e not in came and e not in missing]
    absent, elsewhere = not_arrived(absent, asked)
    findings: list[Finding] = []
    if extra or absent:
        free = _free(model, set(key_names.values()), missing)
        findings = strangers(model, checkpoint, extra, absent, free, every=every and not key_names)
        findings = [_with_origin(finding, model, origins) for finding in findings]
    findings += [*elsewhere, *own]
    keys_of: dict[Entry, list[str]] = {}
    if any(difference is not None for difference in wrong.values()):
        for key, name in key_names.items():
            keys_of.setdefault(model.by_name[name], []).append(key)
    for key in right_after_all(model, checkpoint, key_names, wrong, asked):
        keys = keys_of[model.by_name[key_names[key]]]
        if not _rival(checkpoint, keys, checkpoint.named[key]):
            wrong[key] = None
    swapped = _swapped(model, checkpoint, key_names, wrong)
    if not swapped and (nothing := _nothing_loaded(model, checkpoint, key_names, wrong)):
        return [nothing, *findings]
    for key, name in key_names.items():
        difference = wrong[key]
        if difference is None:
            continue
        finding = difference.finding
        if rival := _rival(checkpoint, keys_of[model.by_name[name]], checkpoint.named[key]):
            finding = replace(finding, why=_RIVAL.format(rival))
        elif key in swapped:
            finding = replace(finding, why=f"it holds what the checkpoint has as {swapped[key]}")
        findings.append(finding)
    findings += _lost_ties(model, checkpoint, key_names)
    return findings + other_dtypes(model, checkpoint, key_names) if dtypes else findings


def _with_origin(finding: Finding, model: Inventory, origins: Mapping[str, str]) -> Finding:
    """Say which key of the checkpoint a name was made of that the model does not have."""
    [name, *others] = finding.names
    key = origins.get(name, name)
    if others or key == name or name in model.named:
        return finding
    return replace(finding, found=f"{finding.found}, as {key}")


def _both(
    model: Inventory, checkpoint: Inventory, key: str, key_names: Mapping[str, str]
) -> tuple[Tensor | None, Tensor | None]:
    return checkpoint.named[key], model.named[key_names[key]]


def _free(model: Inventory, taken: set[str], missing: set[Entry]) -> dict[str, Entry]:
    """Return the names that no key stands for; a tied parameter may have come under another."""
    return {
        name: entry
        for entry in model.entries
        if entry.persistent and entry not in missing
        for name in entry.names
        if name not in taken
    }


def _nothing_loaded(
    model: Inventory,
    checkpoint: Inventory,
    key_names: Mapping[str, str],
    wrong: Mapping[str, Difference | None],
) -> Finding | None:
    """Return the finding that stands for a list of all values, where none was loaded.

    What every model starts with (zeros, ones) may be equal. What is near the checkpoint's
    values was loaded, and trained since.
    """
    others = {
        key: name
        for key, name in key_names.items()
        if (found := wrong[key]) is not None and found.values
    }
    if len(others) < 2:
        return None
    if any(difference.finding.why for key in others if (difference := wrong[key]) is not None):
        return None  # loaded, in another order
    for key in key_names:
        saved = checkpoint.named[key]
        if wrong[key] is None and saved is not None and not is_constant(saved):
            return None
    pairs = [_both(model, checkpoint, key, others) for key in others]
    if not are_unrelated([(a, b) for a, b in pairs if a is not None and b is not None]):
        return None
    return Finding(
        tuple(others),
        NOTHING,
        found="none of their values is the checkpoint's",
        hint="load it first, from the level of the file that has these names: "
        "model.load_state_dict(state)",
    )


def _swapped(
    model: Inventory,
    checkpoint: Inventory,
    key_names: Mapping[str, str],
    wrong: Mapping[str, Difference | None],
) -> dict[str, str]:
    """Return the keys in whose place the model holds the value of another -> that other key."""
    others = [key for key in key_names if (found := wrong[key]) is not None and found.values]
    places: dict[object, list[str]] = {}
    for key in others:
        places.setdefault(fingerprint(checkpoint.named[key]), []).append(key)
    places.pop(None, None)
    swapped = {}
    for key in others:
        held = model.named[key_names[key]]
        for other in places.get(fingerprint(held), ()):
            if different(other, checkpoint.named[other], held) is None:
                swapped[key] = other
                break
    return swapped


_RIVAL = "tied to {}, of which the checkpoint has another value: the last one loaded stays"


def _rival(checkpoint: Inventory, keys: Sequence[str], saved: Tensor | None) -> str:
    """Return the one of a parameter's keys that has other values in the checkpoint, or ``""``."""
    for key in keys if saved is not None else ():
        other = checkpoint.named[key]
        if other is None or saved is None or other.shape != saved.shape:
            continue
        if same_bits(other, saved) is False:
            return key
    return ""


def _lost_ties(
    model: Inventory, checkpoint: Inventory, key_names: Mapping[str, str]
) -> list[Finding]:
    """Find keys that are one tensor in the checkpoint and several parameters in the model."""
    storages = {key: _storage(checkpoint.named[key]) for key in key_names}
    count = Counter(storages.values())
    groups: dict[object, list[str]] = {}
    for key, storage in storages.items():
        tensor = checkpoint.named[key]
        if tensor is not None and count[storage] > 1:
            place = memory_of(tensor).key or id(tensor)
            groups.setdefault(place, []).append(key)
    return [
        Finding(
            tuple(group),
            "tie of the checkpoint lost",
            found="one tensor in the checkpoint, several parameters in the model",
            why="they will diverge at the first optimizer step",
            hint="tie them in the model before loading",
        )
        for group in groups.values()
        if len(group) > 1 and not _together(model, [key_names[key] for key in group])
    ]


def _storage(tensor: Tensor | None) -> int:
    """Return what tensors on one memory have in common; others may have it too."""
    try:
        return 0 if tensor is None else tensor.untyped_storage().data_ptr()
    except Exception:  # layouts and subclasses without a storage, each by its own error
        return 0


def _together(model: Inventory, names: Sequence[str]) -> bool:
    """Whether names of the model are one parameter, or several on the very same memory."""
    unique = {id(t): t for name in names if (t := model.named[name]) is not None}
    if len(unique) == 1:
        return True
    found = shared_memory(list(unique.values()))
    return found.relations == [Relation.ALIASED] and len(found.groups[0]) == len(unique)
