"""Which tensors are copies of others in a wider dtype: the masters of mixed precision.

Only values tell: neither the object nor its memory is that of the parameter. A copy has its
shape, or is flat and holds several, one after the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .content import INTEGER_OF_SIZE, no_values
from .digest import read_contents
from .sharded import is_dtensor


def wide_copies(tensors: Sequence[Tensor], candidates: Sequence[Tensor]) -> dict[int, int]:
    """Return by index of a tensor the candidate that holds its values in a wider dtype.

    Each candidate of the same shape stands for one tensor. Where several have equal values
    (norms, zero biases) and one has no copy, the neighbors that are certain tell which.
    """
    narrow = [i for i, tensor in enumerate(tensors) if _readable(tensor)]
    if not narrow:
        return {}
    width = min(tensors[i].element_size() for i in narrow)
    wide = {n: c for n, c in enumerate(candidates) if _readable(c) and c.element_size() > width}
    found = _of_one_shape(tensors, narrow, wide)
    used = set(found.values())
    # To flatten what is sharded the ranks have to talk, and here only some of them may be.
    flats = {
        number: flat
        for number, flat in wide.items()
        if number not in used and flat.dim() == 1 and not is_dtensor(flat)
    }
    if flats:
        rest = [i for i in narrow if i not in found and not is_dtensor(tensors[i])]
        begin = _Beginnings(tensors, rest)
        for number, flat in flats.items():
            near = [i for i in begin.within(flat) if i not in found]
            found.update((i, number) for i in _in_flat(tensors, near, flat))
    return found


def _readable(tensor: Tensor) -> bool:
    plain = not (is_lazy(tensor) or tensor.is_nested) and tensor.layout is torch.strided
    return plain and tensor.is_floating_point() and tensor.numel() > 0 and not no_values(tensor)


def _of_one_shape(
    tensors: Sequence[Tensor], narrow: Sequence[int], wide: Mapping[int, Tensor]
) -> dict[int, int]:
    kinds: dict[torch.Size, set[torch.dtype]] = {}
    for i in narrow:
        kinds.setdefault(tensors[i].shape, set()).add(tensors[i].dtype)
    have: dict[tuple[torch.dtype, Hashable], list[int]] = {}
    for number, candidate in wide.items():
        for dtype in kinds.get(candidate.shape, ()):
            if candidate.element_size() > dtype.itemsize:
                have.setdefault((dtype, _token(candidate, dtype)), []).append(number)
    want: dict[tuple[torch.dtype, Hashable], list[int]] = {}
    for i in narrow:
        key = (tensors[i].dtype, _token(tensors[i], tensors[i].dtype))
        if key in have:
            want.setdefault(key, []).append(i)
    found: dict[int, int] = {}
    for key, asking in want.items():
        if len(asking) == len(have[key]):
            found.update(zip(asking, have[key], strict=True))
    # The certain ones, by tensor and by copy, to find the nearest before a number of each.
    sure = sorted(found)
    copies = sorted((number, i) for i, number in found.items())
    latest = list(accumulate((i for _, i in copies), max))
    taken = set(found.values())
    for key, asking in want.items():
        by_place: dict[int, list[int]] = {}
        for number in have[key]:
            if number not in taken:
                at = bisect_left(copies, (number,))
                by_place.setdefault(latest[at - 1] if at else -1, []).append(number)
        waiting = []
        for i in asking:
            if i in found:
                continue
            at = bisect_left(sure, i)
            here = by_place.get(sure[at - 1] if at else -1)
            if here:
                found[i] = here.pop(0)
            else:
                waiting.append(i)
        rest = [number for numbers in by_place.values() for number in numbers]
        found.update(zip(waiting, sorted(rest), strict=False))
        taken.update(found[i] for i in asking if i in found)
    return found


class _Beginnings:
    """How tensors begin, sorted: which of many may lie in a flat copy is told by one look at it."""

    def __init__(self, tensors: Sequence[Tensor], rest: Sequence[int]) -> None:
        #: By dtype and by how many elements are compared, two or the one there is: the sorted
        #: beginnings, and the tensors of each.
        self._known: dict[tuple[torch.dtype, int], tuple[Tensor, list[list[int]]]] = {}
        groups: dict[tuple[torch.dtype, int], dict[int, list[int]]] = {}
        with torch.no_grad():
            for i in rest:
                first = tensors[i].detach().reshape(-1)[:2]
                key = int(_pairs(first, len(first))[0])
                group = groups.setdefault((tensors[i].dtype, len(first)), {})
                group.setdefault(key, []).append(i)
        for kind, members in groups.items():
            keys = sorted(members)
            self._known[kind] = torch.tensor(keys, device="cpu"), [members[key] for key in keys]

    def within(self, flat: Tensor) -> list[int]:
        """Return the tensors of a narrower dtype that begin like some place in a flat one."""
        found: set[int] = set()
        with torch.no_grad():
            for (dtype, count), (keys, members) in self._known.items():
                if flat.element_size() <= dtype.itemsize:
                    continue
                for start in range(0, flat.numel() - count + 1, _PIECE):
                    piece = flat.detach()[start : start + _PIECE + count - 1].to(dtype)
                    pairs = _pairs(piece, count)
                    at = torch.searchsorted(keys, pairs).clamp(max=len(keys) - 1)
                    hits = set(at[keys[at] == pairs].tolist())
                    found.update(i for hit in hits for i in members[hit])
        return sorted(found)


#: How many elements of a flat copy are looked at in one go.
_PIECE = 1 << 20


def _pairs(values: Tensor, count: int) -> Tensor:
    """Return each run of one or two elements as one integer; 0.0 and -0.0 are one number."""
    bits = values.cpu().contiguous().view(INTEGER_OF_SIZE[values.element_size()]).to(torch.int64)
    negative_zero = 128 if values.element_size() == 1 else -(1 << 8 * values.element_size() - 1)
    bits = bits.masked_fill(bits == negative_zero, 0)
    return bits if count == 1 else (bits[:-1] << 32) ^ bits[1:]


def _token(tensor: Tensor, dtype: torch.dtype) -> Hashable:
    with torch.no_grad():
        return tuple(tensor.shape), read_contents([tensor.detach().to(dtype)])[0].digest


def _in_flat(tensors: Sequence[Tensor], rest: Sequence[int], flat: Tensor) -> list[int]:
    """Return which tensors lie one after the other in a flat copy; the others are not in it.

    Equal values (norms, zero biases) fit in several places: of the ways to lay them out those
    are followed that hold most, so that one that is missing does not push the others away.
    """
    ways: list[_Way] = [(0, 0, ())]
    with torch.no_grad():
        for i in rest:
            mine = tensors[i].detach().reshape(-1)
            longer = [
                (place + mine.numel(), held + mine.numel(), (*found, i))
                for end, held, found in ways
                if (place := _place_of(mine, flat.detach(), end)) is not None
            ]
            ways = _best([*longer, *ways])
    return list(max(ways, key=lambda way: way[1])[2])


#: Where the next tensor may begin, how many elements were found so far, and of which tensors.
_Way: TypeAlias = tuple[int, int, tuple[int, ...]]
#: How many ways are followed, and how far padding between two tensors may reach.
_WAYS = 8
_PADDING = 4096


def _best(ways: Sequence[_Way]) -> list[_Way]:
    """Return the ways that hold most, each unless another holds as much and ends before it."""
    kept: list[_Way] = []
    for way in sorted(ways, key=lambda way: (-way[1], way[0])):
        if not kept or way[0] < kept[-1][0]:
            kept.append(way)
    return kept[:_WAYS]


def _place_of(mine: Tensor, flat: Tensor, start: int) -> int | None:
    """Return where a tensor's values begin, at ``start`` or behind some padding."""
    size = mine.numel()
    part = flat[start : start + size + _PADDING].to(device=mine.device, dtype=mine.dtype)
    if part.numel() < size:
        return None
    for place in part[: part.numel() - size + 1].eq(mine[0]).nonzero().flatten().tolist():
        if torch.equal(part[place : place + size], mine):
            return start + int(place)
    return None
