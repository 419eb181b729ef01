"""Parts: some elements of an entry, where an assertion is about values or gradients.

``part("emb.weight", rows)`` stands where a pattern stands. The index is that of the whole tensor,
under any of its names; an index that selects nothing asks nothing and is a wrong call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import cut, first_line
from ..tensors.call import gathered
from ..tensors.content import no_values
from ..tensors.describe import size_text

#: How many numbers of an index a name shows.
_FEW = 4


class Part:
    """Some elements of whatever a pattern matches. Hashable by identity: slices are not hashable
    before Python 3.12."""

    __slots__ = ("index", "pattern", "text")

    def __init__(self, pattern: Any, index: Any, text: str | None = None) -> None:
        #: A pattern of any other kind.
        self.pattern = pattern
        self.index = index
        #: How it stands behind a name: ``[100:]``.
        self.text = f"[{_index_text(index)}]" if text is None else text

    def __repr__(self) -> str:
        return f"part({self.pattern!r}, {self.text})"

    def of(self, tensor: Tensor, name: str) -> Tensor:
        """Return these elements, without a graph: a view where the index makes one.

        Raises :class:`ParamCheckUsageError`, which speaks of ``name``, where the index does not
        fit the tensor or selects nothing of it.
        """
        if tensor.device.type != "meta" and (reason := no_values(tensor)):
            raise ParamCheckUsageError(f"{name}: {reason}; {name}{self.text} cannot be read")
        with torch.no_grad():
            whole = _whole(tensor)
            try:
                found = _indexed(whole, _on(self.index, whole))
            except (IndexError, TypeError, ValueError, RuntimeError) as error:
                raise ParamCheckUsageError(
                    f"part: {name}{self.text} does not fit {size_text(whole)}: "
                    f"{first_line(error, 120)}"
                ) from None
        if not found.numel():
            raise ParamCheckUsageError(
                f"part: {name}{self.text} of {size_text(whole)} selects nothing"
            )
        return found

    def mask(self, tensor: Tensor, name: str) -> Tensor:
        """Return which elements these are, as a mask on the cpu."""
        marks = torch.zeros(tuple(tensor.shape), dtype=torch.bool, device="cpu")
        self.of(marks, name)  # says where it does not fit
        marks[_on(self.index, marks)] = True
        return marks


def _whole(tensor: Tensor) -> Tensor:
    """Return the tensor that an index counts in: all of a DTensor, a sparse one made dense."""
    values = gathered(tensor)
    if values.layout is not torch.strided:
        values = values.to_dense()
    return values


def _indexed(whole: Tensor, index: Any) -> Tensor:
    if whole.element_size() == 1 and whole.is_floating_point():
        return whole.view(torch.uint8)[index].view(whole.dtype)  # float8 has no gather of its own
    return whole[index]


def _on(index: Any, tensor: Tensor) -> Any:
    """Return an index that a tensor takes, wherever the index lies."""
    if isinstance(index, tuple):
        found: list[Any] = []
        for one in index:
            moved = _on_one(one, tensor)
            found += moved if isinstance(moved, tuple) else [moved]
        return tuple(found)
    return _on_one(index, tensor)


def _on_one(index: Any, tensor: Tensor) -> Any:
    if type(index).__module__ == "numpy" and not index.ndim:
        return index.item()  # one of its numbers, which torch takes for a list
    if isinstance(index, (list, range)) or type(index).__module__ == "numpy":
        dtype = None if len(index) else torch.int64
        numbers = list(index) if isinstance(index, range) else index
        index = torch.as_tensor(numbers, dtype=dtype, device="cpu")
    if not isinstance(index, Tensor):
        return index
    if index.dtype is torch.uint8:
        index = index.bool()  # as torch reads it, and warns
    if tensor.device.type != "meta":
        return index.to(tensor.device)
    # On meta nothing says how many a mask selects.
    return index.nonzero(as_tuple=True) if index.dtype is torch.bool else index


def _index_text(index: Any) -> str:
    if isinstance(index, tuple):
        return ", ".join(map(_index_text, index))
    if isinstance(index, slice):
        start, stop, step = (
            "" if one is None else str(one) for one in (index.start, index.stop, index.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    if index is Ellipsis:
        return "..."
    if isinstance(index, list):
        try:
            index = torch.as_tensor(index, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            return cut(str(index), 40)  # said to be no index where it is used
    if isinstance(index, Tensor) or type(index).__module__ == "numpy":
        values = torch.as_tensor(index)
        if reason := no_values(values):
            raise ParamCheckUsageError(f"part: the index is {reason}: nothing says what it selects")
        if values.dtype in (torch.bool, torch.uint8) and values.dim():
            return f"mask of {int(values.bool().sum()):,}"
        if not values.dim():
            return str(values.item())
        index = values.tolist() if values.numel() <= _FEW else range(values.numel())
    if isinstance(index, range):
        return f"{len(index):,} places"
    return str(index)
