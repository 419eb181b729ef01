"""Are rows orthogonal and of one length: within what a dtype rounds, however many there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .statistics import spread_sample

#: Rows of an orthogonal matrix that are compared with one another.
ORTHOGONAL_ROWS = 2048


def not_orthogonal(values: Tensor, gain: float, dtype: torch.dtype, *, grown: bool = False) -> str:
    """Say how far rows, or columns where there are fewer, are from orthogonal, or ``""``.

    ``dtype`` is the one that holds them. ``grown``: not fresh from a QR but from a product of
    many factors (a parametrization that trains), whose roundings add up.
    """
    flat = values.reshape(len(values), -1)
    flat = flat.cpu() if flat.device.type == "mps" else flat
    flat = flat.to(torch.complex128 if flat.is_complex() else torch.float64)
    if flat.shape[0] > flat.shape[1]:
        flat = flat.T
    every, flat = flat, spread_sample(flat, ORTHOGONAL_ROWS)
    gram = flat @ flat.mH
    ideal = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) * gain**2
    off = float((gram - ideal).abs().max())
    # A QR in float32 and one rounding to the dtype: each of a row's products is off by eps.
    held = torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0
    eps = max(held, torch.finfo(torch.float32).eps)
    limit = gain**2 * max(4 * eps, 64 * torch.finfo(torch.float32).eps)
    if grown:
        limit *= max(1.0, math.sqrt(every.shape[1]) / 4)
    if off <= limit and len(every) > len(flat):
        off = _all_rows(every, gain)
        limit *= max(1.0, 0.25 * math.sqrt(len(every)))  # what rounding left of all products
    if off <= limit:
        return ""
    side = "rows" if len(values) <= values.numel() // len(values) else "columns"
    lengths = gram.diagonal().abs().sqrt()
    return (
        f"{side} of length {float(lengths.min()):.4g} to {float(lengths.max()):.4g}, "
        f"products off by {off:.3g}"
    )


def _all_rows(rows: Tensor, gain: float) -> float:
    """How far products of any two rows are off, where there are too many pairs to look at.

    Each row's products with all are added up under random signs, so that one wrong one shows
    whatever it is and those that rounding left cancel.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    bits = torch.randint(2, (len(rows), 16), generator=generator, device="cpu")
    signs = (bits.double() * 2 - 1).to(rows)
    return float((rows @ (rows.mH @ signs) - gain**2 * signs).abs().max())
