"""Selections: the entries that patterns pick, and what an assertion can look at at all.

``"!..."`` takes away. A pattern that matches nothing is a usage error, each for itself: a
renamed layer must not turn an assertion into one about nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import plural
from ..tensors.content import no_values
from ..tensors.memory import PLAIN_TYPES
from .elements import elements, with_part
from .inventory import Entry, Inventory
from .parts import Part
from .patterns import Pattern, demand_whole, matched_names, negation, no_match, pattern_text

Eligible = Callable[[Entry], bool]


def any_entry(entry: Entry) -> bool:
    """Eligible: parameters and buffers alike."""
    return True


def parameters_only(entry: Entry) -> bool:
    """Eligible: what gradient and training assertions look at."""
    return entry.kind != "buffer"


def present(entry: Entry) -> bool:
    """Eligible: what a mapping does not hold None for."""
    return entry.tensor is not None


def present_parameters(entry: Entry) -> bool:
    """Eligible: the parameters among them."""
    return parameters_only(entry) and present(entry)


def trainable(entry: Entry) -> bool:
    """Eligible: the parameters that ask for a gradient."""
    return parameters_only(entry) and entry.trainable


def with_elements(entry: Entry) -> bool:
    """Eligible: what can hold another value than it does. A lazy one counts: it has no size
    to ask, and who needs values refuses it by name."""
    tensor = entry.tensor
    if tensor is None:
        return False
    return (type(tensor) not in PLAIN_TYPES and is_lazy(tensor)) or tensor.numel() > 0


def select(
    inventory: Inventory,
    patterns: Sequence[Pattern],
    *,
    default: Eligible = any_entry,
    eligible: Eligible = any_entry,
    what: str = "parameter or buffer",
    parts: bool = False,
) -> list[Entry]:
    """Return the entries that the patterns select, in registration order.

    Without patterns, or with exclusions only, it starts from the entries for which ``default``
    holds. ``eligible`` is what the assertion can look at at all, ``what`` its name in errors.
    With ``parts`` a part is an entry of its own, behind the one whose elements it selects.
    Raises :class:`ParamCheckUsageError` for a pattern without a match and for a selection with
    nothing left in it.
    """
    chosen: set[Entry] = set()
    removed: set[Entry] = set()
    some: dict[Entry, list[Entry]] = {}
    starts = False
    for pattern in patterns:
        negated, bare = negation(inventory, pattern)
        matched = matched_entries(inventory, bare, eligible, what, shown=pattern, parts=parts)
        if negated:
            removed.update(matched)
        elif isinstance(bare, Part):
            starts = True
            for entry in matched:
                some.setdefault(entry, []).append(with_part(entry, bare))
        else:
            starts = True
            chosen.update(matched)
    if not starts:
        every = [entry for entry in inventory.entries if eligible(entry) and default(entry)]
        if not every:
            raise ParamCheckUsageError(
                f"{inventory.title} has no {what} that this applies to: there is nothing to check"
            )
        if not patterns:
            return every
        chosen.update(every)
    left = chosen.union(some) - removed
    if not left:
        shown = ", ".join(pattern_text(p) for p in patterns)
        selected = plural(len(chosen.union(some)), "entry", "entries")
        raise ParamCheckUsageError(
            f"the patterns {shown} leave nothing to check: "
            f"the exclusions remove all {selected} selected"
        )
    if not some:
        return [entry for entry in inventory.entries if entry in left]
    return [
        one
        for entry in inventory.entries
        if entry in left
        for one in (*((entry,) if entry in chosen else ()), *some.get(entry, ()))
    ]


def listed(exactly: Iterable[Pattern], patterns: Sequence[Pattern]) -> list[Pattern]:
    """Return what ``exactly=`` lists, or raise for what is no list and for patterns beside it."""
    if patterns:
        raise ParamCheckUsageError(
            "exactly= lists all patterns there are: leave out the positional ones"
        )
    if isinstance(exactly, (str, type)) or not isinstance(exactly, Iterable):
        raise ParamCheckUsageError(
            f"exactly={exactly!r}: pass a list of patterns; [] means no parameter"
        )
    return list(exactly)


def positive(inventory: Inventory, patterns: Sequence[Pattern]) -> list[Pattern]:
    """Return the patterns that do not take away."""
    return [pattern for pattern in patterns if not negation(inventory, pattern)[0]]


def select_names(
    inventory: Inventory, patterns: Sequence[Pattern], *, default: Eligible = any_entry
) -> list[str]:
    """Return the names that the patterns select, for questions about names and not entries.

    A tied parameter can be in with one of its names and out with another: what is asked is
    whether the selected *names* share something. Errors as for :func:`select`.
    """
    chosen = positive(inventory, patterns)
    entries = select(inventory, chosen, default=default, eligible=present)
    for pattern in patterns:
        negated, bare = negation(inventory, pattern)
        if negated:
            matched_entries(inventory, bare, any_entry, "parameter or buffer", shown=pattern)
    inside, _ = names_in_and_out(inventory, patterns)
    names = [name for entry in entries for name in entry.names if name in inside]
    if not names:
        shown = ", ".join(pattern_text(p) for p in patterns)
        raise ParamCheckUsageError(f"the patterns {shown} leave nothing to check")
    return names


def select_of_both(
    a: Inventory, b: Inventory, patterns: Sequence[Pattern]
) -> list[tuple[str, Part | None]]:
    """Return the names that the patterns select on either side, each whole or a part of it; each
    pattern must match on one side."""
    names = list(dict.fromkeys([*a.named, *b.named]))
    if not patterns:
        return [(name, None) for name in names]
    if b.root is not None and a.root is None:
        a, b = b, a  # classes select in a module only
    both = Inventory(f"{a.title} and {b.title}", a.root)
    both.buffer_names = {**b.buffer_names, **a.buffer_names}
    # The names of one side only are entries of their own here; tied names stay together.
    both.wrapped_names = {**b.wrapped_names, **a.wrapped_names}
    found = {name: a.named.get(name) for name in names}
    both.named = {n: b.named.get(n) if tensor is None else tensor for n, tensor in found.items()}
    chosen: dict[str, list[Part | None]] = {}
    for entry in select(both, patterns, eligible=present, parts=True):
        for name in entry.names:
            bare = name if entry.part is None else name.removesuffix(entry.part.text)
            chosen.setdefault(bare, []).append(entry.part)
    return [(name, part) for name in names for part in chosen.get(name, ())]


def select_again(
    inventory: Inventory,
    patterns: Sequence[Pattern],
    *,
    default: Eligible = any_entry,
    eligible: Eligible = any_entry,
) -> list[Entry]:
    """Select as :func:`select` did before the subject may have changed.

    A pattern that no longer matches selects nothing, and nothing left is no error: what
    vanished is for the caller to say.
    """
    chosen: set[Entry] = set()
    removed: set[Entry] = set()
    starts = False
    for pattern in patterns:
        negated, bare = negation(inventory, pattern)
        starts = starts or not negated
        if not isinstance(bare, Part):  # a part is asked about itself, not about what is new
            (removed if negated else chosen).update(matching(inventory, bare))
    if not starts:
        chosen.update(e for e in inventory.entries if default(e))
    return [e for e in inventory.entries if e in chosen and e not in removed and eligible(e)]


def names_in_and_out(
    inventory: Inventory, patterns: Sequence[Pattern]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that the patterns select and those they take away, name by name.

    Where one name of an entry is selected and another is taken away, the patterns contradict
    each other: both are one parameter.
    """
    chosen: set[str] = set()
    removed: set[str] = set()
    starts = False
    for pattern in patterns:
        negated, bare = negation(inventory, pattern)
        starts = starts or not negated
        (removed if negated else chosen).update(matched_names(inventory, bare))
    if not starts:
        chosen.update(inventory.named)
    return frozenset(chosen - removed), frozenset(removed)


