"""Dtypes, devices, counts and materialization: what a model's tensors are, not what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.folding import fold
from ..messages.wording import a_or_an, first_line, plural, shorten
from ..parameters.subject.declared import Declared
from ..parameters.subject.hidden import Hidden
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.tensors.content import no_values, same_bits
from ..parameters.tensors.describe import dtype_name, dtype_named
from ..parameters.tensors.identity import Relation, shared_memory
from ..parameters.tensors.memory import PLAIN_TYPES

V = TypeVar("V")
#: Names, tensor, and the hidden place it was found in (None: it is registered).
Item = tuple[tuple[str, ...], Tensor, Hidden | None]


def is_castable(dtype: torch.dtype) -> bool:
    """Whether ``.to(dtype)`` casts to and from it: not integer, bool and quantized ones."""
    return dtype.is_floating_point or dtype.is_complex


def dtypes_to_hold(
    expected: Iterable[Pattern],
    decided: Iterable[Declared[torch.dtype]],
    hidden: Mapping[int, Hidden],
) -> list[tuple[Item, torch.dtype]]:
    """Return the tensors that are held to a dtype, each with the one that patterns decided.

    What no cast changes is held to a floating dtype only where the pattern is its very name.
    Raises :class:`ParamCheckUsageError` for a pattern that reaches nothing else.
    """
    held = []
    used: set[Pattern] = set()
    left: dict[Pattern, list[str]] = {}
    for item in decided:
        tensor, pattern, dtype = item.entry.tensor, item.pattern, item.value
        if tensor is None:
            continue
        if is_castable(dtype) and not is_castable(tensor.dtype) and pattern not in item.names:
            left.setdefault(pattern, []).append(item.names[0])
            continue
        used.add(pattern)
        held.append(((item.names, tensor, hidden.get(id(tensor))), dtype))
    for pattern in expected:
        if pattern in left and pattern not in used:
            raise ParamCheckUsageError(
                f"pattern {pattern_text(pattern)} matches only integer, bool or quantized tensors "
                f"({shorten(left[pattern], 3)}), which .to(dtype) does not cast: write an exact "
                f"name to check one anyway"
            )
    return held


def wrong_dtypes(inventory: Inventory, items: Iterable[tuple[Item, torch.dtype]]) -> list[Finding]:
    """Find the tensors of another dtype than the one expected."""
    return [
        _left_behind(
            inventory, item, "wrong dtype", dtype_name(expected), dtype_name(item[1].dtype)
        )
        for item, expected in items
        if item[1].dtype != expected
    ]


def wrong_devices(
    inventory: Inventory, items: Iterable[tuple[Item, torch.device]]
) -> list[Finding]:
    """Find the tensors on another device; one without an index stands for all of its type."""
    return [
        _left_behind(inventory, item, "wrong device", str(expected), str(item[1].device))
        for item, expected in items
        if not is_device(item[1].device, expected)
    ]


def is_device(device: torch.device, expected: torch.device) -> bool:
    """Whether a device is the one expected; ``cuda`` without an index is any cuda device."""
    return device.type == expected.type and expected.index in (None, device.index)


def _left_behind(
    inventory: Inventory, item: Item, problem: str, expected: str, found: str
) -> Finding:
    names, tensor, hidden = item
    if hidden is None:
        return Finding(names, problem, expected=expected, found=found)
    if hidden.module:
        why = f"its {hidden.module} is not registered: .to() leaves it behind"
        hint = "assert_registered(model) says how to register what .to() leaves behind"
    else:
        where = "a plain attribute" if hidden.holder == "attribute" else a_or_an(hidden.holder)
        why = f"in {where}: .to() leaves it behind"
        hint = f"self.register_buffer({hidden.attribute!r}, ...), persistent=False if not saved"
        if hidden.kind == "parameter" or hidden.holder != "attribute":
            hint = "assert_registered(model, tensors=True) says how to register it"
        if buffer := _buffer_it_was(inventory, tensor):
            why = f"{why}; it holds what the buffer {buffer} holds"
            hint = f"keep no second reference to {buffer}: look it up where it is used"
    return Finding(names, problem, expected=expected, found=found, why=why, hint=hint)


def _is_moved(tensor: Tensor) -> bool:
    """Whether it is a tensor that .to() casts and moves by arithmetic that says nothing."""
    if type(tensor) not in PLAIN_TYPES or no_values(tensor):
        return False
    return tensor.layout is torch.strided and is_castable(tensor.dtype)


def _buffer_it_was(inventory: Inventory, tensor: Tensor) -> str:
    """The one buffer that a tensor was before .to() put another in its place, or ``""``."""
    if not _is_moved(tensor):
        return ""
    alike = []
    for entry in inventory.buffers:
        buffer = entry.tensor
        if buffer is None or not _is_moved(buffer) or buffer.shape != tensor.shape:
            continue
        if buffer.is_complex() != tensor.is_complex():
            continue  # no .to() makes one of the other
        with torch.no_grad():
            moved = tensor.detach().to(buffer.device, buffer.dtype)
            if same_bits(moved, buffer.detach()):
                alike.append(entry.names[0])
    return alike[0] if len(alike) == 1 else ""


def not_materialized(inventory: Inventory, items: Iterable[Item]) -> list[Finding]:
    """Find what is lazy, on meta or fake."""
    items = list(items)
    bare = {id(tensor) for _, tensor, hidden in items if hidden is None}
    findings = []
    for names, tensor, hidden in items:
        reason = no_values(tensor)
        if not reason:
            continue
        if is_lazy(tensor):
            hint = "run one forward pass: it gives lazy parameters their shape and values"
            reason = "lazy"
        elif hidden is not None:
            hint = "to_empty() and .to() do not see plain attributes: register_buffer it"
            reason = f"{reason}; in a plain attribute that to_empty() does not see"
        else:
            hint = _materialize(inventory, names[0], bare)
        findings.append(Finding(names, "not materialized", found=reason, hint=hint))
    return findings


def _materialize(inventory: Inventory, name: str, bare: Set[int]) -> str:
    """Say how to give an entry memory, and take none from what has values."""
    if inventory.root is None:
        return ""
    loaded = [t for t in inventory.named.values() if t is not None and id(t) not in bare]
    if not loaded:
        return "model.to_empty(device=...), then initialize or load every parameter"
    owner, _, own = name.rpartition(".")
    beside = [t for n, t in inventory.named.items() if n.rpartition(".")[0] == owner]
    if all(tensor is None or id(tensor) in bare for tensor in beside):
        where = f"model.get_submodule({owner!r}).to_empty(device=..., recurse=False)"
    else:
        new = f"torch.empty_like(module.{own}, device=...)"
        if isinstance(inventory.named.get(name), nn.Parameter):
            new = f"nn.Parameter({new})"
        where = f"module = model.get_submodule({owner!r}); module.{own} = {new}"
    erased = plural(len({id(tensor) for tensor in loaded}), "tensor")
    return f"{where}, then initialize or load it; model.to_empty() would erase {erased} with values"


def placeholders(inventory: Inventory) -> list[Finding]:
    """Find the tensors of a mapping that are left of a shard: without elements and dimensions.

    A layer without inputs or outputs has tensors of no elements too, one of them a matrix.
    """
    if inventory.root is not None:
        return []
    meant: set[str] = set()
    empty: list[Entry] = []
    for entry in inventory.entries:
        if entry.tensor is None or is_lazy(entry.tensor) or entry.tensor.numel():
            continue
        if entry.tensor.dim() == 1:
            empty.append(entry)
        else:
            meant.add(entry.name.rpartition(".")[0])
    return [
        Finding(
            tuple(entry.names),
            "empty",
            found="no elements, where a parameter has some",
            hint="if the model was sharded, gather its parameters before saving them",
        )
        for entry in empty
        if entry.name.rpartition(".")[0] not in meant
    ]


def param_counts(inventory: Inventory, total: int | None, trainable: int | None) -> list[Finding]:
    """Find a wrong number of elements, in all parameters or in the trainable ones.

    A tied parameter counts once. In a mapping, where torch made a new object for each name,
    tensors on exactly the same memory count once.
    """
    lazy = [e for e in inventory.parameters if e.tensor is not None and is_lazy(e.tensor)]
    if lazy:
        return [
            Finding(
                tuple(entry.names),
                "number of elements not known",
                found="lazy: no shape yet",
                hint="run one forward pass first: it gives lazy parameters their shape",
            )
            for entry in lazy
        ]
    counted = _unique_memory(inventory)
    findings = []
    for what, expected, entries in (
        ("total", total, counted),
        ("trainable", trainable, [entry for entry in counted if entry.trainable]),
    ):
        if expected is None:
            continue
        found = sum(_numel(entry) for entry in entries)
        if found == expected:
            continue
        more = "more" if found > expected else "fewer"
        known = _difference(inventory, entries, found - expected, what)
        findings.append(
            Finding(
                (),
                f"{plural(found, 'parameter' if what == 'total' else 'trainable parameter')}, "
                f"not {expected:,}",
                why=f"{abs(found - expected):,} {more} than expected{known and ': '}{known}",
                rows=tuple(largest_modules(entries)),
            )
        )
    return findings


def _unique_memory(inventory: Inventory) -> list[Entry]:
    entries = [entry for entry in inventory.parameters if entry.tensor is not None]
    if inventory.root is not None:
        return entries
    shared = shared_memory([entry.tensor for entry in entries if entry.tensor is not None])
    again = {
        index
        for group, relation in zip(shared.groups, shared.relations, strict=True)
        if relation is Relation.ALIASED
        for index in group[1:]
    }
    return [entry for index, entry in enumerate(entries) if index not in again]


def _numel(entry: Entry) -> int:
    return 0 if entry.tensor is None else entry.tensor.numel()


def largest_modules(entries: Sequence[Entry], at_most: int = 8) -> list[tuple[str, str]]:
    """Return the modules that own the most elements, repeated layers folded, largest first."""
    owners: dict[str, int] = {}
    for entry in entries:
        owner = entry.name.rpartition(".")[0]
        owners[owner] = owners.get(owner, 0) + _numel(entry)
    folded = sorted(fold(owners.items()), key=lambda row: -row[1] * row[2])
    rows = []
    for name, each, count in folded[:at_most]:
        text = f"{each:,}" if count == 1 else f"{count} x {each:,} = {count * each:,}"
        rows.append((name or "(its own)", text))
    if left := folded[at_most:]:
        modules = sum(count for _, _, count in left)
        elements = sum(each * count for _, each, count in left)
        rows.append((plural(modules, "other module"), f"{elements:,}"))
    return rows


def _difference(inventory: Inventory, entries: Sequence[Entry], difference: int, what: str) -> str:
    """Say what explains a difference exactly, where something does."""
    tied = [entry for entry in entries if len(entry.names) > 1]
    for entry in tied:
        if -difference == _numel(entry) * (len(entry.names) - 1):
            return f"{' = '.join(entry.names)} is one parameter and counts once"
    if tied and -difference == sum(_numel(entry) * (len(entry.names) - 1) for entry in tied):
        return "tied parameters count once"
    buffers = [e for e in inventory.buffers if e.tensor is not None and not is_lazy(e.tensor)]
    if buffers and -difference == sum(_numel(entry) for entry in buffers):
        return "buffers are not counted"
    if what == "trainable":
        frozen = sum(_numel(e) for e in inventory.parameters if not e.trainable)
        if frozen and -difference == frozen:
            return "the frozen parameters make the difference"
    return ""


def validate_count(value: object, name: str) -> None:
    """Raise :class:`ParamCheckUsageError` for what is not a number of elements."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ParamCheckUsageError(f"{name}={value!r} is not a number of elements: pass an int")


def expected_dtype(value: object, of: str = "dtype") -> torch.dtype:
    """Return a dtype, or raise :class:`ParamCheckUsageError` for what is none."""
    if isinstance(value, torch.dtype):
        return value
    hint = ", like torch.float32"
    if isinstance(value, str) and dtype_named(value) is not None:
        hint = f": did you mean torch.{value.removeprefix('torch.')}?"
    raise ParamCheckUsageError(f"{of}: expected a torch.dtype, not {value!r}{hint}")


def expected_device(value: object, of: str = "device") -> torch.device:
    """Return a device, or raise :class:`ParamCheckUsageError` for what names none."""
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str):
        try:
            return torch.device(value)
        except RuntimeError as error:
            reason = first_line(error)
            raise ParamCheckUsageError(f"{of}: {value!r} is not a device: {reason}") from None
    raise ParamCheckUsageError(
        f"{of}: expected a device like 'cuda' or torch.device('cpu'), not {value!r}"
    )
