"""Whether a tensor is a weighted mean of two others, within the rounding of its dtype.

Tests: ``tests/unit/test_averaged.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from .raw import plain_address, same_at, same_bytes

#: Elements compared at a time: few enough that what is computed on the way stays in the cache,
#: many enough that the calls around it cost little (2**15 takes 1.4 times as long).
CHUNK = 1 << 17
#: Rounding errors that a mean may have, in spacings of the larger value: of the weight, of a
#: product and of a sum, and as many of our own.
ROUNDINGS = 2
#: Values kept of a tensor to know it again.
FEW = 64
#: Of a tensor of any size, as many values tell a decay.
SAMPLE = 1 << 16
#: Where what was, what came in and what became of it lie in host memory.
Places: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Blend:
    """Three flat tensors: what was, what came in, and what became of it."""

    before: Tensor
    model: Tensor
    now: Tensor
    eps: float
    tiny: float
    wide: torch.dtype
    #: Where the three lie in host memory, if they are ordinary and of one dtype.
    places: Places | None = None

    def is_mean(self, decay: float, ways: Ways | None = None) -> bool:
        """Whether it is ``decay`` x before + (1 - ``decay``) x model, everywhere.

        ``ways`` to compute it, the likeliest first: the one that gave the bits is moved there.
        """
        wholes = self.before, self.model, self.now
        ways = Ways() if ways is None else ways
        place = self.places[2] if self.places else plain_address(self.now)
        likely = self.now.element_size() > 1  # of the smallest floats nothing computes
        for start in range(0, self.now.numel(), CHUNK):
            b, m, e = (t[start : start + CHUNK] for t in wholes) if start or self.long else wholes
            if likely:
                here = None if place is None else place + start * e.element_size()
                if self.places is None:
                    b, m = b.to(e.dtype), m.to(e.dtype)
                likely = ways.gave(b, m, e, here, decay)
                if likely:
                    continue
            if not bool(self._near(*self._wide(b, m, e), decay)[0].all()):
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

    @property
    def long(self) -> bool:
        """Whether it is compared piece by piece."""
        return self.now.numel() > CHUNK

    def moved(self) -> bool:
        """Whether any value is another one than before."""
        if (same := self._same_at(0, 2)) is not None:
            return not same
        return any(not _same(b, e) for b, _, e in self._chunks())

    def apart(self) -> bool:
        """Whether what came in differs anywhere from what was, in the dtype of what became."""
        if (same := self._same_at(0, 1)) is not None:
            return not same
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

    def _same_at(self, one: int, other: int) -> bool | None:
        if self.places is None:
            return None
        size = self.now.numel() * self.now.element_size()
        return same_at(self.places[one], self.places[other], size)

    def _gaps(self, decay: float) -> Iterator[tuple[Tensor, Tensor]]:
        for b, m, e in self._chunks():
            yield self._near(b, m, e, decay)

    def _near(self, b: Tensor, m: Tensor, e: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        gap = torch.lerp(b, m, 1 - decay).sub_(e).abs_()
        scale = b.abs().add_(m.abs()).mul_(ROUNDINGS * self.eps).add_(self.tiny)
        return gap <= scale, gap  # a NaN is not close to anything

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        wholes = self.before, self.model, self.now
        for start in range(0, self.now.numel(), CHUNK):
            b, m, e = (t[start : start + CHUNK] for t in wholes) if self.long else wholes
            yield self._wide(b, m, e)

    def _wide(self, b: Tensor, m: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return b.to(self.wide), m.to(self.wide), e.to(self.wide)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two flat tensors have the same bits; torch.equal takes several times as long."""
    same = same_bytes(a, b)
    return torch.equal(a, b) if same is None else same


def _lerp(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.lerp(b, m, 1 - decay, out=out)


def _scaled(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.mul(b, decay, out=out).add_(m, alpha=1 - decay)


def _sum(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.mul(b, decay, out=out).add_((1 - decay) * m)


def _difference(b: Tensor, m: Tensor, decay: float, out: Tensor) -> None:
    torch.sub(b, m, out=out).mul_(1 - decay)
    torch.sub(b, out, out=out)


#: Computes a mean into its last argument.
Way: TypeAlias = Callable[[Tensor, Tensor, float, Tensor], None]
#: ``lerp_``; ``mul_(d).add_(m, alpha=1 - d)``; ``d * b + (1 - d) * m``; ``b -= (1 - d) * (b - m)``.
WAYS: tuple[Way, ...] = (_lerp, _scaled, _sum, _difference)


@dataclass
class Ways:
    """How nearly every average is written, the likeliest first: then the bits are the same."""

    order: list[Way] = field(default_factory=lambda: list(WAYS))
    rooms: dict[tuple[torch.dtype, torch.device], Tensor] = field(default_factory=dict)

    def gave(self, b: Tensor, m: Tensor, e: Tensor, place: int | None, decay: float) -> bool:
        """Whether one of them gives the bits of ``e``, which lies at ``place`` in host memory."""
        kind = e.dtype, e.device
        if (room := self.rooms.get(kind)) is None:
            room = self.rooms[kind] = torch.empty(CHUNK, dtype=e.dtype, device=e.device)
        mean = room if e.numel() == CHUNK else room[: e.numel()]
        for number, way in enumerate(self.order):
            way(b, m, decay, mean)
            if place is None:
                same: bool | None = torch.equal(mean, e)
            else:
                same = same_at(mean.data_ptr(), place, e.numel() * e.element_size())
            if torch.equal(mean, e) if same is None else same:
                if number:
                    self.order.insert(0, self.order.pop(number))
                return True
        return False


def places_of(before: Tensor, model: Tensor, now: Tensor) -> Places | None:
    """Return where three tensors lie in host memory; None where one is not ordinary, or of
    another dtype than the others. What nearly all are, asked once for all that is read."""
    if before.dtype != now.dtype or model.dtype != now.dtype or now.is_complex():
        return None
    b, m, e = plain_address(before), plain_address(model), plain_address(now)
    return None if b is None or m is None or e is None else (b, m, e)


def blend_of(before: Tensor, model: Tensor, now: Tensor, places: Places | None = None) -> Blend:
    """Prepare three tensors of one shape; floating ones or complex ones, on any devices."""
    spacing = torch.finfo(now.dtype)
    wide = torch.float64 if now.dtype in (torch.float64, torch.complex128) else torch.float32
    rounding = spacing.eps, 2 * spacing.tiny * spacing.eps, wide
    places = places or places_of(before, model, now)
    if places is not None:
        b, m, e = (tensor.detach().view(-1) for tensor in (before, model, now))
        return Blend(b, m, e, *rounding, places)
    b, m, e = (_flat(tensor, now.device) for tensor in (before, model, now))
    return Blend(b, m, e, *rounding)


def spread_over(tensor: Tensor) -> Tensor:
    """Return a few values of a floating or complex tensor, spread over all of it; a copy."""
    plain = plain_address(tensor) is not None and not tensor.is_complex()
    flat = tensor.detach().view(-1) if plain else _flat(tensor, tensor.device)
    return flat[:: flat.numel() // FEW | 1].clone()  # an odd step meets every column


def _flat(tensor: Tensor, device: torch.device) -> Tensor:
    whole = tensor.detach()
    if callable(full := getattr(whole, "full_tensor", None)):
        whole = full()
    if whole.layout is not torch.strided:
        whole = whole.to_dense()
    if whole.is_complex():
        whole = torch.view_as_real(whole.resolve_conj())
    return whole.to(device).contiguous().reshape(-1)
