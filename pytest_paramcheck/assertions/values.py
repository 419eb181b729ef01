"""Assertions about values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..checks import finite
from ..checks import same_values as values
from ..checks import values as conditions
from ..checks.tolerance import demand_dtypes, demand_tolerances
from ..checks.values import Asked
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.subject.declared import decide, with_rivals
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.subject.reading import require_tensors, take_inventory
from ..parameters.subject.select import parameters_only, select, select_of_both, with_elements
from ..parameters.subject.sharded_alike import sharded_alike
from .verdict import one_verdict


@one_verdict(slices=True, flat=True)
def assert_finite(model: Subject, *patterns: Pattern, key: str | None = None) -> None:
    """Assert that no parameter holds a NaN or an infinity.

    Looks at all parameters, and at buffers where a pattern names them: a causal mask of ``-inf`` is
    right, so buffers are not looked at by default. Integers are always finite; of a quantized
    tensor the scales are looked at, of a tensor subclass the numbers in its flatten context too.

    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``).

    Fails, naming each parameter with how many values are not finite, of which kind and where
    the first one is.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing, and for tensors that have no values (meta, fake, lazy).

    >>> from torch import nn
    >>> assert_finite(nn.Linear(3, 2))

    >>> import torch
    >>> assert_finite({"w": torch.tensor([1.0, float("nan")])})
    Traceback (most recent call last):
        ...
    ParamCheckError: not finite: w (a dict of tensors)
    <BLANKLINE>
      w  1 of 2 values: 1 NaN, first at [1]
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, key=key, values=False)
    entries = select(
        inventory, patterns, default=parameters_only, eligible=with_elements, parts=True
    )
    inventory.read_values(entry.tensor for entry in entries)
    raise_if(finite.not_finite(entries), inventory)


@one_verdict
def assert_same_values(
    a: Subject,
    b: Subject,
    *patterns: Pattern,
    rtol: float = 0.0,
    atol: float = 0.0,
    dtypes: bool = True,
    key: str | None = None,
) -> None:
    """Assert that two subjects hold the same values under the same names.

    Parameters and buffers; patterns select by the names of both sides. Without tolerances the bits
    decide: a NaN is equal to the same NaN, 0.0 is not -0.0. With one, every NaN is the same. The
    device does not matter, and neither does a non-persistent buffer that a state_dict does not
    hold. The dtypes have to be the same, whatever the tolerance. What a tensor subclass keeps
    beside its inner tensors (the numbers in its flatten context) and the scales of a quantized
    tensor are values too.

    * ``rtol=``, ``atol=``: how far off a value may be: ``atol + rtol * |b|``.
    * ``dtypes=False``: two floating dtypes may differ, and the pair is compared in the narrower (a
      bfloat16 copy of float32 weights, float32 masters). A finite value too large for it differs.
    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``), of either side.

    Fails with all differences: names on one side only, shapes, dtypes, and values, with how
    many, how far and where. Tied names are compared once.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing on either side, for a negative tolerance, for tensors without values (meta), and for
    DTensors of partial sums or on other ranks. A DTensor is one tensor: it may be compared with a
    plain one that every rank has whole, and with one that is sharded otherwise.

    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> assert_same_values(model, model.state_dict())

    >>> import torch
    >>> assert_same_values({"w": torch.ones(2)}, {"w": torch.tensor([1.0, 3.0])})
    Traceback (most recent call last):
        ...
    ParamCheckError: different values: w (a dict of tensors)
    <BLANKLINE>
      w  1 of 2 values: max abs 2 at [1], max rel 0.667
    """
    __tracebackhide__ = True
    demand_tolerances(rtol=rtol, atol=atol)
    demand_dtypes(dtypes)
    first, second = _both(a, b, key)
    require_tensors(first, second)
    names = select_of_both(first, second, patterns)
    for one in (first, second):
        one.read_values(one.tensor_at(name) for name, _ in names)
    first, second = sharded_alike(first, second, ((name, name) for name, _ in names))
    title = " and ".join(dict.fromkeys((first.title, second.title)))
    raise_if(values.differences(first, second, names, rtol=rtol, atol=atol, dtypes=dtypes), title)


@one_verdict(runs=True)
def assert_values(
    subject: Subject, expected: Mapping[Pattern, Asked], /, *, key: str | None = None
) -> None:
    """Assert that values satisfy conditions: a range, a norm, zeros in a mask.

    ``expected`` maps patterns to conditions of ``pytest_paramcheck.values`` (``between``,
    ``positive``, ``nonnegative``, ``norm``, ``orthogonal``, ``symmetric``, ``triangular``,
    ``zero_where``) or to a function of the tensor that returns a bool tensor. Parameters and
    buffers are looked at; where several patterns match, the last one decides, and a part decides
    about its elements: ``{part("weight", mask): values.positive()}``.

    Passes where all values satisfy what decides about them. A NaN satisfies nothing. Bounds are
    rounded to the dtype as ``clamp_`` rounds them, norms and orthogonality allow for what the
    dtype rounds.

    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``).

    Fails, naming each entry with how many values do not satisfy the condition, the worst one and
    where it is.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for what is no condition, one
    that does not fit the shape, a pattern that matches nothing or has no effect, and tensors
    without values (meta).

    >>> import torch
    >>> from pytest_paramcheck import values
    >>> assert_values({"std": torch.tensor([0.1, 2.0])}, {"std": values.positive()})
    >>> assert_values({"std": torch.tensor([0.1, -2.0])}, {"std": values.positive()})
    Traceback (most recent call last):
        ...
    ParamCheckError: not positive: std (a dict of tensors)
    <BLANKLINE>
      std  expected positive(), found 1 of 2 values, worst -2 at [1]
    """
    __tracebackhide__ = True
    mapping: object = expected
    if not isinstance(mapping, Mapping) or not mapping:
        raise ParamCheckUsageError(
            "assert_values takes {pattern: condition}, with one pattern at least: "
            '{"std": values.positive()}'
        )
    for pattern, asked in expected.items():
        conditions.demand_condition(pattern_text(pattern), asked)
    inventory = take_inventory(subject, key=key, values=False)
    decided = decide(
        inventory,
        expected,
        eligible=with_elements,
        what="parameter or buffer with elements",
        parts=True,
    )
    inventory.read_values(item.entry.tensor for item in decided)
    findings = conditions.broken(decided)
    raise_if(with_rivals(findings, decided, conditions.text_of), inventory)


def _both(a: Subject, b: Subject, key: str | None) -> tuple[Inventory, Inventory]:
    """Read two subjects; a key is for those of them that are paths, one at least."""
    paths = isinstance(a, Path) or isinstance(b, Path)
    first, second = (
        take_inventory(
            one,
            allow_none=True,
            key=key if isinstance(one, Path) or not paths else None,
            values=False,
        )
        for one in (a, b)
    )
    return first, second
