"""Nothing shared within a selection: names, memory, and equal values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.folding import fold_rows
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.call import asks_a_group, exchange, ranks_text, tells_others
from ..parameters.tensors.content import bits, no_values, same_bits
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import memory_of
from ..parameters.tensors.sharded import mesh_of
from ..parameters.tensors.shards import ShardFact, of_one_value, shard_fact
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
        problem = "one Parameter under several names"
    return Finding(
        shared.places,
        problem,
        found=found,
        hint=f"{shared.repair}; if this is intended, leave out {without_others(shared.places)}",
    )


def not_distinct(
    inventory: Inventory, names: Sequence[str], *, named: Collection[str] = ()
) -> tuple[list[Finding], list[Finding]]:
    """Find what shares memory, and apart from that what has its own but the same values.

    ``named`` are the names somebody asked about, or declared: equal vectors among them count
    also beside matrices that differ.
    """
    entries = dict.fromkeys(inventory.by_name[name] for name in names)
    shared = sharing_within(inventory, names)
    equal, shards = equal_on_all_ranks(entries)
    equal = _worth_saying(inventory, equal, named)
    return [*shared, *shards], [_twins(inventory, group) for group in equal]


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


def equal_on_all_ranks(entries: Iterable[Entry]) -> tuple[list[list[Entry]], list[Finding]]:
    """Group tensors that are equal on every rank, and find those of which ranks hold the same.

    Where nothing is spread over ranks these are :func:`equal_groups`.
    """
    asked = list(entries)
    if not tells_others():
        return equal_groups(asked), []
    by_name = {entry.name: entry for entry in asked if entry.tensor is not None}
    heard = exchange({name: shard_fact(_readable(entry)) for name, entry in by_name.items()})
    groups: dict[object, list[Entry]] = {}
    findings = []
    for name, entry in by_name.items():
        facts = {rank: said[name] for rank, said in heard.items() if name in said}
        if of_one_value(facts.values()) or sum(fact.count for fact in facts.values()) < 2:
            continue
        tensor = _readable(entry)
        shape, dtype = tensor.shape, tensor.dtype
        digests = tuple((rank, fact.digest) for rank, fact in facts.items())
        groups.setdefault((shape, dtype, digests), []).append(entry)
        if mesh_of(tensor) is not None or asks_a_group():
            findings += _equal_shards(entry, facts)
    return [group for group in groups.values() if len(group) > 1], findings


def _equal_shards(entry: Entry, facts: Mapping[int, ShardFact]) -> list[Finding]:
    """Find shards of one tensor, or plain tensors of one name, that several ranks drew alike."""
    alike: dict[bytes, dict[object, int]] = {}
    for rank, fact in facts.items():
        if fact.count >= SHARD and fact.constant is None:
            alike.setdefault(fact.digest, {}).setdefault(fact.place, rank)
    same = [sorted(places.values()) for places in alike.values() if len(places) > 1]
    return [
        Finding(
            tuple(entry.names),
            "equal shards",
            found=f"{ranks_text(ranks)} hold the same values bit for bit",
            why="each rank drew its shard from the same seed",
            hint="seed each rank by itself: torch.manual_seed(seed + dist.get_rank())",
        )
        for ranks in same
    ]


#: From as many values on equal shards are no accident.
SHARD = 4


def _readable(entry: Entry) -> Tensor:
    tensor = entry.tensor
    if tensor is None:
        raise ParamCheckUsageError(f"{entry.name} is None: its values cannot be compared")
    if reason := no_values(tensor):
        raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be compared")
    return tensor


def equal_groups(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group different tensors of one shape and dtype with the same bits, constants left out."""
    alike: dict[object, list[Entry]] = {}
    for entry in entries:
        tensor = _readable(entry)
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
        why="own memory but the same bits: copied from one another, or drawn from the same seed.",
        hint=_tie_or_rebuild(inventory, entries),
        rows=fold_rows((entry.name, describe(entry.tensor)) for entry in entries),
    )


def _tie_or_rebuild(inventory: Inventory, entries: Sequence[Entry]) -> str:
    """Return how copies are made to differ; of an embedding and a head, also how they are tied."""
    rebuild = (
        "create each layer separately, with no manual_seed() between, or re-initialize the copies"
    )
    owners = inventory.module_at
    kinds = {entry.name: owners.get(entry.name.rpartition(".")[0]) for entry in entries}
    tables = [name for name, module in kinds.items() if isinstance(module, nn.Embedding)]
    heads = [name for name, module in kinds.items() if isinstance(module, nn.Linear)]
    if not tables or not heads:
        return rebuild
    tie = f"{python_path(heads[0])} = {python_path(tables[0])}"
    out = f"and leave out '!{heads[0]}'"
    return f"if they are meant to be one, tie them: {tie}, {out}; if not, {rebuild}"


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
