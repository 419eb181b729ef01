"""Two subjects, before and after: do the same names share in the same way?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..messages.findings import Finding
from ..parameters.subject.ties import Ties, closest
from ..parameters.tensors.identity import Relation, shared_memory
from .ties import CONSEQUENCES, not_tied


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the names of one subject share: SAME groups, and ALIASED ones on top of them."""

    same: list[tuple[str, ...]]
    aliased: list[tuple[str, ...]]


def sharing(ties: Ties) -> Sharing:
    """Return the groups of names that are one tensor, and of tensors on one memory."""
    inventory = ties.inventory
    entries = [entry for entry in inventory.entries if entry.tensor is not None]
    found = shared_memory([entry.tensor for entry in entries if entry.tensor is not None])
    aliased = [
        tuple(ties.public(name) for i in indices for name in entries[i].names)
        for indices, relation in zip(found.groups, found.relations, strict=True)
        if relation is Relation.ALIASED
    ]
    return Sharing(ties.groups, aliased)


def same_sharing(before: Ties, after: Ties) -> list[Finding]:
    """Find the names that share in one subject and not in the same way in the other."""
    findings = []
    old, new = sharing(before), sharing(after)
    gone = [n for n in map(before.public, before.inventory.named) if not after.known(n)]
    shared_names = {name for group in (*old.same, *old.aliased) for name in group}
    findings += [
        Finding((name,), "name is gone", found="its tie cannot be checked")
        for name in dict.fromkeys(gone)
        if name in shared_names
    ]
    for group in old.same:
        left = [name for name in group if after.known(name)]
        findings += not_tied(after, left, "tie lost") if len(left) > 1 else []
    for group in new.same:
        known = [name for name in group if before.known(name)]
        classes = {before.identity(name) for name in known}
        if len(classes) > 1:
            findings.append(Finding(tuple(known), "tie gained", found="SAME", why="not so before"))
    for group in _not_in(old.aliased, new.aliased, new.same):
        if all(after.known(name) for name in group):
            related = closest(after, group[0], group[-1])
            findings.append(
                Finding(
                    group,
                    "shared memory lost",
                    expected=Relation.ALIASED.value,
                    found=related.relation.value,
                    why=CONSEQUENCES.get(related.relation, ""),
                )
            )
    for group in _not_in(new.aliased, old.aliased, old.same):
        if all(before.known(name) for name in group):
            findings.append(
                Finding(
                    group,
                    "shared memory gained",
                    found=Relation.ALIASED.value,
                    why=CONSEQUENCES[Relation.ALIASED],
                )
            )
    return findings


def _not_in(
    groups: Iterable[tuple[str, ...]], *others: Iterable[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    covered = [set(group) for other in others for group in other]
    return [group for group in groups if not any(set(group) <= known for known in covered)]
