"""Assertions about values."""

from __future__ import annotations

from ..checks import finite
from ..parameters.inventory import Subject, take_inventory
from ..parameters.select import Pattern, parameters_only, select
from .raising import raise_if


def assert_finite(model: Subject, *patterns: Pattern) -> None:
    """Assert that no parameter holds a NaN or an infinity.

    Looks at all parameters, and at buffers where a pattern names them: a causal mask of
    ``-inf`` is right, so buffers are not looked at by default. Integers are always finite.

    Fails, naming each parameter with how many values are not finite, of which kind and where
    the first one is.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing, and for tensors that have no values (meta, fake, lazy).

    >>> from torch import nn
    >>> assert_finite(nn.Linear(3, 2))
    """
    __tracebackhide__ = True
    inventory = take_inventory(model)
    entries = select(inventory, patterns, default=parameters_only)
    raise_if(finite.not_finite(entries), inventory.title)
