"""Exact overlap of strided layouts: do two tensors have a memory cell in common?

One storage does not mean shared memory (disjoint slices of a flat buffer, interleaved columns
of one matrix), and overlapping byte intervals do not either. The question is an integer
equation: element ``x`` of a tensor starts at byte ``base + sum(x_i * stride_i)`` and is
``itemsize`` bytes long, so two tensors share a cell exactly where

    sum(x_i * s_i) + p - sum(y_j * t_j) - q = base_b - base_a

has a solution within the bounds of ``x, y`` (sizes) and ``p, q`` (bytes of one element).
:func:`reachable` decides it without looking at memory. Pure integers: no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True, slots=True)
class Layout:
    """The bytes of one strided block: where it starts, and (size, byte stride) per dimension.

    Only dimensions of size 2 and more are kept (the stride of a size-1 dimension means
    nothing), so equal layouts are the same memory in the same geometry. ``shape`` keeps them.
    """

    base: int
    shape: tuple[int, ...]
    dims: tuple[tuple[int, int], ...]
    itemsize: int

    @staticmethod
    def of(base: int, shape: Sequence[int], byte_strides: Sequence[int], itemsize: int) -> Layout:
        """Build from sizes and strides in bytes."""
        dims = tuple((n, s) for n, s in zip(shape, byte_strides, strict=True) if n > 1)
        return Layout(base, tuple(shape), dims, itemsize)

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.base + sum((n - 1) * s for n, s in self.dims) + self.itemsize


def overlap(a: Layout, b: Layout) -> bool:
    """Whether two layouts in one address space have a byte in common."""
    if a.base >= b.end or b.base >= a.end:
        return False
    terms = [(s, n - 1) for n, s in (*a.dims, *b.dims)]
    terms += [(1, a.itemsize - 1), (1, b.itemsize - 1)]
    # b's terms enter with a minus: substituting (bound - y) for y makes them positive.
    target = b.base - a.base + sum((n - 1) * s for n, s in b.dims) + b.itemsize - 1
    return reachable(target, terms)


def overlaps_itself(layout: Layout) -> bool:
    """Whether two different elements of one tensor share a byte (expanded, windowed)."""
    extent = layout.itemsize
    for n, stride in sorted(layout.dims, key=lambda dim: dim[1]):
        if stride < extent:
            break
        extent += (n - 1) * stride
    else:
        return False  # every stride clears all that lies below it
    # Exactly: is there a non-zero difference d of two indices with |sum(d_i s_i)| < itemsize?
    # Look at each dimension as the first one that differs, with d_i >= 1 by symmetry.
    slack = layout.itemsize - 1
    for first, (n, stride) in enumerate(layout.dims):
        rest = layout.dims[first + 1 :]
        terms = [(stride, n - 2), (1, 2 * slack)]
        terms += [(s, 2 * (m - 1)) for m, s in rest]
        # d_i = 1 + x_i and d_j = y_j - (m_j - 1); the two bytes differ by slack - z.
        target = sum((m - 1) * s for m, s in rest) + slack - stride
        if reachable(target, terms):
            return True
    return False


def reachable(target: int, terms: Sequence[tuple[int, int]]) -> bool:
    """Whether ``sum(c_i * x_i) == target`` has a solution with integers ``0 <= x_i <= u_i``.

    ``terms`` are pairs ``(c_i, u_i)``, ``c_i >= 0``. Exact. In general this is a subset-sum,
    but the strides of real tensors are multiples of one another, and then terms merge: with
    ``c`` dividing ``d <= c * (u + 1)``, ``c * x + d * y`` reaches every multiple of ``c`` up to
    its maximum, as one term does. What remains is searched from the largest coefficient down,
    in the values of ``x_i`` that bounds and greatest common divisors leave.
    """
    merged = _merge(terms)
    divisors = [0]
    tops = [0]
    for coefficient, bound in merged:
        divisors.append(gcd(divisors[-1], coefficient))
        tops.append(tops[-1] + coefficient * bound)
    dead: set[tuple[int, int]] = set()

    def search(position: int, rest: int) -> bool:
        """Can the terms below ``position`` make ``rest``?"""
        if rest == 0:
            return True
        if rest < 0 or rest > tops[position] or rest % divisors[position]:
            return False
        if position == 1:
            return True  # one term: divisible and within bounds is enough
        if (position, rest) in dead:
            return False
        coefficient, bound = merged[position - 1]
        below, top = divisors[position - 1], tops[position - 1]
        low = max(0, -((top - rest) // coefficient))
        high = min(bound, rest // coefficient)
        # Only every step-th value leaves a remainder that the smaller terms' divisor divides.
        step = below // gcd(below, coefficient)
        start = low
        while start <= high and start - low < step and (rest - coefficient * start) % below:
            start += 1
        if start - low >= step:
            start = high + 1
        for x in range(start, high + 1, step):
            if search(position - 1, rest - coefficient * x):
                return True
        dead.add((position, rest))
        return False

    return search(len(merged), target) if merged else target == 0


def _merge(terms: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Combine terms that together reach exactly what one term does, smallest first."""
    bounds: dict[int, int] = {}
    for coefficient, bound in terms:
        if coefficient > 0 and bound > 0:
            bounds[coefficient] = bounds.get(coefficient, 0) + bound
    merged: list[tuple[int, int]] = []
    for coefficient, bound in sorted(bounds.items()):
        for position, (smaller, reach) in enumerate(merged):
            if coefficient % smaller == 0 and coefficient <= smaller * (reach + 1):
                merged[position] = (smaller, reach + bound * (coefficient // smaller))
                break
        else:
            merged.append((coefficient, bound))
    return merged
