"""Nothing shared within a selection: names, memory, and equal values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import fold_rows
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import bits, no_values, same_bits
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import memory_of
from .shared import Shared, by_module, without_others
from .ties import python_path

#: What follows from each relation for somebody who wanted no sharing.
WHY_APART = {
    Relation.ALIASED: "two tensors on the same memory: a write to one changes the other",
    Relation.OVERLAPPING: "they share some memory cells: a write to one changes part of the other",
}


def sharing_within(inventory: Inventory, names: Iterable[str]) -> list[Finding]:
    """Find tied names, tensors with memory in common and tensors that overlap themselves."""
    by_id: dict[int, tuple[Tensor, list[str]]] = {}
    for name in names:
        tensor = inventory.named[name]
        if tensor is not None:
            by_id.setdefault(id(tensor), (tensor, []))[1].append(name)
    tied = by_module(inventory, [own for _, own in by_id.values() if len(own) > 1])
    findings = [_tied(inventory, shared) for shared in tied]
    tensors = [tensor for tensor, _ in by_id.values()]
    first = [own[0] for _, own in by_id.values()]
    found = shared_memory(tensors, itself=True)
    groups: dict[Relation, list[list[tuple[str, Tensor]]]] = {}
    for indices, relation in zip(found.groups, found.relations, strict=True):
        groups.setdefault(relation, []).append([(first[i], tensors[i]) for i in indices])
    findings += [
        on_one_memory(members, relation, "give each its own memory with .clone()")
        for relation, by_relation in groups.items()
        for members in by_relation
    ]
    findings += [_overlaps_itself(first[i], tensors[i]) for i in found.itself]
    findings += [cannot_tell(first[i], reason) for i, reason in found.unknown.items()]
    return findings


def on_one_memory(members: Sequence[tuple[str, Tensor]], relation: Relation, hint: str) -> Finding:
    """Return the finding for different tensors that have memory in common and should not."""
    return Finding(
        tuple(name for name, _ in members),
        "shares memory",
        found=relation.value,
        why=WHY_APART[relation],
        hint=hint,
        rows=fold_rows((name, describe(tensor)) for name, tensor in members),
    )


def _tied(inventory: Inventory, shared: Shared) -> Finding:
    tensor = inventory.named[shared.names[0]]
    if shared.module:
        found = f"one {shared.module}"
        problem = "one module in several places"
    else:
        found = f"one {describe(tensor)}"
        problem = "tied"
    return Finding(
        shared.places,
        problem,
        found=found,
        hint=f"{shared.repair}; if it is meant, leave out {without_others(shared.places)}",
    )


def not_distinct(
    inventory: Inventory, names: Sequence[str], *, named: Collection[str] = ()
) -> tuple[list[Finding], list[Finding]]:
    """Find what shares memory, and apart from that what has its own but the same values.

    ``named`` are the names somebody asked about, or declared: equal vectors among them count
    also beside matrices that differ.
    """
    entries = dict.fromkeys(inventory.by_name[name] for name in names)
    equal = _worth_saying(inventory, equal_groups(entries), named)
    return sharing_within(inventory, names), [_twins(inventory, group) for group in equal]


def _worth_saying(
    inventory: Inventory, groups: Sequence[Sequence[Entry]], named: Collection[str]
) -> list[list[Entry]]:
    """Leave out equal vectors whose own modules hold matrices, none of them equal to another.

    A layer that was copied has its matrix copied too; equal biases alone decide nothing.
    """
    matrices: dict[str, list[Entry]] = {}
    for entry in inventory.parameters:
        if entry.tensor is not None and entry.tensor.dim() > 1:
            for name in entry.names:
                matrices.setdefault(name.rpartition(".")[0], []).append(entry)
    copied = {entry for group in groups for entry in group}

    def counts(entry: Entry) -> bool:
        if entry.tensor is None or entry.tensor.dim() > 1 or set(entry.names) & set(named):
            return True
        beside = [m for n in entry.names for m in matrices.get(n.rpartition(".")[0], ())]
        return not beside or any(matrix in copied for matrix in beside)

    left = [[entry for entry in group if counts(entry)] for group in groups]
    return [group for group in left if len(group) > 1]


def can_be_equal(entry: Entry) -> bool:
    """Whether an entry is compared at all: constants and single elements are not."""
    if entry.tensor is None:
        return False
    flat = bits(entry.tensor)
    return sum(part.numel() for part in flat) > 1 and not all(map(_constant, flat))


def equal_groups(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group different tensors of one shape and dtype with the same bits, constants left out."""
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
    groups = []
    for candidates in alike.values():
        while len(candidates) > 1:
            first, *rest = candidates
            twins = [e for e in rest if _equal(first.tensor, e.tensor)]
            if twins:
                groups.append([first, *twins])
            candidates = [e for e in rest if e not in twins]
    return groups


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or same_bits(a, b) is not True:
        return False
    memory_a, memory_b = memory_of(a), memory_of(b)
    return not memory_a.overlaps(memory_b)  # shared memory is a finding of its own


def _constant(flat: Tensor) -> bool:
    return flat.numel() == 0 or bool(torch.eq(flat, flat[0]).all())


def _twins(inventory: Inventory, entries: Sequence[Entry]) -> Finding:
    return Finding(
        tuple(entry.name for entry in entries),
        "equal values",
        found=Relation.EQUAL.value,
        why="own memory but the same bits: copies of one another start identical.",
        hint=_tie_or_rebuild(inventory, entries),
        rows=fold_rows((entry.name, describe(entry.tensor)) for entry in entries),
    )


def _tie_or_rebuild(inventory: Inventory, entries: Sequence[Entry]) -> str:
    """Return how copies are made to differ; of an embedding and a head, also how they are tied."""
    rebuild = "build each layer anew instead of copying one, or initialize each again"
    owners = dict(inventory.modules)
    kinds = {entry.name: owners.get(entry.name.rpartition(".")[0]) for entry in entries}
    tables = [name for name, module in kinds.items() if isinstance(module, nn.Embedding)]
    heads = [name for name, module in kinds.items() if isinstance(module, nn.Linear)]
    if not tables or not heads:
        return rebuild
    tie = f"{python_path(heads[0])} = {python_path(tables[0])}"
    return f"if they are meant to be one, tie them: {tie}; if not, {rebuild}"


def _overlaps_itself(name: str, tensor: Tensor) -> Finding:
    return Finding(
        (name,),
        "overlaps itself",
        found=f"{describe(tensor)}, strides {tuple(tensor.stride())}",
        why="several of its elements are one memory cell, and a write to one changes the others",
        hint="give every element its own memory: .contiguous() or .clone()",
    )


def cannot_tell(name: str, reason: str) -> Finding:
    return Finding((name,), "not checked", found=reason)
