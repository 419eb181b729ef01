"""What ``reset_parameters()`` writes, on a model whose values were overwritten before.

Tests: ``tests/unit/test_resets.py``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..subject.inventory import Entry, Inventory
from ..subject.parametrized import computed_weights
from ..subject.reading import take_inventory
from ..tensors.content import bits, no_values
from .overwrite import overwrite

#: As many values may come out as they were by chance: there are 65,536 of two bytes.
_BY_CHANCE = 0.01


def own_resets(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules with a ``reset_parameters()`` that is not torch's, inner ones first."""
    found = []
    for name, module in model.named_modules():
        reset = getattr(type(module), "reset_parameters", None)
        if not inspect.isfunction(reset) or reset.__module__.startswith("torch."):
            continue
        needed = list(inspect.signature(reset).parameters.values())[1:]
        if all(
            p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed
        ):
            found.append((name, module))
    return found[::-1]


def held_elsewhere(inventory: Inventory) -> list[tuple[Tensor, tuple[str, ...]]]:
    """Return the parameters with several names: what one module leaves, another may reset."""
    return [
        (entry.tensor, tuple(entry.names))
        for entry in inventory.parameters
        if entry.tensor is not None and len(entry.names) > 1
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A parameter that a reset is asked about: which module holds it, and what it was."""

    name: str
    holder: str
    before: Tensor


def what_a_reset_leaves(module: Any, not_its: Collection[int] = ()) -> dict[str, tuple[int, int]]:
    """Reset a module; return what it leaves: how many values of how many, by name.

    Of its own parameters that train, but for those with an id in ``not_its``: somebody else's as
    well. Of those below only where it has taken them on, for in one habit every module resets its
    own, and an outer one may write some of them differently (a weight, and no bias nor norm): see
    :func:`_taken_on`. What a weight is computed from is left out: a reset writes the computed one.
    """
    inventory = take_inventory(module)
    modules = inventory.module_at
    computed = {name for one in computed_weights(inventory) for name in one.leaves}
    entries = [
        (entry, entry.tensor)
        for entry in inventory.parameters
        if entry.trainable and entry.tensor is not None and entry.tensor.numel()
        if not no_values(entry.tensor) and not computed.intersection(entry.names)
        if id(entry.tensor) not in not_its
    ]
    overwrite(inventory)
    asked = [_Asked(e.name, _holder(e, modules), t.detach().clone()) for e, t in entries]
    called: set[str] = set()
    try:
        with _noting_resets(module, called):
            module.reset_parameters()
    except Exception:  # it may need what only a constructor has
        return {}
    after = take_inventory(module).named
    counts = {one.name: _unchanged(one.before, after.get(one.name)) for one in asked}
    left = {one.name for one in asked if counts[one.name] > _BY_CHANCE * one.before.numel()}
    taken_on = _taken_on(asked, left, modules, called)
    return {
        one.name: (counts[one.name], one.before.numel())
        for one in asked
        if one.name in left and (not one.holder or one.name in taken_on)
    }


def _holder(entry: Entry, modules: Mapping[str, nn.Module]) -> str:
    """Return the module that a parameter is of: one in a list of parameters is the list's owner's.

    ``""`` is the module that is reset: it has the outermost of several names.
    """
    path = min((name.rpartition(".")[0] for name in entry.names), key=len)
    if isinstance(modules.get(path), _LISTS):
        while path and isinstance(modules.get(path), (*_LISTS, nn.ModuleList, nn.ModuleDict)):
            path = path.rpartition(".")[0]
    return path


_LISTS = (nn.ParameterList, nn.ParameterDict)


@contextmanager
def _noting_resets(module: nn.Module, called: set[str]) -> Iterator[None]:
    """Note whose ``reset_parameters()`` is called inside the block, of the modules below one."""
    noting = []
    for name, child in module.named_modules():
        reset = getattr(child, "reset_parameters", None)
        if name and callable(reset) and "reset_parameters" not in vars(child):
            vars(child)["reset_parameters"] = _noted(reset, name, called)
            noting.append(child)
    try:
        yield
    finally:
        for child in noting:
            vars(child).pop("reset_parameters", None)


def _noted(reset: Any, name: str, called: set[str]) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        called.add(name)
        return reset(*args, **kwargs)

    return noted


def _taken_on(
    asked: list[_Asked], left: set[str], modules: Mapping[str, nn.Module], called: set[str]
) -> set[str]:
    """Return which parameters of modules below a reset has taken on, by what else it did.

    * All, where it calls the ``reset_parameters()`` of one of them: the outermost resets all.
    * Those of modules that have no reset themselves, where it writes others of such.
    * Those of a layer of a list, where it writes the same of most layers.
    """
    below = [one for one in asked if one.holder]
    if called:
        return {one.name for one in below}
    alone = {one.name for one in below if not _resets_itself(one.holder, modules)}
    found = alone if alone - left else set()
    by_role: dict[str, list[str]] = {}
    for one in below:
        by_role.setdefault(re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "*", one.name), []).append(
            one.name
        )
    for names in by_role.values():
        if len(names) > 2 * sum(name in left for name in names):
            found |= set(names)
    return found


def _resets_itself(path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module, or one that it is in, has a reset: torch's attention has a private one."""
    while path:
        held = modules.get(path)
        if any(hasattr(held, name) for name in ("reset_parameters", "_reset_parameters")):
            return True
        path = path.rpartition(".")[0]
    return False


def _unchanged(before: Tensor, after: Tensor | None) -> int:
    if after is None or after.shape != before.shape or after.dtype != before.dtype:
        return 0
    ours, theirs = bits(before), bits(after.detach())
    same = [int((a == b).sum()) for a, b in zip(ours, theirs, strict=True)]
    return min(same[0], before.numel())
