"""Assertions about initial values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..checks import init as checks
from ..checks.init_complete import uninitialized
from ..init import Distribution
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.subject.declared import decide, with_rivals
from ..parameters.subject.held import callable_name
from ..parameters.subject.inventory import Subject
from ..parameters.subject.parts import Part
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.subject.reading import take_inventory
from .verdict import one_verdict


@one_verdict
def assert_init(model: Subject, expected: Mapping[Pattern, Distribution], /) -> None:
    """Assert that parameters were drawn from the distributions they should be.

    ``expected`` maps patterns to distributions of ``pytest_paramcheck.init``; where several
    patterns match, the last one decides. Parameters are looked at, and a buffer where a pattern
    is its very name; a part decides about its elements. ``init.like(fn)`` stands for whatever
    ``fn`` draws, which fills the tensor it is given or returns one. Constants are compared in the
    parameter's dtype, the others tested from a few values up, dtype rounding allowed for. The
    padding row of an embedding must be zero and is left out of the test.

    Calibrated: one call in a million (1e-6, shared among all tests of the call) alarms on
    values that were drawn as declared. ``checks/statistics.py`` says which tests these are.
    Values that repeat (equal rows, equal blocks, half of them zero) as no draws do fail as well.

    Fails with what does not fit (mean, std, bounds, shape of the curve, repeats), and names layers
    that start identical though each should have been drawn by itself.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for what is no distribution,
    a pattern that matches nothing or has no effect, and tensors without values (meta).

    >>> from torch import nn
    >>> from pytest_paramcheck import init
    >>> layer = nn.LayerNorm(8)
    >>> assert_init(layer, {"weight": init.ones(), "bias": init.zeros()})

    >>> import torch
    >>> assert_init({"b": torch.full((4,), 0.1)}, {"b": init.zeros()})
    Traceback (most recent call last):
        ...
    ParamCheckError: wrong initial values: b (a dict of tensors)
    <BLANKLINE>
      b  expected constant(0), found all 4 values are 0.1
    """
    __tracebackhide__ = True
    mapping: object = expected
    if not isinstance(mapping, Mapping) or not mapping:
        raise ParamCheckUsageError(
            "assert_init takes {pattern: distribution}, with one pattern at least: "
            '{"*.weight": init.normal(0, 0.02)}'
        )
    for pattern, distribution in expected.items():
        if not isinstance(distribution, Distribution):
            said, remedy = repr(distribution), ""
            if isinstance(distribution, type):
                said, remedy = f"the class {distribution.__name__}", "; call it"
            elif callable(distribution):
                said = callable_name(distribution)
                remedy = f"; what a function draws is init.like({said})"
            raise ParamCheckUsageError(
                f"{pattern_text(pattern)}: {said} is not a distribution of "
                f"pytest_paramcheck.init, like init.normal(0, 0.02){remedy}"
            )
    inventory = take_inventory(model)
    names = (p.pattern if isinstance(p, Part) else p for p in expected)
    named = {name for name in names if isinstance(name, str)}
    decided = decide(
        inventory,
        expected,
        eligible=lambda entry: entry.kind != "buffer" or not named.isdisjoint(entry.names),
        what="parameter (a buffer counts where a pattern is its very name)",
        parts=True,
    )
    findings = checks.wrong_init(inventory, decided)
    raise_if(with_rivals(findings, decided, lambda value: value.describe()), inventory)


@one_verdict(runs=True, slices=True)
def assert_init_complete(factory: Callable[[], Any], /) -> None:
    """Assert that a factory initializes every parameter and buffer.

    Calls ``factory()``, which builds and returns a module (or a mapping), two or three times
    under the same random states, on memory that is filled with another pattern each time: what
    still holds the pattern was never written. A NaN that was written on purpose is none.
    Modules built on meta and given memory with ``to_empty()`` are seen through as well, sharded
    ones too, and so are threads that the factory starts.

    Passes, because torch did not make it while the factory ran, on memory that cannot be told
    from written memory: that of numpy (``np.empty``), of a C++ extension or a raw storage, of a
    thread that ran before, and a copy of a template that was never initialized itself.

    Fails, naming each parameter and buffer that nobody wrote, wholly or in part, and each that
    was computed from such memory.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` where the factory returns the
    same object twice, or something that is still lazy or on meta.

    >>> from torch import nn
    >>> assert_init_complete(lambda: nn.Linear(3, 2))

    >>> import torch
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = nn.Parameter(torch.empty(3))
    >>> assert_init_complete(Scale)
    Traceback (most recent call last):
        ...
    ParamCheckError: never initialized: scale (Scale)
    <BLANKLINE>
      scale  Parameter 3 float32 cpu: it still holds uninitialized memory
    <BLANKLINE>
      hint: write it where it is made: nn.init.*, reset_parameters(), or torch.zeros
    """
    __tracebackhide__ = True
    if not callable(factory):
        raise ParamCheckUsageError(
            f"assert_init_complete calls a factory, and {type(factory).__name__} is not a "
            f"function: "
            f"pass lambda: Model(...)"
        )
    if isinstance(factory, nn.Module):
        raise ParamCheckUsageError(
            "assert_init_complete calls a factory that builds the model, and this is a model "
            f"already: pass lambda: {type(factory).__name__}(...)"
        )
    findings, title = uninitialized(factory)
    raise_if(findings, title)
