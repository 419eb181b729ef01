"""Two subjects, value by value: all differences, each with how many values, how far, where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import join_words, plural
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.parts import Part
from ..parameters.tensors.content import bits, no_values, same_bits
from ..parameters.tensors.context import Fact, context_tensors, facts_of
from ..parameters.tensors.describe import describe, dtype_name, layout_name, size_text
from ..parameters.tensors.memory import PLAIN_TYPES, inner_tensors
from ..parameters.tensors.sharded import index_in_whole, is_dtensor, local_of
from .rearranged import rearranged
from .rounded import rounded
from .tolerance import Tolerance, common_dtype, in_one_dtype, overflow

#: Values compared at a time: differences are taken in float64 on the CPU.
CHUNK = 1 << 22


def differences(
    a: Inventory,
    b: Inventory,
    names: Sequence[tuple[str, Part | None]],
    *,
    rtol: float,
    atol: float,
    dtypes: bool = True,
) -> list[Finding]:
    """Find the names under which two inventories hold different things; of some, only a part.

    A pair of tensors that is tied under the same names on both sides is compared once. A
    non-persistent buffer is not missing from a mapping: no state_dict holds it. Without
    ``dtypes`` a pair of two dtypes is compared in the narrower one.
    """
    pairs: dict[tuple[int, int, int], tuple[list[str], Tensor, Tensor, Part | None]] = {}
    findings = []
    for name, part in names:
        if name not in b.named or name not in a.named:
            findings += _one_sided(a, b, name)
            continue
        left, right = a.named[name], b.named[name]
        if left is None or right is None:
            if left is not right:
                found = f"{describe(left)} in the first, {describe(right)} in the second"
                findings.append(Finding((name,), "different value", found=found))
            continue
        key = (id(left), id(right), id(part))
        pairs.setdefault(key, ([], left, right, part))[0].append(name)
    for tied, left, right, part in pairs.values():
        finding = _compare(tuple(tied), left, right, part, rtol, atol, dtypes)
        if finding is not None:
            findings.append(finding)
    return findings


def _one_sided(a: Inventory, b: Inventory, name: str) -> list[Finding]:
    here, other = (a, b) if name in a.named else (b, a)
    if other.root is None and here.buffer_names.get(name) is False:
        return []
    problem = "missing in the second" if here is a else "only in the second"
    return [Finding((name,), problem, found=describe(here.named[name]))]


def _compare(
    names: tuple[str, ...],
    a: Tensor,
    b: Tensor,
    part: Part | None,
    rtol: float,
    atol: float,
    dtypes: bool,
) -> Finding | None:
    for tensor, which in ((a, "first"), (b, "second")):
        if not is_lazy(tensor):
            continue
        if a is b:
            return None
        raise ParamCheckUsageError(
            f"{names[0]} of the {which}: {no_values(tensor)}; its values cannot be compared"
        )
    facts = [
        ("different shape", size_text(a), size_text(b)),
        ("different dtype", dtype_name(a.dtype), dtype_name(b.dtype)),
        ("different layout", layout_name(a.layout), layout_name(b.layout)),
    ]
    cast = None if dtypes or a.dtype == b.dtype else common_dtype(a, b)
    if cast is not None:
        del facts[1]
    for problem, left, right in facts:
        if left != right:
            found = f"{left} in the first, {right} in the second"
            if a.shape == b.shape and a.dtype != b.dtype and dtypes:
                found += _if_cast(a, b)
            return Finding(names, problem, found=found)
    if a is b:
        return None
    for tensor, which in ((a, "first"), (b, "second")):
        if reason := no_values(tensor):
            raise ParamCheckUsageError(
                f"{names[0]} of the {which}: {reason}; its values cannot be compared"
            )
    if part is not None:
        names_of = names
        names = tuple(name + part.text for name in names)
        a, b = part.of(a, names_of[0]), part.of(b, names_of[0])
    said = ""
    if cast is not None:
        with torch.no_grad():
            if found := overflow((a, b), cast, _SIDES):
                return Finding(names, "different values", found=found)
            a, b = in_one_dtype(a, b)
        said = f" (compared in {dtype_name(cast)})"
    if same_bits(a, b):
        return None
    if _placements(a) != _placements(b):
        raise ParamCheckUsageError(
            f"{names[0]} is {describe(a)} in the first and {describe(b)} in the second: tensors "
            f"that are sharded in two ways cannot be compared yet; compare their full_tensor()"
        )
    found = beyond(a, b, Tolerance(rtol, atol))
    why = rounded(a, b, _SIDES) or rearranged(a, b, "of the second") if found else ""
    return Finding(names, "different values", found=found + said, why=why) if found else None


def beyond(a: Tensor, b: Tensor, tolerance: Tolerance, sides: tuple[str, str] | None = None) -> str:
    """Say how two tensors of one shape and dtype differ by more than tolerances, or ``""``."""
    if (tolerance.rtol or tolerance.atol) and tolerance.holds(a, b):
        return ""
    with torch.no_grad():
        return difference(a, b, tolerance.rtol, tolerance.atol, sides or _SIDES)


def moved_by_less(before: Tensor, now: Tensor) -> str:
    """Say how far values moved at most, or ``""`` where no bit differs."""
    with torch.no_grad():
        return difference(*in_one_dtype(now, before), sides=("after", "before"))


def _placements(tensor: Tensor) -> str | None:
    """How a tensor is sharded, those of other libraries too; None for a whole one."""
    sharded = isinstance(getattr(tensor, "_local_tensor", None), Tensor)
    return str(getattr(tensor, "placements", "")) if sharded else None


def _if_cast(a: Tensor, b: Tensor) -> str:
    """Say whether two floating tensors would be equal in the narrower of their dtypes."""
    for tensor in (a, b):
        plain = type(tensor) in PLAIN_TYPES and tensor.layout is torch.strided
        if not (plain and tensor.is_floating_point()) or no_values(tensor):
            return ""
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    if a.dtype.itemsize == b.dtype.itemsize or "float4" in str(narrow):
        return ""
    with torch.no_grad():
        text = difference(a.to(narrow), b.to(narrow))
    return f"; in {dtype_name(narrow)} {text or 'they are equal'}"


#: What the two tensors of a comparison are called.
_SIDES = ("in the first", "in the second")


def difference(
    a: Tensor,
    b: Tensor,
    rtol: float = 0.0,
    atol: float = 0.0,
    sides: tuple[str, str] = _SIDES,
    whole: Tensor | None = None,
) -> str:
    """Return how two tensors of one shape and dtype and any kind differ, or ``""``.

    Of a DTensor this rank's shards are compared, and places are those in the whole tensor.
    """
    if is_dtensor(a) and is_dtensor(b):
        return difference(local_of(a), local_of(b), rtol, atol, sides, a)
    parts_a = inner_tensors(a) if a.layout is torch.strided else None
    parts_b = inner_tensors(b) if b.layout is torch.strided else None
    if parts_a is None and parts_b is None:
        return difference_text(a.detach(), b.detach(), rtol, atol, sides, whole)
    # A wrapper subclass (DTensor, a quantized weight): the tensors that hold its values decide,
    # and the numbers beside them.
    if parts_a is None or parts_b is None or len(parts_a) != len(parts_b):
        return f"held as {type(a).__name__} {sides[0]}, {type(b).__name__} {sides[1]}"
    for left, right in zip(parts_a, parts_b, strict=True):
        if left.shape != right.shape or left.dtype != right.dtype:
            return f"inner {describe(left)} {sides[0]}, {describe(right)} {sides[1]}"
    pairs = [
        *zip(parts_a, parts_b, strict=True),
        *zip(context_tensors(a), context_tensors(b), strict=False),
    ]
    texts = [difference(left, right, rtol, atol, sides) for left, right in pairs]
    texts += _facts_differ(facts_of(a), facts_of(b), rtol, atol, sides)
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _facts_differ(
    a: Sequence[Fact], b: Sequence[Fact], rtol: float, atol: float, sides: tuple[str, str]
) -> Iterator[str]:
    ours, theirs = ({fact.path: fact for fact in facts} for facts in (a, b))
    for path in dict.fromkeys((*ours, *theirs)):
        first, second = ours.get(path), theirs.get(path)
        if first is None or second is None:
            yield f"{path} {sides[0] if second is None else sides[1]} alone"
        elif first.key != second.key and not _near(first.value, second.value, rtol, atol):
            yield f"{path} {first.value} {sides[0]}, {second.value} {sides[1]}"


def _near(a: object, b: object, rtol: float, atol: float) -> bool:
    if isinstance(a, (str, bool)) or isinstance(b, (str, bool)) or not (rtol or atol):
        return False
    first, second = (
        torch.tensor([value], dtype=torch.complex128, device="cpu") for value in (a, b)
    )
    return not difference_text(first, second, rtol, atol)


def difference_text(
    a: Tensor,
    b: Tensor,
    rtol: float = 0.0,
    atol: float = 0.0,
    sides: tuple[str, str] = _SIDES,
    whole: Tensor | None = None,
) -> str:
    """Return how two plain tensors of one shape and dtype differ, or ``""`` where they do not.

    They may be the shards of a ``whole`` one: its places are named, and its values counted.

    Without tolerances values are the same where their bits are: 0.0 is not -0.0, and a NaN is
    the same NaN. With one, every NaN is the same and infinities must have one sign.
    """
    total = a.numel() if whole is None else whole.numel()
    exact = rtol == 0 and atol == 0
    count = zeros = nans = 0
    largest, at, relative = -1.0, 0, 0.0
    first = -1
    offset = 0
    broken: tuple[set[str], set[str]] = (set(), set())
    for piece in _pieces(a, b):
        gap = piece.gap
        if exact:
            wrong = piece.bits_differ
            zeros += int((wrong & piece.equal).sum())
            nans += int((wrong & piece.both_nan).sum())
        else:
            close = (gap <= atol + rtol * piece.size) & gap.isfinite()
            wrong = ~(piece.equal | piece.both_nan | close)
        if bool(wrong.any()):
            count += int(wrong.sum())
            where = int(wrong.nonzero()[0])
            first = offset + where if first < 0 else first
            measured = torch.where(wrong & gap.isfinite(), gap, torch.full_like(gap, -1.0))
            peak = int(measured.argmax())
            if float(measured[peak]) > largest:
                largest, at = float(measured[peak]), offset + peak
            scale = torch.where(gap > 0, gap / piece.size, torch.zeros_like(gap))
            ratios = torch.where(wrong & gap.isfinite(), scale, torch.zeros_like(gap))
            relative = max(relative, float(ratios.max()))
            odd = wrong & ~piece.both_nan & ~gap.isfinite()
            for kinds, values in zip(broken, (piece.a[odd], piece.b[odd]), strict=True):
                kinds.update(_kinds(values))
        offset += gap.numel()
    if not count:
        return _schemes_differ(a, b) if exact and a.is_quantized else ""
    text = f"{count:,} of {plural(total, 'value')}"
    if zeros + nans == count:
        if a.dim() == 0:
            return f"only {'the sign of zero' if zeros else 'the bits of NaN'}"
        only = [k for k, n in (("the sign of zero", zeros), ("the bits of NaN", nans)) if n]
        return f"{text}: only {' and '.join(only)}, first at {_index(a, first, whole)}"
    if a.dim() == 0:
        return f"{_shown(a)} {sides[0]}, {_shown(b)} {sides[1]}"
    odd_ones = ", ".join(
        f"{join_words(sorted(kinds))} {side}"
        for kinds, side in zip(broken, sides, strict=True)
        if kinds
    )
    if largest < 0:
        return f"{text}: {odd_ones}, first at {_index(a, first, whole)}"
    text = f"{text}: max abs {largest:.3g} at {_index(a, at, whole)}, max rel {relative:.3g}"
    return f"{text}; {odd_ones}" if odd_ones else text


def _shown(scalar: Tensor) -> str:
    value = _flat(scalar)[0].item()
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _kinds(values: Tensor) -> Iterator[str]:
    if not values.is_floating_point() and not values.is_complex():
        return
    if bool(values.isnan().any()):
        yield "NaN"
    infinite = values[values.isinf()]
    if infinite.is_complex():
        if infinite.numel():
            yield "infinity"
        return
    if bool((infinite > 0).any()):
        yield "infinity"
    if bool((infinite < 0).any()):
        yield "-infinity"


def _schemes_differ(a: Tensor, b: Tensor) -> str:
    """Quantized tensors of equal values may still be other integers under another scale."""
    return "" if same_bits(a, b) is not False else "equal values under another scale or zero point"


def _index(tensor: Tensor, flat: int, whole: Tensor | None) -> str:
    index = []
    for size in reversed(tensor.shape):
        index.append(flat % size)
        flat //= size
    index.reverse()
    return str(index if whole is None else index_in_whole(whole, index))


class _Piece(NamedTuple):
    """Two flat runs of values, and what holds of each pair of them."""

    a: Tensor
    b: Tensor
    equal: Tensor
    both_nan: Tensor
    bits_differ: Tensor
    gap: Tensor  # |a - b| and |b| in float64: rounded once, so that no neighbors become one
    size: Tensor


def _pieces(a: Tensor, b: Tensor) -> Iterator[_Piece]:
    flat_a, flat_b = _flat(a), _flat(b)
    for start in range(0, flat_a.numel(), CHUNK):
        x, y = (flat[start : start + CHUNK].cpu() for flat in (flat_a, flat_b))
        if "float4" in dtype_name(x.dtype):
            x, y = x.view(torch.uint8), y.view(torch.uint8)  # pairs of codes: nothing converts them
        bits_differ = (bits(x)[0] != bits(y)[0]).view(x.numel(), -1).any(1)
        if x.element_size() == 8 and not (x.is_floating_point() or x.is_complex()):
            # In float64 neighbors above 2**53 are one: the halves are subtracted apart.
            (high_x, low_x), (high_y, low_y) = _halves(x), _halves(y)
            gap = ((high_x - high_y).double() * 2.0**32 + (low_x - low_y).double()).abs()
            size = (high_y.double() * 2.0**32 + low_y.double()).abs()
            never = torch.zeros_like(bits_differ)
            # As int64: torch 2.8 picks no elements out of uint64 tensors.
            x, y = x.view(torch.int64), y.view(torch.int64)
            yield _Piece(x, y, ~bits_differ, never, bits_differ, gap, size)
            continue
        x, y = _widest(x), _widest(y)
        both_nan = x.isnan() & y.isnan()
        yield _Piece(x, y, x == y, both_nan, bits_differ, (x - y).abs(), y.abs())


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper and lower 32 bits of 64-bit integers, as numbers."""
    signed = values.view(torch.int64)
    upper, lower = signed >> 32, signed & 0xFFFFFFFF
    return upper & 0xFFFFFFFF if values.dtype is torch.uint64 else upper, lower


def _widest(values: Tensor) -> Tensor:
    if values.is_complex():
        return values.to(torch.complex128)
    if values.element_size() == 1 and values.is_floating_point():
        values = values.float()
    return values.double()


def _flat(tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    # Views that are conjugated or negated when read get their values here.
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
