"""Who is in the optimizer: every trainable parameter once, nobody stale, foreign or frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import did_you_mean, join_words
from ..parameters.running.gradstate import GradState, grad_state
from ..parameters.running.watch import MOMENTUM_KEYS, largest_magnitude
from ..parameters.subject.declared import Declared, with_rivals
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.optimizers import Slot
from ..parameters.subject.patterns import pattern_text
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import shared_memory
from ..parameters.tensors.memory import Memory, memory_of

REBUILD = "build the optimizer after the model is complete, or add_param_group() what is new"


def optimizer_coverage(
    slots: Sequence[Slot], inventory: Inventory, selected: Iterable[Entry]
) -> list[Finding]:
    """Find what an optimizer holds not at all, twice, or though it should not."""
    chosen = set(selected)
    by_id: dict[int, list[Slot]] = {}
    for slot in slots:
        by_id.setdefault(id(slot.tensor), []).append(slot)
    sharing = _sharing(slots, inventory)
    findings: list[Finding] = []
    absent: list[Entry] = []
    used: set[int] = set()  # foreign tensors that some finding or parameter accounts for
    for entry in inventory.parameters:
        if entry not in chosen or entry.tensor is None:
            continue
        own = by_id.get(id(entry.tensor), [])
        names = tuple(entry.names)
        if not entry.trainable:
            findings += _frozen(names, entry.tensor, own)
            continue
        others = sharing.get(id(entry.tensor), [])
        held = [tensor for tensor in others if id(tensor) in by_id]
        used.update(id(tensor) for tensor in held)
        if len(own) > 1:
            places = join_words([slot.where for slot in own])
            findings.append(
                Finding(
                    names,
                    "held more than once",
                    found=places,
                    why=f"each step moves it {len(own)} times",
                    hint="give each parameter to one group of one optimizer",
                )
            )
        elif own and held:
            findings += _memory_twice(entry, own[0], held, by_id, inventory)
        elif not own and held:
            findings += _by_memory(entry, held, by_id, inventory)
        elif not own:
            absent.append(entry)
    foreign = [
        slot
        for slot in slots
        if inventory.entry_of(slot.tensor) is None and id(slot.tensor) not in used
    ]
    stale = _stale(absent, foreign, inventory, slots)
    for entry in absent:
        replaced = stale.get(entry)
        names = tuple(entry.names)
        if replaced is None:
            findings.append(
                Finding(names, "not in the optimizer", found=describe(entry.tensor), hint=REBUILD)
            )
        else:
            findings.append(
                Finding(
                    names,
                    "stale in the optimizer",
                    found=f"{replaced.where} is {describe(replaced.tensor)}, not the model's",
                    why="the parameter was replaced after the optimizer was built",
                    hint=REBUILD,
                )
            )
    explained = {id(slot) for slot in stale.values()}
    findings += [
        Finding(
            (slot.name or slot.where,),
            "foreign in the optimizer",
            found=describe(slot.tensor),
            why=f"no parameter of {inventory.title}",
            hint="where one optimizer trains several models, pass nn.ModuleDict of them",
        )
        for slot in foreign
        if id(slot) not in explained
    ]
    return findings


def _sharing(slots: Sequence[Slot], inventory: Inventory) -> dict[int, list[Tensor]]:
    """Return for each tensor the others, the model's and the optimizer's, that share memory."""
    unique = {id(e.tensor): e.tensor for e in inventory.parameters if e.tensor is not None}
    unique.update((id(slot.tensor), slot.tensor) for slot in slots)
    tensors = list(unique.values())
    sharing: dict[int, list[Tensor]] = {}
    for group in shared_memory(tensors).groups:
        memories = {index: memory_of(tensors[index]) for index in group}
        for index in group:
            sharing[id(tensors[index])] = [
                tensors[other]
                for other in group
                if other != index and memories[index].overlaps(memories[other])
            ]
    return sharing


def _memory_twice(
    entry: Entry,
    own: Slot,
    held: Sequence[Tensor],
    by_id: Mapping[int, list[Slot]],
    inventory: Inventory,
) -> list[Finding]:
    """Say that the same bytes are stepped through two tensors; once for each set of them."""
    names = list(entry.names)
    places = [own.where]
    first = True
    order = {id(e.tensor): number for number, e in enumerate(inventory.parameters)}
    for tensor in held:
        other = inventory.entry_of(tensor)
        if other is not None:
            names += other.names
            first = first and order[id(entry.tensor)] < order.get(id(tensor), len(order))
        places += [slot.where for slot in by_id[id(tensor)]]
    if not first:
        return []
    return [
        Finding(
            tuple(names),
            "memory held more than once",
            found=join_words(places),
            why="different tensors on the same memory: each step moves it more than once",
            hint="tie by assigning the Parameter itself, not its data",
        )
    ]


def _by_memory(
    entry: Entry,
    held: Sequence[Tensor],
    by_id: Mapping[int, list[Slot]],
    inventory: Inventory,
) -> list[Finding]:
    """A parameter that is not held itself: is what holds its memory able to train it?

    A larger tensor (a flat buffer of many parameters) is, once. Another Parameter on exactly
    this memory is not: gradients arrive at the model's.
    """
    memory: Memory = memory_of(entry.tensor) if entry.tensor is not None else Memory(())
    for tensor in held:
        if memory_of(tensor).key != memory.key:
            continue
        other = inventory.entry_of(tensor)
        whose = f"{other.name}, which is" if other else "another Parameter, which is"
        return [
            Finding(
                tuple(entry.names),
                "stale in the optimizer" if other is None else "not in the optimizer",
                found=f"{by_id[id(tensor)][0].where} is {whose} on the same memory",
                why="gradients of this one are never stepped with",
                hint=REBUILD if other is None else "tie by assigning the Parameter itself",
            )
        ]
    if len(held) > 1:
        return [
            Finding(
                tuple(entry.names),
                "memory held more than once",
                found=join_words([by_id[id(tensor)][0].where for tensor in held]),
                why="each step moves it more than once",
            )
        ]
    return []


def _frozen(names: tuple[str, ...], tensor: Tensor, own: Sequence[Slot]) -> list[Finding]:
    """A frozen parameter in the optimizer is wrong where the next step would move it.

    torch's optimizers skip a parameter whose gradient is None, whatever the weight decay: a
    teacher in the optimizer that no backward pass reaches stays what it is.
    """
    for slot in own:
        state = GradState.NONE if tensor.grad is None else grad_state(tensor.grad)
        if state is GradState.NONE:
            continue
        movers = []
        if state is not GradState.ZERO:
            movers.append("a gradient left in .grad")
        if decay := slot.group.get("weight_decay"):
            movers.append(f"weight decay {float(decay):g}")
        for key in MOMENTUM_KEYS:
            value = slot.state.get(key)
            if isinstance(value, Tensor) and bool(largest_magnitude(value) != 0):
                movers.append(f"momentum ({key})")
        if movers:
            return [
                Finding(
                    names,
                    "frozen, but the next step moves it",
                    found=f"{slot.where}: {join_words(movers)}",
                    hint="clear it with zero_grad(set_to_none=True), or take it out of the groups",
                )
            ]
    return []


def _stale(
    absent: Sequence[Entry],
    foreign: Sequence[Slot],
    inventory: Inventory,
    slots: Sequence[Slot],
) -> dict[Entry, Slot]:
    """Pair parameters that are not held with foreign tensors that were theirs once.

    By the name the optimizer was told; by position where it holds as many tensors as the
    model has; else by shape and type, in order.
    """
    parameters = inventory.parameters
    pairs: dict[Entry, Slot] = {}
    left = list(foreign)

    def pair(entry: Entry, slot: Slot) -> None:
        pairs[entry] = slot
        left.remove(slot)

    for entry in absent:
        named = next((slot for slot in left if slot.name and slot.name in entry.names), None)
        if named is not None:
            pair(entry, named)
    if len(slots) == len(parameters):
        order = {parameter: number for number, parameter in enumerate(parameters)}
        for entry in absent:
            slot = slots[order[entry]]
            if entry not in pairs and slot in left:
                pair(entry, slot)
    for entry in absent:
        if entry in pairs or entry.tensor is None:
            continue
        said = describe(entry.tensor)
        alike = next((s for s in left if not s.name and describe(s.tensor) == said), None)
        if alike is not None:
            pair(entry, alike)
    return pairs


def validate_settings(expected: object) -> None:
    """Raise :class:`ParamCheckUsageError` for what does not map patterns to settings."""
    if not isinstance(expected, Mapping) or not expected:
        raise ParamCheckUsageError(
            f"expected hyperparameters map patterns to settings, "
            f"{{'*.bias': {{'weight_decay': 0}}}}, got {expected!r}"
        )
    for pattern, settings in expected.items():
        if not isinstance(settings, Mapping) or not settings:
            raise ParamCheckUsageError(
                f"{pattern!r}: expected a mapping of hyperparameters, got {settings!r}"
            )


def param_groups(
    slots: Sequence[Slot],
    decided: Sequence[Declared[Mapping[str, Any]]],
) -> list[Finding]:
    """Find the parameters whose optimizer group has other hyperparameters than expected."""
    known = {key for slot in slots for key in slot.group} - {"params", "param_names"}
    by_id: dict[int, list[Slot]] = {}
    for slot in slots:
        by_id.setdefault(id(slot.tensor), []).append(slot)
    for pattern, asked in dict.fromkeys((item.pattern, tuple(item.value)) for item in decided):
        for key in asked:
            if key not in known:
                suggestion = did_you_mean(key, known) or f" there are {', '.join(sorted(known))}"
                raise ParamCheckUsageError(
                    f"{pattern_text(pattern)}: no group has a hyperparameter {key!r};{suggestion}"
                )
    held = {item.pattern for item in decided if id(item.entry.tensor) in by_id}
    findings = []
    for item in decided:
        entry, names, pattern, expected = item.entry, item.names, item.pattern, item.value
        own = by_id.get(id(entry.tensor), [])
        # A frozen parameter that no optimizer holds gets no hyperparameters at all; only where
        # that is true of all a pattern decides, the pattern asked about nothing.
        if not own and (entry.trainable or pattern not in held):
            findings.append(
                Finding(
                    names,
                    "not in the optimizer",
                    expected=_settings(expected),
                    hint="assert_optimizer_covers(optimizer, model) says more",
                )
            )
        for slot in own:
            wrong = [key for key in expected if not _equal(slot.group.get(key), expected[key])]
            if wrong:
                findings.append(
                    Finding(
                        names,
                        "wrong hyperparameter",
                        expected=_settings({key: expected[key] for key in wrong}),
                        found=_settings({key: _plain(slot.group.get(key)) for key in wrong}),
                        why=f"{slot.where.partition(',')[0]}, by pattern {pattern_text(pattern)}",
                    )
                )
    return with_rivals(findings, decided, _settings)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)!r}" for key, value in values.items())


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().item()
    return value


def _equal(found: Any, expected: Any) -> bool:
    found, expected = _plain(found), _plain(expected)
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        # 0.1 + 0.2 and 0.3 are the same setting; 1e-4 and 1.0001e-4 are not.
        return found == expected or abs(found - expected) <= 1e-12 * abs(expected)
    if isinstance(expected, (tuple, list)) and isinstance(found, (tuple, list)):
        return len(found) == len(expected) and all(map(_equal, found, expected))
    return bool(found == expected)
