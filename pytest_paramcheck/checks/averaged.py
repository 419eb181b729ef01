"""A running average against what averaging gives: who was not updated, or otherwise than said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.blend import (
    Blend,
    Places,
    Triple,
    Ways,
    blend_of,
    certain_means,
    places_of,
    spread_over,
)
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import dtype_name, size_text
from ..parameters.tensors.memory import memory_of

#: What becomes of a buffer: it is copied, averaged as a parameter is, or left as it is.
Buffers: TypeAlias = Literal["copy", "average", "keep"]

_AS_BEFORE = "as before the block, bit for bit"
#: Entries of one shape among which the one is looked for that was averaged in by mistake.
_CANDIDATES = 200


@dataclass(frozen=True)
class Averaged:
    """What is known of an average: what was kept before the block, and how it is made.

    ``pairs`` are its names and the model's, ``before`` its values by its names, ``samples`` a few
    of the model's values by the model's, ``counted`` how many updates it says it made itself;
    ``first`` says that this is the update that copies.
    """

    decay: float
    buffers: Buffers
    pairs: Mapping[str, str]
    before: Mapping[str, Tensor]
    samples: Mapping[str, Tensor]
    first: bool
    counted: int | None
    ways: Ways = field(default_factory=Ways)


class _Verdict(NamedTuple):
    """What is wrong with an entry, and whether an update can be told from none by its values."""

    finding: Finding | None = None
    told: bool = False


def not_averaged(average: Inventory, model: Inventory, kept: Averaged) -> list[Finding]:
    """Find the entries of an average that are not what one update gives.

    Raises :class:`ParamCheckUsageError` where nothing tells an average that was updated from one
    that was left alone, because the model's values are those of the average.
    """
    told = False
    asked: set[int] = set()
    findings: list[Finding] = []
    rows: list[tuple[Entry, Entry, Tensor]] = []
    for entry in average.entries:
        name = next((n for n in entry.names if n in kept.pairs), "")
        source = model.by_name.get(kept.pairs.get(name, ""))
        if source is None or source.tensor is None or entry.tensor is None:
            continue
        asked.add(id(source.tensor))
        if name in kept.before:
            rows.append((entry, source, kept.before[name]))
    right = _certain(rows, kept)
    for number, (entry, source, before) in enumerate(rows):
        verdict = _RIGHT if number in right else _compare(entry, source, before, model, kept)
        told = told or verdict.told
        findings += [verdict.finding] if verdict.finding else []
    findings += [
        Finding(
            tuple(entry.names),
            "not in the average",
            found="it trains in the model, and the average has no such name",
            hint="build the average from the complete model; if it is to have none, ask "
            "about the others alone: assert_averaged(ema, {name: parameter, ...})",
        )
        for entry in model.parameters
        if entry.trainable and id(entry.tensor) not in asked
    ]
    if not findings and not told:
        raise ParamCheckUsageError(
            "the model's values are those of the average, within rounding: an update cannot be "
            "told from none; let the model train in the block, before the average is updated"
        )
    if kept.counted is not None and kept.counted != 1:
        said = f"the average counted {plural(kept.counted, 'update')} in the block"
        findings = [one if one.why else replace(one, why=said) for one in findings]
    return findings


_RIGHT = _Verdict(told=True)


def _certain(rows: Sequence[tuple[Entry, Entry, Tensor]], kept: Averaged) -> frozenset[int]:
    """Return which rows are right by a look at many together: those that are averaged."""
    triples: list[Triple] = []
    numbers: list[int] = []
    for number, (entry, source, before) in enumerate(rows):
        now, other = entry.tensor, source.tensor
        averaged = source.kind != "buffer" or kept.buffers == "average"
        if now is None or other is None or not averaged or not now.is_floating_point():
            continue
        if now.shape == other.shape == before.shape:
            triples.append((before, other, now, places_of(before, other, now)))
            numbers.append(number)
    decay = 0.0 if kept.first else kept.decay
    return frozenset(numbers[one] for one in certain_means(triples, decay, kept.ways))


def _compare(
    entry: Entry, source: Entry, before: Tensor, model: Inventory, kept: Averaged
) -> _Verdict:
    now, other = entry.tensor, source.tensor
    names = tuple(entry.names)
    if now is None or other is None:
        return _Verdict()
    if now.shape != other.shape or before.shape != now.shape:
        found = f"{size_text(now)} in the average, {size_text(other)} in the model"
        return _Verdict(Finding(names, "different shape", found=found))
    places = places_of(before, other, now)
    for tensor, where in ((now, "the average"), (other, "the model")):
        if places is None and (reason := no_values(tensor)):
            raise ParamCheckUsageError(f"{names[0]} of {where}: {reason}; it cannot be compared")
    mode: Buffers = kept.buffers if source.kind == "buffer" else "average"
    floating = now.is_floating_point() or now.is_complex()
    if mode == "keep":
        if same_bits(before, now):
            return _Verdict()
        return _Verdict(Finding(names, "changed, not kept", found="other values than before"))
    if mode == "copy" or not floating:
        return _copied(names, now, other, before, kept, mode == "copy")
    verdict = _averaged(names, now, before, source, model, kept, places)
    if verdict.finding is not None and memory_of(now).overlaps(memory_of(other)):
        hint = "make the average of a copy: copy.deepcopy(model)"
        found = "a step of the model writes it as well"
        return _Verdict(Finding(names, "shares memory with the model", found=found, hint=hint))
    return verdict


def _copied(
    names: tuple[str, ...],
    now: Tensor,
    other: Tensor,
    before: Tensor,
    kept: Averaged,
    demanded: bool,
) -> _Verdict:
    """Hold a buffer to the model's; a count that is averaged (cut to an integer) may be any."""
    if not demanded or same_bits(other.to(now.device, now.dtype), now):
        return _Verdict()
    if same_bits(before, now):
        hint = "after each update: averaged_buffer.copy_(buffer); or buffers='keep'"
        return _Verdict(Finding(names, "never updated", found=_AS_BEFORE, hint=hint))
    floating = now.is_floating_point() or now.is_complex()
    if floating and blend_of(before, other, now).is_mean(kept.decay):
        hint = "copy buffers, or say that they are averaged: buffers='average'"
        return _Verdict(
            Finding(names, "averaged, not copied", found=_mean(kept.decay), hint=hint), told=True
        )
    return _Verdict(Finding(names, "not copied", found="other values than the model's"))


