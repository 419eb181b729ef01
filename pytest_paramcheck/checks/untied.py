"""Nothing shared: memory between subjects or within a selection, and equal values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import fold_rows
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import bits, no_values, same_bits
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import memory_of
from .ties import shares_memory


def sharing_within(inventory: Inventory, names: Iterable[str]) -> list[Finding]:
    """Find tied names, tensors with memory in common and tensors that overlap themselves."""
    by_id: dict[int, tuple[Tensor, list[str]]] = {}
    for name in names:
        tensor = inventory.named[name]
        if tensor is not None:
            by_id.setdefault(id(tensor), (tensor, []))[1].append(name)
    findings = [_same(tensor, tuple(tied)) for tensor, tied in by_id.values() if len(tied) > 1]
    tensors = [tensor for tensor, _ in by_id.values()]
    first = [tied[0] for _, tied in by_id.values()]
    found = shared_memory(tensors, itself=True)
    for indices, relation in zip(found.groups, found.relations, strict=True):
        findings.append(shares_memory(inventory, [first[i] for i in indices], relation))
    findings += [_overlaps_itself(first[i], tensors[i]) for i in found.itself]
    findings += [_cannot_tell(first[i], reason) for i, reason in found.unknown.items()]
    return findings


def sharing_between(
    parts: Sequence[tuple[str, Inventory]], *, unknown: bool = True
) -> list[Finding]:
    """Find memory that entries of two subjects have in common.

    ``unknown``: a tensor whose layout hides where its memory is, is a finding too.
    """
    names: list[str] = []
    owners: list[int] = []
    tensors: list[Tensor] = []
    same: dict[int, list[tuple[int, str]]] = {}
    for number, (word, inventory) in enumerate(parts):
        for entry in inventory.entries:
            if entry.tensor is None:
                continue
            name = word if entry.name == word else f"{word}.{entry.name}"
            seen = same.setdefault(id(entry.tensor), [])
            seen.append((number, name))
            if len(seen) == 1:
                names.append(name)
                owners.append(number)
                tensors.append(entry.tensor)
    together = Inventory("")
    together.named.update(zip(names, tensors, strict=True))
    findings = []
    for tensor in tensors:
        owned = same[id(tensor)]
        if len({number for number, _ in owned}) > 1:
            findings.append(_same(tensor, tuple(name for _, name in owned)))
    found = shared_memory(tensors)
    for indices, relation in zip(found.groups, found.relations, strict=True):
        if len({owners[i] for i in indices}) > 1:
            findings.append(shares_memory(together, [names[i] for i in indices], relation))
    if unknown:
        findings += [_cannot_tell(names[i], reason) for i, reason in found.unknown.items()]
    return findings


def not_distinct(inventory: Inventory, names: Sequence[str]) -> tuple[list[Finding], list[Finding]]:
    """Find what shares memory, and apart from that what has its own but the same values."""
    entries = dict.fromkeys(inventory.by_name[name] for name in names)
    return sharing_within(inventory, names), equal_values(entries)


def can_be_equal(entry: Entry) -> bool:
    """Whether an entry is compared at all: constants and single elements are not."""
    if entry.tensor is None:
        return False
    flat = bits(entry.tensor)
    return sum(part.numel() for part in flat) > 1 and not all(map(_constant, flat))


def equal_values(entries: Iterable[Entry]) -> list[Finding]:
    """Find different tensors of one shape and dtype with the same bits, constants left out."""
    alike: dict[object, list[Entry]] = {}
    for entry in entries:
        tensor = entry.tensor
        if tensor is None:
            continue
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be compared")
        if not can_be_equal(entry):
            continue
        flat = bits(tensor)
        # A cheap sum sorts the candidates; the bits decide.
        key = (tensor.shape, tensor.dtype, tuple(int(part.sum()) for part in flat))
        alike.setdefault(key, []).append(entry)
    findings = []
    for candidates in alike.values():
        while len(candidates) > 1:
            first, *rest = candidates
            twins = [e for e in rest if _equal(first.tensor, e.tensor)]
            if twins:
                findings.append(_twins([first, *twins]))
            candidates = [e for e in rest if e not in twins]
    return findings


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or same_bits(a, b) is not True:
        return False
    memory_a, memory_b = memory_of(a), memory_of(b)
    return not memory_a.overlaps(memory_b)  # shared memory is a finding of its own


def _constant(flat: Tensor) -> bool:
    return flat.numel() == 0 or bool(torch.eq(flat, flat[0]).all())


def _twins(entries: Sequence[Entry]) -> Finding:
    return Finding(
        tuple(entry.name for entry in entries),
        "equal values",
        found=Relation.EQUAL.value,
        why="own memory but the same bits: copies of one another start identical.",
        hint="build each layer anew instead of copying one, or initialise each again",
        rows=fold_rows((entry.name, describe(entry.tensor)) for entry in entries),
    )


def _same(tensor: Tensor, names: tuple[str, ...]) -> Finding:
    return Finding(
        names,
        "tied",
        found=f"{Relation.SAME.value}, {describe(tensor)}",
        hint="if the tie is meant, leave one of its names out with '!name'",
    )


def _overlaps_itself(name: str, tensor: Tensor) -> Finding:
    return Finding(
        (name,),
        "overlaps itself",
        found=f"{describe(tensor)}, strides {tuple(tensor.stride())}",
        why="several of its elements are one memory cell, and a write to one changes the others",
        hint="give every element its own memory: .contiguous() or .clone()",
    )


def _cannot_tell(name: str, reason: str) -> Finding:
    return Finding((name,), "not checked", found=reason)
