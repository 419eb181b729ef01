"""Optimizer state: it fits its parameter, and hangs where a step looks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.findings import Finding
from ..messages.wording import join_words
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.leaves import leaves_of
from ..parameters.subject.optimizers import Slot
from ..parameters.tensors.describe import describe

CAST = "optimizer.load_state_dict(optimizer.state_dict()) casts and moves it to its parameter"

#: What torch's own optimizers keep per element of a parameter, by the name of their class.
ADAM = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq"})
BY_ELEMENT = {
    "ASGD": frozenset({"ax"}),
    "Adadelta": frozenset({"square_avg", "acc_delta"}),
    "Adafactor": frozenset({"variance", "row_var", "col_var"}),
    "Adagrad": frozenset({"sum"}),
    "Adam": ADAM,
    "AdamW": ADAM,
    "Adamax": frozenset({"exp_avg", "exp_inf"}),
    "LBFGS": frozenset({"d", "prev_flat_grad", "old_dirs", "old_stps"}),
    "Muon": frozenset({"momentum_buffer"}),
    "NAdam": ADAM,
    "RAdam": ADAM,
    "RMSprop": frozenset({"square_avg", "momentum_buffer", "grad_avg"}),
    "Rprop": frozenset({"prev", "step_size"}),
    "SGD": frozenset({"momentum_buffer"}),
    "SparseAdam": ADAM,
}


def torchs_own(optimizer: object) -> bool:
    """Whether it is one of torch's own optimizers, and no subclass of one."""
    module = type(optimizer).__module__
    return module == "torch.optim" or module.startswith("torch.optim.")


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A tensor that an optimizer keeps for a parameter of the model."""

    slot: Slot
    names: tuple[str, ...]
    key: str
    value: Tensor

    @property
    def native(self) -> bool:
        """Whether torch's own optimizer keeps it, whose layout is known."""
        kind = type(self.slot.optimizer).__name__
        base = self.key.partition("[")[0]
        return torchs_own(self.slot.optimizer) and base in BY_ELEMENT.get(kind, ())

    @property
    def sized(self) -> bool:
        """Whether it is not a counter such as Adam's ``step``, which may be anywhere."""
        return self.native or self.value.dim() > 0


def read_leaves(slots: Sequence[Slot], inventory: Inventory) -> list[Leaf]:
    """Return every tensor kept for a parameter of the model, but for those without a shape."""
    return [
        Leaf(slot, tuple(entry.names), key, value)
        for slot in slots
        if (entry := inventory.entry_of(slot.tensor)) is not None
        for key, value in leaves_of(slot.state).items()
        if isinstance(value, Tensor) and not (value.is_nested or is_lazy(slot.tensor))
    ]


# --- it fits -----------------------------------------------------------------------------------


def state_fits(leaves: Sequence[Leaf], inventory: Inventory) -> list[Finding]:
    """Find state whose shape, dtype or device is not its parameter's.

    torch's own optimizers keep state of exactly the parameter's dtype. Others keep what they
    like (factors, low-rank moments, tables, codes of 8 bits, a float32 copy): only a shape that
    is another parameter's is wrong there, and a dtype or device unlike that of all others.
    """
    by_key: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        if leaf.sized:
            by_key.setdefault(leaf.key, []).append(leaf)
    misfits: dict[Leaf, _Misfit] = {}
    shapes = _shapes_of(inventory)
    for alike in by_key.values():
        for leaf in alike:
            if leaf.native and (finding := _native_misfit(leaf, shapes)):
                misfits[leaf] = finding
        others = [leaf for leaf in alike if not leaf.native]
        for leaf in _of_another_shape(others, shapes):
            misfits[leaf] = _misfit(leaf, shapes, "wrong shape", "")
        for what, form in (("dtype", _dtype), ("device", _device)):
            for leaf, usual in _unlike_the_others(others, form):
                if leaf not in misfits:
                    expected = f"on {usual}" if what == "device" else _cast(leaf, usual)
                    why = f"wrong {what}: it is unlike that of the other parameters"
                    misfits[leaf] = _Misfit(leaf.names, expected, _form(leaf.value), why, "")
    # What is wrong with several states of one parameter alike is one finding.
    alike_keys: dict[_Misfit, list[str]] = {}
    for leaf in leaves:
        if leaf in misfits:
            alike_keys.setdefault(misfits[leaf], []).append(leaf.key)
    return [
        Finding(
            one.names,
            "state does not fit",
            expected=f"state {join_words(keys)} {one.expected}",
            found=one.found,
            why=one.why,
            hint=one.hint,
        )
        for one, keys in alike_keys.items()
    ]


