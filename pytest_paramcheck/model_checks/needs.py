"""What a check needs to have something to look at; else it says so and is skipped."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.parameter import is_lazy

from ..parameters.subject.inventory import Entry
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import parameters_only, select
from ..parameters.tensors.content import no_values
from .case import NothingToCheck

NOTHING = "the model has no parameters and no buffers"


def declared_entries(model: nn.Module, patterns: Iterable[Pattern]) -> list[Entry]:
    """Return the parameters that patterns of the case select; none without patterns."""
    __tracebackhide__ = True
    listed = list(patterns)
    if not listed:
        return []
    return select(take_inventory(model), listed, eligible=parameters_only, what="parameter")


def without_values(model: nn.Module) -> str:
    """Return why some values cannot be read, or ``""``."""
    for entry in take_inventory(model, allow_empty=True).entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            return f"{entry.name}: {reason}"
    return ""


def need_entries(model: nn.Module) -> None:
    """Go on only with something in the model."""
    __tracebackhide__ = True
    if not take_inventory(model, allow_empty=True).named:
        raise NothingToCheck(NOTHING)


def need_materialized(model: nn.Module) -> None:
    """Go on only without lazy parameters."""
    __tracebackhide__ = True
    for entry in take_inventory(model).parameters:
        if entry.tensor is not None and is_lazy(entry.tensor):
            raise NothingToCheck(f"{entry.name}: {no_values(entry.tensor)}")


def need_values(model: nn.Module) -> None:
    """Go on only where every value can be read."""
    __tracebackhide__ = True
    need_entries(model)
    if reason := without_values(model):
        raise NothingToCheck(reason)


def need_parameters(model: nn.Module) -> None:
    """Go on only with a parameter."""
    __tracebackhide__ = True
    if not any(True for _ in model.parameters()):
        raise NothingToCheck("the model has no parameters")


def need_trainable(model: nn.Module) -> None:
    """Go on only with a trainable parameter."""
    __tracebackhide__ = True
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NothingToCheck("the model has no trainable parameter")
