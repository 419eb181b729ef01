"""One entry of a checkpoint against the parameter or buffer that it was loaded into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import first_line, plural
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_text, size_text
from ..parameters.tensors.memory import inner_tensors
from ..parameters.tensors.raw import same_bytes
from ..parameters.tensors.sharded import is_dtensor, local_of
from .rearranged import rearranged
from .rounded import rounded
from .same_values import difference

#: Values looked at of each tensor where the question is only whether two are related.
_SAMPLE = 1 << 16


class Difference(NamedTuple):
    """A finding; ``values`` says that it is about the values alone, not about what they are in."""

    finding: Finding
    values: bool = False


def other_dtypes(
    model: Inventory, checkpoint: Inventory, key_names: Mapping[str, str]
) -> list[Finding]:
    """Find what a load cast to another dtype than the checkpoint's, values apart."""
    findings = []
    for key, name in key_names.items():
        saved, held = checkpoint.named[key], model.named[name]
        if saved is None or held is None or saved.dtype == held.dtype:
            continue
        if _family(saved.dtype) != _family(held.dtype):
            continue  # said of the values already
        findings.append(
            Finding(
                (name,),
                "not the checkpoint's dtype",
                found=f"{dtype_text(saved)} in the checkpoint, {dtype_text(held)} in the model",
                hint="build or move the model in the checkpoint's dtype before the load, or load "
                "with assign=True; if the cast is intended: leave out dtypes=True",
            )
        )
    return findings


def without_values(*tensors: Tensor | None) -> bool:
    """Whether one of them is on meta or the like, so that nothing can be told by values."""
    return any(tensor is not None and bool(no_values(tensor)) for tensor in tensors)


def different(key: str, saved: Tensor | None, held: Tensor | None) -> Difference | None:
    """Return in what the model's tensor differs from the checkpoint's, cast as a load casts it."""
    if saved is None:
        return None
    if held is None:
        return _other_values(key, "None")
    if same_bytes(saved, held):
        return None
    for tensor, where in ((held, "of the model"), (saved, "of the checkpoint")):
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{key} {where}: {reason}; its values cannot be compared")
    # A (1,) entry goes into a 0-dim parameter by torch's own rule; nothing else is reshaped.
    scalar = held.dim() == 0 and tuple(saved.shape) == (1,)
    if saved.shape != held.shape and not scalar:
        fits = _fits(saved, held)
        wrong = Finding(
            (key,),
            "wrong shape",
            expected=f"{size_text(saved)} as in the checkpoint",
            found=size_text(held),
            why="equal after broadcasting, which is not a match" if fits else "",
            hint="" if fits else "if it is meant to be new: missing=[...], unexpected=[...]",
        )
        return Difference(wrong)
    if _family(saved.dtype) != _family(held.dtype):
        wrong = Finding((key,), "wrong dtype", dtype_text(saved), dtype_text(held))
        return Difference(wrong)
    with torch.no_grad():
        return _compare(key, saved.detach(), held.detach())


_SIDES = ("in the model", "in the checkpoint")


def _other_values(key: str, found: str, why: str = "") -> Difference:
    wrong = Finding((key,), "not the checkpoint's values", found=found, why=why)
    return Difference(wrong, values=True)


def _compare(key: str, saved: Tensor, held: Tensor) -> Difference | None:
    if same_bits(saved, held):
        return None
    whole = held if is_dtensor(held) and is_dtensor(saved) else None
    if whole is not None:
        saved, held = local_of(saved).detach(), local_of(held).detach()
    strided = saved.layout is held.layout is torch.strided
    if strided and (inner_tensors(saved) is None) != (inner_tensors(held) is None):
        # A whole tensor against a shard or a packed weight: neither is the other's values.
        raise ParamCheckUsageError(
            f"{key} is {describe(saved)} in the checkpoint and {describe(held)} in the model: "
            f"they do not hold their values in the same way and cannot be compared"
        )
    try:
        if saved.shape != held.shape:
            saved = saved.reshape(held.shape)
        saved = saved.to(held.device)
        if _family(held.dtype) == "integer":
            text = _other_integers(saved, held)
            return _other_values(key, text) if text else None
        cast = saved.to(held.dtype)
        if not same_bits(cast, held):
            text = difference(held, cast, sides=_SIDES, whole=whole)
            why = rounded(held, cast, _SIDES) or rearranged(held, cast, "of the checkpoint")
            return _other_values(key, text, why) if text else None
        return _lost_in_cast(key, saved, cast)
    except (RuntimeError, TypeError) as error:
        # Subclasses compute what they know to: a DTensor and a plain tensor do not mix.
        raise ParamCheckUsageError(
            f"{key}: {describe(saved)} of the checkpoint and {describe(held)} of the model cannot "
            f"be compared ({type(error).__name__}: {first_line(error)})"
        ) from None