def matching(inventory: Inventory, pattern: Pattern) -> list[Entry]:
    """Return the entries that one pattern (without ``!``) matches; may be empty."""
    entry_of = inventory.by_name
    return list(dict.fromkeys(entry_of[name] for name in matched_names(inventory, pattern)))


def matched_entries(
    inventory: Inventory,
    pattern: Pattern,
    eligible: Eligible,
    what: str,
    shown: Pattern,
    *,
    parts: bool = False,
) -> dict[Entry, list[str]]:
    """Return the entries that a pattern matches, each with its names that it matches.

    Raises :class:`ParamCheckUsageError` where there is none that the assertion can look at, and
    for a part where it looks at whole entries (without ``parts``).
    """
    if not parts:
        demand_whole(pattern)
    names = matched_names(inventory, pattern) if pattern != "" else []
    if not names:
        raise no_match(inventory, pattern, shown)
    matched: dict[Entry, list[str]] = {}
    for name in names:
        matched.setdefault(inventory.by_name[name], []).append(name)
    usable = {entry: own for entry, own in matched.items() if eligible(entry)}
    if not usable:
        entry = inventory.by_name[names[0]]
        raise ParamCheckUsageError(
            f"pattern {pattern_text(shown)} matches no {what}: {entry.name!r} is {_state(entry)}"
        )
    if isinstance(pattern, Part):
        for entry in usable:  # an index that does not fit is a wrong call, whatever is asked
            if entry.tensor is not None and not no_values(entry.tensor):
                elements(with_part(entry, pattern))
    return usable


def _state(entry: Entry) -> str:
    if entry.tensor is None:
        return "None"
    return f"a {entry.kind}" if with_elements(entry) else "empty"
