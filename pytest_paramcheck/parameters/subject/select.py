"""Patterns: pick entries by name, over all names.

A pattern is an entry's name, a module's name (everything below it), a glob (``*`` may cross
dots), a module class (the entries of its instances) or ``(class, name below the instance)``.
``"!..."`` takes away. Names match component by component and never by substring:
``blocks.1`` is not ``blocks.10``. A pattern that matches nothing is a usage error, each for
itself: a renamed layer must not turn an assertion into one about nothing.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from torch import nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import cut, did_you_mean, plural
from ..tensors.content import no_values
from .inventory import Entry, Inventory, take_inventory

#: What selects entries: a name, a glob, a module class, or one name of a class's instances.
Pattern: TypeAlias = str | type[nn.Module] | tuple[type[nn.Module], str]
V = TypeVar("V")

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
    """Eligible: what can hold another value than it does. What has no values counts: a lazy
    one has no size to ask, and who needs values refuses it by name."""
    return entry.tensor is not None and (bool(no_values(entry.tensor)) or entry.tensor.numel() > 0)


def select(
    inventory: Inventory,
    patterns: Sequence[Pattern],
    *,
    default: Eligible = any_entry,
    eligible: Eligible = any_entry,
    what: str = "parameter or buffer",
) -> list[Entry]:
    """Return the entries that the patterns select, in registration order.

    Without patterns, or with exclusions only, it starts from the entries for which ``default``
    holds. ``eligible`` is what the assertion can look at at all, ``what`` its name in errors.
    Raises :class:`ParamCheckUsageError` for a pattern without a match and for a selection with
    nothing left in it.
    """
    chosen: set[Entry] = set()
    removed: set[Entry] = set()
    positive = False
    for pattern in patterns:
        negated, bare = _negation(pattern)
        matched = _matched(inventory, bare, eligible, what, shown=pattern)
        if negated:
            removed.update(matched)
        else:
            positive = True
            chosen.update(matched)
    if not positive:
        chosen.update(e for e in inventory.entries if eligible(e) and default(e))
        if not chosen:
            raise ParamCheckUsageError(
                f"{inventory.title} has no {what} that this applies to: there is nothing to check"
            )
    left = chosen - removed
    if not left:
        shown = ", ".join(pattern_text(p) for p in patterns)
        raise ParamCheckUsageError(
            f"the patterns {shown} leave nothing to check: "
            f"the exclusions take away all {plural(len(chosen), 'entry', 'entries')} selected"
        )
    return [entry for entry in inventory.entries if entry in left]


def select_names(
    inventory: Inventory, patterns: Sequence[Pattern], *, default: Eligible = any_entry
) -> list[str]:
    """Return the names that the patterns select, for questions about names and not entries.

    A tied parameter can be in with one of its names and out with another: what is asked is
    whether the selected *names* share something. Errors as for :func:`select`.
    """
    positive = [pattern for pattern in patterns if not _negation(pattern)[0]]
    entries = select(inventory, positive, default=default)
    for pattern in patterns:
        negated, bare = _negation(pattern)
        if negated:
            _matched(inventory, bare, any_entry, "parameter or buffer", shown=pattern)
    inside, _ = names_in_and_out(inventory, patterns)
    names = [name for entry in entries for name in entry.names if name in inside]
    if not names:
        shown = ", ".join(pattern_text(p) for p in patterns)
        raise ParamCheckUsageError(f"the patterns {shown} leave nothing to check")
    return names


def select_of_both(a: Inventory, b: Inventory, patterns: Sequence[Pattern]) -> list[str]:
    """Return the names that the patterns select on either side; each must match on one."""
    names = list(dict.fromkeys([*a.named, *b.named]))
    if not patterns:
        return names
    if b.root is not None and a.root is None:
        a, b = b, a  # classes select in a module only
    both = Inventory(f"{a.title} and {b.title}", a.root)
    both.buffer_names = {**b.buffer_names, **a.buffer_names}
    # The names of one side only are entries of their own here; tied names stay together.
    both.named = {**{name: b.named[name] for name in b.named if name not in a.named}, **a.named}
    chosen = {name for entry in select(both, patterns) for name in entry.names}
    return [name for name in names if name in chosen]


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
    positive = False
    for pattern in patterns:
        negated, bare = _negation(pattern)
        positive = positive or not negated
        (removed if negated else chosen).update(matching(inventory, bare))
    if not positive:
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
    positive = False
    for pattern in patterns:
        negated, bare = _negation(pattern)
        positive = positive or not negated
        if isinstance(bare, str):
            names = set(filter(name_matcher(bare, inventory.named), inventory.named))
        else:
            names = _names_of_class(inventory, bare)
        (removed if negated else chosen).update(names)
    if not positive:
        chosen.update(inventory.named)
    return frozenset(chosen - removed), frozenset(removed)


def _names_of_class(
    inventory: Inventory, pattern: type[nn.Module] | tuple[type[nn.Module], str]
) -> set[str]:
    cls, below = pattern if isinstance(pattern, tuple) else (pattern, None)
    names: set[str] = set()
    for path, module in inventory.modules:
        if isinstance(module, cls):
            inside = take_inventory(module, allow_empty=True).named
            matches = any_name if below is None else name_matcher(below, inside)
            prefix = f"{path}." if path else ""
            names.update(prefix + name for name in inside if matches(name))
    return names


def any_name(name: str) -> bool:
    """Match every name."""
    return True


def decide(
    inventory: Inventory,
    expectations: Mapping[Any, V],
    *,
    eligible: Eligible = any_entry,
    what: str = "parameter or buffer",
) -> dict[Entry, tuple[Pattern, V]]:
    """Return what a mapping of patterns says about each entry: the last match decides.

    Entries that no pattern matches are left out. Raises :class:`ParamCheckUsageError` for a
    pattern that matches nothing, for one that never decides because later ones always do, and
    for an exclusion (a mapping has nothing to take away from).
    """
    decided: dict[Entry, tuple[Pattern, V]] = {}
    matches: dict[Pattern, list[Entry]] = {}
    for pattern, value in expectations.items():
        if _negation(pattern)[0]:
            raise ParamCheckUsageError(
                f"{pattern_text(pattern)}: a mapping of patterns takes no exclusions; "
                f"let a later pattern decide instead"
            )
        matches[pattern] = list(_matched(inventory, pattern, eligible, what, shown=pattern))
        for entry in matches[pattern]:
            decided[entry] = (pattern, value)
    deciding = {pattern for pattern, _ in decided.values()}
    for pattern in expectations:
        if pattern not in deciding:
            later = decided[matches[pattern][0]][0]
            raise ParamCheckUsageError(
                f"pattern {pattern_text(pattern)} never decides: a later pattern "
                f"({pattern_text(later)}) matches everything it matches; put the general one first"
            )
    return {entry: decided[entry] for entry in inventory.entries if entry in decided}


def pattern_text(pattern: Pattern) -> str:
    """Return a pattern as its author wrote it."""
    if isinstance(pattern, tuple):
        return f"({pattern[0].__name__}, {pattern[1]!r})"
    if isinstance(pattern, type):
        return pattern.__name__
    return repr(pattern)


def matching(inventory: Inventory, pattern: Pattern) -> list[Entry]:
    """Return the entries that one pattern (without ``!``) matches; may be empty."""
    if isinstance(pattern, str):
        matches = name_matcher(pattern, inventory.named)
        return list(dict.fromkeys(e for name, e in inventory.by_name.items() if matches(name)))
    cls, below = pattern if isinstance(pattern, tuple) else (pattern, None)
    found: dict[Entry, None] = {}
    for _, module in inventory.modules:
        if not isinstance(module, cls):
            continue
        inside = take_inventory(module, allow_empty=True).named
        inner = name_matcher(below, inside) if below is not None else None
        for name, tensor in inside.items():
            if inner is None or inner(name):
                entry = inventory.entry_of(tensor)
                if entry is not None:
                    found[entry] = None
    return list(found)


def name_matcher(pattern: str, names: Iterable[str]) -> Callable[[str], bool]:
    """Return a test for one name: exact, below a module, or a glob over either.

    A name that occurs literally wins over its reading as a glob, so that a child whose name
    contains ``[`` can be named.
    """
    below = pattern + "."
    if not _MAGIC.search(pattern) or any(n == pattern or n.startswith(below) for n in names):
        return lambda name: name == pattern or name.startswith(below)
    expression = re.compile(fnmatch.translate(pattern))

    def matches(name: str) -> bool:
        if expression.match(name):
            return True
        end = name.rfind(".")
        while end > 0:
            if expression.match(name[:end]):
                return True
            end = name.rfind(".", 0, end)
        return False

    return matches


_MAGIC = re.compile(r"[*?[]")


def _negation(pattern: object) -> tuple[bool, Pattern]:
    """Return whether a pattern takes away, and what; raise for what is no pattern at all."""
    if isinstance(pattern, str):
        return (True, pattern[1:]) if pattern.startswith("!") else (False, pattern)
    if isinstance(pattern, type) and issubclass(pattern, nn.Module):
        return False, pattern
    if isinstance(pattern, tuple) and len(pattern) == 2:
        cls, below = pattern
        if isinstance(cls, type) and issubclass(cls, nn.Module) and isinstance(below, str):
            return (True, (cls, below[1:])) if below.startswith("!") else (False, (cls, below))
    hint = ""
    if isinstance(pattern, (list, set, tuple)):
        hint = "; pass patterns one by one: *patterns"
    elif isinstance(pattern, nn.Module):
        hint = f"; name it, or pass its class {type(pattern).__name__}"
    raise ParamCheckUsageError(
        f"a pattern is a name, a glob, a module class or (class, name), "
        f"not {type(pattern).__name__} {cut(repr(pattern), 40)}{hint}"
    )


def _matched(
    inventory: Inventory, pattern: Pattern, eligible: Eligible, what: str, shown: Pattern
) -> list[Entry]:
    if pattern == "":
        raise ParamCheckUsageError("'' is not a pattern: leave it out to select everything")
    matched = matching(inventory, pattern)
    usable = [entry for entry in matched if eligible(entry)]
    if usable:
        return usable
    text = pattern_text(shown)
    if matched:
        raise ParamCheckUsageError(
            f"pattern {text} matches no {what}: {matched[0].name!r} is a {matched[0].kind}"
        )
    if isinstance(pattern, str):
        modules = {name: module for name, module in inventory.modules if name}
        if pattern in modules:
            raise ParamCheckUsageError(
                f"pattern {text} matches nothing: the module "
                f"{type(modules[pattern]).__name__} has no parameters"
            )
        choices = dict.fromkeys(inventory.named)
        for name in inventory.named:
            while name := name.rpartition(".")[0]:
                choices[name] = None
        raise ParamCheckUsageError(
            f"pattern {text} matches nothing in {inventory.title};"
            f"{did_you_mean(pattern, choices) or _have(inventory)}"
        )
    raise ParamCheckUsageError(
        f"pattern {text} matches nothing in {inventory.title}"
        + ("" if inventory.modules else ": classes select in an nn.Module only")
    )


def _have(inventory: Inventory) -> str:
    names = list(inventory.named)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" it has {', '.join(names[:5])}{more}"
