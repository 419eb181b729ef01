"""Which tensors are copies of others in a wider dtype: the masters of mixed precision.

Only values tell: neither the object nor its memory is that of the parameter. A copy has its
shape, or is flat and holds several, one after the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .content import no_values
from .digest import read_contents


def wide_copies(tensors: Sequence[Tensor], candidates: Sequence[Tensor]) -> dict[int, int]:
    """Return by index of a tensor the candidate that holds its values in a wider dtype.

    Each candidate of the same shape stands for one tensor. Where several have equal values
    (norms, zero biases) and one has no copy, the neighbors that are certain tell which.
    """
    found = _of_one_shape(tensors, candidates)
    used = set(found.values())
    for number, flat in enumerate(candidates):
        if number not in used and _readable(flat) and flat.dim() == 1:
            rest = [i for i in range(len(tensors)) if i not in found]
            found.update((i, number) for i in _in_flat(tensors, rest, flat))
    return found


def _readable(tensor: Tensor) -> bool:
    plain = not (is_lazy(tensor) or tensor.is_nested) and tensor.layout is torch.strided
    return plain and tensor.is_floating_point() and tensor.numel() > 0 and not no_values(tensor)


def _wider(candidate: Tensor, tensor: Tensor) -> bool:
    return candidate.element_size() > tensor.element_size()


def _of_one_shape(tensors: Sequence[Tensor], candidates: Sequence[Tensor]) -> dict[int, int]:
    narrow = [i for i, tensor in enumerate(tensors) if _readable(tensor)]
    kinds = {(tensors[i].shape, tensors[i].dtype) for i in narrow}
    have: dict[tuple[torch.dtype, Hashable], list[int]] = {}
    for number, candidate in enumerate(candidates):
        if not _readable(candidate):
            continue
        for shape, dtype in kinds:
            if candidate.shape == shape and candidate.element_size() > dtype.itemsize:
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
    sure = sorted(found.items())
    for key, asking in want.items():
        left = [number for number in have[key] if number not in set(found.values())]
        by_place: dict[int, list[int]] = {}
        for number in left:
            by_place.setdefault(max((i for i, n in sure if n < number), default=-1), []).append(
                number
            )
        waiting = []
        for i in asking:
            if i in found:
                continue
            here = by_place.get(max((j for j, _ in sure if j < i), default=-1))
            if here:
                found[i] = here.pop(0)
            else:
                waiting.append(i)
        rest = [number for numbers in by_place.values() for number in numbers]
        found.update(zip(waiting, sorted(rest), strict=False))
    return found


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
            if not _readable(tensors[i]) or not _wider(flat, tensors[i]):
                continue
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
