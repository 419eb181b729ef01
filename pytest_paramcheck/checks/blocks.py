"""What a block of code did to parameters and buffers: changed, left alone, updated, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.running.kept import AfterBlock, Kept
from ..parameters.running.watch import Seen, Watch
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import no_values, version_of
from ..parameters.tensors.describe import describe, dtype_text
from ..parameters.tensors.digest import content_difference
from ..parameters.tensors.memory import memory_of

#: ``(names, tensor) -> (reason, hint)`` where it is known what moves an entry, else two ``""``.
Cause: TypeAlias = Callable[[tuple[str, ...], Tensor], tuple[str, str]]
ASPECTS = ("values", "objects", "flags")
LOW_PRECISION = ("bfloat16", "float16")


def parse_aspects(only: object) -> frozenset[str]:
    """Return what ``only`` names, or raise :class:`ParamCheckUsageError` for what is none."""
    asked = (only,) if isinstance(only, str) else only
    if not isinstance(asked, (tuple, list, set, frozenset)) or not asked:
        raise ParamCheckUsageError(f"only={only!r}: name one or more of {', '.join(ASPECTS)}")
    for aspect in asked:
        if aspect not in ASPECTS:
            raise ParamCheckUsageError(f"only={only!r}: {aspect!r} is none of {', '.join(ASPECTS)}")
    return frozenset(asked)


def changes(
    kept: Sequence[Kept],
    after: AfterBlock,
    aspects: frozenset[str],
    cause: Cause,
) -> list[Finding]:
    """Find what is no longer as it was kept."""
    findings = []
    for old, names, now in after.rows:
        if now is None:
            findings.append(Finding(names, "vanished", found=f"was {old.described}"))
            continue
        replaced = replacement(old, now)
        if "values" in aspects and after.moved(old, now):
            why, hint = cause(names, now)
            said = [moved_text(old, now, after), replaced, why or _writer(old, now, replaced)]
            findings.append(
                Finding(names, "values changed", found="; ".join(filter(None, said)), hint=hint)
            )
        if "objects" in aspects and replaced:
            hint = "an optimizer built before still holds the old one"
            findings.append(
                Finding(
                    names,
                    "replaced" if now is not old.tensor else "memory replaced",
                    found=replaced,
                    hint=hint if now is not old.tensor and old.kind == "parameter" else "",
                )
            )
        if "flags" in aspects and now.requires_grad != old.requires_grad:
            findings.append(
                Finding(
                    names,
                    "thawed" if now.requires_grad else "frozen",
                    found=f"requires_grad was {old.requires_grad}, is {now.requires_grad}",
                )
            )
    return findings


def no_cause(names: tuple[str, ...], tensor: Tensor) -> tuple[str, str]:
    """Know of no reason."""
    return "", ""


def causes(inventory: Inventory, watch: Watch) -> Cause:
    """Return what is known about writers: normalisation statistics, optimizers that stepped."""
    modules = dict(inventory.modules)

    def cause(names: tuple[str, ...], tensor: Tensor) -> tuple[str, str]:
        for name in names:
            owner, _, leaf = name.rpartition(".")
            module = modules.get(owner)
            statistic = leaf in ("running_mean", "running_var", "num_batches_tracked")
            if statistic and isinstance(module, _NormBase) and module.training:
                called = type(module).__name__
                return (
                    f"{called} in train mode updates it in every forward",
                    f"model.eval() keeps the statistics of {called}; requires_grad does not",
                )
        seen = watch.seen(tensor) if watch.knows(tensor) else None
        if seen is None or not seen.optimizers:
            return "", ""
        stepped = " and ".join(seen.optimizers)
        hint = f"keep it out of {stepped}, or clear its gradient before the step"
        if seen.stepped_with:
            frozen = "" if tensor.requires_grad else ", although it is frozen"
            return f"{stepped} stepped it with the gradient in .grad{frozen}", hint
        return _moved_without_gradient(seen)[0], hint

    return cause


def appeared(kept: Sequence[Kept], selected: Iterable[Entry]) -> list[Finding]:
    """Find the selected names that nothing had before."""
    known = {name for old in kept for name in old.names}
    findings = []
    for entry in selected:
        new = tuple(name for name in entry.names if name not in known)
        if new and entry.tensor is not None:
            findings.append(Finding(new, "appeared", found=describe(entry.tensor)))
    return findings


def unchanged(after: AfterBlock) -> list[Finding]:
    """Find the entries that hold the very bits they held."""
    findings = []
    for old, names, now in after.rows:
        if now is None:
            findings.append(Finding(names, "vanished", found=f"was {old.described}"))
        elif not after.moved(old, now):
            version = version_of(now)
            written = "every bit is as it was"
            if now is not old.tensor:
                written = "replaced by another object with the same bits"
            elif version != old.version:
                written = "it was written, with the bits it had"
            findings.append(Finding(names, "not changed", found=written))
    return findings


def not_updated(
    after: AfterBlock,
    watch: Watch,
    finite_before: dict[int, bool],
    broken: dict[int, str],
    may_stand_still: Callable[[tuple[str, ...]], bool] | None = None,
) -> list[Finding]:
    """Find the entries that did not move because of a gradient, each with the reason.

    ``finite_before`` says by object whether all values were finite before the block;
    ``broken`` counts by object the values that are not finite now; ``may_stand_still`` says by
    names who need not move at all.
    """
    findings = []
    backward = any(watch.seen(old.tensor).arrived is not None for old, _, _ in after.rows)
    for old, names, now in after.rows:
        if now is None:
            findings.append(Finding(names, "vanished", found=f"was {old.described}"))
            continue
        seen = watch.seen(old.tensor)
        if now is not old.tensor:
            findings.append(
                Finding(
                    names,
                    "replaced, not updated",
                    found=replacement(old, now),
                    hint="an optimizer built before still holds the old one",
                )
            )
        elif text := broken.get(id(now)):
            if not finite_before[id(now)]:
                why = "it was not finite before the block either"
            elif seen.gradient is not None and not math.isfinite(seen.gradient):
                why = "its gradient was not finite"
            else:
                why = "its gradient was finite: the step itself overflowed"
            findings.append(Finding(names, "moved to NaN or infinity", found=text, why=why))
        elif after.moved(old, now):
            if not seen.gradient:
                why, hint = _moved_without_gradient(seen)
                findings.append(
                    Finding(
                        names,
                        "moved, but by no gradient",
                        found=moved_text(old, now, after),
                        why=why,
                        hint=hint,
                    )
                )
        elif may_stand_still is None or not may_stand_still(names):
            why, hint = _not_changed(old, now, seen, watch, backward)
            findings.append(Finding(names, "not updated", found=why, hint=hint))
    return findings


def _moved_without_gradient(seen: Seen) -> tuple[str, str]:
    if seen.optimizers and seen.stepped_with is not None:
        by = []
        if seen.weight_decay:
            by.append(f"weight decay {seen.weight_decay:g}")
        if seen.momentum:
            by.append("momentum of earlier steps")
        stepped = " and ".join(seen.optimizers)
        if by:
            said = f"{stepped} moved it by {' and '.join(by)} only, its gradient was all zero"
            return said, _cleared(seen)
        return f"{stepped} stepped it with a gradient of all zero", _cleared(seen)
    if seen.optimizers:
        said = f"{' and '.join(seen.optimizers)} stepped without a gradient for it"
        return f"{said}, something else wrote it", _cleared(seen)
    if seen.arrived is not None:
        return "its gradient was all zero and no optimizer stepped it, something else wrote it", ""
    return "no gradient reached it and no optimizer stepped it, something else wrote it", ""


def _cleared(seen: Seen) -> str:
    return "a gradient had arrived, and was cleared before the step" if seen.arrived else ""


def _not_changed(
    old: Kept, now: Tensor, seen: Seen, watch: Watch, backward: bool
) -> tuple[str, str]:
    """Return why a parameter did not move, and what to do about it."""
    if not old.requires_grad:
        thawed = ", thawed in the block" if now.requires_grad else ""
        return f"frozen (requires_grad=False{thawed})", ""
    if seen.arrived is None and seen.stepped_with is None:
        if not backward and not seen.optimizers:
            return "no gradient: no backward pass reached any of the selected parameters", ""
        return (
            "no gradient reached it",
            "assert_grads_reach(model, loss_fn) says why a gradient does not arrive",
        )
    if not seen.arrived and not seen.stepped_with:
        return "its gradient was all zero", ""
    if not watch.optimizers:
        return "got a gradient, but no optimizer stepped", ""
    if not seen.optimizers and watch.unread:
        return f"got a gradient, but what {' and '.join(watch.unread)} holds cannot be read", ""
    if not seen.optimizers:
        stepped = " and ".join(watch.optimizers)
        return (
            f"got a gradient, but {stepped} does not hold it",
            "assert_optimizer_covers(optimizer, model) names what is missing and what is stale",
        )
    stepped = " and ".join(seen.optimizers)
    if not seen.stepped_with:
        return f"its gradient was cleared before {stepped} stepped", ""
    if seen.lr == 0:
        return f"got a gradient, but {stepped} stepped it with lr 0", ""
    dtype = dtype_text(now)
    size = f"largest gradient {seen.stepped_with:.3g}, lr {seen.lr:g}"
    if dtype in LOW_PRECISION:
        return (
            f"got a gradient, but {stepped}'s step was rounded away in {dtype} ({size})",
            f"keep a float32 copy of {dtype} parameters for the optimizer, or round stochastically",
        )
    still = f"got a gradient and {stepped} stepped it, but no bit changed ({size})"
    return f"{still}: below what {dtype} resolves, or the old values were written back", ""


def moved_text(old: Kept, now: Tensor, after: AfterBlock) -> str:
    """Say by how much, or into what, an entry changed."""
    described = describe(now)
    content = after.content(now)
    if described != old.described and _geometry(described) != _geometry(old.described):
        return f"was {old.described}, is {described}"
    if content is None or old.content is None:
        return f"is {described}, {no_values(now)}"
    return content_difference(old.content, content)


def _geometry(described: str) -> str:
    return described.partition(" ")[2]


def replacement(old: Kept, now: Tensor) -> str:
    """Say how the object or its memory was replaced; ``""`` where neither was."""
    if now is not old.tensor:
        if memory_of(now).key == old.memory.key and old.memory.blocks:
            return f"another {type(now).__name__} object, on the same memory"
        return f"another {type(now).__name__} object"
    memory = memory_of(now)
    if memory.key != old.memory.key and not (memory.unknown or old.memory.unknown):
        return f"the same {type(now).__name__} object, on other memory"
    return ""


def _writer(old: Kept, now: Tensor, replaced: str) -> str:
    """Say what ``_version`` tells about who wrote: a hint, never the proof."""
    version = version_of(now)
    if replaced or version is None or old.version is None:
        return ""
    if version == old.version:
        return "written behind autograd's back (.data, numpy, a fused optimizer, the storage)"
    return ""
