"""Who is in the optimizer: every trainable parameter once and whole, nobody else, none frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import common_length, join_words
from ..parameters.running.gradstate import GradState, grad_state
from ..parameters.running.magnitude import largest_magnitude
from ..parameters.running.steps import MOMENTUM_KEYS
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.optimizers import Slot
from ..parameters.tensors.content import no_values
from ..parameters.tensors.cover import cover, gradient_arrives
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import shared_memory
from ..parameters.tensors.memory import memory_of
from ..parameters.tensors.wide import wide_copies
from .masters import held_as_copy

ADD = "build the optimizer after the model is complete, or add what is missing: add_param_group()"
REBUILD = "build the optimizer from the parameters of the complete model"
FLAT = "give the optimizer the parameters themselves, or set .grad of what it holds from theirs"


class _Held:
    """What the optimizers hold, by object, and what of it lies on whose memory."""

    def __init__(
        self, slots: Sequence[Slot], inventory: Inventory, masters: Iterable[Tensor]
    ) -> None:
        self.by_id: dict[int, list[Slot]] = {}
        for slot in slots:
            self.by_id.setdefault(id(slot.tensor), []).append(slot)
        self._sharing = self._overlaps(slots, inventory, masters)

    def of(self, tensor: Tensor) -> list[Slot]:
        """The slots of this very object."""
        return self.by_id.get(id(tensor), [])

    def on_memory_of(self, tensor: Tensor) -> list[Tensor]:
        """The other tensors held that have memory in common with it."""
        return self._sharing.get(id(tensor), [])

    def where(self, tensors: Iterable[Tensor]) -> str:
        """The first place of each of these tensors."""
        return join_words([self.of(tensor)[0].where for tensor in tensors])

    def _overlaps(
        self, slots: Sequence[Slot], inventory: Inventory, masters: Iterable[Tensor]
    ) -> dict[int, list[Tensor]]:
        unique = {id(e.tensor): e.tensor for e in inventory.parameters if e.tensor is not None}
        unique.update((id(tensor), tensor) for tensor in masters)
        unique.update((id(slot.tensor), slot.tensor) for slot in slots)
        tensors = list(unique.values())
        sharing: dict[int, list[Tensor]] = {}
        for group in shared_memory(tensors).groups:
            memories = {index: memory_of(tensors[index]) for index in group}
            held = [index for index in group if id(tensors[index]) in self.by_id]
            for index in group:
                sharing[id(tensors[index])] = [
                    tensors[other]
                    for other in held
                    if other != index and memories[index].overlaps(memories[other])
                ]
        return sharing


def optimizer_coverage(
    slots: Sequence[Slot],
    inventory: Inventory,
    selected: Iterable[Entry],
    masters: Mapping[int, Tensor] | None = None,
) -> list[Finding]:
    """Find what an optimizer holds not at all, in part, twice, or though it should not.

    ``masters`` are declared: the tensor that is stepped for a parameter, by the parameter's id.
    """
    chosen = set(selected)
    stepped = masters or {}
    held = _Held(slots, inventory, stepped.values())
    findings: list[Finding] = []
    absent: list[Entry] = []
    # Foreign tensors that some finding or parameter accounts for.
    used: set[int] = set(map(id, stepped.values()))
    for entry in inventory.parameters:
        if entry not in chosen or entry.tensor is None:
            continue
        own = held.of(entry.tensor)
        names = tuple(entry.names)
        others = held.on_memory_of(entry.tensor)
        if not entry.trainable:
            findings += _frozen(names, entry.tensor, own) or _on_trained(entry, others, inventory)
            continue
        used.update(id(tensor) for tensor in others)
        master = stepped.get(id(entry.tensor))
        if master is not None:
            own = [*own, *held.of(master)]
            if not own:
                others = held.on_memory_of(master)
                used.update(id(tensor) for tensor in others)
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
        elif own and others:
            findings += _memory_twice(entry, own[0], others, held, inventory)
        elif others:
            findings += _by_memory(entry, entry.tensor, others, held, inventory, master)
        elif not own and master is not None:
            place = f"its master ({describe(master)}) is in no group"
            findings.append(Finding(names, "not in the optimizer", found=place, hint=ADD))
        elif not own:
            absent.append(entry)
    foreign = [
        slot
        for slot in slots
        if inventory.entry_of(slot.tensor) is None and id(slot.tensor) not in used
    ]
    said, explained = _absent(absent, foreign, inventory, slots, masters is not None)
    findings += said
    for slot in foreign:
        if id(slot.tensor) in explained:
            continue
        if slot.name in inventory.named:  # its name was tied to what is held already
            findings.append(_replaced((slot.name,), slot))
            continue
        findings.append(
            Finding(
                (slot.name or slot.where,),
                "not a parameter of the model",
                found=describe(slot.tensor),
                hint="where one optimizer trains several models, pass nn.ModuleDict of them",
            )
        )
    return findings


def _replaced(names: tuple[str, ...], slot: Slot) -> Finding:
    """What is held under the name of a parameter, and is not the parameter any more."""
    return Finding(
        names,
        "stale in the optimizer",
        found=f"{slot.where} is {describe(slot.tensor)}, not the model's",
        why="the parameter was replaced after the optimizer was built",
        hint=REBUILD,
    )


# --- held through its memory -------------------------------------------------------------------


def _memory_twice(
    entry: Entry, own: Slot, others: Sequence[Tensor], held: _Held, inventory: Inventory
) -> list[Finding]:
    """Say that the same bytes are stepped through two tensors; once for each set of them."""
    names = list(entry.names)
    places = [own.where]
    first = True
    order = {id(e.tensor): number for number, e in enumerate(inventory.parameters)}
    for tensor in others:
        other = inventory.entry_of(tensor)
        if other is not None:
            names += other.names
            first = first and order[id(entry.tensor)] < order.get(id(tensor), len(order))
        places += [slot.where for slot in held.of(tensor)]
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
    tensor: Tensor,
    others: Sequence[Tensor],
    held: _Held,
    inventory: Inventory,
    master: Tensor | None,
) -> list[Finding]:
    """A parameter that is not held itself: does what holds its memory train all of it, once?

    Gradients arrive at the model's own tensor. A flat buffer of many parameters is stepped with
    them where code puts them into its ``.grad``; a master gets its gradient from code anyway.
    """
    names = tuple(entry.names)
    arriving = [other for other in others if gradient_arrives(tensor, other)]
    if master is not None:
        tensor, arriving = master, list(others)
    counted = arriving or others
    covered = cover(tensor, counted)
    if covered.missing:
        part = f"{covered.elements - covered.missing:,} of its {covered.elements:,} elements"
        verb = "holds" if len(counted) == 1 else "hold"
        return [
            Finding(
                names,
                "held in part",
                found=f"{held.where(counted)} {verb} {part}, on its memory",
                hint=REBUILD,
            )
        ]
    if covered.repeated:
        return [
            Finding(
                names,
                "memory held more than once",
                found=held.where(counted),
                why="each step moves it more than once",
            )
        ]
    if arriving:
        return []
    twin = next((o for o in others if memory_of(o).key == memory_of(tensor).key), None)
    other = inventory.entry_of(twin)
    if twin is None:
        found, hint = f"{held.where(others)} is a tensor that it is part of", FLAT
    elif other is not None:
        found = f"{held.where([twin])} is {other.name}, which is on the same memory"
        hint = "tie by assigning the Parameter itself"
    else:
        found = f"{held.where([twin])} is another Parameter, which is on the same memory"
        hint = REBUILD
    why = "its gradients are never used by a step"
    return [Finding(names, "held through its memory alone", found=found, why=why, hint=hint)]


# --- frozen ------------------------------------------------------------------------------------


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
        if decay := _number(slot.group.get("weight_decay")):
            movers.append(f"weight decay {decay:g}")
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


def _on_trained(entry: Entry, others: Sequence[Tensor], inventory: Inventory) -> list[Finding]:
    """A frozen parameter on the memory of one that is trained is moved with it."""
    for tensor in others:
        other = inventory.entry_of(tensor)
        if other is not None and other.trainable:
            return [
                Finding(
                    tuple(entry.names),
                    "frozen, but the next step moves it",
                    found=f"it shares memory with {other.name}, which the optimizer holds",
                    hint="give it memory of its own: parameter.data = parameter.data.clone()",
                )
            ]
    return []


def _number(value: Any) -> float:
    """Return a setting as a number; 0 where it is none."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 and not no_values(value) else 0.0
    return float(value) if isinstance(value, (int, float)) else 0.0


