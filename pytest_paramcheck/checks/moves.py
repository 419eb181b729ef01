"""What a move to another device takes from a model: ties, and the laziness of its parameters.

Between most devices torch puts the moved values into the Parameter that is there. Where it cannot
(meta, and devices of other makers, PrivateUse1 in torch's words) it makes a new Parameter for
every name, unless ``torch.__future__.set_swap_module_params_on_conversion(True)`` was called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.findings import Finding
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.ties import Ties
from .ties import not_tied

_TIE_AGAIN = (
    "call torch.__future__.set_swap_module_params_on_conversion(True) before the move, "
    "or tie again after it"
)


def lost_in_move(before: Inventory, after: Inventory) -> list[Finding]:
    """Find what was tied, and what was lazy, and no longer is after ``.to(device)``."""
    findings = []
    ties, moved = Ties(before), Ties(after)
    for group in ties.groups:
        known = [name for name in group if moved.known(name)]
        findings += parted(ties, moved, known, "tie lost") if len(known) > 1 else []
    for entry in before.entries:
        was, now = entry.tensor, after.named.get(entry.name)
        if was is not None and is_lazy(was) and now is not None and not is_lazy(now):
            why = "makes a Parameter without elements of an uninitialized one"
            findings.append(
                Finding(
                    tuple(entry.names),
                    "no longer lazy",
                    why=f"{_move(was, now)} {why}",
                    hint="move the model after its first forward, or build it on the device",
                )
            )
    return findings


def parted(before: Ties, after: Ties, group: Sequence[str], problem: str) -> list[Finding]:
    """Find where the names of a group are no longer tied, and why where it is the move's way."""
    findings = not_tied(after, group, problem)
    was, now = before.tensors(group[0])[0], after.tensors(group[0])[0]
    if _keeps_parameters(was, now):
        return findings
    why = f"{_move(was, now)} makes a new Parameter for every name"
    return [replace(f, why=f"{f.why.rstrip('.')}; {why}.", hint=_TIE_AGAIN) for f in findings]


def _move(was: Tensor, now: Tensor) -> str:
    return f"a move from {was.device.type} to {now.device.type}"


def _keeps_parameters(was: Tensor, now: Tensor) -> bool:
    """Whether torch can put the values of the one tensor into the Parameter of the other."""
    same_kind = getattr(torch, "_has_compatible_shallow_copy_type", None)  # private: it may go
    return bool(same_kind(was, now)) if same_kind else was.device.type == now.device.type
