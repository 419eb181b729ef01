"""Assertions about gradients."""

from __future__ import annotations

from ..checks import gradients as checks
from ..parameters.inventory import Subject, take_inventory
from ..parameters.select import Pattern, parameters_only, select
from .raising import raise_if


def assert_grads_none(model: Subject, *patterns: Pattern, allow_zero: bool = False) -> None:
    """Assert that no parameter has a gradient yet.

    Passes where ``.grad`` is None for every selected parameter (all of them by default), which
    is the state before the first backward pass and after ``zero_grad()``. In a mapping
    ``{name: gradient}`` the values themselves are looked at.

    Fails, naming each parameter and its state, where there is a gradient: ``ZERO`` (reached, no
    signal: ``zero_grad(set_to_none=False)`` leaves these) or ``SIGNAL``. With ``allow_zero``
    only ``SIGNAL`` fails.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches no
    parameter or a subject without parameters.

    >>> from torch import nn
    >>> assert_grads_none(nn.Linear(3, 2))
    """
    __tracebackhide__ = True
    inventory = take_inventory(model)
    entries = select(inventory, patterns, eligible=parameters_only, what="parameter")
    raise_if(checks.grads_none(entries, allow_zero=allow_zero), inventory.title)
