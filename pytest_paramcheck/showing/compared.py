"""Two subjects beside one another: what was added, removed, reshaped, retied, and what moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_text, size_text
from ..parameters.tensors.sharded import read_whole


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different under a name. ``kind`` is one of ``KINDS``; ``change`` is how far values
    moved, as a share of the norm before, None where that cannot be told."""

    name: str
    kind: str
    text: str
    change: float | None = None


KINDS = ("added", "removed", "shape", "dtype", "tie", "requires_grad", "values", "not compared")


def compare(before: Inventory, after: Inventory, *, values: bool = True) -> list[Difference]:
    """Return what differs, name by name in the order of ``after``, then what was removed.

    A parameter that is tied on both sides is compared once, under its first name. ``values``:
    whether these are compared too.
    """
    found: list[Difference] = []
    seen: set[tuple[int, int]] = set()
    # Tensors of a mapping are often detached, and tied ones two: it has no flags and no ties.
    models = before.root is not None and after.root is not None
    for name, now in after.named.items():
        if name not in before.named:
            if _expected(before, after, name):
                found.append(Difference(name, "added", describe(now)))
            continue
        old = before.named[name]
        pair = (id(old), id(now))
        if old is None or now is None or pair in seen:
            continue
        seen.add(pair)
        found += _of_pair(name, old, now, flags=models, values=values)
    for name, old in before.named.items():
        if name not in after.named and _expected(after, before, name):
            found.append(Difference(name, "removed", describe(old)))
    if models:
        found += _ties(before, after)
    return found


def _expected(other: Inventory, own: Inventory, name: str) -> bool:
    """Whether a name that one side has alone is a difference: no state_dict holds what is not
    saved."""
    return other.root is not None or own.buffer_names.get(name) is not False


def _of_pair(
    name: str, old: Tensor, now: Tensor, *, flags: bool, values: bool
) -> Iterator[Difference]:
    if size_text(old) != size_text(now):
        yield Difference(name, "shape", f"{size_text(old)} -> {size_text(now)}")
        return
    if dtype_text(old) != dtype_text(now):
        yield Difference(name, "dtype", f"{dtype_text(old)} -> {dtype_text(now)}")
    if flags and old.requires_grad != now.requires_grad:
        words = "requires_grad turned on" if now.requires_grad else "requires_grad turned off"
        yield Difference(name, "requires_grad", words)
    if old is now or not values:
        return
    old, now = read_whole(old), read_whole(now)
    if reason := (no_values(old) or no_values(now)):
        both = _abstract(old) and _abstract(now)
        if not both:
            yield Difference(name, "not compared", reason)
        return
    if same_bits(old, now) is not True and (moved := _moved(old, now)) != 0:
        text = "values differ" if moved is None else f"moved by {moved:.2g} of its norm"
        yield Difference(name, "values", text, moved)


def _abstract(tensor: Tensor) -> bool:
    return is_lazy(tensor) or tensor.device.type == "meta"


def _moved(old: Tensor, now: Tensor) -> float | None:
    try:
        with torch.no_grad():
            a, b = _wide(old), _wide(now).to(old.device)
            moved = float(torch.linalg.vector_norm(b - a))
            size = float(torch.linalg.vector_norm(a))
    except Exception:  # a subclass that does not compute
        return None
    if not moved:
        return 0.0
    ratio = moved / size if size else math.inf
    return ratio if math.isfinite(ratio) else None


def _wide(tensor: Tensor) -> Any:
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    return plain.to(torch.complex64) if plain.is_complex() else plain.double()


def _ties(before: Inventory, after: Inventory) -> Iterator[Difference]:
    """Names on both sides that are one parameter on one of them only."""
    common = before.named.keys() & after.named.keys()
    groups = [
        {frozenset(name for name in group if name in common) for group in side.tie_groups}
        for side in (before, after)
    ]
    old, now = ({group for group in side if len(group) > 1} for side in groups)
    order = {name: number for number, name in enumerate(after.named)}
    for group, words in [*((g, "tie lost") for g in old - now), *((g, "tied") for g in now - old)]:
        names = sorted(group, key=order.__getitem__)
        yield Difference(names[0], "tie", f"{words}: {' = '.join(names)}")
