"""A wrapped model's gradients and steps against those of the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..messages.findings import Finding
from .tied_grads_sum import RTOL


def different_gradients(
    names: Sequence[str],
    found: Sequence[Tensor | None],
    expected: Sequence[Tensor | None],
    ranks: int,
) -> list[Finding]:
    """Find the gradients that are not the mean of the model's own over the parts."""
    findings = []
    for name, ours, theirs in zip(names, found, expected, strict=True):
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None:
            findings.append(
                Finding(
                    (name,),
                    "gradient differs from the model's own",
                    expected="none" if theirs is None else "a gradient",
                    found="none" if ours is None else "a gradient",
                )
            )
        elif said := _difference(ours, theirs, ranks):
            findings.append(
                Finding(
                    (name,),
                    "gradient differs from the model's own",
                    expected="the mean over the parts of the inputs",
                    found=said,
                )
            )
    return findings


def _difference(ours: Tensor, theirs: Tensor, ranks: int) -> str:
    """Return how two gradients differ, or ``""``."""
    rtol = RTOL.get(theirs.dtype, RTOL[torch.float32]) * ranks * 8
    exact = torch.complex128 if theirs.is_complex() else torch.float64
    a, b = ours.to_dense().to(exact).flatten(), theirs.to_dense().to(exact).flatten()
    off, size = float((a - b).abs().max()), float(b.abs().max())
    if off <= rtol * max(size, float(a.abs().max())) or (off == 0 and size == 0):
        return ""
    square = float((b.conj() * b).sum().real)
    times = float((b.conj() * a).sum().real) / square if square else 0.0
    if square and float((a - times * b).abs().max()) <= 1e-3 * abs(times) * size:
        return f"{times:.3g} times that"
    return f"max abs difference {off:.2g}"


def different_moves(
    names: Sequence[str], moved: Sequence[bool], expected: Sequence[bool]
) -> list[Finding]:
    """Find what a step moves of a wrapped model and not of the model itself, or not of it."""
    return [
        Finding(
            (name,),
            "a step moves it" if ours else "a step does not move it",
            expected="as without the wrap",
            hint="" if ours else "the optimizer has to be built of the wrapped model's parameters",
        )
        for name, ours, theirs in zip(names, moved, expected, strict=True)
        if ours != theirs
    ]
