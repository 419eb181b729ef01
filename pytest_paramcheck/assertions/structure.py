"""Assertions about the structure of a subject: shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

from torch import Tensor

from ..checks import shapes as shape_checks
from ..checks.shapes import ShapeSpec
from ..findings import Finding, ParamCheckUsageError
from ..parameters.describe import shape_text
from ..parameters.inventory import Subject, take_inventory
from ..parameters.select import Pattern, decide
from .raising import raise_if


@overload
def assert_shapes(subject: Tensor, expected: ShapeSpec, /) -> None: ...
@overload
def assert_shapes(
    subject: Subject, expected: Mapping[Pattern, ShapeSpec], /, *, partial: bool = False
) -> None: ...
def assert_shapes(
    subject: Tensor | Subject,
    expected: ShapeSpec | Mapping[Pattern, ShapeSpec],
    /,
    *,
    partial: bool = False,
) -> None:
    """Assert the shapes of parameters and buffers, sizes or symbols.

    ``expected`` maps patterns to shapes; where several patterns match an entry, the last one
    decides. A shape is a tuple of sizes, ``None`` (any size), ``...`` (any number of dimensions)
    and symbols: ``("vocab", "d")`` demands that ``vocab`` is one size wherever it occurs. With
    a single tensor, ``expected`` is its shape.

    Passes where every shape matches exactly (a tensor never matches through broadcasting, and
    0-dim is not ``(1,)``). Every parameter must be covered by a pattern unless ``partial``.

    Fails, all at once, for every entry with another shape, and for every parameter that no
    pattern covers. A lazy parameter has no shape yet: that is a failure, with the remedy.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a spec that is none, a
    pattern that matches nothing, or one that never decides.

    >>> from torch import nn
    >>> assert_shapes(nn.Linear(3, 2), {"weight": ("out", 3), "bias": ("out",)})
    """
    __tracebackhide__ = True
    if isinstance(subject, Tensor):
        spec = shape_checks.check_spec(expected)
        raise_if(shape_checks.shapes([(("tensor",), subject, spec)]), "")
        return
    if not isinstance(expected, Mapping):
        raise ParamCheckUsageError(
            f"expected shapes must map patterns to shapes, not {type(expected).__name__} "
            f"{expected!r}; assert_shapes(tensor, shape) takes a single shape"
        )
    inventory = take_inventory(subject)
    decided = decide(inventory, expected)
    specs = {
        pattern: shape_checks.check_spec(spec, repr(pattern)) for pattern, spec in expected.items()
    }
    findings = shape_checks.shapes(
        (tuple(entry.names), entry.tensor, specs[pattern])
        for entry, (pattern, _) in decided.items()
        if entry.tensor is not None
    )
    if not partial:
        findings += [
            Finding(
                tuple(entry.names),
                "shape not declared",
                found=shape_text(entry.tensor),
                hint="declare it, or pass partial=True if the others do not matter here",
            )
            for entry in inventory.parameters
            if entry not in decided and entry.tensor is not None
        ]
    raise_if(findings, inventory.title)
