"""Whether a tensor is a weighted mean of two others, within the rounding of its dtype.

Tests: ``tests/unit/test_averaged.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    #: Where the three lie in host memory, if they are ordinary and of one dtype.
    places: Places | None = None

    def is_mean(self, decay: float, ways: Ways | None = None) -> bool:
        """Whether it is ``decay`` x before + (1 - ``decay``) x model, everywhere.

        ``ways`` to compute it, the likeliest first: the one that gave the bits is moved there.
        """
        wholes = self.before, self.model, self.now
        ways = Ways() if ways is None else ways
        likely = self.now.element_size() > 1  # of the smallest floats nothing computes
        for start in range(0, self.now.numel(), CHUNK):
            b, m, e = (t[start : start + CHUNK] for t in wholes) if self.long else wholes
            if likely:
                here = None
                if self.places is None:
                    b, m = b.to(e.dtype), m.to(e.dtype)
                else:
                    x, y, z = self.places
                    at = start * e.element_size()
                    here = x + at, y + at, z + at
                likely = ways.gave([(b, m, e, here)], decay)
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
    def eps(self) -> float:
        """The spacing of values near 1."""
        return float(torch.finfo(self.now.dtype).eps)

    @property
    def wide(self) -> torch.dtype:
        """What is computed in, but for the bits that one way gives."""
        double = self.now.dtype in (torch.float64, torch.complex128)
        return torch.float64 if double else torch.float32

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

    def stays(self, decay: float) -> bool:
        """Whether an update may leave all values as they were: each is what one way gives.

        How far a mean may be off is no answer: in bfloat16 an update of four spacings is no more.
        """
        own = self.now.dtype
        for b, m, _ in self._chunks():
            left = (b == m) | b.isnan()
            left |= torch.lerp(b, m, 1 - decay).to(own).to(self.wide) == b
            for way in WAYS if own.itemsize > 1 else ():
                [mean] = way((b.to(own),), (m.to(own),), decay)
                left |= mean.to(self.wide) == b
            if not bool(left.all()):
                return False
        return True

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
        mean = {0.0: m, 1.0: b}.get(decay)
        gap = (torch.lerp(b, m, 1 - decay) if mean is None else mean).sub(e).abs_()
        tiny = 2 * torch.finfo(self.now.dtype).tiny * self.eps  # two spacings around zero
        scale = b.abs().add_(m.abs()).mul_(ROUNDINGS * self.eps).add_(tiny)
        # Of what was not finite one way to compute a mean makes NaN, another an infinity.
        lost = ~(b.isfinite() & m.isfinite() | e.isfinite())
        return (gap <= scale) | lost, gap

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


def _holds(mean: Tensor, now: Tensor, places: Places | None) -> bool:
    if places is None:
        return _same(mean, now)
    same = same_at(mean.data_ptr(), places[2], now.numel() * now.element_size())
    return torch.equal(mean, now) if same is None else same


#: What was, what came in and what became of it, and where the three lie if they are ordinary.
Triple: TypeAlias = tuple[Tensor, Tensor, Tensor, Places | None]
Many: TypeAlias = tuple[Tensor, ...]
#: Computes the means of many pairs of tensors.
Way: TypeAlias = Callable[[Many, Many, float], Many]


def _lerp(b: Many, m: Many, decay: float) -> Many:
    return torch._foreach_lerp(b, m, 1 - decay)


def _scaled(b: Many, m: Many, decay: float) -> Many:
    means = torch._foreach_mul(b, decay)
    torch._foreach_add_(means, m, alpha=1 - decay)
    return means


def _sum(b: Many, m: Many, decay: float) -> Many:
    means = torch._foreach_mul(b, decay)
    torch._foreach_add_(means, torch._foreach_mul(m, 1 - decay))
    return means


def _difference(b: Many, m: Many, decay: float) -> Many:
    parts = torch._foreach_sub(b, m)
    torch._foreach_mul_(parts, 1 - decay)
    return torch._foreach_sub(b, parts)


#: ``lerp_``; ``mul_(d).add_(m, alpha=1 - d)``; ``d * b + (1 - d) * m``; ``b -= (1 - d) * (b - m)``.
WAYS: tuple[Way, ...] = (_lerp, _scaled, _sum, _difference)


@dataclass
class Ways:
    """How nearly every average is written, the likeliest first: then the bits are the same."""

    order: list[Way] = field(default_factory=lambda: list(WAYS))

    def gave(self, triples: Sequence[Triple], decay: float) -> bool:
        """Whether one of them gives the bits of all that became."""
        before, model, now, places = zip(*triples, strict=True)
        for number, way in enumerate(self.order):
            if all(map(_holds, way(before, model, decay), now, places)):
                if number:
                    self.order.insert(0, self.order.pop(number))
                return True
        return False


def certain_means(triples: Sequence[Triple], decay: float, ways: Ways) -> Iterator[int]:
    """Yield which of many tensors are that mean, moved, and came in as others than they were.

    Small ordinary tensors of one dtype that follow one another are computed in few calls. What is
    not yielded may be a mean as well.
    """
    some: list[int] = []
    elements = 0
    for number, (before, _, now, places) in enumerate(triples):
        size = now.numel()
        if places is None or not 0 < size <= CHUNK or now.element_size() == 1:
            continue
        apart = same_at(places[0], places[1], size * now.element_size()) is False
        if not apart or same_at(places[0], places[2], size * now.element_size()) is not False:
            continue
        if some and (elements + size > CHUNK or before.dtype != triples[some[0]][0].dtype):
            if ways.gave([triples[one] for one in some], decay):
                yield from some
            some, elements = [], 0
        some.append(number)
        elements += size
    if some and ways.gave([triples[one] for one in some], decay):
        yield from some


def places_of(before: Tensor, model: Tensor, now: Tensor) -> Places | None:
    """Return where three tensors lie in host memory; None where one is not ordinary, or of
    another dtype than the others. What nearly all are, asked once for all that is read."""
    if before.dtype != now.dtype or model.dtype != now.dtype or now.is_complex():
        return None
    b, m, e = plain_address(before), plain_address(model), plain_address(now)
    return None if b is None or m is None or e is None else (b, m, e)


def blend_of(before: Tensor, model: Tensor, now: Tensor, places: Places | None = None) -> Blend:
    """Prepare three tensors of one shape; floating ones or complex ones, on any devices."""
    places = places or places_of(before, model, now)
    if places is not None:
        b, m, e = (tensor.detach().view(-1) for tensor in (before, model, now))
        return Blend(b, m, e, places)
    b, m, e = (_flat(tensor, now.device) for tensor in (before, model, now))
    return Blend(b, m, e)


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
