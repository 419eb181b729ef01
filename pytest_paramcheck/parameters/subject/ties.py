"""Tie groups: which names are one tensor, what a list of names means, several things as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import did_you_mean
from ..tensors.identity import Related, Relation, relate
from .inventory import Inventory, take_inventory
from .parametrized import Computed, computed_weights, may_be_leaf
from .select import name_matcher


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


def expand(ties: Ties, names: Iterable[object]) -> list[tuple[str, ...]]:
    """Return the tie groups that a list of names declares, in public names.

    Entry names (and globs over them) are one group; module names stand for one group per
    namesake below them. Raises :class:`ParamCheckUsageError` for what is neither.
    """
    named = ties.inventory.named
    listed = list(names)
    if isinstance(names, (set, frozenset)):
        # A set's order differs from run to run, a message must not.
        position: dict[object, int] = {name: number for number, name in enumerate(named)}
        listed.sort(key=lambda name: (position.get(name, len(position)), str(name)))
    entries: list[str] = []
    modules: list[str] = []
    for name in listed:
        if not isinstance(name, str):
            raise ParamCheckUsageError(
                f"a tie group is a set of names, got {type(name).__name__} {name!r}"
            )
        if ties.known(name):
            entries.append(name)
        elif any(known.startswith(name + ".") for known in named):
            modules.append(name)
        elif "*" in name or "?" in name:
            matches = name_matcher(name, named)
            found = [ties.public(known) for known in named if matches(known)]
            if not found:
                raise ParamCheckUsageError(
                    f"pattern {name!r} matches nothing in {ties.inventory.title}"
                )
            entries += found
        else:
            hint = did_you_mean(name, [*named, *ties.computed])
            raise ParamCheckUsageError(
                f"{ties.inventory.title} has no parameter or buffer {name!r};{hint}".rstrip(";")
            )
    if modules and entries:
        raise ParamCheckUsageError(
            f"{modules[0]!r} is a module and {entries[0]!r} a parameter: "
            f"name parameters or modules, not both"
        )
    if modules:
        return _namesakes(ties, modules)
    group = tuple(dict.fromkeys(ties.public(name) for name in entries))
    if len(group) < 2:
        raise ParamCheckUsageError(
            f"a tie takes two names or more, got {', '.join(map(repr, listed)) or 'none'}"
        )
    return [group]


def _namesakes(ties: Ties, modules: Sequence[str]) -> list[tuple[str, ...]]:
    if len(set(modules)) < 2:
        raise ParamCheckUsageError(f"a tie takes two names or more, got {modules[0]!r}")
    below: dict[str, list[str]] = {}
    for module in dict.fromkeys(modules):
        for name in ties.inventory.named:
            if name.startswith(module + "."):
                public = ties.public(name)
                siblings = below.setdefault(public[len(module) + 1 :], [])
                if public not in siblings:
                    siblings.append(public)
    for rest, siblings in below.items():
        if len(siblings) < len(set(modules)):
            lacking = next(m for m in modules if f"{m}.{rest}" not in siblings)
            raise ParamCheckUsageError(
                f"{lacking!r} has no {rest!r} to be tied to {siblings[0]!r}: the modules differ"
            )
    return [tuple(siblings) for siblings in below.values()]


def merge_groups(groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Merge groups that have a name in common: ties are transitive."""
    merged: list[dict[str, None]] = []
    where: dict[str, dict[str, None]] = {}
    for group in groups:
        target: dict[str, None] = {}
        for known in {id(where[n]): where[n] for n in group if n in where}.values():
            target.update(known)
            merged.remove(known)
        target.update(dict.fromkeys(group))
        merged.append(target)
        for name in target:
            where[name] = target
    return [tuple(group) for group in merged]


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