# --- not held at all ---------------------------------------------------------------------------


def _absent(
    absent: Sequence[Entry],
    foreign: Sequence[Slot],
    inventory: Inventory,
    slots: Sequence[Slot],
    declared: bool,
) -> tuple[list[Finding], set[int]]:
    """Say of each parameter that is not held what is held in its place, as far as it is known.

    A copy in a wider dtype is known by its values, a tensor that was replaced by the name that
    the optimizer was told. The others are guesses by position or shape, and called by neither.
    """
    tensors = [entry.tensor for entry in absent if entry.tensor is not None]
    copies = {} if declared else wide_copies(tensors, [slot.tensor for slot in foreign])
    copied = {absent[i]: foreign[number] for i, number in copies.items()}
    used = {id(slot.tensor) for slot in copied.values()}
    left = [slot for slot in foreign if id(slot.tensor) not in used]
    rest = [entry for entry in absent if entry not in copied]
    by_name = {slot.name: slot for slot in reversed(left) if slot.name}
    stale = {
        entry: by_name[name] for entry in rest for name in entry.names[::-1] if name in by_name
    }
    used.update(id(slot.tensor) for slot in stale.values())
    left = [slot for slot in left if id(slot.tensor) not in used]
    rest = [entry for entry in rest if entry not in stale]
    guessed = _guessed(rest, left, inventory, slots)
    used.update(id(slot.tensor) for slot, _ in guessed.values())
    within = _module_of_all(inventory, slots)
    findings = []
    for entry in absent:
        names = tuple(entry.names)
        if entry in copied:
            slot = copied[entry]
            why = "a step moves the copy, the parameter only where code copies it back"
            findings.append(held_as_copy(names, slot, why))
        elif entry in stale:
            findings.append(_replaced(names, stale[entry]))
        elif entry in guessed:
            slot, how = guessed[entry]
            said = f"{slot.where} {how} and is not a parameter of the model"
            findings.append(Finding(names, "not in the optimizer", found=said, hint=REBUILD))
        else:
            said = describe(entry.tensor)
            why = f"the optimizer holds only what is below {within}" if within else ""
            findings.append(Finding(names, "not in the optimizer", found=said, why=why, hint=ADD))
    return findings, used