class _Misfit(NamedTuple):
    """What state of a parameter should be and is."""

    names: tuple[str, ...]
    expected: str
    found: str
    why: str
    hint: str


def _native_misfit(leaf: Leaf, shapes: Mapping[tuple[int, ...], str]) -> _Misfit | None:
    parameter, value, slot = leaf.slot.tensor, leaf.value, leaf.slot
    if tuple(value.shape) != _native_shape(leaf):
        return _misfit(leaf, shapes, "wrong shape", "")
    # LBFGS joins the gradients of all, in the widest of their dtypes.
    mixed = _flat(slot) and len({p.dtype for p in slot.group["params"]}) > 1
    if value.dtype != parameter.dtype and not mixed:
        return _misfit(leaf, {}, "wrong dtype", CAST)
    if value.device != parameter.device:
        movable = value.device.type != "meta"  # nothing can be moved from there
        return _misfit(leaf, {}, "wrong device", CAST if movable else "")
    return None


def _misfit(leaf: Leaf, shapes: Mapping[tuple[int, ...], str], why: str, hint: str) -> _Misfit:
    expected = tuple(leaf.slot.tensor.shape)
    if leaf.native:
        expected = _native_shape(leaf)
    form = f"{'x'.join(map(str, expected)) or 'scalar'} {_form(leaf.slot.tensor).partition(' ')[2]}"
    owner = shapes.get(tuple(leaf.value.shape))
    why = f"{why}, that of {owner}" if owner and owner not in leaf.names else why
    return _Misfit(leaf.names, f"of {form}", _form(leaf.value), why, hint)


def _flat(slot: Slot) -> bool:
    return isinstance(slot.optimizer, torch.optim.LBFGS)


def _native_shape(leaf: Leaf) -> tuple[int, ...]:
    """Return the shape that torch's own optimizer gives this state."""
    shape = tuple(leaf.slot.tensor.shape)
    if _flat(leaf.slot):  # one state for all: vectors over the elements of every parameter
        return (sum(p.numel() for p in leaf.slot.group["params"]),)
    if leaf.key == "row_var":
        return (*shape[:-1], 1)
    if leaf.key == "col_var":
        return (*shape[:-2], 1, *shape[-1:])
    return shape


def _shapes_of(inventory: Inventory) -> dict[tuple[int, ...], str]:
    """Return each shape that a parameter of the model has, and the first that has it."""
    shapes: dict[tuple[int, ...], str] = {}
    for entry in inventory.parameters:
        if entry.tensor is not None and not is_lazy(entry.tensor):
            shapes.setdefault(tuple(entry.tensor.shape), entry.name)
    return shapes


def _of_another_shape(
    leaves: Sequence[Leaf], shapes: Mapping[tuple[int, ...], str]
) -> Iterator[Leaf]:
    """Yield the state whose shape is that of another parameter and none that its own explains.

    A state that was handed round is certain: the shapes of all are the parameters' shapes, only
    not in their places.
    """
    own = [tuple(leaf.slot.tensor.shape) for leaf in leaves]
    found = [tuple(leaf.value.shape) for leaf in leaves]
    handed_round = Counter(own) == Counter(found)
    if not handed_round and len(set(own)) > 1 and len(set(found)) == 1:
        return  # a table that does not depend on the parameter
    if not handed_round and _blockwise(own, found):
        return
    for leaf, mine, shape in zip(leaves, own, found, strict=True):
        if shape == mine or shape not in shapes:
            continue
        if handed_round or not explained(shape, mine, leaf.slot):
            yield leaf


