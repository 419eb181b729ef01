"""What a move takes from a model, and what it leaves behind.

Between most devices torch puts the moved values into the Parameter that is there. Where it cannot
(meta, and devices of other makers, PrivateUse1 in torch's words) it makes a new Parameter for
every name, unless ``torch.__future__.set_swap_module_params_on_conversion(True)`` was called.

Tests: ``tests/unit/test_moves.py`` and ``test_move_checks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.findings import Finding
from ..parameters.subject.hidden import Hidden
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.own_methods import OwnMethods
from ..parameters.subject.ties import Ties
from ..parameters.tensors.describe import describe, dtype_name
from .structure import is_castable
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


def not_cast(before: Inventory, after: Inventory, target: torch.dtype) -> list[Finding]:
    """Find what ``.to(dtype)`` should have cast and did not, and what it cut.

    It casts complex tensors as well, to a real dtype too. Where everything is complex that is
    no move that anybody makes.
    """
    findings = []
    own = OwnMethods(after, _MOVES)
    for entry in after.entries:
        tensor, was = entry.tensor, before.named.get(entry.name)
        if tensor is None or was is None:
            continue
        if was.is_complex() and not tensor.is_complex():
            findings.append(
                Finding(
                    tuple(entry.names),
                    "imaginary part lost",
                    found=f"{dtype_name(was.dtype)} before .to({dtype_name(target)}), "
                    f"{dtype_name(tensor.dtype)} after",
                    why=".to(dtype) casts complex tensors to a real dtype as well",
                    hint="register torch.view_as_real(...) of it, and view_as_complex() it in "
                    "forward()",
                )
            )
        elif tensor.is_floating_point() and tensor.dtype != target and is_castable(was.dtype):
            findings.append(_stayed(own, entry, f".to({dtype_name(target)})", tensor.dtype))
    return findings


def not_moved(after: Inventory, target: torch.device) -> list[Finding]:
    """Find what ``.to(device)`` should have moved and did not."""
    own = OwnMethods(after, _MOVES)
    return [
        _stayed(own, entry, f".to({target})", entry.tensor.device)
        for entry in after.entries
        if entry.tensor is not None and entry.tensor.device.type != target.type
    ]


#: What moves a module, whatever is called.
_MOVES = ("_apply",)


def _stayed(own: OwnMethods, entry: Entry, move: str, where: object) -> Finding:
    said = own.around(entry.names)
    where = dtype_name(where) if isinstance(where, torch.dtype) else where
    return Finding(
        tuple(entry.names),
        f"left behind by {move}",
        found=f"still {where}",
        why=said,
        hint="apply fn to it as well: super()._apply(fn) does" if said else "",
    )


def plain_left_behind(left: Sequence[Hidden], move: str, failed: str) -> list[Finding]:
    """Say which tensors in plain attributes a move leaves behind, and what came of it."""
    why = "a plain tensor, which .to() does not see"
    return [
        Finding(
            (hidden.path,),
            f"left behind by {move}",
            found=f"still {describe(hidden.tensor)}",
            why=f"{why}; forward() then {failed}" if failed else why,
            hint=f"self.register_buffer({hidden.attribute!r}, ...), persistent=False if not saved"
            if hidden.holder == "attribute"
            else "assert_registered(model, tensors=True) says how to register it",
        )
        for hidden in left
    ]
