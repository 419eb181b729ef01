"""Other values for every parameter of a copy, before something is loaded into it.

A load that does nothing, adds to what is there, or skips zeros must not look like one that
worked: so every cell gets random bits that differ from its own, none of them zero, and finite
where it is a float. A constant in all places would be a value that some loads leave right.

Tests: ``tests/unit/test_roundtrip.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from ..subject.inventory import Inventory
from ..tensors.content import no_values
from ..tensors.memory import inner_tensors
from ..tensors.overlap import Layout, overlaps_itself

#: Random numbers drawn for one overwrite; longer tensors repeat them (a prime, so that no row
#: of a tensor is as long). What is written differs from what was there, wherever they repeat.
_DRAWN = 65_537
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def overwrite(inventory: Inventory) -> None:
    """Give every parameter and persistent buffer other values than it has, element by element.

    The same ones each time: a message is the same in every run. Raises
    :class:`ParamCheckUsageError` for one that cannot be written: a load that does nothing to it
    would look like one that worked.
    """
    source = _Random()
    # Tensors of one storage may share cells: each is told from what all of them were before.
    groups: dict[object, list[tuple[str, Tensor]]] = {}
    for entry in inventory.entries:
        tensor = entry.tensor
        if tensor is not None and entry.persistent and not no_values(tensor):
            for part in _parts(tensor):
                if part.numel():
                    groups.setdefault(_storage(part), []).append((entry.name, part))
    for group in groups.values():
        with torch.no_grad():
            others = []
            for name, part in group:
                with _or_named(name):
                    others.append(source.other_than(part))
            for (name, part), other in zip(group, others, strict=True):
                with _or_named(name):
                    _write(part, other)


@contextmanager
def _or_named(name: str) -> Iterator[None]:
    """Raise what torch does as an error that names the tensor."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        raise ParamCheckUsageError(
            f"{name}: a copy of it cannot be overwritten, so a load that does nothing would "
            f"go unnoticed ({first_line(error, 160) or 'no reason given'})"
        ) from None


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that hold a tensor's values."""
    parts = inner_tensors(tensor)
    if parts is None:
        return [tensor]
    if tensor.layout is not torch.strided:
        parts = parts[-1:]  # indices and values: only those may be anything
    return [inner for part in parts for inner in _parts(part)]


def _storage(tensor: Tensor) -> object:
    try:
        return tensor.device, tensor.untyped_storage().data_ptr()
    except (RuntimeError, ValueError):
        return id(tensor)  # an opaque layout: it shares with nothing that could be asked


def _write(tensor: Tensor, other: Tensor) -> None:
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        with torch.inference_mode():
            _write(tensor, other)
        return
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        tensor.copy_(other)
        return
    layout = Layout.of(0, tensor.shape, tensor.stride(), 1)
    if not overlaps_itself(layout):
        tensor.copy_(other)
        return
    # Expanded, or sliding windows, which torch does not write: cell by cell.
    span = tensor.detach().as_strided((layout.end,), (1,), tensor.storage_offset())
    places = torch.arange(layout.end, device=tensor.device).as_strided(
        tensor.shape, tensor.stride()
    )
    cells, cell_of = torch.unique(places, return_inverse=True)
    values = span[cells]
    values[cell_of] = other  # one of those meant for a cell: all differ from it
    span[cells] = values


class _Random:
    """Random bits, the same in every run, drawn from nobody's generator."""

    def __init__(self) -> None:
        generator = torch.Generator("cpu").manual_seed(0)
        self._drawn = torch.randint(
            -(2**63), 2**63 - 1, (_DRAWN,), generator=generator, dtype=torch.int64, device="cpu"
        )
        self._changes: dict[tuple[torch.dtype, torch.device], _Change] = {}
        self._next = 0

    def other_than(self, tensor: Tensor) -> Tensor:
        """Return a dense tensor of the same shape and dtype that differs in every element."""
        plain = tensor.detach()
        if plain.is_quantized:
            return self._other_quantized(plain)
        plain = plain.resolve_conj().resolve_neg().contiguous()
        dtype = plain.dtype
        if dtype.is_complex:
            return torch.view_as_complex(self.other_than(torch.view_as_real(plain)))
        if dtype == torch.bool:
            return plain.logical_not()
        change = self._changes.get((dtype, plain.device))
        if change is None:
            change = _Change(dtype, plain.device, self._drawn)
            self._changes[dtype, plain.device] = change
        old = plain.view(-1).view(change.integer)
        size = old.numel()
        if size <= _DRAWN // 2:  # nearly all tensors: other masks for each
            start = self._next % (_DRAWN - size)
            self._next += size
            new = change(old, start)
        else:
            new = torch.empty_like(old)
            for start in range(0, size, _DRAWN):
                new[start : start + _DRAWN] = change(old[start : start + _DRAWN], 0)
        return new.view(dtype).view(plain.shape)

    def _other_quantized(self, plain: Tensor) -> Tensor:
        """Return other integers at another scale: both are content."""
        integers = self.other_than(plain.int_repr())
        if plain.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return torch._make_per_tensor_quantized_tensor(
                integers, 2 * plain.q_scale(), plain.q_zero_point()
            )
        return torch._make_per_channel_quantized_tensor(
            integers,
            2 * plain.q_per_channel_scales(),
            plain.q_per_channel_zero_points(),
            plain.q_per_channel_axis(),
        )


class _Change:
    """Changes the bits of one dtype: all of an integer's that keep it small; of a float's the
    sign, the fraction and the last of the exponent.

    The float is nearly as large as before then, so that a load that adds changes it; one that
    was tiny, zero or not finite becomes one near 1.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, drawn: Tensor) -> None:
        self.integer = _INTEGER_OF_SIZE[dtype.itemsize]
        self._float = dtype.is_floating_point and "float4" not in str(dtype)
        allowed = 0x7F
        if self._float:
            fraction = round(-math.log2(torch.finfo(dtype).eps))
            # float8_e8m0fnu is all exponent: it has no sign.
            sign = 1 << (8 * dtype.itemsize - 1) if fraction else 0
            lowest = 1 << fraction
            self._exponent = (sign or 256) - lowest
            # One step more on either side: the last bit of the exponent is among the changed.
            self._least, self._most = 2 * lowest, self._exponent - 2 * lowest
            self._one = torch.ones(1, dtype=dtype, device=device).view(self.integer)
            allowed = -sign | (2 * lowest - 1)
        masks = (drawn & allowed).to(self.integer)
        self._masks = torch.where(masks == 0, 1, masks).to(device, self.integer)

    def __call__(self, old: Tensor, start: int) -> Tensor:
        """Return integers that differ from these; ``start`` is the place in the masks."""
        masks = self._masks[start : start + old.numel()]
        if self._float:
            found = old & self._exponent
            ordinary = found == found.clamp(self._least, self._most)
            return torch.where(ordinary, old, self._one) ^ masks
        new = old ^ masks
        # Zero is what a load that adds leaves right, and what one that skips zeros finds.
        return torch.where(new == 0, (old == 1).to(old.dtype) + 1, new)
