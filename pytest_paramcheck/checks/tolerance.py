"""Tolerances: what is one, a quick look whether two tensors are within it, two dtypes as one.

An exact comparison takes differences in float64 on the cpu (``same_values``); nearly always all
bits are the same, or all values so near that their own arithmetic, with room for its rounding,
can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import cut, plural
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe, dtype_name
from ..parameters.tensors.memory import PLAIN_TYPES
from ..parameters.tensors.raw import plain_address, same_at

#: Values looked at together: what is computed of them stays in the caches of a core, and the calls
#: around it cost little beside reading them (of 2**17 values up to a third of the time).
_PIECE = 1 << 19
#: On another device each piece is waited for.
_LARGE_PIECE = 1 << 26
#: Roundings of one difference and one bound, in spacings.
_ROUNDINGS = 8


def demand_tolerances(**tolerances: object) -> None:
    """Raise for what is no tolerance."""
    for name, value in tolerances.items():
        if type(value) not in (int, float) or not value >= 0:  # type: ignore[operator]
            raise ParamCheckUsageError(f"{name}={value!r} is not a tolerance: pass a number >= 0")


def demand_dtypes(dtypes: object) -> None:
    """Raise for a dtype, or a mapping of them, where the option says whether they are asked."""
    if not isinstance(dtypes, bool):
        shown = f"torch.{dtype_name(dtypes)}" if isinstance(dtypes, torch.dtype) else repr(dtypes)
        raise ParamCheckUsageError(
            f"dtypes={cut(shown, 40)}: True or False, whether dtypes have to be the same; which "
            f"they are is for assert_dtypes"
        )


@dataclass(frozen=True, slots=True)
class _Room:
    """What values of one dtype are computed in, and the bounds with room for its rounding.

    ``quotient``: how far ``a / b`` may be from 1, None where ``rtol`` does not say enough;
    ``rtol`` and ``atol`` as they are asked of what is rounded.
    """

    gap: Tensor
    size: Tensor
    quotient: float | None
    rtol: float
    atol: float

    @staticmethod
    def of(dtype: torch.dtype, device: torch.device, size: int, rtol: float, atol: float) -> _Room:
        """Make room for so many values."""
        rounding = _ROUNDINGS * torch.finfo(dtype).eps
        one, other = torch.empty(2, size, dtype=dtype, device=device)
        return _Room(
            one,
            other,
            quotient=rtol - rounding if rounding < rtol < 0.5 else None,
            rtol=rtol * (1 - rounding),
            atol=min(atol * (1 - rounding), torch.finfo(dtype).max),
        )

    def near(self, a: Tensor, b: Tensor) -> bool:
        """Whether flat values are within the bounds."""
        room = self.gap if self.gap.numel() == a.numel() else self.gap[: a.numel()]
        if room.dtype != a.dtype:
            a, b = a.to(room.dtype), b.to(room.dtype)
        if self.quotient is not None:
            # One quotient tells it in half of the passes. 0 / 0 is a NaN, and near to nothing.
            low, high = torch.aminmax(torch.div(a, b, out=room))
            if float(low) >= 1 - self.quotient and float(high) <= 1 + self.quotient:
                return True
        # A norm of order infinity takes ten times as long as these two.
        gap = torch.sub(a, b, out=room).abs_()
        if self.rtol:
            gap.sub_(torch.abs(b, out=self.size[: b.numel()]), alpha=self.rtol)
        return float(gap.amax()) <= self.atol


class Tolerance:
    """A quick look whether two tensors are within tolerances, one of which is not 0.

    It keeps what it computes in, since it is asked about many tensors.
    """

    def __init__(self, rtol: float, atol: float) -> None:
        self.rtol, self.atol = rtol, atol
        self._rooms: dict[tuple[torch.dtype, torch.device], _Room] = {}

    def holds(self, a: Tensor, b: Tensor) -> bool:
        """Whether all of ``|a - b| <= atol + rtol * |b|`` for certain; False says nothing.

        The same bits are within any tolerance, a NaN is within nothing else.
        """
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        here, there = plain_address(a), plain_address(b)
        if here is None or there is None:
            return _plain(a) and _plain(b) and self._values_near(a, b, None)
        if a.numel() <= _PIECE and same_at(here, there, a.numel() * a.element_size()):
            return True
        computes = a.is_floating_point() and a.element_size() > 1
        return computes and self._values_near(a, b, (here, there))

    def _values_near(self, a: Tensor, b: Tensor, places: tuple[int, int] | None) -> bool:
        piece = _PIECE if a.is_cpu else _LARGE_PIECE
        room = self._room(a, min(piece, a.numel()))
        x, y = (tensor.detach().contiguous().view(-1) for tensor in (a, b))
        if x.numel() <= piece:
            return room.near(x, y)
        step, at = piece * x.element_size(), 0
        for left, right in zip(torch.split(x, piece), torch.split(y, piece), strict=True):
            length = left.numel() * left.element_size()
            same = places and same_at(places[0] + at, places[1] + at, length)
            if not same and not room.near(left, right):
                return False
            at += step
        return True

    def _room(self, tensor: Tensor, size: int) -> _Room:
        kind = tensor.dtype, tensor.device
        room = self._rooms.get(kind)
        if room is None or room.gap.numel() < size:
            wide = tensor.dtype if tensor.element_size() >= 4 else torch.float32
            room = _Room.of(wide, tensor.device, size, self.rtol, self.atol)
            self._rooms[kind] = room
        return room


def _plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and tensor.element_size() > 1
        and tensor.numel() > 0
        and not no_values(tensor)
    )


def other_form(before: Tensor, now: Tensor) -> str:
    """Say in which shape, dtype or layout a tensor is another one now, or why it has no values."""
    if reason := no_values(now):
        return f"is {describe(now)}, {reason}"
    if before.shape != now.shape or before.dtype != now.dtype or before.layout != now.layout:
        old, new = (describe(tensor).partition(" ")[2] for tensor in (before, now))
        return f"was {old}, is {new}"
    return ""


def in_one_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors in one dtype, the narrower where both are floating."""
    cast = None if a.dtype == b.dtype else common_dtype(a, b)
    return (a, b) if cast is None else (_read_as(a, cast), _read_as(b, cast))


