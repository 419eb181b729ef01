"""What a block of code did to parameters and buffers: changed, left alone, updated, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import join_words
from ..parameters.running.kept import AfterBlock, Kept, attributes_of
from ..parameters.running.watch import Watch
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.content import no_values, version_of
from ..parameters.tensors.describe import describe
from ..parameters.tensors.digest import content_difference
from ..parameters.tensors.memory import memory_of
from .same_values import beyond, moved_by_less
from .shares import too_few
from .tolerance import Tolerance, in_one_dtype, other_form
from .writers import Cause, not_changed, without_gradient

ASPECTS = ("values", "objects", "flags", "attributes")
REMOVED = "removed"


def parse_aspects(only: object, *, tolerance: bool = False) -> frozenset[str]:
    """Return what ``only`` names, or raise :class:`ParamCheckUsageError` for what is none, and
    for a tolerance where no values are asked about."""
    asked = (only,) if isinstance(only, str) else only
    if not isinstance(asked, (tuple, list, set, frozenset)) or not asked:
        raise ParamCheckUsageError(f"only={only!r}: name one or more of {', '.join(ASPECTS)}")
    for aspect in asked:
        if aspect not in ASPECTS:
            raise ParamCheckUsageError(
                f"only={only!r}: {aspect!r} is not one of {', '.join(ASPECTS)}"
            )
    if tolerance and "values" not in asked:
        raise ParamCheckUsageError(f"only={only!r} asks about no values: leave rtol and atol out")
    return frozenset(asked)


def require_objects(aspects: frozenset[str], inventory: Inventory) -> None:
    """Raise :class:`ParamCheckUsageError` where objects are asked for and cannot be replaced.

    Not where everything is asked, as by default: flags and values of such a subject can change.
    """
    if "objects" not in aspects or aspects >= {"values", "objects", "flags"}:
        return
    if inventory.saved or inventory.from_pairs:
        held = "a state_dict holds" if inventory.saved else "(name, tensor) pairs hold"
        raise ParamCheckUsageError(
            f"only='objects': {held} the tensors themselves, so one that is replaced in the model "
            f"is not seen: pass the module"
        )


def off_by_more(rtol: float, atol: float) -> Callable[[Tensor, Tensor], str]:
    """Return what says how far values are from what they were, where it is beyond tolerances."""
    said = ", ".join(f"{n}={v:g}" for n, v in (("rtol", rtol), ("atol", atol)) if v)
    tolerance = Tolerance(rtol, atol)

    def differs(before: Tensor, now: Tensor) -> str:
        if tolerance.holds(now, before):
            return ""
        if form := other_form(before, now):
            return form
        # As torch.testing: relative to what is expected, which is what it was.
        found = beyond(now, before, tolerance, ("after", "before"))
        return f"{found} ({said})" if found else ""

    return differs


def moved_more(more_than: float) -> Callable[[Tensor, Tensor], str]:
    """Return what says by how much values moved, where one of them did by more than that."""
    tolerance = Tolerance(0.0, more_than)

    def differs(before: Tensor, now: Tensor) -> str:
        if before.shape != now.shape or before.layout != now.layout:
            return other_form(before, now)
        new, old = in_one_dtype(now, before)
        return beyond(new, old, tolerance, ("after", "before"))

    return differs


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
            findings.append(Finding(names, REMOVED, found=f"was {old.described}"))
            continue
        moved = "values" in aspects and after.moved(old, now)
        replaced = replacement(old, now) if moved or "objects" in aspects else ""
        if moved:
            why, hint = cause(old, names, now, replaced)
            said = [moved_text(old, now, after), replaced, why]
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
                    f"requires_grad turned {'on' if now.requires_grad else 'off'}",
                    found=f"requires_grad was {old.requires_grad}, is {now.requires_grad}",
                )
            )
        if "attributes" in aspects and (lost := _lost(old, now)):
            findings.append(
                Finding(
                    names,
                    "attributes lost",
                    found=join_words(lost),
                    why=f"another {type(now).__name__} object" if now is not old.tensor else "",
                    hint=(
                        f"copy what hangs on a parameter to the one that replaces it: "
                        f"new.__dict__.update(old.__dict__) keeps {lost[0]}"
                    ),
                )
            )
    return findings


def _lost(old: Kept, now: Tensor) -> list[str]:
    """Return the attributes that hung on what was kept, and hang on nothing of this name now."""
    if now is old.tensor and len(old.attributes) == len(getattr(now, "__dict__", ())):
        return []
    left = frozenset(attributes_of(now))
    return [name for name in old.attributes if name not in left]


def added(known: Collection[str], selected: Iterable[Entry]) -> list[Finding]:
    """Find the selected names that nothing had before."""
    findings = []
    for entry in selected:
        new = tuple(name for name in entry.names if name not in known)
        if new and entry.tensor is not None:
            findings.append(Finding(new, "added", found=describe(entry.tensor)))
    return findings


def unchanged(after: AfterBlock, more_than: float = 0.0) -> list[Finding]:
    """Find the entries that hold the very bits they held, or moved by no more than that."""
    findings = []
    for old, names, now in after.rows:
        if now is None:
            findings.append(Finding(names, REMOVED, found=f"was {old.described}"))
        elif lost := _no_values_left(names, now):
            findings.append(lost)
        elif more_than and not after.moved(old, now):
            problem = f"not changed by more than {more_than:g}"
            findings.append(Finding(names, problem, found=_by_less(old, now), everywhere=True))
        elif not after.moved(old, now):
            version = version_of(now)
            written = "values are bit-identical"
            if now is not old.tensor:
                written = "replaced by another object with the same bits"
            elif version != old.version:
                written = "written to, but with the same values"
            elif version is not None:
                written += ", and no write to it was seen"
            findings.append(Finding(names, "not changed", found=written, everywhere=True))
        elif after.only_cast(old, now):
            found = f"was {old.described}, is {describe(now)}, with the values it had"
            findings.append(Finding(names, "not changed", found=found))
    return findings


def _by_less(old: Kept, now: Tensor) -> str:
    if old.copy is None:
        return ""
    gap = moved_by_less(old.copy, old.elements_of(now))
    return gap or "values are bit-identical"


def _no_values_left(names: tuple[str, ...], now: Tensor) -> Finding | None:
    """Find an entry that cannot be compared: what it would hold is not what it held moved."""
    reason = no_values(now)
    return Finding(names, "no values left", found=describe(now), why=reason) if reason else None


def not_updated(
    after: AfterBlock,
    watch: Watch,
    finite_before: dict[int, bool],
    broken: dict[int, str],
    elsewhere: Mapping[int, str],
    may_stand_still: Callable[[tuple[str, ...]], bool] | None = None,
) -> list[Finding]:
    """Find the entries that did not move because of a gradient, each with the reason.

    By what is watched: ``finite_before`` says whether all values were finite before the block;
    ``broken`` counts the values that are not finite now; ``elsewhere`` names
    the attribute that was written instead of ``.grad``; ``may_stand_still`` says by names who
    need not move at all.
    """
    findings = []
    everything = {id(old.watched): watch.seen(old.watched) for old, _, _ in after.rows}
    arrived = [seen.arrived for seen in everything.values() if seen.arrived is not None]
    finite = all(map(math.isfinite, arrived))
    for old, names, now in after.rows:
        if now is None:
            findings.append(Finding(names, REMOVED, found=f"was {old.described}"))
            continue
        seen = everything[id(old.watched)]
        written = elsewhere.get(id(old.watched), "")
        if now is not old.tensor:
            findings.append(
                Finding(
                    names,
                    "replaced, not updated",
                    found=replacement(old, now),
                    hint="an optimizer built before still holds the old one",
                )
            )
        elif lost := _no_values_left(names, now):
            findings.append(lost)
        elif text := broken.get(id(old.watched)):
            if not finite_before[id(old.watched)]:
                why = "it was not finite before the block either"
            elif seen.gradient is not None and not math.isfinite(seen.gradient):
                why = "its gradient was not finite"
            else:
                why = "its gradient was finite: the step itself overflowed"
            findings.append(Finding(names, "became NaN or infinite", found=text, why=why))
        elif after.moved(old, now):
            if not seen.moved_by:
                why, hint = without_gradient(seen, written)
                findings.append(
                    Finding(
                        names,
                        "changed without a gradient",
                        found=moved_text(old, now, after),
                        why=why,
                        hint=hint,
                        everywhere=True,
                    )
                )
        elif may_stand_still is None or not may_stand_still(names):
            nothing = not (arrived or seen.optimizers or written)
            why, hint = _NO_BACKWARD, ""
            if not (nothing and old.requires_grad):
                why, hint = not_changed(old, now, seen, watch, written, finite)
            findings.append(Finding(names, "not updated", found=why, hint=hint, everywhere=True))
    return findings


def enough(
    pattern: str, share: float, members: Sequence[tuple[str, ...]], findings: Sequence[Finding]
) -> list[Finding]:
    """Let some of a pattern's parameters stand still, or find that too many of them did."""
    known = {name for names in members for name in names}
    lacking = [finding for finding in findings if known.intersection(finding.names)]
    others = [finding for finding in findings if not known.intersection(finding.names)]
    said = [
        (finding.names, "; ".join(filter(None, (finding.found, finding.why))))
        for finding in lacking
    ]
    return [*others, *too_few("too few updated", pattern, share, len(members), said)]


_NO_BACKWARD = "no gradient: no backward pass reached any of the selected parameters"


def moved_text(old: Kept, now: Tensor, after: AfterBlock) -> str:
    """Say by how much, or into what, an entry changed."""
    described = describe(now)
    content = after.content(old, now)
    if old.copy is not None:
        return after.apart(old, now)
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
    if not old.same_memory(now):
        return f"the same {type(now).__name__} object, on other memory"
    return ""
