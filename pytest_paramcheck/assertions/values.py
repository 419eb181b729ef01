"""Assertions about values."""

from __future__ import annotations

from pathlib import Path

from ..checks import finite
from ..checks import same_values as values
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.subject.inventory import Inventory, Subject, require_tensors, take_inventory
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.select import parameters_only, select, select_of_both, with_elements
from ..parameters.subject.sharded_alike import sharded_alike
from .verdict import one_verdict


@one_verdict(slices=True, flat=True)
def assert_finite(model: Subject, *patterns: Pattern, key: str | None = None) -> None:
    """Assert that no parameter holds a NaN or an infinity.

    Looks at all parameters, and at buffers where a pattern names them: a causal mask of
    ``-inf`` is right, so buffers are not looked at by default. Integers are always finite; of a
    quantized tensor the scales are looked at, of a tensor subclass the numbers in its flatten
    context too. ``key="model"``: where in the file of a ``Path`` the tensors are.

    Fails, naming each parameter with how many values are not finite, of which kind and where
    the first one is.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing, and for tensors that have no values (meta, fake, lazy).

    >>> from torch import nn
    >>> assert_finite(nn.Linear(3, 2))
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, key=key)
    entries = select(inventory, patterns, default=parameters_only, eligible=with_elements)
    raise_if(finite.not_finite(entries), inventory)


@one_verdict
def assert_same_values(
    a: Subject,
    b: Subject,
    *patterns: Pattern,
    rtol: float = 0.0,
    atol: float = 0.0,
    key: str | None = None,
) -> None:
    """Assert that two subjects hold the same values under the same names.

    Parameters and buffers; patterns select by the names of both sides. Without tolerances the
    bits decide: a NaN is equal to the same NaN, 0.0 is not -0.0. With one, a value may be off
    by ``atol + rtol * |b|``, and every NaN is the same. The device does not matter, and neither
    does a non-persistent buffer that a state_dict does not hold. The dtypes have to be the same,
    whatever the tolerance. What a tensor subclass keeps beside its inner tensors (the numbers in
    its flatten context) and the scales of a quantized tensor are values too. ``key="model"``: where
    in the file of a ``Path`` the tensors are, of either side.

    Fails with all differences: names on one side only, shapes, dtypes, and values, with how
    many, how far and where. Tied names are compared once.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing on either side, for a negative tolerance, for tensors without values (meta), and for
    DTensors of partial sums or on other ranks. A DTensor is one tensor: it may be compared with a
    plain one that every rank has whole, and with one that is sharded otherwise.

    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> assert_same_values(model, model.state_dict())
    """
    __tracebackhide__ = True
    for name, value in (("rtol", rtol), ("atol", atol)):
        if type(value) not in (int, float) or not value >= 0:
            raise ParamCheckUsageError(f"{name}={value!r} is no tolerance: pass a number >= 0")
    first, second = _both(a, b, key)
    require_tensors(first, second)
    names = select_of_both(first, second, patterns)
    first, second = sharded_alike(first, second, ((name, name) for name in names))
    title = " and ".join(dict.fromkeys((first.title, second.title)))
    raise_if(values.differences(first, second, names, rtol=rtol, atol=atol), title)


def _both(a: Subject, b: Subject, key: str | None) -> tuple[Inventory, Inventory]:
    """Read two subjects; a key is for those of them that are paths, one at least."""
    paths = isinstance(a, Path) or isinstance(b, Path)
    first, second = (
        take_inventory(
            one, allow_none=True, key=key if isinstance(one, Path) or not paths else None
        )
        for one in (a, b)
    )
    return first, second
