"""Backward passes and steps of a case's model, and what gets a gradient only after some.

Tests: ``tests/unit/test_routes.py``, ``test_running_checks.py``, ``test_model_checks.py``,
``test_resume.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..parameters.running.gradstate import GradState, above_rounding, grad_states
from ..parameters.subject.inventory import Entry
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.call import exchange
from .builds import fresh
from .case import NothingToCheck
from .routes import RUNS, Routes
from .run import CaseRun
from .stand_ins import stand_ins

#: How many builds from other seeds are asked before something is said that one may decide.
OTHER_SEEDS = RUNS
#: How many steps what got zeros is asked after, where a case does not ask for more: one zero
#: behind another takes two (adaLN-zero; timm's gcresnext26ts, with a gate that starts at zero in
#: a branch that ends in a norm of zeros).
STEPS = 3


def backward(case: CaseRun, model: nn.Module) -> None:
    """Run the loss and its backward pass; nothing to check where it has no graph."""
    __tracebackhide__ = True
    loss: Tensor = case.loss(model)
    if not loss.requires_grad:
        raise NothingToCheck("the loss has no graph: check_grads_reach says why")
    loss.backward()  # type: ignore[no-untyped-call]


def step(case: CaseRun, model: nn.Module, optimizer: Any) -> None:
    """Let an optimizer step, one that asks for the loss again included."""
    __tracebackhide__ = True
    if not isinstance(optimizer, torch.optim.LBFGS):
        with warnings.catch_warnings():
            # torch says this of the sparse tensors that its own Adagrad makes.
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            optimizer.step()
        return

    def closure() -> Tensor:  # it evaluates the loss several times
        __tracebackhide__ = True
        optimizer.zero_grad()
        backward(case, model)
        # Detached: torch 2.8's LBFGS makes a number of it, with a warning (pytorch#160197).
        return case.loss(model).detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def signal_later(
    case: CaseRun, zero: Iterable[Entry], none: Iterable[Entry] = (), asked: Iterable[Entry] = ()
) -> Collection[Entry]:
    """Return which entries that got zeros, or nothing, get a gradient later or from another seed.

    A branch behind a zero scale, LoRA's first factor: after a step of ours, up to ``STEPS``,
    on the same inputs. What rounding or chance cancels (a bias before a softmax, stochastic
    depth in a small batch) or leaves out (a layer that is dropped, an expert that no token is
    sent to) gets one from another seed; an expert that is run on no token gets zeros. ``asked``
    are all that a gradient was asked of.
    """
    __tracebackhide__ = True
    zeros = {entry.name: entry for entry in zero}
    left, unused = dict(zeros), {entry.name: entry for entry in none}
    names = [entry.name for entry in asked]
    routes = Routes(names, unused)
    # Of ranks each has its own part of a gradient, and all have to ask as often.
    alone = case.declared.wrap is None
    silent = Routes([name for name in names if name not in unused], zeros if alone else ())

    def ask(model: nn.Module) -> None:
        __tracebackhide__ = True
        model.zero_grad()
        backward(case, model)
        for name in _with_signal(model, left) if left else ():
            del left[name]
        if unused:
            inventory = take_inventory(model)
            parameters = [(e.name, e.tensor) for e in inventory.parameters if e.tensor is not None]
            reached = [name for name, tensor in parameters if tensor.grad is not None]
            # What one rank sends its rows to is reached; and all ranks ask as often.
            routes.add({name for of_rank in exchange(reached).values() for name in of_rank})

    if left:
        model = fresh(case)
        optimizers = stand_ins(model)
        steps = max(case.declared.steps, STEPS)
        for number in range(steps + 1):
            if left:
                ask(model)
            if left and number < steps:
                for optimizer in optimizers:
                    step(case, model, optimizer)
        del model, optimizers
    for offset in itertools.count(1):
        if not routes.open and not (left and (offset <= OTHER_SEEDS or silent.open)):
            break
        model = case.build(seed=case.seed + offset)
        try:
            ask(model)
        except NothingToCheck:  # it has a graph from the first seed: nothing was left of it here
            routes.add(())
        if left and alone:
            silent.add(_with_signal(model, silent.watched))
    by_chance = set(silent.taken)
    later = [entry for name, entry in zeros.items() if name not in left or name in by_chance]
    return [*later, *(unused[name] for name in routes.taken)]


def _with_signal(model: nn.Module, names: Iterable[str]) -> list[str]:
    entries = take_inventory(model).named
    listed = [name for name in names if entries.get(name) is not None]
    grads = [getattr(entries[name], "grad", None) for name in listed]
    states = grad_states(grads)
    return [n for n, state in zip(listed, states, strict=True) if state is GradState.NONZERO]


def reached_by_every_seed(case: CaseRun, entries: Iterable[Entry]) -> Collection[Entry]:
    """Return which entries get a gradient above rounding, whatever the seed."""
    __tracebackhide__ = True
    left = {entry.name: entry for entry in entries}
    for offset in range(OTHER_SEEDS):
        if not left:
            break
        model = case.build(seed=case.seed + offset)
        backward(case, model)
        parameters = [e for e in take_inventory(model).parameters if e.tensor is not None]
        grads = [entry.tensor.grad for entry in parameters if entry.tensor is not None]
        loud = {
            entry.name
            for entry, more in zip(parameters, above_rounding(grads), strict=True)
            if more
        }
        left = {name: entry for name, entry in left.items() if name in loud}
    return list(left.values())
