"""Some elements of entries: the part that a user declares, and what is left beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from .inventory import Entry
from .parts import Part
from .patterns import Pattern


def part(name: Pattern, index: Any) -> Part:
    """Select some elements of a parameter or buffer, where a pattern can stand.

    ``name`` is a name (or another pattern), ``index`` whatever indexes a tensor: a slice, a tuple
    of slices, index numbers, a boolean mask. The index counts in the whole tensor, under any of
    its names. Assertions about values and gradients take parts:
    ``assert_unchanged(model, part("weight", mask))``; in a mapping of patterns, a later part takes
    its elements away from the patterns before it.

    A usage error for a mask of another shape, an index that is out of range or selects nothing,
    and in assertions about whole parameters.

    >>> import torch
    >>> from torch import nn
    >>> from pytest_paramcheck import assert_unchanged
    >>> model = nn.Linear(3, 2, bias=False)
    >>> with assert_unchanged(model, part("weight", (slice(None), 0))):
    ...     model.weight.data[:, 1:] += 1
    """
    __tracebackhide__ = True
    if isinstance(name, Part):
        raise ParamCheckUsageError("part: a part of a part is none: give one index")
    return Part(name, index)


def elements(entry: Entry) -> Tensor | None:
    """Return what an entry stands for: its tensor, or the elements of it that a part selects."""
    if entry.part is None or entry.tensor is None:
        return entry.tensor
    return entry.part.of(entry.tensor, entry.name.removesuffix(entry.part.text))


def with_part(entry: Entry, part: Part) -> Entry:
    """Return what stands for some elements of an entry: the same tensor, under other names."""
    some = Entry(entry.name, entry.tensor, entry.kind, entry.persistent)
    some.names = [name + part.text for name in entry.names]
    some.part = part
    return some


def rest_of(entry: Entry, parts: Iterable[Part], text: str = "[the rest]") -> Part | None:
    """Return the elements that none of the parts selects; None where there are none."""
    if entry.tensor is None:
        return None
    left = torch.ones(tuple(entry.tensor.shape), dtype=torch.bool, device="cpu")
    for one in parts:
        left &= ~one.mask(entry.tensor, entry.name)
    if not left.any():
        return None
    return Part(entry.name, whole_rows(left), text)


def whole_rows(mask: Tensor) -> Tensor:
    """Return a mask as one over rows, where it selects whole rows: what it selects keeps shape."""
    if mask.dim() < 2:
        return mask
    rows = mask.reshape(len(mask), -1)
    some, every = rows.any(1), rows.all(1)
    return some if torch.equal(some, every) else mask
