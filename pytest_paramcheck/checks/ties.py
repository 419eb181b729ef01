"""Ties: names that must be one Parameter, and what follows where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import did_you_mean, fold_rows
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.parametrized import Computed, computed_weights, may_be_leaf
from ..parameters.subject.select import name_matcher
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import Related, Relation, relate, shared_memory

#: What follows from each relation for somebody who wanted a tie.
CONSEQUENCES = {
    Relation.ALIASED: (
        "two tensors on the same memory: the gradient is split between them, an optimizer "
        "steps the memory twice, and the next deepcopy or dtype move parts them"
    ),
    Relation.OVERLAPPING: (
        "they share some memory cells in another geometry: a step through one changes part of "
        "the other"
    ),
    Relation.EQUAL: (
        "the values are equal but the memory is not shared; the first optimizer step will part them"
    ),
    Relation.DISTINCT: "neither the memory nor the values are shared",
}


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


def not_tied(ties: Ties, group: Sequence[str], problem: str = "not tied") -> list[Finding]:
    """Find where the names of one group are not one parameter."""
    classes: dict[object, list[str]] = {}
    for name in group:
        classes.setdefault(ties.identity(name), []).append(name)
    if len(classes) < 2:
        return []
    first, *others = classes.values()
    return [_apart(ties, first, names, problem) for names in others]


def _apart(ties: Ties, first: Sequence[str], other: Sequence[str], problem: str) -> Finding:
    computed = [ties.computed[n] for n in (first[0], other[0]) if n in ties.computed]
    related = closest(ties, first[0], other[0])
    # Folded side by side: which names belong together is what the rows have to show.
    rows = tuple(
        row
        for side in (first, other)
        for row in fold_rows((name, _describe(ties, name)) for name in side)
    )
    if not computed:
        found, why = relation_text(related, ties.tensors(other[0])[0])
        hint = (
            "tie by assignment: put one Parameter in both places"
            if ties.base is None
            else "tie by assignment: "
            f"{python_path(other[0], ties.base)} = {python_path(first[0], ties.base)}"
        )
    else:
        found = related.relation.value
        weight = computed[-1]
        if len(computed) == 1:
            why = f"{weight.name} is computed by {weight.by} and the other side is not"
        else:
            why = "each side is computed from parameters of its own"
        if related.relation is Relation.SAME:
            why += ": one Parameter, but the two sides compute different weights from it"
        hint = (
            f"parametrize both sides through one module, or remove {weight.by} from {weight.name}"
        )
    return Finding((*first, *other), problem, found=found, why=why + ".", hint=hint, rows=rows)


def closest(ties: Ties, a: str, b: str) -> Related:
    """Return the strongest relation between the tensors two public names stand for."""
    order = list(Relation)
    return min(
        (relate(x, y) for x in ties.tensors(a) for y in ties.tensors(b)),
        key=lambda related: order.index(related.relation),
    )


def relation_text(related: Related, tensor: Tensor) -> tuple[str, str]:
    """Return the relation and what follows from it, and what could not be asked."""
    why = CONSEQUENCES[related.relation]
    if related.relation is Relation.DISTINCT and (reason := no_values(tensor)):
        why = f"each has its own memory ({reason})"
    elif related.unknown and related.relation in (Relation.EQUAL, Relation.DISTINCT):
        why += f" (as far as it can be told: {related.unknown})"
    return related.relation.value, why


def _describe(ties: Ties, name: str) -> str:
    weight = ties.computed.get(name)
    if weight is None:
        return describe(ties.inventory.named[name])
    leaves = ", ".join(leaf.rpartition(".")[2] for leaf in weight.leaves)
    return f"computed by {weight.by} from {leaves}"


def python_path(name: str, base: str = "model") -> str:
    """Return the expression a user writes for a name: ``model.blocks[0].weight``."""
    parts = (f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))
    return (base + "".join(parts)).removeprefix(".")


def exact_ties(ties: Ties, declared: Iterable[Iterable[object]]) -> list[Finding]:
    """Find the declared groups that are not tied and the ties that are not declared."""
    wanted = merge_groups(group for names in declared for group in expand(ties, names))
    findings = [finding for group in wanted for finding in not_tied(ties, group)]
    group_of = {name: group for group in wanted for name in group}
    for group in ties.groups:
        if not ties.is_parameter(group[0]) and group[0] not in group_of:
            continue  # a shared module's buffers come with its parameters
        declared_in = next((group_of[name] for name in group if name in group_of), None)
        extra = [name for name in group if group_of.get(name) != declared_in]
        if declared_in is None:
            extra = list(group)
        if extra:
            findings.append(_undeclared(group, extra, declared_in))
    findings += [
        finding
        for group in ties.one_sided
        if not any(group_of.get(name) for name in group)
        for finding in not_tied(ties, group, "shared but not tied")
    ]
    return findings + _shared_without_tie(ties, group_of)


def _undeclared(
    group: Sequence[str], extra: Sequence[str], declared: Sequence[str] | None
) -> Finding:
    return Finding(
        tuple(extra),
        "tied but not declared",
        found=Relation.SAME.value,
        why=(
            f"also tied to the declared group {', '.join(declared)}"
            if declared
            else "one Parameter under these names, and no group declares it"
        ),
        hint=f"declare it: {{{', '.join(map(repr, group))}}}",
    )


def _shared_without_tie(ties: Ties, group_of: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Find parameters on common memory that are different objects, beyond what is declared."""
    entries = [entry for entry in ties.inventory.entries if entry.tensor is not None]
    names = [entry.name for entry in entries]
    found = shared_memory([entry.tensor for entry in entries if entry.tensor is not None])
    findings = []
    for indices, relation in zip(found.groups, found.relations, strict=True):
        group = [names[i] for i in indices]
        declared = {group_of.get(ties.public(name)) for name in group}
        if declared != {None} and len(declared) == 1:
            continue  # reported as a declared tie that is none
        if not any(ties.is_parameter(name) for name in group):
            continue  # views among buffers train nothing
        findings.append(shares_memory(ties.inventory, group, relation))
    return findings


def shares_memory(inventory: Inventory, names: Sequence[str], relation: Relation) -> Finding:
    """Return the finding for different tensors that have memory in common."""
    return Finding(
        tuple(names),
        "shares memory",
        found=relation.value,
        why=CONSEQUENCES[relation] + ".",
        hint="give each its own memory with .clone(), or make it one Parameter by assignment",
        rows=fold_rows((name, describe(inventory.named[name])) for name in names),
    )


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
