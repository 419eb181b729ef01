"""A run that was saved and resumed, against one that was not interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import cut, join_words, plural, shorten
from ..parameters.running.resume import Resumed
from ..parameters.running.resume_state import MISSING, Difference, GeneratorState
from ..parameters.subject.leaves import PLAIN, leaves_of
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import describe, dtype_text
from .same_values import difference

_SIDES = ("without a break", "after the load")
#: How a model keeps a number or a tensor, and how everything else does.
_REGISTER = "register it as a buffer (a tensor), or save it with get_extra_state()"
_GENERATOR = "save its get_state() with get_extra_state(), and set_state() it in set_extra_state()"
_CAST = (
    "load_state_dict() casts floating state to its parameter's dtype: let one of its own put the "
    "saved tensors back"
)
_SAVE = "let its state_dict() save it, and load_state_dict() take it back"


def alike_within(rtol: float, atol: float) -> Callable[[Any, Any], bool]:
    """Return what tells whether two values of a state are the same, within tolerances."""

    def same(before: Any, after: Any) -> bool:
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            return _same_tensors(before, after, rtol, atol)
        if isinstance(before, Tensor) or isinstance(after, Tensor):
            return False
        if isinstance(before, float) and isinstance(after, float):
            both_nan = before != before and after != after
            return both_nan or math.isclose(before, after, rel_tol=rtol, abs_tol=atol)
        return type(before) is type(after) and bool(before == after)

    return same


def _same_tensors(before: Tensor, after: Tensor, rtol: float, atol: float) -> bool:
    if (before.shape, before.dtype, before.layout) != (after.shape, after.dtype, after.layout):
        return False
    if no_values(before) or no_values(after):
        return bool(no_values(before)) == bool(no_values(after))
    if same_bits(before, after):
        return True
    return bool(rtol or atol) and not difference(before, after, rtol, atol)


def not_resumed(resumed: Resumed, steps: int) -> list[Finding]:
    """Find why a resumed run does not end as one without a break does."""
    if resumed.unsaved is not None:
        key, reason = resumed.unsaved
        return [Finding((key or "the model",), "cannot be saved", found=reason)]
    if resumed.refused is not None:
        key, reason = resumed.refused
        return [Finding((key or "the model",), "does not load back", found=reason)]
    if resumed.uneven:
        return _uneven(resumed.uneven, steps)
    if resumed.idle:
        return [
            Finding(
                (),
                f"nothing changed in {plural(2 * steps, 'step')}",
                why="so that nothing can be lost",
                hint="let step(...) take an optimizer step on what build() returned",
            )
        ]
    findings = _grouped(resumed.disturbed, "changed by saving", "without saving", "with it")
    if not resumed.ended:
        return findings
    lost = _grouped(resumed.lost, "not restored", "at the save", "after the load")
    # What an optimizer saved is not also beside what it saves.
    said = {f"{one.key}.state".removeprefix(".") for one in resumed.lost if _is_kept(one)}
    lost += [_beside(*one) for one in resumed.beside if one[0] not in said]
    if resumed.random:
        lost.append(
            Finding(
                ("the random states",),
                "not restored",
                why="with those of the save it resumes",
                hint="save torch.get_rng_state() as well, and let load= set it",
            )
        )
    if not lost:
        return [*findings, *_entries(resumed.ended, "resumed otherwise")]
    if ends := _ends(resumed.ended, steps):
        why = "; ".join(part for part in (lost[0].why, ends) if part)
        lost[0] = replace(lost[0], why=why)
    return [*findings, *lost]


def _beside(path: str, before: Any, after: Any, in_model: bool) -> Finding:
    found = f"{_shown(before)} at the save, {_shown(after)} after the load"
    hint = _REGISTER if in_model else _SAVE
    if isinstance(before, GeneratorState):
        found = "a generator that starts anew after the load"
        hint = _GENERATOR if in_model else _SAVE
    return Finding((path,), "not restored", found=found, why="no state_dict() has it", hint=hint)


def _uneven(found: Sequence[Difference], steps: int) -> list[Finding]:
    hint = (
        "step(...) may depend on what build() returned and on random numbers alone, not on an "
        "iterator"
    )
    why = f"two runs of {plural(2 * steps, 'step')} without a break differ as well"
    return [
        replace(finding, why=why, hint=hint)
        for finding in _entries(found, "not deterministic here")
    ]


def _ends(found: Sequence[Difference], steps: int) -> str:
    names = [one.names[0] for one in found if one.is_entry]
    differ = "differs" if len(names) == 1 else "differ"
    after = plural(steps, "step")
    return f"{shorten(fold_names(names), 3)} {differ} {after} later" if names else ""


def _entries(found: Iterable[Difference], problem: str) -> list[Finding]:
    """Say of each parameter how it differs; of the rest only where no parameter does."""
    listed = list(found)
    entries = [one for one in listed if one.is_entry] or listed
    return [
        Finding(one.names if one.is_entry else (_path(one),), problem, found=_gap(one, _SIDES))
        for one in entries
    ]


def _grouped(found: Sequence[Difference], problem: str, then: str, now: str) -> list[Finding]:
    """Say what an object lost: entries one by one, what an optimizer keeps in one row."""
    findings = []
    kept: dict[str, list[Difference]] = {}
    for one in found:
        if _is_kept(one):
            kept.setdefault(one.key, []).append(one)
        else:
            names = one.names if one.is_entry else (_path(one),)
            findings.append(Finding(names, problem, found=_gap(one, (then, now))))
    for key, several in kept.items():
        keys = list(dict.fromkeys(one.path for one in several))
        owners = list(dict.fromkeys(one.names[0] for one in several))
        how, hint = _how(several, then, now)
        findings.append(
            Finding(
                (key or "the optimizer",),
                problem,
                found=f"{join_words(keys[:4])} of {plural(len(owners), 'parameter')} "
                f"({shorten(owners, 3)}){how}",
                hint=hint,
            )
        )
    return findings


def _is_kept(one: Difference) -> bool:
    """Whether it is what an optimizer keeps for a parameter."""
    return bool(one.names) and not one.is_entry


def _how(several: Sequence[Difference], then: str, now: str) -> tuple[str, str]:
    """Say what became of what an optimizer keeps, where it is the same of all of it."""
    if all(one.after is MISSING for one in several):
        return f": none {now}", ""
    pairs = [(one.before, one.after) for one in several]
    cast = {
        (dtype_text(before), dtype_text(after))
        for before, after in pairs
        if isinstance(before, Tensor) and isinstance(after, Tensor)
    }
    if len(cast) != 1 or not all(isinstance(b, Tensor) and isinstance(a, Tensor) for b, a in pairs):
        return "", ""
    before, after = cast.pop()
    return (f": {before} {then}, {after} {now}", _CAST) if before != after else ("", "")


def _path(one: Difference) -> str:
    return f"{one.key}.{one.path}" if one.key else one.path


def _gap(one: Difference, sides: tuple[str, str]) -> str:
    before, after = one.before, one.after
    if (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and (before.shape, before.dtype, before.layout) == (after.shape, after.dtype, after.layout)
    ):
        return difference(before, after, sides=sides)
    return f"{_shown(before)} {sides[0]}, {_shown(after)} {sides[1]}"


def _shown(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    if isinstance(value, Tensor):
        return describe(value)
    if isinstance(value, PLAIN):
        return cut(repr(value), 40)
    leaves = leaves_of(value)
    if all(isinstance(leaf, PLAIN) for leaf in leaves.values()):
        return cut(repr(value), 40)
    return shorten(list(leaves), 3)
