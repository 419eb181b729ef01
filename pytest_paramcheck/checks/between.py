"""Nothing shared between subjects: a model and its copy, a network and its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..messages.findings import Finding
from ..messages.folding import fold_rows
from ..messages.wording import join_words
from ..parameters.subject.hidden import Hidden, hidden_tensors
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import Relation, shared_memory
from .untied import WHY_APART, cannot_tell

Part = tuple[str, Inventory]


@dataclass(slots=True)
class _Held:
    """One tensor: the names it has in each subject, and the functions that lead to it."""

    tensor: Tensor
    named: dict[int, list[str]] = field(default_factory=dict)
    carried: list[tuple[int, Hidden]] = field(default_factory=list)


def sharing_between(
    parts: Sequence[Part], *, unknown: bool = True, hint: str = ""
) -> list[Finding]:
    """Find what two subjects have in common: objects, memory, and what functions lead to.

    A function is taken over as it is by every copy, and with it what its closure and its
    defaults hold: such a copy reads the original. ``unknown``: a tensor whose layout hides
    where its memory is, is a finding too. ``hint``: how these subjects get memory of their own.
    """
    different, findings = _different(parts, hint)
    held = _held(different)
    words = [word for word, _ in different]
    findings += _one_object(held, hint)
    findings += _through_functions(words, held)
    registered = [one for one in held if one.named]
    found = shared_memory([one.tensor for one in registered])
    groups: dict[Relation, list[list[_Held]]] = {}
    for indices, relation in zip(found.groups, found.relations, strict=True):
        group = [registered[i] for i in indices]
        if len({number for one in group for number in one.named}) > 1:
            groups.setdefault(relation, []).append(group)
    findings += [
        _on_one_memory(words, by_relation, relation, hint)
        for relation, by_relation in groups.items()
    ]
    if unknown:
        findings += [cannot_tell(_name(registered[i]), why) for i, why in found.unknown.items()]
    return findings


def _different(parts: Sequence[Part], hint: str) -> tuple[list[Part], list[Finding]]:
    """Return the subjects, each once, and a finding for each that was given twice."""
    different: list[Part] = []
    findings = []
    first: dict[int, str] = {}
    for word, inventory in parts:
        key = id(inventory if inventory.root is None else inventory.root)
        if key not in first:
            first[key] = word
            different.append((word, inventory))
            continue
        findings.append(
            Finding(
                (first[key], word),
                "the same object",
                found=f"one {inventory.title}" if inventory.root is not None else inventory.title,
                hint=hint or "compare it with a copy: copy.deepcopy(model)",
            )
        )
    return different, findings


def _held(parts: Sequence[Part]) -> list[_Held]:
    held: dict[int, _Held] = {}
    for number, (word, inventory) in enumerate(parts):
        for entry in inventory.entries:
            if entry.tensor is not None:
                one = held.setdefault(id(entry.tensor), _Held(entry.tensor))
                one.named[number] = [n if n == word else f"{word}.{n}" for n in entry.names]
    for number, (_, inventory) in enumerate(parts):
        for hidden in hidden_tensors(inventory).tensors:
            if hidden.by_reference:
                one = held.setdefault(id(hidden.tensor), _Held(hidden.tensor))
                one.carried.append((number, hidden))
    return list(held.values())


def _name(one: _Held) -> str:
    return next(iter(one.named.values()))[0]


def _one_object(held: Sequence[_Held], hint: str) -> list[Finding]:
    return [
        Finding(
            tuple(name for names in one.named.values() for name in names),
            "shared",
            found=f"one {describe(one.tensor)} in both",
            hint=hint
            or "make it anew for each: what is made once (a default argument, a registry) is in "
            "all that use it",
        )
        for one in held
        if len(one.named) > 1
    ]


def _through_functions(words: Sequence[str], held: Sequence[_Held]) -> list[Finding]:
    """Find what a function of one subject refers to and another one has, by function."""
    rows: dict[tuple[int, str, str], list[tuple[str, str]]] = {}
    for one in held:
        if len({number for number, _ in one.carried}.union(one.named)) < 2:
            continue
        if not one.named and not one.tensor.requires_grad:
            continue  # a constant that functions of both refer to
        for number, hidden in one.carried:
            other = next((n[0] for owner, n in one.named.items() if owner != number), None)
            if other is None and number == one.carried[0][0]:
                continue  # said of the later subjects
            first = f"{words[one.carried[0][0]]}.{one.carried[0][1].path}"
            key = number, hidden.owner, hidden.attribute
            rows.setdefault(key, []).append(
                (f"{words[number]}.{hidden.path}", f"is {other or first}")
            )
    findings = []
    for (number, owner, attribute), found in rows.items():
        place = ".".join(filter(None, (words[number], owner, attribute)))
        findings.append(
            Finding(
                tuple(path for path, _ in found),
                "refers to another",
                why=f"{place} is a function or holds one, and a copy takes functions over as they "
                f"are, with what they refer to",
                hint=f"make {attribute} a method: self is then the copy's own",
                rows=tuple(found),
            )
        )
    return findings


def _on_one_memory(
    words: Sequence[str], groups: Sequence[Sequence[_Held]], relation: Relation, hint: str
) -> Finding:
    labels = [[name for names in one.named.values() for name in names] for g in groups for one in g]
    return Finding(
        tuple(name for names in labels for name in names),
        "shares memory",
        found=relation.value,
        why=WHY_APART[relation],
        hint=hint
        or "give each its own memory: copy.deepcopy(), or load_state_dict() without assign=True",
        rows=fold_rows(_row(words, group) for group in groups),
    )


def _row(words: Sequence[str], group: Sequence[_Held]) -> tuple[str, str]:
    """Return the tensors on one memory: where all have one name in their subjects, by that."""
    owners = [(next(iter(one.named)), _name(one)) for one in group]
    local = {name.removeprefix(f"{words[number]}.") for number, name in owners}
    said = describe(group[0].tensor)
    if len(local) == 1 and not local.intersection(words):
        return local.pop(), f"{said} in {join_words([words[number] for number, _ in owners])}"
    return ", ".join(name for _, name in owners), said