def _other_integers(saved: Tensor, held: Tensor) -> str:
    """Say how integers differ: the wide ones, since a cast to a narrower type wraps round."""
    signed, wide = held.to(torch.int64), saved.to(torch.int64)
    if (saved.dtype == torch.uint64) != (held.dtype == torch.uint64):
        # A number above the range of int64 wraps round on one side only.
        unsigned = wide if saved.dtype == torch.uint64 else signed
        if beyond := int((unsigned < 0).sum()):
            return f"{beyond:,} of {plural(held.numel(), 'value')} beyond the range of int64"
    return "" if same_bits(signed, wide) else difference(signed, wide, sides=_SIDES)


def _lost_in_cast(key: str, saved: Tensor, cast: Tensor) -> Difference | None:
    """Find values that the wider entry had and the parameter cannot have: overflow, and more
    than half underflowed. Rounding loses none, and a few tiny values are lost in any cast."""
    if saved.dtype == cast.dtype or inner_tensors(saved) is not None:
        return None
    wide, narrow = _computable(saved), _computable(cast)
    largest = torch.finfo(cast.dtype).max
    # A cast to float8 stops at the largest number there is; up to one step it is rounding.
    beyond = wide.abs() > largest * (1 + torch.finfo(cast.dtype).eps)
    over = wide.isfinite() & (~narrow.isfinite() | beyond)
    under = (wide != 0) & (narrow == 0)
    if bool(over.any()):
        lost, what = over, "overflowed"
    elif int(under.sum()) * 2 > int((wide != 0).sum()):
        lost, what = under, "underflowed to zero"
    else:
        return None
    first = lost.nonzero()[0].tolist()
    count = f"{int(lost.sum()):,} of {plural(lost.numel(), 'value')}"
    found = f"{count} {what}, first at {first}"
    name = dtype_text(cast)
    wrong = Finding(
        (key,),
        "values lost in the cast",
        found=found,
        why=f"{name} cannot hold what the checkpoint has in {dtype_text(saved)}",
        hint=f"keep in {dtype_text(saved)} what {name} cannot hold",
    )
    return Difference(wrong)


def _computable(values: Tensor) -> Tensor:
    """Return values that torch computes with: float8 has few operations."""
    return values.float() if values.element_size() == 1 else values


def are_unrelated(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether the values of all pairs together are as far apart as values drawn anew.

    What was loaded and trained since is near what was loaded: the square of its distance is a
    small part of the squares of both. Of values that have nothing to do with each other it is
    all of them.
    """
    apart = total = 0.0
    with torch.no_grad():
        for saved, held in pairs:
            try:
                a, b = (
                    local_of(t).detach().reshape(-1)[:_SAMPLE].cpu().double() for t in (saved, held)
                )
                apart += float((a - b).square().sum())
                total += float(a.square().sum() + b.square().sum())
            except (RuntimeError, TypeError):
                return False  # kinds that compute nothing: each is listed
    return apart >= 0.5 * total


def fingerprint(tensor: Tensor | None) -> tuple[object, ...] | None:
    """Return shape and first values, which tell most tensors apart; None for constant ones."""
    try:
        if tensor is None or is_constant(tensor):
            return None
        with torch.no_grad():
            first = local_of(tensor).detach().reshape(-1)[:8].cpu()
            if first.is_complex():
                first = torch.view_as_real(first.resolve_conj()).reshape(-1)
        return (tuple(tensor.shape), *first.to(torch.bfloat16).tolist())
    except (RuntimeError, TypeError):
        return None


def is_constant(tensor: Tensor) -> bool:
    """Whether all values are one: every model starts with such zeros and ones."""
    try:
        with torch.no_grad():
            flat = local_of(tensor).detach().reshape(-1)
            return bool((flat == flat[0]).all()) if flat.numel() else True
    except (RuntimeError, TypeError):
        return False


def _family(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "floating"
    return "integer" if dtype in _INTEGERS else str(dtype)


_INTEGERS = frozenset(
    getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
)


def _fits(a: Tensor, b: Tensor) -> bool:
    """Whether one of two tensors broadcasts to the other and then holds the same values."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    if is_dtensor(a) or is_dtensor(b):
        return False  # other ranks have the rest
    try:
        return bool((a.to(b.device, wide) == b.to(wide)).all())
    except (RuntimeError, TypeError):
        return False
