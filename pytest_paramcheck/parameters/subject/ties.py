"""Tie groups: which names are one tensor, what a list of names means, several things as one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import join_words
from ..tensors.identity import Related, Relation, relate
from .inventory import Inventory
from .names import Names
from .parametrized import Computed, computed_weights, may_be_leaf
from .patterns import (
    Pattern,
    demand_whole,
    matched_names,
    matching_glob,
    negation,
    no_match,
    pattern_text,
)
from .reading import take_inventory


class Ties:
    """The tie groups of one inventory, with computed weights under the names users give them.

    A weight that a parametrization computes goes by its public name (``head.weight``), and it is
    tied to another only if the same arithmetic reads the same leaves.
    """

    def __init__(self, inventory: Inventory, base: str | None = "model") -> None:
        self.inventory = inventory
        #: What stands before a name in an expression: ``model``, nothing, or no such expression.
        self.base = base

    @cached_property
    def computed(self) -> dict[str, Computed]:
        """Public name -> how the weight is computed."""
        return {weight.name: weight for weight in computed_weights(self.inventory)}

    @cached_property
    def _public(self) -> dict[str, str]:
        """Leaf name -> public name of the computed weight."""
        return {leaf: w.name for w in self.computed.values() for leaf in w.leaves}

    def public(self, name: str) -> str:
        """Return the name a user gives an entry: a leaf's computed weight, else the name."""
        return self._public.get(name, name)

    def identity(self, name: str) -> object:
        """Return what two public names must have in common to be tied."""
        weight = self.computed.get(name)
        if weight is not None:
            return weight.how, weight.inputs
        return id(self.inventory.named[name])

    def tensors(self, name: str) -> list[Tensor]:
        """Return the tensors a public name stands for: several leaves of a computed weight."""
        weight = self.computed.get(name)
        tensors = [self.inventory.named[key] for key in (weight.leaves if weight else (name,))]
        found = [tensor for tensor in tensors if tensor is not None]
        if not found:
            raise ParamCheckUsageError(f"{name!r} is None: there is no tensor to compare")
        return found

    @cached_property
    def public_names(self) -> Names:
        """Every name that a user gives an entry, in registration order."""
        if not self.computed:
            return self.inventory.all_names
        return Names(dict.fromkeys(map(self.public, self.inventory.named)))

    def below(self, module: str) -> list[str]:
        """Return the names of the inventory below a module's name (``""``: all of them)."""
        return self.inventory.all_names.below(module) if module else list(self.inventory.named)

    def position(self, name: str) -> int:
        """Where an entry or a module stands in registration order."""
        position = self.public_names.position
        if name in position:
            return position[name]
        inside = self.below(name)
        return position[self.public(inside[0])] if inside else len(position)

    def in_order(self, names: Iterable[object]) -> list[str]:
        """Return names as they are written, in registration order: a set has none of its own."""
        listed = list(names)
        if isinstance(names, (set, frozenset)):
            listed.sort(key=lambda n: (self.position(n) if isinstance(n, str) else 0, repr(n)))
        return [repr(name) for name in listed]

    def known(self, name: str) -> bool:
        """Whether it is a name of the inventory, or the public name of a computed weight."""
        return name in self.computed or name in self.inventory.named

    @cached_property
    def groups(self) -> list[tuple[str, ...]]:
        """The tie groups, in public names. Buffers are tied too (a shared BatchNorm)."""
        return self._split[0]

    @cached_property
    def one_sided(self) -> list[tuple[str, ...]]:
        """Public names that share a leaf but not the arithmetic on it: ties that are broken."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        shared = self.inventory.tie_groups
        if not any(may_be_leaf(name) for names in shared for name in names):
            return shared, []
        groups: dict[tuple[str, ...], None] = {}
        one_sided: dict[tuple[str, ...], None] = {}
        for names in shared:
            public = list(dict.fromkeys(map(self.public, names)))
            by_identity: dict[object, list[str]] = {}
            for name in public:
                by_identity.setdefault(self.identity(name), []).append(name)
            for tied in by_identity.values():
                if len(tied) > 1:
                    groups[tuple(tied)] = None
            if len(by_identity) > 1:
                one_sided[tuple(public)] = None
        return list(groups), list(one_sided)

    def is_parameter(self, name: str) -> bool:
        """Whether a public name is a parameter's."""
        return name in self.computed or name not in self.inventory.buffer_names


