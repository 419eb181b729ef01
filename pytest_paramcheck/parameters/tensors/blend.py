"""Whether a tensor is a weighted mean of two others, within the rounding of its dtype.

Tests: ``tests/unit/test_averaged.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .raw import same_bytes

#: Elements compared at a time: few enough that what is computed on the way stays in the cache.
CHUNK = 1 << 15
#: Rounding errors that a mean may have, in spacings of the larger value: of the weight, of a
#: product and of a sum, and as many of our own.
ROUNDINGS = 2
#: Values kept of a tensor to know it again.
FEW = 64
#: Of a tensor of any size, as many values tell a decay.
SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Blend:
    """Three flat tensors: what was, what came in, and what became of it."""

    before: Tensor
    model: Tensor
    now: Tensor
    eps: float
    tiny: float
    wide: torch.dtype

    def is_mean(self, decay: float, ways: list[Way] | None = None) -> bool:
        """Whether it is ``decay`` x before + (1 - ``decay``) x model, everywhere.

        ``ways`` to compute it, the likeliest first: the one that gave the bits is moved there.
        """
        size = min(CHUNK, self.now.numel())
        scratch = torch.empty(size, dtype=self.wide, device=self.now.device)
        ways = list(WAYS) if ways is None else ways
        for b, m, e in self._chunks():
            mean = scratch[: b.numel()]
            # Nearly every average is written in one of two ways: then the bits are the same.
            for number, way in enumerate(ways):
                way(b, m, decay, mean)
                if _same(mean, e):
                    ways.insert(0, ways.pop(number))
                    break
            else:
                if not bool(self._near(b, m, e, decay)[0].all()):
                    return False
        return True

    def misses(self, decay: float) -> tuple[int, float, int]:
        """Return how many values are not that mean, by how much at most, and where."""
        count, largest, at, offset = 0, -1.0, 0, 0
        for close, gap in self._gaps(decay):
            if not bool(close.all()):
                count += int((~close).sum())
                wrong = torch.where(close, torch.zeros_like(gap), gap.nan_to_num(torch.inf))
                peak = int(wrong.argmax())
                if float(wrong[peak]) > largest:
                    largest, at = float(wrong[peak]), offset + peak
            offset += close.numel()
        return count, largest, at

    def fitted(self) -> float | None:
        """Return the decay of which it is the mean; None where there is none."""
        b, m, e = (t[:SAMPLE].double() for t in (self.before, self.model, self.now))
        apart, left = b - m, e - m
        square = float((apart * apart).sum())
        if not square > 0:
            return None
        decay = float((apart * left).sum()) / square
        return decay if decay == decay and self.is_mean(decay) else None

    def moved(self) -> bool:
        """Whether any value is another one than before."""
        return any(not _same(b, e) for b, _, e in self._chunks())

    def apart(self) -> bool:
        """Whether what came in differs anywhere from what was, in the dtype of what became."""
        own = self.now.dtype
        return any(not _same(b, m.to(own).to(self.wide)) for b, m, _ in self._chunks())

    def lost_in_rounding(self, decay: float) -> bool:
        """Whether a mean of this dtype cannot follow: where values are far apart beside its
        spacing, what one update adds is less than half a spacing."""
        if self.eps < 0.5 * (1 - decay):
            return False
        return any(
            bool(((m - b).abs() > self.eps * (b.abs() + m.abs())).any())
            for b, m, _ in self._chunks()
        )

    def _gaps(self, decay: float) -> Iterator[tuple[Tensor, Tensor]]:
        for b, m, e in self._chunks():
            yield self._near(b, m, e, decay)

    def _near(self, b: Tensor, m: Tensor, e: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        gap = torch.lerp(b, m, 1 - decay).sub_(e).abs_()
        scale = b.abs().add_(m.abs()).mul_(ROUNDINGS * self.eps).add_(self.tiny)
        return gap <= scale, gap  # a NaN is not close to anything

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        wholes = (self.before, self.model, self.now)
        one = self.now.numel() <= CHUNK
        for start in range(0, self.now.numel(), CHUNK):
            b, m, e = wholes if one else (t[start : start + CHUNK] for t in wholes)
            yield b.to(self.wide), m.to(self.wide), e.to(self.wide)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two chunks have the same bits; torch.equal takes several times as long."""
    same = same_bytes(a, b)
    return torch.equal(a, b) if same is None else same


def _sum(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.mul(b, decay, out=out)
    out.add_(m, alpha=1 - decay)


def _lerp(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.lerp(b, m, 1 - decay, out=out)


#: Computes a mean into its last argument.
Way: TypeAlias = Callable[[Tensor, Tensor, float, Tensor], None]
WAYS: tuple[Way, ...] = (_lerp, _sum)


def blend_of(before: Tensor, model: Tensor, now: Tensor) -> Blend:
    """Prepare three tensors of one shape; floating ones or complex ones, on any devices."""
    b, m, e = (_flat(tensor, now.device) for tensor in (before, model, now))
    spacing = torch.finfo(e.dtype)
    wide = torch.float64 if e.dtype is torch.float64 else torch.float32
    return Blend(b, m, e, spacing.eps, 2 * spacing.tiny * spacing.eps, wide)


def spread_over(tensor: Tensor) -> Tensor:
    """Return a few values of a floating or complex tensor, spread over all of it; a copy."""
    flat = _flat(tensor, tensor.device)
    at = torch.linspace(0, max(flat.numel() - 1, 0), min(FEW, flat.numel()), device=flat.device)
    return flat[at.long()].clone()


def _flat(tensor: Tensor, device: torch.device) -> Tensor:
    whole = tensor.detach()
    if callable(full := getattr(whole, "full_tensor", None)):
        whole = full()
    if whole.layout is not torch.strided:
        whole = whole.to_dense()
    if whole.is_complex():
        whole = torch.view_as_real(whole.resolve_conj())
    return whole.to(device).contiguous().reshape(-1)
