"""Two subjects, value by value: all differences, each with how many values, how far, where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_name, layout_name, shape_text
from ..parameters.tensors.memory import inner_tensors

#: Values compared at a time: differences are taken in float64 on the CPU.
CHUNK = 1 << 22


def differences(
    a: Inventory, b: Inventory, names: Sequence[str], *, rtol: float, atol: float
) -> list[Finding]:
    """Find the names under which two inventories hold different things.

    A pair of tensors that is tied under the same names on both sides is compared once. A
    non-persistent buffer is not missing from a mapping: no state_dict holds it.
    """
    pairs: dict[tuple[int, int], tuple[list[str], Tensor, Tensor]] = {}
    findings = []
    for name in names:
        if name not in b.named or name not in a.named:
            findings += _one_sided(a, b, name)
            continue
        left, right = a.named[name], b.named[name]
        if left is None or right is None:
            if left is not right:
                found = f"{describe(left)} in the first, {describe(right)} in the second"
                findings.append(Finding((name,), "different value", found=found))
            continue
        pairs.setdefault((id(left), id(right)), ([], left, right))[0].append(name)
    for tied, left, right in pairs.values():
        finding = _compare(tuple(tied), left, right, rtol, atol)
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
    names: tuple[str, ...], a: Tensor, b: Tensor, rtol: float, atol: float
) -> Finding | None:
    for tensor, which in ((a, "first"), (b, "second")):
        if not is_lazy(tensor):
            continue
        if a is b:
            return None
        raise ParamCheckUsageError(
            f"{names[0]} of the {which}: {no_values(tensor)}; its values cannot be compared"
        )
    for problem, left, right in (
        ("different shape", shape_text(a), shape_text(b)),
        ("different dtype", dtype_name(a.dtype), dtype_name(b.dtype)),
        ("different layout", layout_name(a.layout), layout_name(b.layout)),
    ):
        if left != right:
            found = f"{left} in the first, {right} in the second"
            return Finding(names, problem, found=found)
    if a is b:
        return None
    for tensor, which in ((a, "first"), (b, "second")):
        if reason := no_values(tensor):
            raise ParamCheckUsageError(
                f"{names[0]} of the {which}: {reason}; its values cannot be compared"
            )
    if same_bits(a, b) and not a.is_quantized:
        return None
    with torch.no_grad():
        found = difference(a.detach(), b.detach(), rtol, atol)
    return Finding(names, "different values", found=found) if found else None


def difference(a: Tensor, b: Tensor, rtol: float = 0.0, atol: float = 0.0) -> str:
    """Return how two tensors of one shape and dtype and any kind differ, or ``""``."""
    parts_a = inner_tensors(a) if a.layout is torch.strided else None
    parts_b = inner_tensors(b) if b.layout is torch.strided else None
    if parts_a is None and parts_b is None:
        return difference_text(a, b, rtol, atol)
    # A wrapper subclass (DTensor, a quantized weight): the tensors that hold its values decide.
    if parts_a is None or parts_b is None or len(parts_a) != len(parts_b):
        return f"held as {type(a).__name__} in the first, {type(b).__name__} in the second"
    for left, right in zip(parts_a, parts_b, strict=True):
        if left.shape != right.shape or left.dtype != right.dtype:
            return f"inner {describe(left)} in the first, {describe(right)} in the second"
    texts = (
        difference(left, right, rtol, atol) for left, right in zip(parts_a, parts_b, strict=True)
    )
    return "; ".join(text for text in texts if text)


def difference_text(a: Tensor, b: Tensor, rtol: float = 0.0, atol: float = 0.0) -> str:
    """Return how two tensors of one shape and dtype differ, or ``""`` where they do not.

    Without tolerances values are the same where their bits are: 0.0 is not -0.0, and a NaN is
    the same NaN. With one, every NaN is the same and infinities must have one sign.
    """
    total = a.numel()
    exact = rtol == 0 and atol == 0
    count = zeros = nans = 0
    largest, at, relative = -1.0, 0, 0.0
    first = -1
    offset = 0
    for x, y, bits_differ in _chunks(a, b):
        close = (x == y) | (x.isnan() & y.isnan())
        gap = (x - y).abs()
        if exact:
            wrong = bits_differ
            zeros += int((wrong & (x == y)).sum())
            nans += int((wrong & x.isnan() & y.isnan()).sum())
        else:
            wrong = ~(close | (gap <= atol + rtol * y.abs()) & x.isfinite() & y.isfinite())
        if bool(wrong.any()):
            count += int(wrong.sum())
            where = int(wrong.nonzero()[0])
            first = offset + where if first < 0 else first
            measured = torch.where(wrong & gap.isfinite(), gap, torch.full_like(gap, -1.0))
            peak = int(measured.argmax())
            if float(measured[peak]) > largest:
                largest, at = float(measured[peak]), offset + peak
            scale = torch.where(gap > 0, gap / y.abs(), torch.zeros_like(gap))
            ratios = torch.where(wrong & gap.isfinite(), scale, torch.zeros_like(gap))
            relative = max(relative, float(ratios.max()))
        offset += x.numel()
    if not count:
        return ""
    text = f"{count:,} of {plural(total, 'value')}"
    if zeros + nans == count:
        kinds = [k for k, n in (("the sign of zero", zeros), ("the bits of NaN", nans)) if n]
        return f"{text}: only {' and '.join(kinds)}, first at {_index(a, first)}"
    if largest < 0:
        return f"{text}: NaN or infinity on one side, first at {_index(a, first)}"
    return f"{text}: max abs {largest:.3g} at {_index(a, at)}, max rel {relative:.3g}"


def _index(tensor: Tensor, flat: int) -> str:
    if tensor.layout is torch.strided and tensor.dim() == 0:
        return "[]"
    index = []
    for size in reversed(tensor.shape):
        index.append(flat % size)
        flat //= size
    return str(index[::-1])


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield float64 values of both sides and where their bits differ, piece by piece."""
    flat_a, flat_b = _flat(a), _flat(b)
    for start in range(0, flat_a.numel(), CHUNK):
        x, y = (flat[start : start + CHUNK].cpu() for flat in (flat_a, flat_b))
        differ = (x.contiguous().view(torch.uint8) != y.contiguous().view(torch.uint8)).view(
            x.numel(), -1
        )
        if x.is_complex():
            # A complex number differs where its distance is not zero; the distance is real.
            gap = (x.to(torch.complex128) - y.to(torch.complex128)).abs()
            size = y.to(torch.complex128).abs()
            yield size + gap, size, differ.any(1)
            continue
        yield _double(x), _double(y), differ.any(1)


def _double(values: Tensor) -> Tensor:
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
