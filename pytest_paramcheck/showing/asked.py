"""What optimizers hold and which loss reaches what, for columns and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import plural, printable
from ..parameters.running.reach import LossFn, reach
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.optimizers import Slot, read_slots


def group_labels(slots: Sequence[Slot]) -> dict[int, str]:
    """Return for each group (by its id) what it is called: ``0``, and ``SGD 1/0`` of several."""
    numbers: dict[int, dict[int, int]] = {}
    titles: dict[int, str] = {}
    for slot in slots:
        own = numbers.setdefault(id(slot.optimizer), {})
        own.setdefault(id(slot.group), len(own))
        titles.setdefault(id(slot.optimizer), f"{type(slot.optimizer).__name__} {len(numbers) - 1}")
    return {
        group: str(number) if len(numbers) == 1 else f"{titles[optimizer]}/{number}"
        for optimizer, own in numbers.items()
        for group, number in own.items()
    }


def read_optimizer(
    optimizer: Any, inventory: Inventory
) -> tuple[dict[int, tuple[str, ...]], list[str]]:
    """Return the groups of each tensor by its id, and each group with what it steps with.

    Of the hyperparameters those that differ between groups, ``lr`` and ``weight_decay``; and how
    many of its tensors are not the inventory's (another model's, masters, what was replaced).
    """
    slots = read_slots(optimizer)
    labels = group_labels(slots)
    of_tensor: dict[int, tuple[str, ...]] = {}
    for slot in slots:
        label = labels[id(slot.group)]
        if label not in of_tensor.get(id(slot.tensor), ()):
            of_tensor[id(slot.tensor)] = (*of_tensor.get(id(slot.tensor), ()), label)
    groups = {id(slot.group): slot for slot in slots}
    described = [{k: _plain(v) for k, v in slot.group.items()} for slot in groups.values()]
    keys = [
        key
        for key in dict.fromkeys(("lr", "weight_decay", *(k for one in described for k in one)))
        if key in ("lr", "weight_decay") or len({one.get(key) for one in described}) > 1
    ]
    known = set(map(id, inventory.tensors))
    held: dict[int, list[bool]] = {}
    for slot in slots:
        held.setdefault(id(slot.group), []).append(id(slot.tensor) in known)
    texts = []
    for (key, slot), settings in zip(groups.items(), described, strict=True):
        told = ", ".join(f"{name} {settings[name]}" for name in keys if settings.get(name))
        ours = held[key]
        if not any(ours):
            told += f" (none of its {plural(len(ours), 'tensor')} is in the model)"
        elif not all(ours):
            told += f" ({ours.count(False):,} of its {len(ours):,} tensors not in the model)"
        texts.append(f"{labels[key]}: {type(slot.optimizer).__name__} {told}".rstrip())
    return of_tensor, texts


def _plain(value: Any) -> str:
    """A hyperparameter in a word; ``""`` for what is none (the parameters, their names)."""
    if isinstance(value, Tensor):
        return f"{value.item():g}" if value.numel() == 1 and value.device.type != "meta" else ""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return f"{value:g}"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple) and all(isinstance(one, (int, float)) for one in value):
        return "/".join(f"{one:g}" for one in value)
    return ""


def named_losses(losses: Any) -> dict[str, LossFn]:
    """Return the losses by name: of a mapping its keys, of functions their names.

    Raises :class:`ParamCheckUsageError` for anything but a function, a mapping or a list of them.
    """
    if isinstance(losses, Mapping):
        named = {str(name): fn for name, fn in losses.items()}
    else:
        listed = list(losses) if isinstance(losses, (list, tuple)) else [losses]
        named = {}
        for number, fn in enumerate(listed):
            name = getattr(fn, "__name__", "<lambda>")
            fits = name != "<lambda>" and name not in named
            named[name if fits else "loss" if len(listed) == 1 else f"loss {number}"] = fn
    if not named:
        raise ParamCheckUsageError("an empty list of losses: there is nothing to run")
    for name, fn in named.items():
        if not callable(fn) or isinstance(fn, (nn.Module, Tensor)):
            raise ParamCheckUsageError(
                f"a loss is a function of the model that returns a scalar tensor; "
                f"{name!r} is {type(fn).__name__}"
            )
    return named


def read_losses(
    model: Any, losses: Any, entries: Sequence[Entry]
) -> dict[int, tuple[tuple[str, str], ...]]:
    """Run each loss and its backward pass; return what each gave to each tensor, by its id.

    Leaves nothing behind. Raises :class:`ParamCheckUsageError` for a subject that no loss can
    run, and for a loss without a backward pass.
    """
    __tracebackhide__ = True
    named: dict[str, Callable[[Any], Any]] = named_losses(losses)
    if not isinstance(model, nn.Module):
        raise ParamCheckUsageError(
            f"losses= runs a model: expected an nn.Module, got {type(model).__name__}"
        )
    tensors = [e.tensor for e in entries if e.tensor is not None and e.kind != "buffer"]
    said: dict[int, tuple[tuple[str, str], ...]] = {}
    for name, loss in named.items():
        reached = reach(model, loss, tensors)
        if reached.problem is not None:
            raise ParamCheckUsageError(f"losses: {name} {reached.problem.text}")
        for tensor, state in zip(tensors, reached.states, strict=True):
            said[id(tensor)] = (*said.get(id(tensor), ()), (name, state.value))
    return said