def _module_of_all(inventory: Inventory, slots: Sequence[Slot]) -> str:
    """Return the innermost module that everything is below that an optimizer holds."""
    held = [inventory.entry_of(slot.tensor) for slot in slots]
    names = [f"{entry.name.rpartition('.')[0]}." for entry in held if entry is not None]
    if not names or len(names) < len(held):
        return ""
    return names[0][: common_length(min(names), max(names))].rpartition(".")[0]


def _guessed(
    absent: Sequence[Entry], foreign: Sequence[Slot], inventory: Inventory, slots: Sequence[Slot]
) -> Mapping[Entry, tuple[Slot, str]]:
    """Pair parameters that are not held with foreign tensors that may have been theirs.

    By position where the optimizer holds as many tensors as the model has, else by shape.
    """
    parameters = inventory.parameters
    pairs: dict[Entry, tuple[Slot, str]] = {}
    left = {id(slot.tensor): slot for slot in foreign}
    if len(slots) == len(parameters):
        order = {parameter: number for number, parameter in enumerate(parameters)}
        for entry in absent:
            slot = slots[order[entry]]
            if left.pop(id(slot.tensor), None) is not None:
                alike = describe(slot.tensor) == describe(entry.tensor)
                how = "has its shape" if alike else f"({describe(slot.tensor)}) is in its place"
                pairs[entry] = slot, how
    by_shape: dict[str, list[Slot]] = {}
    for slot in reversed(list(left.values())):
        if not slot.name:
            by_shape.setdefault(describe(slot.tensor), []).append(slot)
    for entry in absent:
        same = by_shape.get(describe(entry.tensor))
        if entry not in pairs and same:
            pairs[entry] = same.pop(), "has its shape"
    return pairs
