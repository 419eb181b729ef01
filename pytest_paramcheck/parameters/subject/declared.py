"""Patterns that map to expectations: what is declared of each entry, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from ...messages.errors import ParamCheckUsageError
from ...messages.findings import Finding
from ...messages.wording import join_words
from .elements import rest_of, whole_rows, with_part
from .inventory import Entry, Inventory
from .parts import Part
from .patterns import Pattern, negation, pattern_text
from .select import Eligible, any_entry, matched_entries

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Declared(Generic[V]):
    """What one pattern says about one entry.

    ``names`` are the entry's, those that the pattern matches first. Where other patterns are
    held against the entry through other names of it, they are the matched ones only, and
    ``rivals`` are (name, value) of all of them.
    """

    entry: Entry
    names: tuple[str, ...]
    pattern: Pattern
    value: V
    rivals: tuple[tuple[str, V], ...] = ()


def decide(
    inventory: Inventory,
    expectations: Mapping[Any, V],
    *,
    eligible: Eligible = any_entry,
    what: str = "parameter or buffer",
    parts: bool = False,
) -> list[Declared[V]]:
    """Return what a mapping of patterns says about the entries, in registration order.

    With ``parts``, a part decides about its elements, and what stands before it about the others.

    For each name the last pattern that matches it decides; a pattern that is not the last one
    for one of its names of an entry has no say about that entry. So ``{"*": 1, "emb": 2}`` says
    2 of a tied ``emb.weight`` under all its names, while two patterns that reach one entry
    through different names, neither matching the other's, are both held against it.

    Entries that no pattern matches are left out. Raises :class:`ParamCheckUsageError` for a
    pattern that matches nothing, for one that decides nothing because later ones always do, and
    for an exclusion (a mapping has nothing to take away from).
    """
    last: dict[str, Pattern] = {}
    reached: dict[Pattern, dict[Entry, list[str]]] = {}
    order = {pattern: number for number, pattern in enumerate(expectations)}
    some: dict[Entry, list[Part]] = {}
    for pattern in expectations:
        if negation(inventory, pattern)[0]:
            raise ParamCheckUsageError(
                f"{pattern_text(pattern)}: a mapping of patterns takes no exclusions; "
                f"let a later pattern decide instead"
            )
        found = matched_entries(inventory, pattern, eligible, what, shown=pattern, parts=parts)
        reached[pattern] = found
        for entry, names in found.items():
            if isinstance(pattern, Part):
                some.setdefault(entry, []).append(pattern)
            else:
                last.update(dict.fromkeys(names, pattern))
    held: dict[Entry, dict[Pattern, list[str]]] = {}
    left: dict[tuple[Entry, Pattern], Entry] = {}
    for pattern, entries in reached.items():
        decides = False
        for entry, names in entries.items():
            if isinstance(pattern, Part):
                known = [last[name] for name in names if name in last]
                overriding = [one for one in known if order[one] > order[pattern]]
            elif len(names) == 1:  # nearly always: no list for each of thousands
                overriding = [] if last[names[0]] is pattern else [last[names[0]]]
            else:
                overriding = [last[name] for name in names if last[name] is not pattern]
            own: Entry | None = None if overriding else entry
            if own is not None and entry in some:
                later = [one for one in some[entry] if order[one] > order[pattern]]
                overriding += later
                own = _without(entry, pattern if isinstance(pattern, Part) else None, later)
            if own is not None:
                held.setdefault(entry, {})[pattern] = names
                left[entry, pattern] = own
                decides = True
        if not decides:
            later_pattern = overriding[0]
            raise ParamCheckUsageError(
                f"pattern {pattern_text(pattern)} has no effect: the later pattern "
                f"{pattern_text(later_pattern)} overrides it; put the general pattern first"
            )
    return [
        declared
        for entry in inventory.entries
        if entry in held
        for declared in _of_entry(entry, held[entry], expectations, left)
    ]


def _without(entry: Entry, part: Part | None, later: list[Part]) -> Entry | None:
    """Return what of an entry, or of a part of it, later parts leave; None where it is nothing."""
    if entry.tensor is None:
        return entry
    if part is None:
        if not later:
            return entry
        rest = rest_of(entry, later)
        return None if rest is None else with_part(entry, rest)
    mine = part.mask(entry.tensor, entry.name)
    for one in later:
        mine &= ~one.mask(entry.tensor, entry.name)
    if not mine.any():
        return None
    if torch.equal(mine, part.mask(entry.tensor, entry.name)):
        return with_part(entry, part)
    return with_part(entry, Part(entry.name, whole_rows(mine), f"{part.text[:-1]}, the rest]"))


def _of_entry(
    entry: Entry,
    held: Mapping[Pattern, list[str]],
    expectations: Mapping[Any, V],
    left: Mapping[tuple[Entry, Pattern], Entry],
) -> Iterable[Declared[V]]:
    own = [(left[entry, pattern], pattern) for pattern in held]
    if any(one.part is not None for one, _ in own):  # each decides about elements of its own
        return [
            Declared(one, tuple(one.names), pattern, expectations[pattern]) for one, pattern in own
        ]
    if len(held) == 1:
        ((pattern, names),) = held.items()
        if len(names) < len(entry.names):
            matched = set(names)
            names = [*names, *(name for name in entry.names if name not in matched)]
        return [Declared(entry, tuple(names), pattern, expectations[pattern])]
    rivals = tuple((names[0], expectations[pattern]) for pattern, names in held.items())
    return [
        Declared(entry, tuple(names), pattern, expectations[pattern], rivals)
        for pattern, names in held.items()
    ]


def with_rivals(
    findings: Iterable[Finding], declared: Iterable[Declared[V]], text: Callable[[V], str]
) -> list[Finding]:
    """Say of the findings about one parameter under several names what else was declared."""
    notes: dict[tuple[str, ...], str] = {}
    said_of: dict[int, str] = {}  # one tuple of rivals is that of all who are in it
    for item in (declared := list(declared)):
        if id(item.rivals) not in said_of:
            said = {name: text(value) for name, value in item.rivals}
            each = join_words([f"{value} as {name}" for name, value in said.items()])
            several = len(set(said.values())) > 1
            said_of[id(item.rivals)] = f"one parameter, declared {each}" if several else ""
        if note := said_of[id(item.rivals)]:
            notes[item.names] = note
    return [
        replace(finding, why="; ".join(filter(None, (finding.why, notes[finding.names]))))
        if finding.names in notes
        else finding
        for finding in findings
    ]
