"""State that a ZeroRedundancyOptimizer spreads over ranks: each parameter's is on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.optimizers import Slot
from ..parameters.tensors.call import exchange, ranks_text


def spread_state(
    everything: Sequence[Slot], here: Sequence[Slot], inventory: Inventory
) -> list[Finding]:
    """Find the parameters whose state is on no rank, or on several.

    ``everything`` are the slots of the optimizer, ``here`` those of which this rank has the state.
    """
    mine = [_name(slot, inventory) for slot in here if slot.state]
    heard: Mapping[int, Sequence[str]] = exchange(mine)
    holders: dict[str, list[int]] = {}
    for rank, names in heard.items():
        for name in names:
            holders.setdefault(name, []).append(rank)
    if not holders:
        raise ParamCheckUsageError(
            "ZeroRedundancyOptimizer keeps no state (it has not stepped yet, or keeps none): "
            "there is nothing to check"
        )
    findings = []
    for slot in everything:
        entry = inventory.entry_of(slot.tensor)
        ranks = holders.get(_name(slot, inventory), [])
        if entry is None or len(ranks) == 1 or not slot.tensor.requires_grad:
            continue
        if ranks:
            found, hint = f"on {ranks_text(ranks)}", "let one rank step it"
        elif slot.tensor.grad is None:
            continue  # what gets no gradient is stepped by nobody, and has no state
        else:
            found, hint = "on no rank", "step on every rank, and load the state on each of them"
        problem = "state on several ranks" if ranks else "no state"
        findings.append(Finding(tuple(entry.names), problem, found=found, hint=hint))
    return findings


def _name(slot: Slot, inventory: Inventory) -> str:
    entry = inventory.entry_of(slot.tensor)
    return slot.where if entry is None else entry.name
