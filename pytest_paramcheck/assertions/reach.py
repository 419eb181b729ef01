"""Assertions that run a loss and its backward pass themselves, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from ..checks import reach as checks
from ..checks.shares import parse_shares
from ..checks.tied_grads_sum import tied_sums
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.running.grad_places import Backward, GradAt
from ..parameters.running.reach import LossFn
from ..parameters.running.unreached import find_unreached
from ..parameters.running.untie import tied_gradients
from ..parameters.subject.declared import decide
from ..parameters.subject.elements import rest_of, with_part
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.parts import Part
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import listed, parameters_only, select, trainable
from .verdict import one_verdict


@one_verdict(runs=True)
def assert_grads_reach(
    model: nn.Module,
    loss_fn: LossFn | Sequence[LossFn],
    *patterns: Pattern,
    allow_zero: bool = False,
    at_least: Mapping[Pattern, float] | None = None,
    exactly: Iterable[Pattern] | None = None,
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> None:
    """Assert that a loss's gradient reaches each trainable parameter.

    Runs ``loss_fn(model)``, which returns the loss, and its backward pass, and leaves nothing
    behind: gradients, buffers, caches, modes, hooks, generators and random states are as they were,
    and a backward pass that is pending still runs. With a list of functions it is enough that one
    of the losses reaches a parameter (experts, branches). Without patterns the trainable parameters
    are looked at; a frozen one is a finding only where a pattern names it.

    * ``allow_zero=True``: a gradient of zeros is enough.
    * ``at_least=``: of the parameters that a pattern matches, a share is enough
      (``{"experts": 0.5}``).
    * ``exactly=[patterns]``: these are reached and no others, over all parameters (a part: these
      elements of it); ``exactly=[]``: none is.
    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter. Set to zero for the run and put back.
    * ``backward=``: what a backward pass is if not ``loss.backward()``: a function of the loss, or
      of the loss and the model.

    Fails, all at once, for each parameter that no loss reaches, with the reason: frozen, never
    used, used only under no_grad, detached (where), or reached without a signal, which
    ``allow_zero`` lets pass. The reasons come from a second run, made only if one is needed,
    with compiled modules uncompiled. With ``exactly`` also for each that is reached and not
    listed. A loss that cannot be run backward is a finding too.

    Not put back: values that ``loss_fn`` writes into a parameter; its own lists and counters;
    what functions, hooks and classes of the model keep; optimizers, data sets, arrays of objects
    and objects of the standard library; containers of more than 100,000 items; modules that only a
    function called by ``loss_fn`` knows; other settings of the process (threads, backends, warning
    filters). Where a kept tensor is written with a graph of its own, or for another
    reason cannot be put back, it is named.

    An error of ``loss_fn`` comes through as it is. Raises :class:`ParamCheckError`;
    :class:`ParamCheckUsageError` for a ``loss_fn`` that returns several values or runs backward
    itself, for what cannot be put back, and for a model on meta unless ``allow_zero``.

    >>> import torch
    >>> from torch import nn
    >>> assert_grads_reach(nn.Linear(3, 2), lambda model: model(torch.ones(1, 3)).sum())

    >>> assert_grads_reach(nn.Linear(3, 2), lambda m: m.weight.sum())
    Traceback (most recent call last):
        ...
    ParamCheckError: no gradient: bias (Linear)
    <BLANKLINE>
      bias  never used in the forward pass
    <BLANKLINE>
      hint: if it is unused on purpose, exclude it: '!name'
    """
    __tracebackhide__ = True
    losses = checks.parse_losses(loss_fn)
    inventory = _of_module(model)
    others: list[Entry] = []
    if exactly is None:
        entries = select(
            inventory,
            patterns,
            default=trainable,
            eligible=parameters_only,
            what="parameter" if patterns else "trainable parameter",
            parts=True,
        )
    else:
        entries, others = _listed_and_others(inventory, listed(exactly, patterns))
    shares = parse_shares(at_least)
    shared = decide(
        inventory, shares, eligible=set(entries).__contains__, what="parameter looked at here"
    )
    outcomes, found = find_unreached(
        model,
        inventory,
        entries,
        losses,
        allow_zero=allow_zero,
        remedy=", or pass allow_zero=True",
        also=others,
        grad=grad,
        backward=backward,
    )
    findings = checks.loss_findings(outcomes)
    shared_entries = {item.entry for item in shared}
    findings += checks.not_reached([one for one in found if one.entry not in shared_entries])
    for pattern, share in shares.items():
        members = [item.entry for item in shared if item.pattern == pattern]
        findings += checks.too_few_reached(pattern_text(pattern), share, members, found)
    findings += checks.not_listed(others, outcomes, allow_zero=allow_zero)
    raise_if(findings, inventory)


@one_verdict(runs=True)
def assert_tied_grads_sum(
    model: nn.Module,
    loss_fn: LossFn,
    *,
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> None:
    """Assert that a tied parameter's gradient is the sum over its uses.

    Runs ``loss_fn(model)`` and its backward pass twice, from the same random states: on the model,
    and on a deep copy in which every name has a parameter of its own, shared modules taken apart.
    Leaves nothing behind, as :func:`assert_grads_reach` does. Compiled modules run uncompiled.

    Passes where the gradient of each trainable tied parameter equals the sum over its names in
    the copy: the largest difference is at most torch.testing's relative tolerance for the type
    (1.3e-6 in float32) times the sum of the largest contributions, once for each addition. A
    name that forward does not go through contributes nothing and is no failure; a module
    called twice by one name is one use.

    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter.
    * ``backward=``: what a backward pass is if not ``loss.backward()``: a function of the loss, or
      of the loss and the model (one that asks modules takes both, so that it asks those of the
      copy).

    Fails, with what each name contributes, where it does not add up (a hook, a custom function
    that writes gradients itself), where a use is detached, where a gradient is not finite, and
    where no use has a nonzero gradient: a sum of nothing proves nothing.

    An error of ``loss_fn`` comes through as it is. Raises :class:`ParamCheckError`;
    :class:`ParamCheckUsageError` for a model without trainable ties, one that cannot be copied,
    a loss without a backward pass, and a ``loss_fn`` that does not use the model it is given.

    >>> import torch
    >>> from torch import nn
    >>> shared = nn.Linear(3, 3)
    >>> model = nn.Sequential(shared, nn.Tanh(), shared)
    >>> assert_tied_grads_sum(model, lambda model: model(torch.ones(1, 3)).sum())

    >>> assert_tied_grads_sum(model, lambda m: m[2](m[0](torch.ones(1, 3)).detach()).sum())
    Traceback (most recent call last):
        ...
    ParamCheckError: one use gets no gradient: 0.weight, 0.bias (Sequential)
    <BLANKLINE>
      0.weight  tied to 2.weight: detached by .detach() in loss_fn
      0.bias    tied to 2.bias: detached by .detach() in loss_fn
    <BLANKLINE>
      hint: use it without .detach() where it has to train
    """
    __tracebackhide__ = True
    [loss] = checks.parse_losses([loss_fn])
    inventory = _of_module(model)
    tied = [e for e in inventory.parameters if e.trainable and len(e.names) > 1]
    if not tied:
        raise ParamCheckUsageError(
            f"{inventory.title} has no tied parameter that trains: there is no sum to check"
        )
    # Nothing by a name: an error keeps this frame, and with it the gradients of a copy.
    raise_if(
        tied_sums(tied_gradients(model, inventory, tied, loss, grad=grad, backward=backward)),
        inventory,
    )


def _listed_and_others(
    inventory: Inventory, patterns: Sequence[Pattern]
) -> tuple[list[Entry], list[Entry]]:
    """Return what patterns select, and what is left of all parameters: whole ones and elements."""
    __tracebackhide__ = True
    everything = select(inventory, (), eligible=parameters_only, what="parameter")
    if not patterns:
        return [], everything
    inside = select(inventory, patterns, eligible=parameters_only, what="parameter", parts=True)
    whole = {entry for entry in inside if entry.part is None}
    parts: dict[int, list[Part]] = {}
    for entry in inside:
        if entry.part is not None:
            parts.setdefault(id(entry.tensor), []).append(entry.part)
    outside = []
    for entry in everything:
        if entry in whole:
            continue
        some = parts.get(id(entry.tensor))
        if some is None:
            outside.append(entry)
        elif (rest := rest_of(entry, some)) is not None:
            outside.append(with_part(entry, rest))
    return inside, outside


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
