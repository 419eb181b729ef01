"""Tolerances: what is one, a quick look whether two tensors are within it, two dtypes as one.

An exact comparison takes differences in float64 on the cpu (``same_values``); nearly always all
values are so near that their own arithmetic, with room for its rounding, can tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe, dtype_name
from ..parameters.tensors.memory import PLAIN_TYPES

#: Values looked at together: what is computed of them stays in the cache of a core.
_PIECE = 1 << 17
#: On another device each piece is waited for.
_LARGE_PIECE = 1 << 26
#: Roundings of one difference and one bound, in spacings.
_ROUNDINGS = 8


def demand_tolerances(**tolerances: object) -> None:
    """Raise for what is no tolerance."""
    for name, value in tolerances.items():
        if type(value) not in (int, float) or not value >= 0:  # type: ignore[operator]
            raise ParamCheckUsageError(f"{name}={value!r} is not a tolerance: pass a number >= 0")


def within(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    """Whether all of ``|a - b| <= atol + rtol * |b|`` for certain; False says nothing.

    A NaN is within nothing.
    """
    if not (_plain(a) and _plain(b)) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.device != b.device:
        return False
    wide = a.dtype if a.dtype.itemsize >= 4 else torch.float32
    exact = 1 - _ROUNDINGS * torch.finfo(wide).eps
    size = _PIECE if a.device.type == "cpu" else _LARGE_PIECE
    with torch.no_grad():
        x, y = (tensor.detach().contiguous().view(-1) for tensor in (a, b))
        room, more = torch.empty(2, min(size, x.numel()), dtype=wide, device=x.device)
        for left, right in zip(torch.split(x, size), torch.split(y, size), strict=True):
            # A norm of order infinity takes ten times as long as these two.
            gap = torch.sub(left.to(wide), right.to(wide), out=room[: len(left)]).abs_()
            if rtol:
                magnitude = torch.abs(right.to(wide), out=more[: len(left)])
                gap.sub_(magnitude, alpha=rtol * exact)
            if not float(gap.amax()) <= min(atol * exact, torch.finfo(wide).max):
                return False
    return True


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
