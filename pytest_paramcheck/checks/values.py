"""Values against conditions: how many do not satisfy theirs, the worst one, and where it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import a_or_an, cut, plural
from ..parameters.subject.declared import Declared
from ..parameters.subject.elements import elements
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import dtype_name, size_text
from ..values import Between, Condition, Norm, Orthogonal, Symmetric, Triangular, ZeroWhere
from .orthogonality import not_orthogonal
from .readable import plain_values
from .statistics import grid_of

#: What is asked of values: a condition, or a function of a tensor that returns a bool tensor.
Asked = Condition | Callable[[Tensor], object]


def broken(declared: Sequence[Declared[Asked]]) -> list[Finding]:
    """Find the entries whose values do not satisfy what is declared of them."""
    findings = []
    with torch.no_grad():
        for item in declared:
            values = _values_of(item.entry)
            if not values.numel():
                continue
            asked = item.value
            said = _found(item.entry, values, asked)
            if not said:
                continue
            if isinstance(asked, Condition):
                findings.append(
                    Finding(item.names, asked.problem(), expected=asked.describe(), found=said)
                )
            else:
                expected = f"{text_of(asked)} to be True"
                findings.append(Finding(item.names, "condition not met", expected, said))
    return findings


def text_of(asked: Asked) -> str:
    """Return a condition as it was written, and the name of a function."""
    if isinstance(asked, Condition):
        return asked.describe()
    name = str(getattr(asked, "__name__", type(asked).__name__))
    return "the lambda" if name == "<lambda>" else name


def demand_condition(pattern: str, asked: object) -> None:
    """Raise for what is no condition, and for one of ours that was not called."""
    if isinstance(asked, Condition):
        return
    ours = getattr(asked, "__module__", "") == Condition.__module__
    if ours:
        name = getattr(asked, "__name__", type(asked).__name__)
        raise ParamCheckUsageError(f"{pattern}: values.{name} is not a condition: call it")
    if not callable(asked) or isinstance(asked, type):
        raise ParamCheckUsageError(
            f"{pattern}: {asked!r} is not a condition of pytest_paramcheck.values, like "
            f"values.between(0, 1), nor a function of a tensor"
        )


def _values_of(entry: Entry) -> Tensor:
    whole = entry.tensor
    if whole is None:
        raise ParamCheckUsageError(f"{entry.name} is None: it has no values")
    if reason := no_values(whole):
        raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
    some = elements(entry)
    return plain_values(entry.name, whole if some is None else some)


def _found(entry: Entry, values: Tensor, asked: Asked) -> str:
    """Return what does not satisfy a condition, or ``""``."""
    name = entry.name
    dtype = values.dtype if entry.tensor is None else entry.tensor.dtype
    if dtype.is_floating_point and dtype == values.dtype:
        dtype = grid_of(values)  # what was rounded in a narrower one and widened is as coarse
    nan = values.isnan() if values.is_floating_point() or values.is_complex() else None
    broken_ones = 0 if nan is None else int(nan.sum())
    if nan is not None and broken_ones:
        at = _place(nan, int(nan.reshape(-1).to(torch.uint8).argmax()))
        return f"{broken_ones:,} of {plural(values.numel(), 'value')} NaN, first at {at}"
    if not isinstance(asked, Condition):
        return _of_function(name, values, asked)
    if values.is_complex() and isinstance(asked, Between):
        raise ParamCheckUsageError(f"{name} is complex: {asked.describe()} has no meaning for it")
    match asked:
        case Between():
            return _between(values, asked)
        case Norm():
            return _norms(name, values, asked, dtype)
        case Orthogonal():
            _demand_matrix(name, values, asked)
            return not_orthogonal(values, asked.gain, dtype, grown=True)
        case Symmetric():
            _demand_matrix(name, values, asked, square=True)
            return _symmetric(values, dtype)
        case Triangular():
            _demand_matrix(name, values, asked)
            keep = torch.triu if asked.upper else torch.tril
            inside = keep(torch.ones_like(values, dtype=torch.bool), asked.diagonal)
            return _zero(values, values.ne(0) & ~inside)
        case ZeroWhere():
            if asked.mask.shape != values.shape:
                raise ParamCheckUsageError(
                    f"{name} is {size_text(values)}, and the mask of zero_where "
                    f"{size_text(asked.mask)}"
                )
            return _zero(values, values.ne(0) & asked.mask.to(values.device))
    raise ParamCheckUsageError(f"{asked!r} is not a condition of pytest_paramcheck.values")


def _demand_matrix(name: str, values: Tensor, asked: Condition, *, square: bool = False) -> None:
    if values.dim() < 2 or (square and values.shape[-1] != values.shape[-2]):
        kind = "a square matrix" if square else "a matrix"
        raise ParamCheckUsageError(
            f"{name} is {size_text(values)}, and {asked.describe()} asks about {kind}"
        )


def _between(values: Tensor, asked: Between) -> str:
    low, high = (_as_held(bound, values.dtype) for bound in (asked.low, asked.high))
    ends = values if values.is_floating_point() else values.double()  # uint16 has no aminmax()
    smallest, largest = (float(end) for end in ends.aminmax())
    inside = low < smallest if asked.open else low <= smallest
    if inside and (largest < high if asked.open else largest <= high):
        return ""
    x = (values.cpu() if values.device.type == "mps" else values).double()
    off = torch.maximum(low - x, x - high)  # an infinite bound less itself is NaN: not off
    return _worst(values, off >= 0 if asked.open else off > 0, off)


def _as_held(bound: float, dtype: torch.dtype) -> float:
    """Return a bound as ``clamp_()`` rounds it: 0.1 is 0.10009765625 in bfloat16."""
    if not dtype.is_floating_point or abs(bound) > torch.finfo(dtype).max:
        return bound
    return torch.tensor(bound, dtype=dtype, device="cpu").double().item()


def _zero(values: Tensor, wrong: Tensor) -> str:
    numbers = values.is_floating_point() or values.is_complex()
    size = (values if numbers else values.float()).abs()  # bool and uint16 have no abs()
    return _worst(values, wrong, size.double() if size.device.type != "mps" else size.float())


def _symmetric(values: Tensor, dtype: torch.dtype) -> str:
    wide = torch.complex128 if values.is_complex() else torch.float64
    x = values.to(wide) if values.device.type != "mps" else values.cpu().to(wide)
    gap = (x - x.transpose(-1, -2)).abs()
    eps = torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0
    limit = min(4 * eps, 0.5) * float(x.abs().max())  # 4 spacings of float8_e5m2 are all of it
    return _worst(values, gap > limit, gap, what="off from its mirror by")


def _norms(name: str, values: Tensor, asked: Norm, dtype: torch.dtype) -> str:
    wide = torch.complex128 if values.is_complex() else torch.float64
    x = values.to(wide) if values.device.type != "mps" else values.cpu().to(wide)
    try:
        norms = torch.linalg.vector_norm(x, asked.p, asked.dim)
    except (IndexError, TypeError, RuntimeError) as error:
        raise ParamCheckUsageError(
            f"{name} is {size_text(values)}: {asked.describe()} does not fit it ({error})"
        ) from None
    count = values.numel() // max(1, norms.numel())
    wanted = float(asked.bound)
    off = norms - wanted if asked.equals is None else (norms - wanted).abs()
    wrong = off > wanted * _rounding(dtype, count)
    if not bool(wrong.any()):
        return ""
    if not norms.dim():
        return f"{asked.p:g}-norm {_apart(float(norms), wanted)}"
    at = int(torch.where(wrong, off, -torch.ones_like(off)).argmax())
    worst = float(norms.reshape(-1)[at])
    return (
        f"{int(wrong.sum()):,} of {plural(norms.numel(), 'norm')}, "
        f"worst {_apart(worst, wanted)} at {_place(norms, at)}"
    )


def _apart(number: float, wanted: float) -> str:
    """Write a number with as many digits as tell it from another one."""
    short = f"{number:.6g}"
    return short if short != f"{wanted:.6g}" else f"{number:.12g}"


def _rounding(dtype: torch.dtype, count: int) -> float:
    """How far, relative to its size, a norm of so many values may be off by rounding alone.

    What was divided by its norm: both are rounded to the dtype, and the sum of squares, in
    float32 at least, at every addition.
    """
    if not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    eps = torch.finfo(dtype).eps
    return 4 * eps + min(eps, torch.finfo(torch.float32).eps) * math.sqrt(count)


def _of_function(name: str, values: Tensor, asked: Callable[[Tensor], object]) -> str:
    answer = asked(values.clone())  # what it writes is not the subject's
    if isinstance(answer, bool):
        return "" if answer else "False of all of it"
    if not isinstance(answer, Tensor) or answer.dtype is not torch.bool:
        kind = cut(repr(answer), 40)
        if isinstance(answer, Tensor):
            kind = a_or_an(f"{dtype_name(answer.dtype)} tensor")
        raise ParamCheckUsageError(
            f"{text_of(asked)} returned {kind} for {name}: "
            f"a condition returns a bool tensor, or a bool"
        )
    wrong = ~answer
    if not bool(wrong.any()):
        return ""
    if wrong.numel() == 1:
        return "False of all of it"
    at = int(wrong.reshape(-1).to(torch.uint8).argmax())
    if wrong.shape != values.shape:
        count = f"{int(wrong.sum()):,} of {wrong.numel():,}"
        return f"{count} False, first at {_place(wrong, at)}"
    return (
        f"{int(wrong.sum()):,} of {plural(values.numel(), 'value')}, "
        f"first {_shown(values.reshape(-1)[at])} at {_place(values, at)}"
    )


def _worst(values: Tensor, wrong: Tensor, off: Tensor, what: str = "") -> str:
    """Say how many are wrong, and the one that is off most."""
    wrong = wrong.to(off.device)
    if not bool(wrong.any()):
        return ""
    at = int(torch.where(wrong, off, -torch.ones_like(off)).argmax())
    shown = f"{what} {float(off.reshape(-1)[at]):.4g}" if what else _shown(values.reshape(-1)[at])
    if not values.dim():
        return f"it is {shown}"
    return (
        f"{int(wrong.sum()):,} of {plural(values.numel(), 'value')}, "
        f"worst {shown} at {_place(values, at)}"
    )


def _shown(value: Tensor) -> str:
    number = value.item()
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _place(tensor: Tensor, flat: int) -> str:
    index = []
    for size in reversed(tensor.shape):
        index.append(flat % size)
        flat //= size
    return str(index[::-1])
