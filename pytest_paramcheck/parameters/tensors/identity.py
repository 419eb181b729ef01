"""How two tensors are related, and which entries of a subject share memory.

Five relations, the strongest that holds. Only :attr:`Relation.SAME` is a tie: sharing memory
through two Parameters splits the gradient between them and steps the memory twice, and equal
values part at the first step.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .content import same_bits
from .memory import Memory, memory_of


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

    Overlap is looked for only where byte intervals in one address space meet, so disjoint
    tensors cost a sort. The sweep keeps the running maximum end: ``[0,100) [10,20) [50,60)``
    is one group, which comparing neighbours misses.
    """
    memories = [memory_of(tensor) for tensor in tensors]
    unknown = {i: memory.unknown for i, memory in enumerate(memories) if memory.unknown}
    union = _Union(len(tensors))
    first_with: dict[object, int] = {}
    intervals: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for index, memory in enumerate(memories):
        if not memory.blocks:
            continue
        twin = first_with.setdefault(memory.key, index)
        if twin != index:
            union.join(twin, index)  # ALIASED: stands for it in the sweep
            continue
        for block in memory.blocks:
            layout = block.layout
            intervals.setdefault(block.space, []).append((layout.base, layout.end, index))
    for spans in intervals.values():
        _sweep(sorted(spans), memories, union)
    groups = union.groups()
    exact = (len({memories[i].key for i in group}) == 1 for group in groups)
    return SharedMemory(
        groups,
        [Relation.ALIASED if same else Relation.OVERLAPPING for same in exact],
        [i for i, memory in enumerate(memories) if memory.overlaps_itself()] if itself else [],
        unknown,
    )


def _sweep(
    spans: Iterable[tuple[int, int, int]], memories: Sequence[Memory], union: _Union
) -> None:
    open_spans: list[tuple[int, int]] = []
    reach = -1
    for start, end, index in spans:
        if start >= reach:
            open_spans = []
        else:
            open_spans = [span for span in open_spans if span[0] > start]
        for _, other in open_spans:
            if union.root(other) != union.root(index) and memories[other].overlaps(memories[index]):
                union.join(other, index)
        open_spans.append((end, index))
        reach = max(reach, end)


class _Union:
    """Disjoint sets of indices."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, index: int) -> int:
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(self, a: int, b: int) -> None:
        root_a, root_b = sorted((self.root(a), self.root(b)))
        self._parent[root_b] = root_a

    def groups(self) -> list[tuple[int, ...]]:
        """The sets of two and more, each in order."""
        members: dict[int, list[int]] = {}
        for index, parent in enumerate(self._parent):
            if parent != index or index in members:
                members.setdefault(self.root(index), [self.root(index)]).append(index)
        return [tuple(sorted(set(group))) for _, group in sorted(members.items())]