def expand(ties: Ties, patterns: Iterable[object]) -> list[tuple[str, ...]]:
    """Return the tie groups that a list of patterns declares, in public names.

    What reaches entries (their names, globs over them, ``(class, name)``) is one group; what
    reaches modules (their names, globs over these, classes) stands for one group per namesake
    below them. ``"!..."`` takes names out. Raises :class:`ParamCheckUsageError` where nothing
    is reached, and where less than two names are left.
    """
    listed = list(patterns)
    entries: dict[str, None] = {}
    modules: dict[str, None] = {}
    removed: set[str] = set()
    without: set[str] = set()
    for pattern in listed:
        negated, bare = negation(ties.inventory, pattern)
        own, instances = _reached(ties, bare, shown=pattern)
        if negated:
            removed.update(own)
            without.update(instances)
            removed.update(ties.public(n) for m in instances for n in ties.below(m))
        else:
            entries.update(dict.fromkeys(own))
            modules.update(dict.fromkeys(instances))
    modules = {module: None for module in modules if module not in without}
    if isinstance(patterns, (set, frozenset)):
        # A set's order differs from run to run, a message must not.
        entries = dict.fromkeys(sorted(entries, key=ties.position))
        modules = dict.fromkeys(sorted(modules, key=ties.position))
    if modules and entries:
        raise ParamCheckUsageError(
            f"{next(iter(modules))!r} is a module and {next(iter(entries))!r} a parameter: "
            f"name parameters or modules, not both"
        )
    groups = _namesakes(ties, list(modules), removed) if modules else [tuple(entries)]
    left = [tuple(name for name in group if name not in removed) for group in groups]
    if modules:
        left = [group for group in left if group]
    if not left or any(len(group) < 2 for group in left):
        raise ParamCheckUsageError(f"a tie takes two names or more, got {_texts(listed) or 'none'}")
    return left


def _texts(patterns: Iterable[object]) -> str:
    return ", ".join(pattern_text(pattern) for pattern in patterns)  # type: ignore[arg-type]


def _reached(ties: Ties, pattern: Pattern, shown: object) -> tuple[list[str], list[str]]:
    """Return the public names that one pattern reaches, and the modules it stands for."""
    inventory = ties.inventory
    names: list[str] = []
    modules: list[str] = []
    demand_whole(pattern)
    if isinstance(pattern, str):
        names, modules = _named(ties, pattern)
    elif not isinstance(pattern, type):
        names = [ties.public(name) for name in matched_names(inventory, pattern)]
    else:
        modules = [
            path
            for path, module in inventory.modules
            if isinstance(module, pattern) and ties.below(path)
        ]
    if not names and not modules:
        raise no_match(inventory, pattern, shown, ties.computed)  # type: ignore[arg-type]
    return names, modules


def _named(ties: Ties, pattern: str) -> tuple[list[str], list[str]]:
    """Read a string: a name, a module's, a glob over either, or a name as wrappers print it."""
    if ties.known(pattern):
        return [ties.public(pattern)], []
    if pattern and ties.below(pattern):
        return [], [pattern]
    if globbed := matching_glob(pattern, ties.public_names):
        return globbed, []
    if globbed := matching_glob(pattern, ties.inventory.all_names.modules):
        return [], globbed
    found = matched_names(ties.inventory, pattern) if pattern else []
    if not found or pattern in ties.inventory.wrapped_names:
        return [ties.public(name) for name in found], []
    # A module below a wrapper: what stands before the part that both spellings share.
    wrapped = next(w for w, name in ties.inventory.wrapped_names.items() if name == found[0])
    rest = wrapped[len(pattern) :]
    if not wrapped.startswith(pattern + ".") or not found[0].endswith(rest):
        return [ties.public(name) for name in found], []
    return [], [found[0].removesuffix(rest)]


def _namesakes(
    ties: Ties, modules: Sequence[str], removed: Collection[str]
) -> list[tuple[str, ...]]:
    if len(modules) < 2:
        raise ParamCheckUsageError(f"a tie takes two names or more, got {modules[0]!r}")
    below: dict[str, dict[str, None]] = {}
    for module in modules:
        for name in ties.below(module):
            public = ties.public(name)
            if public not in removed:
                below.setdefault(public[len(module) + 1 :], {})[public] = None
    for rest, siblings in below.items():
        if len(siblings) < len(modules):
            lacking = next(m for m in modules if f"{m}.{rest}" not in siblings)
            raise ParamCheckUsageError(
                f"{lacking!r} has no {rest!r} to be tied to {next(iter(siblings))!r}: "
                f"the modules differ"
            )
    return [tuple(siblings) for siblings in below.values()]


