"""Patterns that map to expectations: what is declared of each entry, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ...messages.errors import ParamCheckUsageError
from ...messages.findings import Finding
from ...messages.wording import join_words
from .inventory import Entry, Inventory
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
) -> list[Declared[V]]:
    """Return what a mapping of patterns says about the entries, in registration order.

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
    for pattern in expectations:
        if negation(inventory, pattern)[0]:
            raise ParamCheckUsageError(
                f"{pattern_text(pattern)}: a mapping of patterns takes no exclusions; "
                f"let a later pattern decide instead"
            )
        reached[pattern] = matched_entries(inventory, pattern, eligible, what, shown=pattern)
        for names in reached[pattern].values():
            last.update(dict.fromkeys(names, pattern))
    held: dict[Entry, dict[Pattern, list[str]]] = {}
    for pattern, entries in reached.items():
        decides = False
        for entry, names in entries.items():
            # Nearly always it is one name: no generator for each of thousands.
            if last[names[0]] is pattern and (
                len(names) == 1 or all(last[name] is pattern for name in names)
            ):
                held.setdefault(entry, {})[pattern] = names
                decides = True
        if not decides:
            names = next(iter(entries.values()))
            later = next(last[name] for name in names if last[name] is not pattern)
            raise ParamCheckUsageError(
                f"pattern {pattern_text(pattern)} has no effect: the later pattern "
                f"{pattern_text(later)} overrides it; put the general pattern first"
            )
    return [
        declared
        for entry in inventory.entries
        if entry in held
        for declared in _of_entry(entry, held[entry], expectations)
    ]


def _of_entry(
    entry: Entry, held: Mapping[Pattern, list[str]], expectations: Mapping[Any, V]
) -> Iterable[Declared[V]]:
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
    for item in declared:
        said = {name: text(value) for name, value in item.rivals}
        if len(set(said.values())) > 1:
            each = join_words([f"{value} as {name}" for name, value in said.items()])
            notes[item.names] = f"one parameter, declared {each}"
    return [
        replace(finding, why="; ".join(filter(None, (finding.why, notes[finding.names]))))
        if finding.names in notes
        else finding
        for finding in findings
    ]