def _blockwise(own: Sequence[tuple[int, ...]], found: Sequence[tuple[int, ...]]) -> bool:
    """Whether one size of blocks explains all: a value for each block of so many elements."""
    low, high = 1, None
    for mine, shape in zip(own, found, strict=True):
        elements = torch.Size(mine).numel()
        if len(shape) != 1 or not 1 <= shape[0] <= elements:
            return False
        blocks = shape[0]
        low = max(low, -(-elements // blocks))
        if blocks > 1:
            most = (elements - 1) // (blocks - 1)
            high = most if high is None else min(high, most)
    return high is None or low <= high


def explained(shape: tuple[int, ...], own: tuple[int, ...], slot: Slot) -> bool:
    """Whether a state of this shape can be about a parameter of the shape ``own``."""
    elements = torch.Size(own).numel()
    if shape in ((elements,), (sum(p.numel() for p in slot.group["params"]),)):
        return True  # flattened, or over all parameters of the group
    rest = iter(own)
    if all(any(size in (n, 1) for n in rest) for size in shape):
        return True  # statistics of rows or columns: dimensions left out, or of size 1
    if len(shape) == len(own) > 1:
        differ = [size < n for size, n in zip(shape, own, strict=True) if size != n]
        if differ == [True]:
            return True  # low rank
    if len(shape) == 2 and shape[0] == shape[1] and shape[0] in own:
        return True  # a preconditioner of one dimension
    return own in (shape[-len(own) :], shape[: len(own)]) and bool(own)  # a history


def _unlike_the_others(
    leaves: Sequence[Leaf], form: Callable[[Tensor], Hashable]
) -> Iterator[tuple[Leaf, str]]:
    """Yield the state of another dtype (or device) than that of the parameters like its own."""
    groups: dict[Hashable, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(form(leaf.slot.tensor), []).append(leaf)
    for own, group in groups.items():
        kinds = Counter(form(leaf.value) for leaf in group)
        if len(kinds) < 2:
            continue
        # Where as many have one as the other, what the parameter has is the rule.
        usual = max(kinds, key=lambda kind: (kinds[kind], kind == own))
        if 2 * kinds[usual] <= len(group) and usual != own:
            continue
        if _by_size([leaf for leaf in group if form(leaf.value) == usual], group):
            continue
        yield from ((leaf, str(usual)) for leaf in group if form(leaf.value) != usual)


def _by_size(usual: Sequence[Leaf], group: Sequence[Leaf]) -> bool:
    """Whether the kind of a state follows from the size of its parameter.

    Optimizers of 8 bits leave small parameters alone, others the vectors.
    """
    chosen = {id(leaf) for leaf in usual}
    rest = [leaf for leaf in group if id(leaf) not in chosen]
    if len(rest) < 2 and all(leaf.value.is_floating_point() for leaf in group):
        return False  # one that is off is large or small too

    def parted(size: Callable[[Tensor], int]) -> bool:
        low, high = ([size(leaf.slot.tensor) for leaf in side] for side in (rest, usual))
        return max(low) < min(high) or max(high) < min(low)

    return parted(torch.numel) or parted(Tensor.dim)


def _dtype(tensor: Tensor) -> str:
    return _form(tensor).split(" ")[1]


def _device(tensor: Tensor) -> str:
    return str(tensor.device)


def _cast(leaf: Leaf, dtype: str) -> str:
    shape, _, device = _form(leaf.value).split(" ", 2)
    return f"of {shape} {dtype} {device}"


def _form(tensor: Tensor) -> str:
    return describe(tensor).partition(" ")[2]


# --- it hangs where a step looks ---------------------------------------------------------------


def state_lost(
    lost: Sequence[tuple[Tensor, Mapping[str, Any]]],
    slots: Sequence[Slot],
    inventory: Inventory,
) -> list[Finding]:
    """Find state that hangs on a tensor that no group holds, and whose it may have been.

    An optimizer that is not torch's own may key all of its state by other tensors.
    """
    native = any(torchs_own(slot.optimizer) for slot in slots)
    if not lost or not (native or any(slot.state for slot in slots)):
        return []
    bare = [slot for slot in slots if not slot.state and inventory.entry_of(slot.tensor)]
    findings = []
    for tensor, state in lost:
        keys = ", ".join(state)
        entry = inventory.entry_of(tensor)
        alike = next((s for s in bare if _form(s.tensor) == _form(tensor)), None)
        if entry is not None:
            found = f"{keys}: no group holds the parameter any more"
            findings.append(Finding(tuple(entry.names), "state lost", found=found))
        elif alike is not None:
            bare.remove(alike)
            owner = inventory.entry_of(alike.tensor)
            findings.append(
                Finding(
                    tuple(owner.names) if owner else (alike.where,),
                    "state lost",
                    found=f"none, and a tensor of its shape that no group holds has {keys}",
                    hint="a replaced parameter takes its state along: "
                    "optimizer.state[new] = optimizer.state.pop(old)",
                )
            )
        elif native:
            found = f"{keys} of {describe(tensor)}, which no group holds"
            findings.append(
                Finding((type(slots[0].optimizer).__name__,), "state lost", found=found)
            )
    return findings
