"""How much of a tensor other tensors hold through its memory, and whether its gradient gets there.

An optimizer may hold a flat buffer in place of the parameters that lie in it, or a slice of one
parameter only: what of it a step moves is a question about elements.

Tests: ``tests/unit/test_cover.py`` and ``test_optimizer.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import torch
from torch import Tensor, nn

from .content import no_values, same_bits
from .memory import has_address, memory_of
from .overlap import Layout, overlaps_itself


@dataclass(frozen=True, slots=True)
class Cover:
    """How many elements of a tensor are in none of some others, and in several of them."""

    elements: int
    missing: int
    repeated: int


def cover(tensor: Tensor, others: Sequence[Tensor]) -> Cover:
    """Count the elements of a tensor that lie in no other one, and in more than one."""
    missing = repeated = elements = 0
    memories = [memory_of(other) for other in others]
    for block in memory_of(tensor).blocks:
        layout = block.layout
        held = [b.layout for memory in memories for b in memory.blocks if b.space == block.space]
        held = [other for other in held if other.base < layout.end and layout.base < other.end]
        count = _of_runs if all(map(_is_run, (layout, *held))) else _of_elements
        none, several = count(layout, held)
        missing, repeated = missing + none, repeated + several
        elements += torch.Size(layout.shape).numel()
    return Cover(elements, missing, repeated)


def near(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Leave out the tensors whose bytes lie apart from those of all others.

    A screen for thousands of ordinary tensors in host memory, in plain numbers; of other kinds
    nothing is left out.
    """
    spans = []
    for number, tensor in enumerate(tensors):
        plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
        if not plain or tensor.device.type != "cpu" or tensor.is_nested:
            return list(tensors)
        size = tensor.numel()
        if not size:
            continue
        if not has_address(tensor):
            return list(tensors)
        if not tensor.is_contiguous():
            pairs = zip(tensor.shape, tensor.stride(), strict=True)
            size = 1 + sum((n - 1) * stride for n, stride in pairs)
        start = tensor.data_ptr()
        spans.append((start, start + size * tensor.element_size(), number))
    meeting: set[int] = set()
    last, reach = -1, -1
    for start, end, number in sorted(spans):
        if start < reach:
            meeting |= {last, number}
        if end > reach:
            last, reach = number, end
    return [tensor for number, tensor in enumerate(tensors) if number in meeting]


def _is_run(layout: Layout) -> bool:
    """Whether a tensor is all the bytes from its first to its last, each once."""
    size = torch.Size(layout.shape).numel() * layout.itemsize
    return layout.end - layout.base == size and not overlaps_itself(layout)


def _of_runs(layout: Layout, held: Sequence[Layout]) -> tuple[int, int]:
    edges = {layout.base, layout.end}
    edges.update(e for other in held for e in (other.base, other.end) if e > layout.base)
    marks = sorted(edge for edge in edges if edge <= layout.end)
    missing = repeated = 0  # bytes
    for start, end in pairwise(marks):
        times = sum(other.base <= start and end <= other.end for other in held)
        missing += end - start if not times else 0
        repeated += end - start if times > 1 else 0
    return -(-missing // layout.itemsize), -(-repeated // layout.itemsize)


def _of_elements(layout: Layout, held: Sequence[Layout]) -> tuple[int, int]:
    unit = 0
    for other in (layout, *held):
        unit = gcd(unit, other.itemsize, other.base - layout.base, *(s for _, s in other.dims))
    size = (layout.end - layout.base) // unit
    times = torch.zeros(size, dtype=torch.int16, device="cpu")
    for other in held:
        cells = _cells(other, layout.base, unit).flatten()
        cells = cells[(cells >= 0) & (cells < size)]
        once = torch.zeros(size, dtype=torch.int16, device="cpu")
        once[cells] = 1
        times += once
    mine = times[_cells(layout, layout.base, unit)]
    return int((mine == 0).any(1).sum()), int((mine > 1).any(1).sum())


def _cells(layout: Layout, origin: int, unit: int) -> Tensor:
    """Return the units of memory of each element, a row for each."""

    def steps(count: int, stride: int) -> Tensor:
        return torch.arange(count, device="cpu") * (stride // unit)

    cells = torch.full((1,), (layout.base - origin) // unit, device="cpu")
    for count, stride in layout.dims:
        cells = (cells[:, None] + steps(count, stride)).flatten()
    return cells[:, None] + steps(layout.itemsize // unit, unit)


def gradient_arrives(tensor: Tensor, held: Tensor) -> bool:
    """Whether what arrives as the gradient of a tensor gets to another one on its memory.

    Through the graph where the tensor is a view of the other one there; else where code sets
    ``held.grad``: it has one, in whose memory the tensor's gradient lies, or whose values there
    are not all zero while those of the tensor's gradient are not.
    """
    if tensor.grad_fn is not None:
        return tensor._base is held
    if not held.is_leaf or held.grad is None:
        return False
    alias = memory_of(tensor).key == memory_of(held).key
    if tensor.grad is None:
        # Nothing to compare: of a flat buffer a gradient is set by hand, a twin has its own.
        return not alias
    with torch.no_grad():
        there = region_of(held.grad, held, tensor)
        if there is None:
            return not alias
        if memory_of(there).overlaps(memory_of(tensor.grad)):
            return True
        if no_values(there) or no_values(tensor.grad):
            return not alias
        if alias:
            return same_bits(there, tensor.grad.detach()) is True
        return bool(there.any()) or not bool(tensor.grad.any())


def region_of(grad: Tensor, held: Tensor, tensor: Tensor) -> Tensor | None:
    """Return the part of a gradient that belongs to a tensor that lies in what it is of."""
    strided = all(t.layout is torch.strided for t in (grad, held, tensor))
    if not strided or grad.shape != held.shape or grad.stride() != held.stride():
        return None
    blocks, outer = memory_of(tensor).blocks, memory_of(held).blocks
    if len(blocks) != 1 or len(outer) != 1 or held.element_size() != tensor.element_size():
        return None
    mine, theirs = blocks[0].layout, outer[0].layout
    start, rest = divmod(mine.base - theirs.base, tensor.element_size())
    if start < 0 or rest or mine.end > theirs.end:
        return None
    return grad.detach().as_strided(tensor.shape, tensor.stride(), grad.storage_offset() + start)
