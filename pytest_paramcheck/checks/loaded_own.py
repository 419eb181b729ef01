"""Keys that a module saves and loads in its own way: what it saves now, what its load wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import cut
from ..parameters.saving.asked import Asked, leaves
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import same_bits
from .loaded_values import Difference, different, without_values

_ABSENT = object()
#: What torch has one object of per meaning; of other classes without ``==`` a copy is the same.
_SINGLETONS = (torch.dtype, torch.layout, torch.qscheme, torch.memory_format, type)


def is_taken(key: str, asked: Asked) -> bool:
    """Whether a key that is not a name is the model's all the same: it saves one, or takes it."""
    return key in asked.own or (asked.arrived is not None and key not in asked.unknown)


def other_than_saved(key: str, value: Any, asked: Asked) -> list[Finding]:
    """Find in what the model would save something else under a key than the checkpoint has."""
    findings = []
    for part, saved in leaves(key, value):
        own = asked.own.get(part, _ABSENT)
        if isinstance(saved, Tensor) and isinstance(own, Tensor):
            if (wrong := different(part, saved, own)) is not None:
                findings.append(wrong.finding)
        elif own is _ABSENT or not _equal(saved, own):
            found = "nothing saved" if own is _ABSENT else _text(own)
            findings.append(Finding((part,), "not the checkpoint's values", _text(saved), found))
    return findings


def not_arrived(absent: Sequence[Entry], asked: Asked) -> tuple[list[Entry], list[Finding]]:
    """Return the entries for which a load of the checkpoint finds nothing, and findings for those
    that it would give other values than they have.

    What a load does not miss and does not write is right as it is: a BatchNorm takes
    checkpoints of the time when it did not count its batches.
    """
    if asked.arrived is None:
        return list(absent), []
    missed, findings = [], []
    for entry in absent:
        names = [name for name in entry.names if name not in asked.missed]
        if not names:
            missed.append(entry)
        elif asked.left.isdisjoint(names):
            arrived = asked.arrived.named.get(names[0])
            if without_values(arrived, entry.tensor):
                continue  # which keys fit is asked of names alone
            wrong = different(names[0], arrived, entry.tensor)
            findings += [] if wrong is None else [wrong.finding]
    return missed, findings


def right_after_all(
    model: Inventory,
    checkpoint: Inventory,
    key_names: Mapping[str, str],
    wrong: Mapping[str, Difference | None],
    asked: Asked,
) -> set[str]:
    """Return the keys whose value is another than the model's tensor, and was loaded rightly:
    the model saves it so (packed, transposed), or its load writes what the model holds."""
    right = set()
    for key, name in key_names.items():
        if wrong[key] is None:
            continue
        saved, held = checkpoint.named[key], model.named[name]
        if saved is None or held is None:
            continue
        own = asked.own.get(key)
        if isinstance(own, Tensor) and own.shape == saved.shape and same_bits(own, saved):
            right.add(key)
        elif asked.arrived is not None:
            arrived = asked.arrived.named.get(name)
            if arrived is not None and same_bits(arrived, held) and not _copied(saved, arrived):
                right.add(key)
    return right


def _copied(saved: Tensor, arrived: Tensor) -> bool:
    """Whether a load did no more than torch's own: what a cast loses is lost."""
    try:
        with torch.no_grad():
            return bool(same_bits(saved.to(arrived.device, arrived.dtype), arrived))
    except (RuntimeError, TypeError):
        return False


def _equal(a: Any, b: Any) -> bool:
    """Whether two values that are no tensors are one; what cannot be compared is."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, _SINGLETONS):
        return False
    if getattr(type(a), "__eq__", None) is getattr(object, "__eq__", None):
        return True
    try:
        return bool(a == b)
    except Exception:  # an array's truth, or whatever a class of the user's raises
        return True


def _text(value: Any) -> str:
    return cut(repr(value), 40)
