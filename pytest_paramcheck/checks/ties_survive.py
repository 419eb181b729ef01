"""Ties on their way through copies, saves, loads and moves: who broke them first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.running.randomness import random_states
from ..parameters.saving.operations import Operation, copied
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.ties import Ties
from .moves import parted
from .ties import not_tied

#: Why an operation parts a tie, and what keeps it: measured, see tests/unit/test_ties_survive.py.
_REASONS = {
    "load_state_dict(assign=True)": (
        "assign=True puts a tensor of its own under every name",
        "tie again after the load, or share the module instead of the Parameter",
    ),
}

#: Operations that move to a device (or to a dtype, which keeps ties).
_MOVES = ("to", "to_empty")


def broken_ties(model: nn.Module, operations: Sequence[tuple[str, Operation]]) -> list[Finding]:
    """Find for each tie group the first operation that broke it, each done to a fresh copy."""
    ties = Ties(take_inventory(model))
    intact = list(ties.groups)
    if not intact:
        raise ParamCheckUsageError(
            f"{ties.inventory.title} has no ties: there is nothing that could survive"
        )
    findings: list[Finding] = []
    for name, operation in operations:
        with random_states():
            broken = _done(model, ties, intact, name, operation)
        findings += [finding for _, finding in broken]
        intact = [group for group in intact if group not in {lost for lost, _ in broken}]
    return findings


def _done(
    model: nn.Module,
    ties: Ties,
    intact: Sequence[tuple[str, ...]],
    name: str,
    operation: Operation,
) -> list[tuple[tuple[str, ...], Finding]]:
    """Do one operation to a fresh copy; return the groups it broke."""
    subject = copied(model, computed=name != "deepcopy")
    broken = _broken(ties, Ties(take_inventory(subject)), intact, "deepcopy")
    if broken:
        return broken
    result = operation(subject)
    after = subject if result is None else result
    if not isinstance(after, nn.Module):
        raise ParamCheckUsageError(
            f"operation {name!r} returned {type(after).__name__}: an operation returns a "
            f"module, or None where it works in place"
        )
    return _broken(ties, Ties(take_inventory(after, allow_empty=True)), intact, name)


def _broken(
    before: Ties, after: Ties, groups: Sequence[tuple[str, ...]], by: str
) -> list[tuple[tuple[str, ...], Finding]]:
    problem = f"tie broken by {by}"
    why, hint = _REASONS.get(by, ("", ""))
    is_move = by.partition("(")[0] in _MOVES
    broken = []
    for group in groups:
        gone = [name for name in group if not after.known(name)]
        if gone:
            finding = Finding(tuple(group), problem, found=f"{', '.join(gone)} is gone")
            broken.append((group, finding))
            continue
        found = (
            parted(before, after, group, problem) if is_move else not_tied(after, group, problem)
        )
        for finding in found[:1]:
            said = f"{finding.why.rstrip('.')}; {why}." if why else finding.why
            broken.append((group, replace(finding, why=said, hint=hint or finding.hint)))
    return broken


def operation_name(operation: Callable[..., object]) -> str:
    """Return what a message calls a user's own operation."""
    name = getattr(operation, "__name__", None) or type(operation).__name__
    return "a lambda" if name == "<lambda>" else str(name)
