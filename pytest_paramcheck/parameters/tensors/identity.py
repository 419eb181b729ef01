"""How two tensors are related, and which entries of a subject share memory.

Five relations, the strongest that holds. Only :attr:`Relation.SAME` is a tie: sharing memory
through two Parameters splits the gradient between them and steps the memory twice, and equal
values part at the first step.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .content import same_bits
from .memory import memory_of
from .sweep import Span, Union, join_overlapping


class Relation(enum.Enum):
    """How two tensors are related: the strongest of these that holds."""

    SAME = "SAME"
    ALIASED = "ALIASED"
    OVERLAPPING = "OVERLAPPING"
    EQUAL = "EQUAL"
    DISTINCT = "DISTINCT"


@dataclass(frozen=True, slots=True)
class Related:
    """A relation, and what could not be asked on the way to it (``""``: nothing)."""

    relation: Relation
    unknown: str = ""


def relate(a: Tensor, b: Tensor) -> Related:
    """Return the strongest relation that holds between two tensors of any kind.

    SAME: one object. ALIASED: two tensors on exactly the same memory (offset, shape, strides).
    OVERLAPPING: some byte in common. EQUAL: own memory, equal bits. DISTINCT: none of these.
    Tensors on meta, fake and lazy ones have no values, so EQUAL cannot be told for them, and a
    layout that hides its memory is said to: ``unknown`` names what was not checked.
    """
    if a is b:
        return Related(Relation.SAME)
    memory_a, memory_b = memory_of(a), memory_of(b)
    unknown = memory_a.unknown or memory_b.unknown
    if not unknown and memory_a.blocks and memory_b.blocks:
        if memory_a.key == memory_b.key:
            return Related(Relation.ALIASED)
        if memory_a.overlaps(memory_b):
            return Related(Relation.OVERLAPPING)
    same = same_bits(a, b)
    if same is None:
        return Related(Relation.DISTINCT, unknown or "values cannot be read")
    return Related(Relation.EQUAL if same else Relation.DISTINCT, unknown)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Which tensors of a list have memory in common.

    ``groups`` are the index sets connected by shared bytes, ``relations`` says of each whether
    all members lie on exactly the same memory (ALIASED) or not (OVERLAPPING), ``itself`` are the
    tensors that overlap themselves, ``unknown`` maps the ones that cannot be asked to the reason.
    """

    groups: list[tuple[int, ...]]
    relations: list[Relation]
    itself: list[int]
    unknown: dict[int, str]


def shared_memory(tensors: Sequence[Tensor], *, itself: bool = False) -> SharedMemory:
    """Group tensors (different objects) that share memory, transitively.

    Overlap is decided only where byte intervals in one address space meet, and rows of equal
    stride, so that disjoint tensors and columns of one matrix cost a sort.
    """
    memories = [memory_of(tensor) for tensor in tensors]
    unknown = {i: memory.unknown for i, memory in enumerate(memories) if memory.unknown}
    union = Union(len(tensors))
    first_with: dict[object, int] = {}
    spans: dict[tuple[str, int], list[Span]] = {}
    for index, memory in enumerate(memories):
        if not memory.blocks:
            continue
        twin = first_with.setdefault(memory.key, index)
        if twin != index:
            union.join(twin, index)  # ALIASED: stands for it in the sweep
            continue
        for block in memory.blocks:
            spans.setdefault(block.space, []).append((block.layout, index))
    for in_space in spans.values():
        join_overlapping(in_space, union)
    groups = union.groups()
    exact = (len({memories[i].key for i in group}) == 1 for group in groups)
    return SharedMemory(
        groups,
        [Relation.ALIASED if same else Relation.OVERLAPPING for same in exact],
        [i for i, memory in enumerate(memories) if memory.overlaps_itself()] if itself else [],
        unknown,
    )