def _averaged(
    names: tuple[str, ...],
    now: Tensor,
    before: Tensor,
    source: Entry,
    model: Inventory,
    kept: Averaged,
    places: Places | None,
) -> _Verdict:
    other = source.tensor
    if other is None:
        return _Verdict()
    blend = blend_of(before, other, now, places)
    decay = 0.0 if kept.first else kept.decay
    expected = f"{_mean(decay)}{' (the first update copies)' if kept.first else ''}"
    if not blend.moved():
        if blend.stays(decay):
            if not blend.lost_in_rounding(decay):
                return _Verdict()  # right, and it proves nothing
            why = f"each update is less than half a spacing of {dtype_name(now.dtype)}"
            hint = "keep the average in float32: copy.deepcopy(model).float()"
            found = Finding(names, "never updated", expected, _AS_BEFORE, why, hint)
            return _Verdict(found, told=True)
        return _Verdict(Finding(names, "never updated", expected, _AS_BEFORE), told=True)
    if blend.is_mean(decay, kept.ways):
        return _Verdict(told=blend.apart())
    for problem, made_with in (
        ("copied, not averaged", 0.0),
        ("updated twice", decay * decay),
        ("decay the wrong way round", 1 - decay),
    ):
        if blend.is_mean(made_with):
            said = "the model's values" if not made_with else _mean(made_with)
            return _Verdict(Finding(names, problem, expected, said), told=True)
    if (fitted := blend.fitted()) is not None:
        return _Verdict(Finding(names, "another decay", expected, _mean(fitted)), told=True)
    return _Verdict(_wrong(names, now, before, source, model, blend, decay, kept), told=True)


def _wrong(
    names: tuple[str, ...],
    now: Tensor,
    before: Tensor,
    source: Entry,
    model: Inventory,
    blend: Blend,
    decay: float,
    kept: Averaged,
) -> Finding:
    """Return the finding for an average of other values, and whose they are if that is seen."""
    was, became = spread_over(before), spread_over(now)

    def made_of(sample: Tensor | None) -> bool:
        same_kind = sample is not None and sample.shape == became.shape
        return same_kind and sample is not None and blend_of(was, sample, became).is_mean(decay)

    old = next((kept.samples[name] for name in source.names if name in kept.samples), None)
    if made_of(old):
        return Finding(
            names,
            "updated before the step",
            _mean(decay),
            "the same with the model as it was when the block began",
            hint="update the average after optimizer.step()",
        )
    alike = [
        one
        for one in model.entries
        if one is not source and one.tensor is not None and one.tensor.shape == now.shape
    ]
    for one in alike[:_CANDIDATES]:
        if one.tensor is not None and made_of(spread_over(one.tensor)):
            hint = "pair names, not positions: dict(model.named_parameters())[name]"
            found = f"{_mean(decay)}'s {one.name}"
            return Finding(names, "another one's average", _mean(decay), found, hint=hint)
    count, largest, at = blend.misses(decay)
    far = f"up to {largest:.3g} away" if math.isfinite(largest) else "not finite"
    where = f" at {_index(now, at)}" if now.dim() and not now.is_complex() else ""
    found = f"{count:,} of {plural(blend.now.numel(), 'value')} {far}{where}"
    return Finding(names, "wrong average", _mean(decay), found)


def _mean(decay: float) -> str:
    return f"{decay:.6g} x before + {1 - decay:.6g} x model"


def _index(tensor: Tensor, flat: int) -> str:
    index = []
    for size in reversed(tensor.shape):
        index.append(flat % size)
        flat //= size
    return str(index[::-1])
