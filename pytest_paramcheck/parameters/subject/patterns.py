"""What a pattern matches: names of one inventory, over all names.

A pattern is an entry's name, a module's name (everything below it), a glob (``*`` may cross
dots), a module class (the entries of its instances), ``(class, name below the instance)``, a state
(``states``), a function of name and tensor, or some elements of what another matches (``parts``).
Names match component by component and never by substring: ``blocks.1`` is not ``blocks.10``.

Tests: ``tests/unit/test_select.py``, ``test_states.py`` and ``test_ties.py``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.functions import demand_arguments
from ...messages.wording import cut, did_you_mean, shorten
from ..tensors.describe import kind_in_words
from .inventory import Inventory
from .names import Names
from .parts import Part
from .reading import take_inventory
from .states import State, names_in_state

#: What selects entries: a name, a glob, a module class, one name of a class's instances, a state,
#: a function of name and tensor; and some elements of what one of these selects.
Pattern: TypeAlias = (
    str
    | type[nn.Module]
    | tuple[type[nn.Module], str]
    | State
    | Part
    | Callable[[str, Tensor], Any]
)


def matched_names(inventory: Inventory, pattern: Pattern) -> list[str]:
    """Return the names that one pattern (without ``!``) matches, in registration order."""
    if isinstance(pattern, str):
        found = matching_names(pattern, inventory.all_names)
        if not found and inventory.wrapped_names:
            # As named_parameters() of the wrapped model prints it: module.0.weight. A real
            # child called module wins.
            again = matching_names(pattern, Names(inventory.wrapped_names))
            found = [inventory.wrapped_names[name] for name in again]
        return found
    if isinstance(pattern, Part):
        return matched_names(inventory, pattern.pattern)
    if isinstance(pattern, State):
        return names_in_state(inventory, pattern)
    if not isinstance(pattern, (type, tuple)):
        return _chosen_by(pattern, inventory)
    cls, below = pattern if isinstance(pattern, tuple) else (pattern, None)
    names: dict[str, None] = {}
    for path, module in inventory.modules:
        if isinstance(module, cls):
            inside = take_inventory(module, allow_empty=True)
            prefix = f"{path}." if path else ""
            chosen = inside.named if below is None else matched_names(inside, below)
            names.update((prefix + name, None) for name in chosen)
    return [name for name in names if name in inventory.named]


def _chosen_by(function: Callable[[str, Tensor], Any], inventory: Inventory) -> list[str]:
    """Return the names for which a function of name and tensor says yes."""
    __tracebackhide__ = True
    said = f"{pattern_text(function)} selects by name and tensor: lambda name, tensor: ..."
    demand_arguments(function, 2, said)
    inventory.read_values()  # it may look at any
    names = []
    for name, tensor in inventory.named.items():
        if tensor is None:
            continue
        answer = function(name, tensor)
        if isinstance(answer, Part) or (isinstance(answer, Tensor) and answer.numel() != 1):
            raise ParamCheckUsageError(
                f"{pattern_text(function)} has to say yes or no about {name}, "
                f"and returned {kind_in_words(answer)}"
            )
        if answer:
            names.append(name)
    return names


def matching_names(pattern: str, names: Names) -> list[str]:
    """Return the names that are the pattern, lie below it, or match it as a glob.

    What occurs literally wins over its reading as a glob, so that ``layers[2]`` can be named;
    with ``*`` and ``?`` the glob matches what is spelled so too, and never less than it says.
    """
    if "*" not in pattern and "?" not in pattern:
        found = names.at_or_below(pattern)
        if found or "[" not in pattern:
            return found
    for expression in _readings(pattern):
        if found := [name for name in names.named if _at_or_above(expression, name)]:
            return found
    return []


def matching_glob(pattern: str, names: Names) -> list[str]:
    """Return the names that a glob matches from end to end."""
    for expression in _readings(pattern) if _MAGIC.search(pattern) else ():
        if found := list(filter(expression.match, names.named)):
            return found
    return []


_MAGIC = re.compile(r"[*?[]")


def _readings(pattern: str) -> Iterator[re.Pattern[str]]:
    yield re.compile(fnmatch.translate(pattern))
    if "[" in pattern:  # an index, as in the path of a hidden tensor: layers[2].*
        yield re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def _at_or_above(expression: re.Pattern[str], name: str) -> bool:
    """Whether a glob matches a name, or a module above it."""
    if expression.match(name):
        return True
    end = name.rfind(".")
    while end > 0:
        if expression.match(name[:end]):
            return True
        end = name.rfind(".", 0, end)
    return False


def negation(inventory: Inventory, pattern: object) -> tuple[bool, Pattern]:
    """Return whether a pattern takes away, and what; raise for what is no pattern at all."""
    if isinstance(pattern, str):
        if pattern.startswith("!") and not inventory.all_names.at_or_below(pattern):
            return True, pattern[1:]
        return False, pattern  # a name that begins with ! is a name
    if isinstance(pattern, (State, Part)):
        return False, pattern
    if isinstance(pattern, type) and issubclass(pattern, nn.Module):
        return False, pattern
    if isinstance(pattern, tuple) and len(pattern) == 2:
        cls, below = pattern
        if isinstance(cls, type) and issubclass(cls, nn.Module) and isinstance(below, str):
            return (True, (cls, below[1:])) if below.startswith("!") else (False, (cls, below))
    if callable(pattern) and not isinstance(pattern, (type, nn.Module)):
        return False, pattern
    hint = ""
    if isinstance(pattern, (list, set, tuple)):
        hint = "; pass patterns one by one: *patterns"
    elif isinstance(pattern, nn.Module):
        hint = f"; name it, or pass its class {type(pattern).__name__}"
    raise ParamCheckUsageError(
        f"a pattern is a name, a glob, a class, (class, name), a state, a part or a function, "
        f"not {type(pattern).__name__} {cut(repr(pattern), 40)}{hint}"
    )


def demand_whole(pattern: Pattern) -> None:
    """Raise for a part, where whole entries are asked about."""
    if isinstance(pattern, Part):
        raise ParamCheckUsageError(
            f"{pattern_text(pattern)} is some elements of an entry, and this asks about whole ones"
        )


def pattern_text(pattern: Pattern) -> str:
    """Return a pattern as its author wrote it."""
    if isinstance(pattern, tuple):
        return f"({pattern[0].__name__}, {pattern[1]!r})"
    if isinstance(pattern, type):
        return pattern.__name__
    if isinstance(pattern, (str, State)):
        return repr(pattern)
    if isinstance(pattern, Part):
        return f"part({pattern_text(pattern.pattern)}, {pattern.text})"
    return getattr(pattern, "__name__", type(pattern).__name__)


def no_match(
    inventory: Inventory, pattern: Pattern, shown: Pattern, more: Iterable[str] = ()
) -> ParamCheckUsageError:
    """Return the error for a pattern that matches nothing; ``more``: other names there are."""
    text = pattern_text(shown)
    if pattern == "":
        return ParamCheckUsageError("'' is not a pattern: leave it out to select everything")
    if isinstance(pattern, Part):
        return no_match(inventory, pattern.pattern, pattern.pattern, more)
    if isinstance(pattern, State):
        what = {"FROZEN": "frozen parameter", "TRAINABLE": "trainable parameter"}
        word = what.get(pattern.value, pattern.value[:-1].lower())
        return ParamCheckUsageError(f"{text} selects nothing: {inventory.title} has no {word}")
    if not isinstance(pattern, (str, type, tuple)):
        return ParamCheckUsageError(
            f"the function {text} selects nothing in {inventory.title}: it said no to all names"
        )
    if not isinstance(pattern, str):
        return ParamCheckUsageError(
            f"pattern {text} matches nothing in {inventory.title}"
            + (_classes(inventory, pattern) if inventory.root is not None else _NO_CLASSES)
        )
    modules = {name: module for name, module in inventory.modules if name}
    if pattern in modules:
        return ParamCheckUsageError(
            f"pattern {text} matches nothing: the module "
            f"{type(modules[pattern]).__name__} has no parameters"
        )
    choices = dict.fromkeys((*inventory.named, *more))
    for name in inventory.named:
        while name := name.rpartition(".")[0]:
            choices[name] = None
    return ParamCheckUsageError(
        f"pattern {text} matches nothing in {inventory.title};"
        f"{did_you_mean(pattern, choices) or _have(inventory)}"
    )


_NO_CLASSES = ": classes select in an nn.Module only"


def _classes(inventory: Inventory, pattern: Pattern) -> str:
    """Return the classes of the modules that have parameters themselves, where one is asked for."""
    if not isinstance(pattern, type):
        return ""
    owners = {name.rpartition(".")[0] for name in inventory.named}
    kinds = dict.fromkeys(type(m).__name__ for path, m in inventory.modules if path in owners)
    return f"; it has modules of {shorten(list(kinds), 5)}" if kinds else ""


def _have(inventory: Inventory) -> str:
    names = list(inventory.named)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" it has {', '.join(names[:5])}{more}"
