"""Which of many layouts meet: a sweep over their intervals, without asking every pair.

Interleaved views (the columns of a matrix, tiles, heads of a fused weight) all lie within one
another's intervals and share nothing. What tells them apart is where they stand within a row:
a layout whose largest stride is ``R`` repeats every ``R`` bytes, so it can meet only what has a
byte at the same place modulo ``R``. Pure integers: no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from .overlap import Layout, overlap

#: A layout, and the index of the tensor it is of.
Span: TypeAlias = tuple[Layout, int]


def join_overlapping(spans: Iterable[Span], union: Union) -> None:
    """Join the indices of all layouts in one address space that have a byte in common.

    Layouts come in the order of their first byte. Those without holes that meet are one run,
    with the running maximum end: ``[0,100) [10,20) [50,60)`` is one group, which comparing
    neighbors misses. The others are kept by row length and place in the row, and asked exactly.
    """
    run_end, run_index = -1, -1
    rows: dict[tuple[int, int], _Rows] = {}
    for layout, index in sorted(spans, key=_by_first_byte):
        base = layout.base
        if base < run_end:
            union.join(run_index, index)  # its first byte is within the run
        if rows:
            rows = {key: kept for key, kept in rows.items() if kept.end > base}
            for kept in rows.values():
                kept.join_meeting(layout, index, union)
        if is_solid(layout):
            if base >= run_end:
                run_index = index
            run_end = max(run_end, layout.end)
            continue
        row = row_of(layout)
        key = row, inside_row(layout, row).bit_length()
        rows.setdefault(key, _Rows(*key)).add(layout, index)


def _by_first_byte(span: Span) -> tuple[int, int]:
    return span[0].base, span[1]


def is_solid(layout: Layout) -> bool:
    """Whether a layout has every byte between its first and its last."""
    extent = layout.itemsize
    for size, stride in sorted(layout.dims, key=lambda dim: dim[1]):
        if stride > extent:
            return False
        extent += (size - 1) * stride
    return True


def row_of(layout: Layout) -> int:
    """The largest stride: the length of what repeats."""
    return max(stride for _, stride in layout.dims)


def inside_row(layout: Layout, row: int) -> int:
    """How many bytes of a row a layout covers from its first; strides of whole rows add none."""
    return layout.itemsize + sum((n - 1) * s for n, s in layout.dims if s % row)


class _Rows:
    """Layouts with rows of one length, in buckets of the place in the row where they begin."""

    def __init__(self, row: int, bits: int) -> None:
        self.row = row
        self.width = min(row, 1 << bits)  # more than any of them covers
        self.count = -(-row // self.width)
        self.buckets: dict[int, list[Span]] = {}
        self.end = 0

    def add(self, layout: Layout, index: int) -> None:
        self.buckets.setdefault(layout.base % self.row // self.width, []).append((layout, index))
        self.end = max(self.end, layout.end)

    def join_meeting(self, layout: Layout, index: int, union: Union) -> None:
        """Join what meets a layout that begins after all that are kept here."""
        for number in self._near(layout):
            bucket = self.buckets.get(number)
            if not bucket:
                continue
            still_open = [span for span in bucket if span[0].end > layout.base]
            self.buckets[number] = still_open
            for other, of in still_open:
                if union.root(of) != union.root(index) and overlap(other, layout):
                    union.join(of, index)

    def _near(self, layout: Layout) -> Iterator[int]:
        """The buckets of what can have a byte where the layout has one, modulo the row."""
        start = layout.base % self.row - self.width  # of what begins before and reaches into it
        covered = inside_row(layout, self.row) + self.width
        buckets = covered // self.width + 2
        if buckets >= min(self.count, len(self.buckets)):
            yield from list(self.buckets)
            return
        first = start // self.width
        # The last bucket of a row can be shorter than the others: one more at the turn.
        yield from {number % self.count for number in range(first - 1, first + buckets + 1)}


class Union:
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
