"""Optimizer state is in memory of its own: not a neighbor's, not the parameter's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import join_words
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.cover import near
from ..parameters.tensors.identity import shared_memory
from ..parameters.tensors.memory import Memory, memory_of
from .optimizer_state import Leaf

CLONE = "give each a tensor of its own: optimizer.state[parameter][key] = value.clone()"


def state_shared(leaves: Sequence[Leaf], inventory: Inventory) -> list[Finding]:
    """Find state that shares memory with other state, a parameter or a gradient.

    What an optimizer that is not torch's own does for every parameter alike is meant: a float32
    copy that is the parameter itself where that is float32. A counter may be shared, and a
    table that is the same for all; what has one value per element of two parameters may not.
    """
    owners: dict[int, Tensor] = {}
    called: dict[int, tuple[str, ...]] = {}
    for entry in inventory.parameters:
        if entry.tensor is not None:
            owners[id(entry.tensor)] = entry.tensor
            called[id(entry.tensor)] = tuple(entry.names)
            if entry.tensor.is_leaf and entry.tensor.grad is not None:
                owners[id(entry.tensor.grad)] = entry.tensor.grad
    sized = [leaf for leaf in leaves if leaf.sized]
    users: dict[int, list[Leaf]] = {}
    tensors = dict(owners)
    for leaf in sized:
        users.setdefault(id(leaf.value), []).append(leaf)
        tensors.setdefault(id(leaf.value), leaf.value)
    listed = near(list(tensors.values()))
    groups = [[listed[i] for i in group] for group in shared_memory(listed).groups]
    grouped = {id(tensor) for group in groups for tensor in group}
    groups += [[tensors[k]] for k in tensors if k not in grouped]
    findings = [
        Finding(leaf.names, "state shared", found=f"{leaf.key}: its elements share memory")
        for leaf in sized
        if leaf.native
        and not leaf.value.is_contiguous()
        and memory_of(leaf.value).overlaps_itself()
    ]
    shared: dict[tuple[str, ...], list[str]] = {}
    meant = _Meant(sized)
    for group in groups:
        kept = [leaf for tensor in group for leaf in users.get(id(tensor), ())]
        if not kept or len(kept) + sum(1 for t in group if id(t) in owners) < 2:
            continue
        memories = {id(tensor): memory_of(tensor) for tensor in group}
        findings += _on_owned(kept, [t for t in group if id(t) in owners], memories, called, meant)
        for names, keys in _among(kept, memories, meant):
            shared.setdefault(names, []).append(keys)
    findings += [
        Finding(names, "state shared", found=f"{join_words(keys)} on the same memory", hint=CLONE)
        for names, keys in shared.items()
    ]
    return findings


class _Meant:
    """Which keys share memory for every parameter alike; each asked once."""

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self._by_key: dict[str, list[Leaf]] = {}
        self._by_slot: dict[int, dict[str, Leaf]] = {}
        self._known: dict[tuple[str, ...], bool] = {}
        for leaf in leaves:
            self._by_key.setdefault(leaf.key, []).append(leaf)
            self._by_slot.setdefault(id(leaf.slot), {})[leaf.key] = leaf

    def on_parameter(self, leaf: Leaf) -> bool:
        """Whether this key is the parameter's own memory wherever it can be."""
        key = ("parameter", leaf.key)
        if key not in self._known:
            pairs = [(a.value, a.slot.tensor) for a in self._by_key[leaf.key]]
            self._known[key] = all(_meet(a, b) for a, b in pairs if a.dtype == b.dtype)
        return self._known[key] and not leaf.native

    def on_gradient(self, leaf: Leaf) -> bool:
        """Whether this key is the gradient's own memory for every parameter."""
        key = ("gradient", leaf.key)
        if key not in self._known:
            pairs = [(a.value, a.slot.tensor.grad) for a in self._by_key[leaf.key]]
            self._known[key] = all(_meet(a, b) for a, b in pairs)
        return self._known[key] and not leaf.native

    def within(self, a: Leaf, b: Leaf) -> bool:
        """Whether these two keys share memory for every parameter."""
        key = ("within", a.key, b.key)
        if key not in self._known:
            slots = [by for by in self._by_slot.values() if a.key in by and b.key in by]
            self._known[key] = all(_meet(by[a.key].value, by[b.key].value) for by in slots)
        return self._known[key] and not (a.native or b.native)


def _meet(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and (a is b or memory_of(a).overlaps(memory_of(b)))


def _on_owned(
    kept: Sequence[Leaf],
    owned: Sequence[Tensor],
    memories: Mapping[int, Memory],
    called: Mapping[int, tuple[str, ...]],
    meant: _Meant,
) -> Iterator[Finding]:
    for leaf in kept:
        for tensor in owned:
            if not memories[id(leaf.value)].overlaps(memories[id(tensor)]):
                continue
            of_parameter = id(tensor) in called
            mine = tensor is leaf.slot.tensor or tensor is leaf.slot.tensor.grad
            if mine and (meant.on_parameter if of_parameter else meant.on_gradient)(leaf):
                continue
            whose = "the parameter" if mine else called[id(tensor)][0] if of_parameter else ""
            what = f"{whose}'s own memory" if mine else f"memory of {whose}"
            if not of_parameter:
                what = "memory of the gradient" if mine else "memory of another's gradient"
            yield Finding(leaf.names, "state shared", found=f"{leaf.key} is {what}", hint=CLONE)


def _among(
    kept: Sequence[Leaf], memories: Mapping[int, Memory], meant: _Meant
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the names and the keys of state that two parameters share, or two keys of one."""
    for number, leaf in enumerate(kept):
        mine = memories[id(leaf.value)]
        # Each set once: what an earlier one of them shares with this is said there.
        if any(memories[id(other.value)].overlaps(mine) for other in kept[:number]):
            continue
        sharers = [o for o in kept[number + 1 :] if memories[id(o.value)].overlaps(mine)]
        within = [o for o in sharers if o.slot is leaf.slot and not meant.within(leaf, o)]
        across = [o for o in (leaf, *sharers) if o is leaf or o.slot is not leaf.slot]
        if not all(o.native or o.value.shape == o.slot.tensor.shape for o in across):
            across = []  # a table, which is not one value per element for all who share it
        if len({id(o.slot) for o in across}) < 2:
            across = [leaf, *within]
        if len(across) > 1:
            names = tuple(dict.fromkeys(name for o in across for name in o.names))
            yield names, ", ".join(dict.fromkeys(o.key for o in across))
