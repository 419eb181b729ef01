"""What a page measures by running a model: gradients of each loss, and the update of a step.

The model is left as it is. A step is taken by a deep copy of model and optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import first_line
from ..model_checks.inputs import called
from ..model_checks.outputs import projection
from ..parameters.running.gradstate import GradState, grad_states
from ..parameters.running.randomness import random_states
from ..parameters.running.reach import LossFn, gradients_of
from ..parameters.subject.copies import copy_with_computed
from ..parameters.subject.inventory import Entry
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.call import exchange
from ..parameters.tensors.sharded import read_whole
from .asked import named_losses


@dataclass(slots=True)
class Measured:
    """Gradients by parameter, who each loss reached, update sizes, and what could not be had."""

    grads: list[Tensor | None] = field(default_factory=list)
    states: dict[str, list[GradState]] = field(default_factory=dict)
    updates: list[float | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def losses_of(inputs: Any, loss: Any) -> dict[str, LossFn]:
    """Return the losses as functions of a model, by name; none where there is nothing to run.

    ``inputs`` are what forward takes, as in a ``ModelCase``; then a loss is a function of the
    output, and without one a fixed random projection of the output stands in.
    """
    if inputs is None:
        return {} if loss is None else named_losses(loss)
    named: Mapping[str, Callable[[Any], Any]] = (
        {"projection of the output": projection} if loss is None else named_losses(loss)
    )

    def of_output(function: Callable[[Any], Any]) -> LossFn:
        return lambda model: function(_forward(model, inputs))

    return {name: of_output(function) for name, function in named.items()}


def _forward(model: Any, inputs: Any) -> Any:
    made = callable(inputs) and not isinstance(inputs, Tensor)
    return called(model, _copied(inputs() if made else inputs))


def _copied(value: Any) -> Any:
    """Inputs of their own for each run: a forward may write into what it gets."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_copied(part) for part in value)
    return value


def measure(
    model: nn.Module, entries: Sequence[Entry], losses: Mapping[str, LossFn], optimizer: Any
) -> Measured:
    """Run each loss and its backward pass, then one step of a copy where there is an optimizer.

    What raises is noted and left out: a page is looked at when something is wrong.
    """
    tensors = [entry.tensor for entry in entries if entry.tensor is not None]
    measured = Measured()
    for name, loss in losses.items():
        try:
            grads, elsewhere = gradients_of(model, loss, tensors)
        except Exception as error:  # whatever the user's forward raises
            measured.notes.append(f"{name} could not be run: {_said(error)}")
            continue
        measured.states[name] = states_of_all(grad_states(grads))
        if any(elsewhere):
            where = next(filter(None, elsewhere))
            measured.notes.append(f"{name}: some gradients were written to .{where} instead")
        measured.grads = _summed(measured.grads, grads)
    if optimizer is not None and measured.states:
        runnable = {name: losses[name] for name in measured.states}
        try:
            measured.updates = _updates(model, entries, runnable, optimizer)
        except Exception as error:
            measured.notes.append(f"no step was taken: {_said(error)}")
    return measured


def states_of_all(states: Sequence[GradState]) -> list[GradState]:
    """Return the states of gradients of which each rank has a shard: those of the whole ones.

    What is not finite on one rank is not finite; what is not zero on one is not zero.
    """
    order = (GradState.NONFINITE, GradState.NONZERO, GradState.ZERO, GradState.NONE)
    ranks = exchange([order.index(state) for state in states]).values()
    return [order[min(found)] for found in zip(*ranks, strict=True)]


def held_by_all(grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients that every rank has: only those can be gathered."""
    ranks = exchange([grad is not None for grad in grads]).values()
    everywhere = [all(found) for found in zip(*ranks, strict=True)]
    return [grad if here else None for grad, here in zip(grads, everywhere, strict=True)]


def _said(error: Exception) -> str:
    text = first_line(str(error), 200)
    if isinstance(error, ParamCheckUsageError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _summed(before: Sequence[Tensor | None], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    if not before:
        return list(grads)
    return [
        now if old is None else old if now is None else old + now
        for old, now in zip(before, grads, strict=True)
    ]


def _updates(
    model: nn.Module, entries: Sequence[Entry], losses: Mapping[str, LossFn], optimizer: Any
) -> list[float | None]:
    """Return the size of each parameter's update, beside that of the parameter."""
    devices = {entry.tensor.device for entry in entries if entry.tensor is not None}
    with random_states(devices), torch.enable_grad():
        twin, optimizers = _twins(model, optimizer)
        for one in optimizers:
            _step(twin, one, losses)
        after = take_inventory(twin).by_name
        return [
            _ratio(entry.tensor, after[entry.name].tensor) if entry.trainable else None
            for entry in entries
        ]


def _twins(model: nn.Module, optimizer: Any) -> tuple[nn.Module, list[Any]]:
    if callable(optimizer) and not hasattr(optimizer, "param_groups"):
        twin = copy_with_computed(model, model.modules())
        by_class = isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
        trainable = [p for p in twin.parameters() if p.requires_grad]
        made = optimizer(trainable if by_class else twin)
    else:
        twin, made = copy_with_computed((model, optimizer), model.modules())
    return twin, list(made) if isinstance(made, (list, tuple)) else [made]


def _step(model: nn.Module, optimizer: Any, losses: Mapping[str, LossFn]) -> None:
    def closure() -> float:
        model.zero_grad()
        total = 0.0
        for loss in losses.values():
            value = loss(model)
            value.backward()
            total += float(value.detach())
        return total

    closure()
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    else:
        optimizer.step()


def _ratio(before: Tensor | None, after: Tensor | None) -> float | None:
    """Return how far a tensor moved, as a share of its norm; None where that says nothing."""
    if before is None or after is None or before.shape != after.shape:
        return None
    with torch.no_grad():
        old, new = read_whole(before.detach()), read_whole(after.detach())
        size = float(torch.linalg.vector_norm(old.float()))
        moved = float(torch.linalg.vector_norm((new - old).float()))
    return moved / size if size else None
