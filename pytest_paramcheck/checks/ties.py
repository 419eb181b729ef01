"""Ties: names that must be one Parameter, and what follows where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.findings import Finding
from ..messages.folding import fold_rows
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.ties import Ties, closest, expand, merge_groups
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe, dtype_name, shape_text
from ..parameters.tensors.identity import Related, Relation, shared_memory
from .shared import Shared, by_module

#: What follows from each relation for somebody who wanted a tie.
CONSEQUENCES = {
    Relation.ALIASED: (
        "two tensors on the same memory: each gets part of the gradient, an optimizer updates "
        "the memory twice, and deepcopy() or .to(dtype) separates them"
    ),
    Relation.OVERLAPPING: (
        "they overlap in memory (another offset, shape or strides): updating one changes part "
        "of the other"
    ),
    Relation.EQUAL: (
        "the values are equal but the memory is not shared: they will diverge at the first "
        "optimizer step"
    ),
    Relation.DISTINCT: "neither the memory nor the values are shared",
}


def not_tied(ties: Ties, group: Sequence[str], problem: str = "not tied") -> list[Finding]:
    """Find where the names of one group are not one parameter."""
    classes: dict[object, list[str]] = {}
    for name in group:
        classes.setdefault(ties.identity(name), []).append(name)
    if len(classes) < 2:
        return []
    first, *others = classes.values()
    return [_apart(ties, first, names, problem) for names in others]


def without_memory_in_common(ties: Ties, group: Sequence[str]) -> list[Finding]:
    """Find where the names of one group do not hang together by memory cells in common."""
    names = [name for name in group for _ in ties.tensors(name)]
    tensors = [tensor for name in group for tensor in ties.tensors(name)]
    # Names of one object belong together, and so do the leaves of a computed weight.
    first_at: dict[object, str] = {}
    island = {name: first_at.setdefault(ties.identity(name), name) for name in group}
    for name, tensor in zip(names, tensors, strict=True):
        _join(island, name, first_at.setdefault(id(tensor), name))
    for indices in shared_memory(tensors).groups:
        for index in indices[1:]:
            _join(island, names[indices[0]], names[index])
    islands: dict[str, list[str]] = {}
    for name in group:
        islands.setdefault(island[name], []).append(name)
    first, *others = islands.values()
    findings = [_apart(ties, first, other, "no memory in common") for other in others]
    return [
        replace(finding, hint="") if not ties.computed and _sizes_differ(ties, finding) else finding
        for finding in findings
    ]


def _join(island: dict[str, str], a: str, b: str) -> None:
    one, other = island[a], island[b]
    if one != other:
        island.update({name: one for name, place in island.items() if place == other})


def _sizes_differ(ties: Ties, finding: Finding) -> bool:
    return len({tensor.shape for name in finding.names for tensor in ties.tensors(name)}) > 1


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
        hint = _how_to_tie(ties, first[0], other[0])
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


def _how_to_tie(ties: Ties, first: str, other: str) -> str:
    """Return the line that ties two names, or what has to be made equal before."""
    a, b = ties.inventory.named[first], ties.inventory.named[other]
    if a is None or b is None:
        return ""
    lazy = is_lazy(a) or is_lazy(b)
    if not lazy and a.shape != b.shape:
        sizes = f"{shape_text(a)} and {shape_text(b)}"
        if a.dim() == b.dim() and sum(m != n for m, n in zip(a.shape, b.shape, strict=True)) == 1:
            return (
                f"{sizes} cannot be one parameter: if one was resized, resize the other, then tie"
            )
        return f"{sizes} cannot be one parameter: build both in one shape, or leave the tie out"
    unlike = [
        f"{x} and {y}"
        for x, y in ((dtype_name(a.dtype), dtype_name(b.dtype)), (str(a.device), str(b.device)))
        if x != y
    ]
    how = "tie by assignment: assign one Parameter to both modules"
    if ties.base is not None:
        line = f"{python_path(other, ties.base)} = {python_path(first, ties.base)}"
        how = f"tie by assignment: {line}"
    return f"{how} (one parameter cannot be {' or '.join(unlike)})" if unlike else how


def relation_text(related: Related, tensor: Tensor) -> tuple[str, str]:
    """Return the relation and what follows from it, and what could not be asked."""
    why = CONSEQUENCES[related.relation]
    if related.relation is Relation.DISTINCT and (reason := no_values(tensor)):
        why = f"each has its own memory ({reason})"
    elif related.unknown and related.relation in (Relation.EQUAL, Relation.DISTINCT):
        why += f" (not fully checked: {related.unknown})"
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
    whole: list[tuple[str, ...]] = []
    for group in ties.groups:
        if group[0] not in group_of and _of_one_module(ties, group):
            continue  # a shared module's buffers come with its parameters
        declared_in = next((group_of[name] for name in group if name in group_of), None)
        if declared_in is None:
            whole.append(group)
        elif extra := tuple(name for name in group if group_of.get(name) != declared_in):
            findings.append(_undeclared(Shared(extra, "", extra), declared_in))
    findings += [_undeclared(shared, None) for shared in by_module(ties.inventory, whole)]
    findings += [
        finding
        for group in ties.one_sided
        if not any(group_of.get(name) for name in group)
        for finding in not_tied(ties, group, "shared but not tied")
    ]
    return findings + _shared_without_tie(ties, group_of)


def _of_one_module(ties: Ties, group: Sequence[str]) -> bool:
    """Whether a tied buffer is that of one module in several places."""
    if ties.is_parameter(group[0]):
        return False
    modules = ties.inventory.module_at
    return len({id(modules.get(name.rpartition(".")[0])) for name in group}) == 1


def _undeclared(shared: Shared, declared: Sequence[str] | None) -> Finding:
    if declared:
        why = f"also tied to the declared group {', '.join(declared)}"
    else:
        why = f"one {shared.module or 'Parameter'} under these names, and no group declares it"
    every = dict.fromkeys((*(declared or ()), *shared.places))
    return Finding(
        shared.places,
        "tied but not declared",
        found=Relation.SAME.value,
        why=why,
        hint=f"{shared.repair}; if this is intended, declare it: {{{', '.join(map(repr, every))}}}",
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
