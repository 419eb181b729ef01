"""Whether two tensors that differ hold the same values in another order, and in which.

What converters of checkpoints do: a square weight that is not transposed, the rows of query, key
and value (or the gates of an LSTM, or channels) in another library's order. Every shape fits,
every key is there, and nothing but the values says so.

Tests: ``tests/unit/test_rearranged.py``.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from ..parameters.tensors.content import no_values
from ..parameters.tensors.memory import PLAIN_TYPES

#: Sorting is slower than comparing: of larger tensors nothing is said.
_MOST = 1 << 24
#: Runs of rows, or of other slices, that are named; more are "another order".
_RUNS = 8


def rearranged(a: Tensor, b: Tensor, there: str) -> str:
    """Return in which order ``a`` holds the values of ``b``, or ``""`` where it does not.

    ``there`` is where ``b`` is: "in the checkpoint". Says nothing of values that mostly repeat:
    a mask has the values of any other in another order.
    """
    if not (_is_plain(a) and _is_plain(b)) or a.shape != b.shape or a.dtype != b.dtype:
        return ""
    if not 4 <= a.numel() <= _MOST:
        return ""
    with torch.no_grad():
        a, b = (side.detach().to("cpu", torch.float64) for side in (a, b))
        # Two sums tell nearly all apart that are not, and cost no more than the comparison did.
        if not all(
            torch.isclose(x.sum(), y.sum(), rtol=1e-9, atol=1e-9)
            for x, y in ((a.abs(), b.abs()), (a.square(), b.square()))
        ):
            return ""
        ours, theirs = a.flatten().sort().values, b.flatten().sort().values
        if not torch.equal(ours, theirs) or int((ours.diff() != 0).sum()) * 2 < ours.numel():
            return ""
        if torch.equal(a, b):
            return ""
        for one, other in combinations(range(a.dim()), 2):
            if a.shape[one] == a.shape[other] and torch.equal(a, b.transpose(one, other)):
                return f"transposed (dimensions {one} and {other})"
        said = (_slices(a, b, dimension, there) for dimension in range(a.dim()))
        return next(filter(None, said), "the same values in another order")


def _is_plain(tensor: Tensor) -> bool:
    """Whether float64 holds each value of a tensor: numbers, not in shards and not packed."""
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and "float4" not in str(tensor.dtype)
        and not no_values(tensor)
    )


def _slices(a: Tensor, b: Tensor, dimension: int, there: str) -> str:
    """Say which are which, where only the order along one dimension is another."""
    if a.shape[dimension] < 2:
        return ""
    one, several, of = _words(a.dim(), dimension)
    ours, theirs = (side.movedim(dimension, 0).reshape(a.shape[dimension], -1) for side in (a, b))
    weights = torch.rand(
        ours.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    # Equal slices have equal sums, which sorting puts beside each other; whether they are is asked.
    order, other = ((side * weights).sum(1).argsort() for side in (ours, theirs))
    source = torch.empty_like(order)
    source[order] = other
    if not torch.equal(ours, theirs[source]):
        return ""
    said = f"the same {several}{of} in another order"
    runs = _runs(source.tolist())
    if len(runs) > _RUNS:
        return said
    first, length, found = next(run for run in runs if run[0] != run[2])
    if length == 1:
        return f"{said} ({one} {first} is {one} {found} {there})"
    here, where = (f"{several} {at}..{at + length - 1}" for at in (first, found))
    return f"{said} ({here} are {where} {there})"


def _words(dimensions: int, dimension: int) -> tuple[str, str, str]:
    """Return what is along a dimension: one, several, and of what."""
    if dimensions == 1:
        return "value", "values", ""
    if dimension == 0:
        return "row", "rows", ""
    if dimensions == 2:
        return "column", "columns", ""
    return "slice", "slices", f" of dimension {dimension}"


def _runs(source: list[int]) -> list[tuple[int, int, int]]:
    """Return where each run of slices that stayed together begins, its length, and where it was."""
    runs: list[tuple[int, int, int]] = []
    for row, found in enumerate(source):
        if runs and found == runs[-1][2] + runs[-1][1]:
            first, length, began = runs[-1]
            runs[-1] = first, length + 1, began
        else:
            runs.append((row, 1, found))
    return runs