def merge_groups(groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Merge groups that have a name in common: ties are transitive."""
    merged: dict[int, dict[str, None]] = {}
    where: dict[str, int] = {}
    for number, group in enumerate(groups):
        target: dict[str, None] = {}
        for known in dict.fromkeys(where[name] for name in group if name in where):
            target.update(merged.pop(known))
        target.update(dict.fromkeys(group))
        merged[number] = target
        where.update(dict.fromkeys(target, number))
    return [tuple(group) for group in merged.values()]


def shared_modules(inventory: Inventory) -> list[tuple[str, ...]]:
    """Return the names of each module that is registered in several places.

    The outermost ones: what a shared module holds is shared with it. Modules that hold nothing
    (an activation used twice) are none.
    """
    places: dict[int, list[str]] = {}
    module_at: dict[str, nn.Module] = {}
    for path, module in inventory.modules:
        places.setdefault(id(module), []).append(path)
        module_at[path] = module
    found = []
    for paths in places.values():
        if len(paths) < 2 or not inventory.all_names.below(paths[0]):
            continue
        parents = {id(module_at[path.rpartition(".")[0]]) for path in paths}
        if len(parents) == 1 and len(places[parents.pop()]) == len(paths):
            continue  # its parent is the shared one
        found.append(tuple(paths))
    return found


def closest(ties: Ties, a: str, b: str) -> Related:
    """Return the strongest relation between the tensors two public names stand for."""
    order = list(Relation)
    return min(
        (relate(x, y) for x in ties.tensors(a) for y in ties.tensors(b)),
        key=lambda related: order.index(related.relation),
    )


def take_parts(
    what: str, subjects: tuple[Any, ...], named: dict[str, Any]
) -> list[tuple[str, Inventory]]:
    """Return the things to compare, each with the word that stands for it in messages."""
    things = {**{f"#{i + 1}": s for i, s in enumerate(subjects)}, **named}
    if len(things) < 2:
        raise ParamCheckUsageError(f"{what} takes two things or more to compare")
    for thing in things.values():
        if isinstance(thing, (str, bytes, type)):
            shown = repr(thing) if isinstance(thing, (str, bytes)) else thing.__name__
            raise ParamCheckUsageError(
                f"{shown} is a pattern, and patterns select within one subject: "
                f"{what}(model, *patterns)"
            )
    tensors = [isinstance(thing, Tensor) for thing in things.values()]
    if any(tensors) and not all(tensors):
        odd = next(name for name, t in things.items() if not isinstance(t, Tensor))
        raise ParamCheckUsageError(
            f"{what} compares tensors with tensors and subjects with subjects; "
            f"{odd} is {type(things[odd]).__name__}"
        )
    if all(tensors):
        return [(name, take_inventory([(name, t)])) for name, t in things.items()]
    return [(name, take_inventory(thing)) for name, thing in things.items()]


def side_by_side(
    what: str, subjects: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Ties, list[tuple[str, ...]]]:
    """Return the ties of several tensors or subjects, and the names that belong together."""
    parts = take_parts(what, subjects, named)
    things = (*subjects, *named.values())
    words = [word for word, _ in parts]
    if all(isinstance(thing, Tensor) for thing in things):
        together = Inventory("")
        together.named.update((word, part.named[word]) for word, part in parts)
        return Ties(together, base=None), [tuple(words)]
    if all(isinstance(thing, nn.Module) for thing in things):
        # One parent for all of them, so that parametrizations are seen as in one model.
        parent = nn.Module()
        parent._modules.update(zip(words, things, strict=True))
        together = take_inventory(parent)
        together.title = common_title(parts)
    else:
        together = Inventory(common_title(parts))
        for word, part in parts:
            together.named.update((f"{word}.{name}", t) for name, t in part.named.items())
    ties = Ties(together, base="" if not subjects else None)
    return ties, expand(ties, words)


def common_title(parts: Sequence[tuple[str, Inventory]]) -> str:
    """Return what a message calls several subjects: their titles, each once."""
    return ", ".join(dict.fromkeys(part.title for _, part in parts if not part.from_pairs))


def numbered_title(parts: Sequence[tuple[str, Inventory]]) -> str:
    """Return what a message calls several subjects, and what #1 and #2 stand for."""
    titles = list(dict.fromkeys(part.title for _, part in parts if not part.from_pairs))
    words = [word for word, _ in parts]
    if not titles or not words[0].startswith("#"):
        return common_title(parts)
    if len(titles) == 1:
        return f"{join_words(words)}: {titles[0]}"
    return ", ".join(f"{word}: {part.title}" for word, part in parts)