def common_dtype(a: Tensor, b: Tensor) -> torch.dtype | None:
    """Return what two dtypes are compared in: the narrower of two floating ones; None where
    nothing says (numbers and complex numbers, packed ones)."""
    if any("float4" in dtype_name(tensor.dtype) for tensor in (a, b)):
        return None
    x, y = (torch.float32 if tensor.is_quantized else tensor.dtype for tensor in (a, b))
    if x.is_complex != y.is_complex:
        return None
    if x == y:
        return x
    both = all(dtype.is_floating_point or dtype.is_complex for dtype in (x, y))
    if both and x.itemsize != y.itemsize:
        return min(x, y, key=lambda dtype: dtype.itemsize)
    return torch.float64 if x.is_floating_point or y.is_floating_point else torch.int64


def _read_as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach()
    return (tensor.dequantize() if tensor.is_quantized else tensor).to(dtype)


def overflow(pair: Sequence[Tensor], narrow: torch.dtype, sides: Sequence[str]) -> str:
    """Say which finite values of two tensors a narrower dtype cannot hold, or ``""``.

    Cast to it they are infinities, and equal to those of a copy that was cast as well.
    """
    for tensor, side in zip(pair, sides, strict=True):
        if not (_plain(tensor) and narrow.is_floating_point) or tensor.dtype == narrow:
            continue
        lost = tensor.detach().isfinite() & ~tensor.detach().to(narrow).float().isfinite()
        if count := int(lost.sum()):
            total = plural(tensor.numel(), "value")
            return f"{count:,} of {total}: finite {side}, too large for {dtype_name(narrow)}"
    return ""
