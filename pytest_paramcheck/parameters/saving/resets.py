"""What ``reset_parameters()`` writes, on a model whose values were overwritten before.

Tests: ``tests/unit/test_conventions.py``.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from ..subject.inventory import take_inventory
from ..subject.parametrized import computed_weights
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


def what_a_reset_leaves(module: Any) -> dict[str, tuple[int, int]]:
    """Reset a module; return what it leaves: how many values of how many, by name.

    Of its own parameters that train; and of all below it, where it writes some of those: in one
    habit every module resets its own, in the other the outermost one resets all. What a weight is
    computed from is left out: a reset writes the computed weight.
    """
    inventory = take_inventory(module)
    computed = {name for one in computed_weights(inventory) for name in one.leaves}
    asked = {
        entry.name: entry.tensor
        for entry in inventory.parameters
        if entry.trainable and entry.tensor is not None and entry.tensor.numel()
        if not no_values(entry.tensor) and not computed.intersection(entry.names)
    }
    overwrite(inventory)
    before = {name: tensor.detach().clone() for name, tensor in asked.items()}
    try:
        module.reset_parameters()
    except Exception:  # it may need what only a constructor has
        return {}
    after = take_inventory(module).named
    left = {
        name: (_unchanged(tensor, after.get(name)), tensor.numel())
        for name, tensor in before.items()
    }
    below = {name for name in left if "." in name}
    writes_below = any(left[name][0] < left[name][1] for name in below)
    return {
        name: (count, size)
        for name, (count, size) in left.items()
        if count > _BY_CHANCE * size and (writes_below or name not in below)
    }


def _unchanged(before: Tensor, after: Tensor | None) -> int:
    if after is None or after.shape != before.shape or after.dtype != before.dtype:
        return 0
    ours, theirs = bits(before), bits(after.detach())
    same = [int((a == b).sum()) for a, b in zip(ours, theirs, strict=True)]
    return min(same[0], before.numel())
