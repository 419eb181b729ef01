"""Assertions about what an optimizer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..checks.masters import (
    MasterOf,
    Masters,
    as_stepped,
    declared_masters,
    held_as_copy,
    held_for,
    undeclared,
)
from ..checks.optimizer import optimizer_coverage
from ..checks.optimizer_saved import state_saved
from ..checks.optimizer_sharing import state_shared
from ..checks.optimizer_state import read_leaves, state_fits, state_lost
from ..checks.optimizer_zero import spread_state
from ..checks.param_groups import param_groups, validate_settings
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..parameters.subject.declared import decide
from ..parameters.subject.inventory import Subject
from ..parameters.subject.optimizers import (
    group_of,
    of_this_rank,
    orphans,
    read_current,
    read_saved,
    read_slots,
)
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import present_parameters, select
from ..parameters.tensors.call import use_group
from .verdict import one_verdict


@one_verdict(values=False, slices=True, flat=True)
def assert_optimizer_covers(
    optimizer: Optimizer | Sequence[Optimizer],
    model: Subject,
    *patterns: Pattern,
    masters: Masters | MasterOf | None = None,
) -> None:
    """Assert that an optimizer holds every trainable parameter exactly once.

    Passes where each selected trainable parameter (all by default) is in one group of one
    optimizer, as the very object the model has, and its memory is stepped through no other
    tensor. A flat buffer that holds the parameters' memory passes where their gradients get to
    it: in the graph, or through its ``.grad``, which code sets. A tied parameter counts once. A
    frozen one may be there as long as the next step leaves it alone: torch's optimizers skip a
    parameter whose gradient is None. ``optimizer`` may be a list: together they hold each
    parameter once.

    * ``masters=``: float32 copies are stepped and copied back: ``True`` finds each by its values, a
      mapping (of names or parameters) or a function of name and parameter says which is whose. What
      has no master is held itself.

    Fails, naming each parameter: not in the optimizer; held in part; held through its memory
    alone, where its gradient does not arrive; stale (the optimizer was told its name, and holds
    what was replaced); held as a copy in a wider dtype where no masters are declared;
    held more than once, as an object or through its memory; frozen with a gradient that makes
    weight decay or momentum move it. Tensors that are not parameters of the model are named too.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    no parameter, a selection without a trainable one, and for what is not an optimizer or
    cannot be read as one.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> assert_optimizer_covers(torch.optim.SGD(model.parameters(), lr=0.1), model)

    >>> assert_optimizer_covers(torch.optim.SGD([model.weight], lr=0.1), model)
    Traceback (most recent call last):
        ...
    ParamCheckError: not in the optimizer: bias (Linear)
    <BLANKLINE>
      bias  Parameter 2 float32 cpu
    <BLANKLINE>
      hint: build the optimizer after the model is complete, or add what is missing:
            add_param_group()
    """
    __tracebackhide__ = True
    slots = read_slots(optimizer)
    inventory = take_inventory(model)
    selected = select(inventory, patterns, eligible=present_parameters, what="parameter")
    if not any(entry.trainable for entry in selected):
        raise ParamCheckUsageError(
            f"nothing to cover: none of the selected parameters of {inventory.title} is trainable"
        )
    stepped: dict[int, Tensor] | None = None
    findings: list[Finding] = []
    if masters is not None and masters is not False:
        stepped, findings = declared_masters(masters, inventory, slots)
    raise_if([*findings, *optimizer_coverage(slots, inventory, selected, stepped)], inventory)


@one_verdict
def assert_optimizer_state(
    optimizer: Optimizer,
    model: Subject,
    saved: Mapping[str, Any] | None = None,
    *,
    masters: Masters | MasterOf | None = None,
) -> None:
    """Assert that each parameter has an optimizer state that fits and is its own.

    Passes where torch's own optimizers keep state of the shape, dtype and device of its parameter;
    scalars (Adam's ``step``) may be anywhere. Other optimizers may keep what they like (factors,
    low-rank moments, codes, float32 copies), as long as no shape is that of another parameter and
    no dtype unlike all others. State may be any object: its tensors are looked at one by one.

    * ``saved=``: an optimizer's ``state_dict()`` taken before (a copy: ``state_dict()`` itself
      shares its tensors). ``optimizer.state_dict()`` has for each parameter the state saved under
      one of its own names, in the dtype it was saved in.
    * ``masters=``: float32 copies are stepped, as for ``assert_optimizer_covers``; state fits them.

    Fails, naming each parameter with state that does not fit; shares memory with that of
    another, or with a parameter or gradient; hangs on a tensor that no group holds (the
    parameter was replaced); is another parameter's (a state_dict is loaded by position, so a
    reorder gives it to a neighbor), lost or other than saved. Names are saved where the
    optimizer was built from ``named_parameters()``; without them positions are compared, as a
    load does, and a reorder among equal shapes is not seen.

    Of a ZeroRedundancyOptimizer each parameter's state is on exactly one rank: every rank of its
    group calls, and all raise the same.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` where the optimizer has no
    state and none was saved, where its groups cannot be read, and where ``saved`` is not an
    optimizer's state_dict.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.Adam(model.named_parameters())
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> assert_optimizer_state(optimizer, model)

    >>> fresh = torch.optim.Adam(model.named_parameters())  # and nobody loads into it
    >>> assert_optimizer_state(fresh, model, saved=optimizer.state_dict())
    Traceback (most recent call last):
        ...
    ParamCheckError: state lost: weight, bias (Linear)
    <BLANKLINE>
      weight  none, saved: step, exp_avg, exp_avg_sq
      bias    none, saved: step, exp_avg, exp_avg_sq
    <BLANKLINE>
      hint: load it again, and keep it from then on: optimizer.load_state_dict(saved)
    """
    __tracebackhide__ = True
    if isinstance(optimizer, (list, tuple)):
        raise ParamCheckUsageError("one optimizer at a time: each has its own saved state")
    slots = read_slots(optimizer)
    inventory = take_inventory(model)
    if (inner := of_this_rank(optimizer)) is not None:
        if saved is not None:
            raise ParamCheckUsageError(
                "its state is spread over ranks: compare optimizer.optim on each of them with what "
                "that rank saved"
            )
        if masters:
            raise ParamCheckUsageError(
                "masters= of an optimizer whose state is spread over ranks: pass optimizer.optim, "
                "which each of them has"
            )
        use_group(group_of(optimizer))
        here = read_slots(inner)
        findings = spread_state(slots, here, inventory)
        leaves = read_leaves(here, inventory)
        findings += [*state_fits(leaves, inventory), *state_shared(leaves, inventory)]
        raise_if(findings, inventory)
        return
    before = None if saved is None else read_saved(saved)
    lost = orphans(optimizer, slots)
    if not lost and not any(slot.state for slot in (*slots, *(before or ()))):
        raise ParamCheckUsageError(
            f"{type(optimizer).__name__} keeps no state (it has not stepped yet, or keeps none): "
            f"there is nothing to check"
        )
    stepped, findings = held_for(masters, inventory, slots)
    raise_if(findings, inventory)
    if not stepped:
        held = {id(slot.tensor) for slot in slots}
        left = [e for e in inventory.parameters if e.trainable and id(e.tensor) not in held]
        copies = undeclared(left, inventory, slots)
        if len(copies) == len(left):  # a few may be alike by chance: zero biases
            raise_if([held_as_copy(tuple(e.names), slot) for e, slot in copies.items()], inventory)
    inventory = as_stepped(inventory, stepped)
    if not any(inventory.entry_of(slot.tensor) for slot in slots):
        raise ParamCheckUsageError(
            f"{type(optimizer).__name__} holds no parameter of {inventory.title}: "
            f"there is nothing to check"
        )
    leaves = read_leaves(slots, inventory)
    findings += state_fits(leaves, inventory)
    findings += state_shared(leaves, inventory)
    missing = state_lost(lost, slots, inventory)
    if before is not None:
        said = {finding.names for finding in missing}
        found = state_saved(slots, before, read_current(optimizer), inventory)
        findings += [finding for finding in found if finding.names not in said]
    findings += missing
    raise_if(findings, inventory)


@one_verdict(values=False, slices=True, flat=True)
def assert_param_groups(
    optimizer: Optimizer | Sequence[Optimizer],
    model: Subject,
    expected: Mapping[Pattern, Mapping[str, Any]],
    *,
    masters: Masters | MasterOf | None = None,
) -> None:
    """Assert the hyperparameters that each parameter gets from its optimizer.

    ``expected`` maps patterns to what their parameters get, ``{"*.bias": {"weight_decay": 0}}``;
    where several patterns match a parameter, the last one decides. Passes where the group of
    each matched parameter has these values (floats to 1e-12 of the value). Parameters that no
    pattern matches are not asked about.

    * ``masters=``: float32 copies are stepped, as for ``assert_optimizer_covers``; a parameter gets
      what its master gets.

    Fails, naming each parameter with what it gets and what it should, and trainable ones that
    no optimizer holds, or holds as a copy where no masters are declared.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches no
    parameter or has no effect, and for a hyperparameter that no group has.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.AdamW(
    ...     [
    ...         {"params": [model.weight]},
    ...         {"params": [model.bias], "weight_decay": 0.0},
    ...     ],
    ...     weight_decay=0.1,
    ... )
    >>> assert_param_groups(
    ...     optimizer, model, {"*": {"weight_decay": 0.1}, "bias": {"weight_decay": 0}}
    ... )

    >>> optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    >>> assert_param_groups(optimizer, model, {"bias": {"weight_decay": 0}})
    Traceback (most recent call last):
        ...
    ParamCheckError: wrong hyperparameter: bias (Linear)
    <BLANKLINE>
      bias  expected weight_decay=0, found weight_decay=0.1: AdamW group 0, by pattern 'bias'
    """
    __tracebackhide__ = True
    slots = read_slots(optimizer)
    inventory = take_inventory(model)
    validate_settings(expected)
    decided = decide(inventory, expected, eligible=present_parameters, what="parameter")
    stepped, findings = held_for(masters, inventory, slots)
    raise_if([*findings, *param_groups(slots, decided, inventory, stepped)], inventory)
