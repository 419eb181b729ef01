"""Assertions that run a loss and its backward pass themselves, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..checks import reach as checks
from ..checks import tied_grads_sum as tied_sum
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.running.gradstate import GradState
from ..parameters.running.reach import LossFn, Reached, gradients_of, reach
from ..parameters.running.reasons import Reason
from ..parameters.running.trace import explain
from ..parameters.running.untie import untied_copy
from ..parameters.subject.inventory import Entry, Inventory, take_inventory
from ..parameters.subject.select import (
    Pattern,
    decide,
    parameters_only,
    pattern_text,
    select,
    trainable,
)
from ..parameters.tensors.content import no_values


def assert_grads_reach(
    model: nn.Module,
    loss_fn: LossFn | Sequence[LossFn],
    *patterns: Pattern,
    allow_zero: bool = False,
    at_least: Mapping[Pattern, float] | None = None,
) -> None:
    """Assert that a loss's gradient reaches each trainable parameter.

    Runs ``loss_fn(model)``, which returns the loss, and its backward pass, and leaves nothing
    behind: gradients, buffers, modes, hooks and random states are as they were. With a list
    of functions it is enough that one of the losses reaches a parameter (experts, branches).
    ``at_least={"experts": 0.5}``: of the parameters that a pattern matches, that share is
    enough. Without patterns the trainable parameters are looked at; a frozen one is a finding
    only where a pattern names it.

    Fails, all at once, for each parameter that no loss reaches, with the reason: frozen, never
    used, used only under no_grad, detached (where), or reached without a signal, which
    ``allow_zero`` lets pass. The reasons come from a second run, made only if one is needed,
    with compiled modules uncompiled. A loss that cannot be run backward is a finding too.

    An error of ``loss_fn`` comes through as it is. Raises :class:`ParamCheckError`;
    :class:`ParamCheckUsageError` for a ``loss_fn`` that returns several values or runs backward
    itself, and for a model on meta unless ``allow_zero``.

    >>> import torch
    >>> from torch import nn
    >>> assert_grads_reach(nn.Linear(3, 2), lambda model: model(torch.ones(1, 3)).sum())
    """
    __tracebackhide__ = True
    losses = checks.check_losses(loss_fn)
    inventory = _of_module(model)
    entries = select(
        inventory,
        patterns,
        default=trainable,
        eligible=parameters_only,
        what="parameter" if patterns else "trainable parameter",
    )
    shares = checks.check_shares(at_least)
    shared = decide(
        inventory, shares, eligible=set(entries).__contains__, what="parameter looked at here"
    )
    tensors = _runnable(entries, inventory, allow_zero, ", or pass allow_zero=True")
    outcomes = []
    for loss in losses:
        outcomes.append(reach(model, loss, tensors))
    found = _with_reasons(
        checks.missing(entries, outcomes, allow_zero=allow_zero), inventory, losses, outcomes
    )
    findings = checks.loss_findings(outcomes)
    findings += checks.not_reached([one for one in found if one.entry not in shared])
    for pattern, share in shares.items():
        members = [entry for entry, (deciding, _) in shared.items() if deciding == pattern]
        findings += checks.too_few(pattern_text(pattern), share, members, found)
    raise_if(findings, inventory.title)


def assert_tied_grads_sum(model: nn.Module, loss_fn: LossFn) -> None:
    """Assert that a tied parameter's gradient is the sum of its uses'.

    Runs ``loss_fn(model)`` and its backward pass twice, from the same random states: on the
    model, and on a deep copy in which every name has a parameter of its own, shared modules
    taken apart. Leaves nothing behind. Compiled modules run uncompiled.

    Passes where the gradient of each trainable tied parameter equals the sum over its names in
    the copy: the largest difference is at most torch.testing's relative tolerance for the type
    (1.3e-6 in float32) times the sum of the largest contributions, once for each addition. A
    name that forward does not go through contributes nothing and is no failure; a module
    called twice by one name is one use.

    Fails, with what each name contributes, where it does not add up (a hook, a custom function
    that writes gradients itself) and where a use is detached.

    An error of ``loss_fn`` comes through as it is. Raises :class:`ParamCheckError`;
    :class:`ParamCheckUsageError` for a model without trainable ties, one that cannot be copied,
    a loss without a backward pass, and a ``loss_fn`` that does not use the model it is given.

    >>> import torch
    >>> from torch import nn
    >>> shared = nn.Linear(3, 3)
    >>> model = nn.Sequential(shared, nn.Tanh(), shared)
    >>> assert_tied_grads_sum(model, lambda model: model(torch.ones(1, 3)).sum())
    """
    __tracebackhide__ = True
    [loss] = checks.check_losses([loss_fn])
    inventory = _of_module(model)
    tied = [e for e in inventory.parameters if e.trainable and len(e.names) > 1]
    if not tied:
        raise ParamCheckUsageError(
            f"{inventory.title} has no tied parameter that trains: there is no sum to check"
        )
    tensors = _runnable(tied, inventory, allow_zero=False)
    copied = untied_copy(model)
    apart = take_inventory(copied)
    totals = gradients_of(model, loss, tensors)
    uses = gradients_of(copied, loss, _named(apart, [n for e in tied for n in e.names]))
    if all(use is None for use in uses) and any(total is not None for total in totals):
        raise ParamCheckUsageError(
            "loss_fn does not use the model it is given: the untied copy got no gradient; "
            "write loss_fn(model) so that it calls its argument"
        )
    per_name = iter(uses)
    groups = [
        tied_sum.TiedGradient(
            tuple(entry.names),
            total,
            tuple(next(per_name) for _ in entry.names),
            hooked=bool(tensor._backward_hooks),
        )
        for entry, tensor, total in zip(tied, tensors, totals, strict=True)
    ]
    raise_if(tied_sum.tied_sums(_with_lost(groups, apart, loss)), inventory.title)


def _of_module(model: nn.Module) -> Inventory:
    __tracebackhide__ = True
    if not isinstance(model, nn.Module):
        raise ParamCheckUsageError(
            f"expected an nn.Module that loss_fn can run, got {type(model).__name__}"
        )
    inventory = take_inventory(model)
    for name, tensor in inventory.named.items():
        if tensor is not None and is_lazy(tensor):
            raise ParamCheckUsageError(
                f"{name} is uninitialized: run a forward pass first, this one would be undone"
            )
    return inventory


def _runnable(
    entries: Sequence[Entry], inventory: Inventory, allow_zero: bool, remedy: str = ""
) -> list[Tensor]:
    """Return the tensors of entries; raise where their gradients would have no values."""
    __tracebackhide__ = True
    tensors = [entry.tensor for entry in entries if entry.tensor is not None]
    for entry, tensor in zip(entries, tensors, strict=True):
        if not allow_zero and (reason := no_values(tensor)):
            raise ParamCheckUsageError(
                f"{entry.name}: {reason}, so a gradient cannot be told from zero; "
                f"build {inventory.title} on a real device{remedy}"
            )
    return tensors


def _with_reasons(
    found: Sequence[checks.Missing],
    inventory: Inventory,
    losses: Sequence[LossFn],
    outcomes: Sequence[Reached],
) -> list[checks.Missing]:
    """Give each parameter that trains the reason why no loss reached it."""
    __tracebackhide__ = True
    asked = [one for one in found if one.entry.trainable]
    usable = [
        loss
        for loss, outcome in zip(losses, outcomes, strict=True)
        if outcome.problem is None or outcome.problem.cut
    ]
    if not asked or not usable:
        return [one for one in found if not one.entry.trainable]
    reasons: list[list[Reason]] = []
    silent = any(one.state is GradState.ZERO for one in asked)
    tensors = [one.entry.tensor for one in asked if one.entry.tensor is not None]
    for loss in usable:
        reasons.append(explain(inventory, loss, tensors, silent=silent))
    explained = {
        one.entry: replace(one, reason=checks.likeliest(list(said)))
        for one, said in zip(asked, zip(*reasons, strict=True), strict=True)
    }
    return [explained.get(one.entry, one) for one in found]


def _with_lost(
    groups: Sequence[tied_sum.TiedGradient], apart: Inventory, loss: LossFn
) -> list[tied_sum.TiedGradient]:
    """Add to each group the names that are used and yet contribute nothing."""
    __tracebackhide__ = True
    silent = [
        name
        for group in groups
        for name, use in zip(group.names, group.uses, strict=True)
        if use is None
    ]
    if not silent:
        return list(groups)
    reasons = explain(apart, loss, _named(apart, silent))
    lost = {
        name: checks.Missing(apart.by_name[name], GradState.NONE, reason)
        for name, reason in zip(silent, reasons, strict=True)
        if tied_sum.is_lost(reason)
    }
    return [
        replace(group, lost=tuple((n, lost[n]) for n in group.names if n in lost))
        for group in groups
    ]


def _named(inventory: Inventory, names: Sequence[str]) -> list[Tensor]:
    return [tensor for name in names if (tensor := inventory.named[name]) is not None]
