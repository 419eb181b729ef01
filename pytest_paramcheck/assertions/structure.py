"""Assertions about the structure of a subject: shapes, dtypes, devices, counts, materialized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TypeAlias, TypeVar, overload

import torch
from torch import Tensor

from ..checks import shapes as shape_checks
from ..checks import structure as checks
from ..checks.flags import demand_flags
from ..checks.shapes import ShapeSpec
from ..checks.structure import Item
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.subject.declared import Declared, decide, with_rivals
from ..parameters.subject.hidden import Hidden, stored_tensors, with_hidden
from ..parameters.subject.inventory import Inventory, Subject
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.subject.reading import require_tensors, take_inventory
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import dtype_name
from .verdict import one_verdict

Device: TypeAlias = str | torch.device
T = TypeVar("T")


@overload
def assert_shapes(subject: Tensor, expected: ShapeSpec, /) -> None: ...
@overload
def assert_shapes(
    subject: Subject,
    expected: Mapping[Pattern, ShapeSpec],
    /,
    *,
    partial: bool = False,
    key: str | None = None,
) -> None: ...
@one_verdict(values=False)
def assert_shapes(
    subject: Tensor | Subject,
    expected: ShapeSpec | Mapping[Pattern, ShapeSpec],
    /,
    *,
    partial: bool = False,
    key: str | None = None,
) -> None:
    """Assert the shapes of parameters and buffers, sizes or symbols.

    ``expected`` maps patterns to shapes; where several patterns match an entry, the last one
    decides. A shape is a tuple of sizes, ``None`` (any size), ``...`` (any number of dimensions)
    and symbols: ``("vocab", "d")`` demands that ``vocab`` is one size wherever it occurs. With a
    single tensor, ``expected`` is its shape.

    Passes where every shape matches exactly (a tensor never matches through broadcasting, and 0-dim
    is not ``(1,)``). Every parameter must be covered by a pattern.

    * ``partial=True``: a parameter that no pattern covers passes.
    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``).

    Fails, all at once, for every entry with another shape, and for every parameter that no
    pattern covers. A lazy parameter has no shape yet: that is a failure, with the remedy.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a spec that is none, a
    pattern that matches nothing, or one that a later pattern overrides everywhere.

    >>> from torch import nn
    >>> assert_shapes(nn.Linear(3, 2), {"weight": ("out", 3), "bias": ("out",)})

    >>> assert_shapes(nn.Linear(3, 2), {"weight": (3, 2), "bias": (2,)})
    Traceback (most recent call last):
        ...
    ParamCheckError: wrong shape: weight (Linear)
    <BLANKLINE>
      weight  expected (3, 2), found (2, 3): dimension 0 is 2, not 3, dimension 1 is 3, not 2, as if
              it were transposed
    """
    __tracebackhide__ = True
    if isinstance(subject, Tensor):
        spec = shape_checks.parse_spec(expected)
        raise_if(shape_checks.shapes([(("tensor",), subject, spec)]), "")
        return
    if not isinstance(expected, Mapping):
        raise ParamCheckUsageError(
            f"expected shapes must map patterns to shapes, not {type(expected).__name__} "
            f"{expected!r}; assert_shapes(tensor, shape) takes a single shape"
        )
    inventory = take_inventory(subject, allow_none=True, key=key, values=False)
    if not expected:
        raise ParamCheckUsageError("an empty mapping expects nothing: there is nothing to check")
    decided = decide(inventory, expected)
    specs = {
        pattern: shape_checks.parse_spec(spec, repr(pattern)) for pattern, spec in expected.items()
    }
    declared = [(item, specs[item.pattern]) for item in decided]
    findings = shape_checks.declared_shapes(inventory.parameters, declared, partial=partial)
    raise_if(findings, inventory)


@one_verdict(values=False, slices=True)
def assert_dtypes(
    model: Subject,
    expected: torch.dtype | Mapping[Pattern, torch.dtype],
    /,
    *,
    key: str | None = None,
) -> None:
    """Assert the dtypes of parameters and buffers, plain attributes included.

    ``expected`` is one dtype, which means the floating and complex entries (what ``.to(dtype)``
    casts), or maps patterns to dtypes; where several patterns match, the last one decides. Integer
    and bool entries are held to a floating dtype only where a pattern is their name.

    Looks also at tensors in plain attributes, lists and objects, under the path that leads to
    them (``rope.inv_freq``, ``cache['mask']``): ``.to()`` leaves these behind. Classes that move
    their own tensors (``_apply``) are trusted with those.

    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``).

    Fails for every tensor of another dtype, and says where it is one that ``.to()`` cannot see.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for what is no dtype, for one
    integer dtype (``.to()`` casts to none), a pattern that matches nothing or has no effect, and
    where there is nothing to check.

    >>> import torch
    >>> from torch import nn
    >>> assert_dtypes(nn.BatchNorm1d(3).double(), torch.float64)

    >>> assert_dtypes(nn.Linear(3, 2), torch.float64)
    Traceback (most recent call last):
        ...
    ParamCheckError: wrong dtype: weight, bias (Linear)
    <BLANKLINE>
      weight  expected float64, found float32
      bias    expected float64, found float32
    """
    __tracebackhide__ = True
    inventory, hidden = _with_attributes(model, moved=False, key=key)
    if not isinstance(expected, Mapping):
        dtype = checks.expected_dtype(expected)
        if not checks.is_castable(dtype):
            raise ParamCheckUsageError(
                f"{dtype} for a whole model: .to() casts to floating and complex dtypes only; "
                f"map patterns to dtypes instead"
            )
        held = [*inventory.tensors, *(item.tensor for item in hidden.values())]
        if not any(tensor is not None and checks.is_castable(tensor.dtype) for tensor in held):
            raise ParamCheckUsageError(
                f"{inventory.title} has no floating and no complex entries: there is nothing to "
                f"check; map patterns to dtypes for the others"
            )
        wrong = _all(
            inventory,
            hidden,
            attrgetter("dtype"),
            lambda found: found != dtype and checks.is_castable(found),
        )
        findings = checks.wrong_dtypes(inventory, ((item, dtype) for item in wrong))
        raise_if(findings, inventory)
        return
    dtypes = {
        pattern: checks.expected_dtype(value, pattern_text(pattern))
        for pattern, value in expected.items()
    }
    decided = _decided(inventory, hidden, dtypes)
    findings = checks.wrong_dtypes(inventory, checks.dtypes_to_hold(dtypes, decided, hidden))
    raise_if(with_rivals(findings, decided, dtype_name), inventory)


@one_verdict(values=False, slices=True)
def assert_devices(model: Subject, expected: Device | Mapping[Pattern, Device], /) -> None:
    """Assert the devices of parameters and buffers, plain attributes included.

    ``expected`` is one device or maps patterns to devices; where several patterns match, the
    last one decides. ``"cuda"`` without an index is any cuda device, ``"cuda:1"`` this one.

    Looks also at tensors in plain attributes, lists and objects, under the path that leads to
    them (``rope.inv_freq``, ``cache['mask']``): ``.to()`` leaves these behind.

    Fails for every tensor on another device, and says where it is one that ``.to()`` cannot see.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for what is no device, and for
    a pattern that matches nothing or has no effect. The device need not exist on this machine.

    >>> from torch import nn
    >>> assert_devices(nn.Linear(3, 2, device="meta"), "meta")

    >>> assert_devices(nn.Linear(3, 2), "meta")
    Traceback (most recent call last):
        ...
    ParamCheckError: wrong device: weight, bias (Linear)
    <BLANKLINE>
      weight  expected meta, found cpu
      bias    expected meta, found cpu
    """
    __tracebackhide__ = True
    inventory, hidden = _with_attributes(model)
    if not isinstance(expected, Mapping):
        device = checks.expected_device(expected)
        wrong = _all(
            inventory,
            hidden,
            attrgetter("device"),
            lambda found: not checks.is_device(found, device),
        )
        findings = checks.wrong_devices(inventory, ((item, device) for item in wrong))
        raise_if(findings, inventory)
        return
    devices = {
        pattern: checks.expected_device(value, pattern_text(pattern))
        for pattern, value in expected.items()
    }
    decided = _decided(inventory, hidden, devices)
    pairs = [
        ((item.names, item.entry.tensor, hidden.get(id(item.entry.tensor))), item.value)
        for item in decided
        if item.entry.tensor is not None
    ]
    findings = checks.wrong_devices(inventory, pairs)
    raise_if(with_rivals(findings, decided, str), inventory)


@one_verdict(values=False)
def assert_param_count(
    model: Subject,
    total: int | None = None,
    *,
    trainable: int | None = None,
    key: str | None = None,
) -> None:
    """Assert how many elements all parameters, or the trainable ones, have.

    A tied parameter counts once; buffers do not count. In a mapping everything counts that it
    holds, and names on exactly the same memory (a tied parameter in a state_dict) once.

    * ``total=``: how many all parameters have.
    * ``trainable=``: how many those have that require grad.
    * ``key=``: where in the file of a ``Path`` the tensors are (``"model"``).

    Fails with the number that was found, the difference, what explains it where something does
    exactly (ties, buffers, frozen parameters), and the modules that own the most. A lazy
    parameter has no size yet: that is a failure, with the remedy.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` where neither number is given
    or one is none, and for ``trainable`` of a state_dict or another mapping of detached values.

    >>> from torch import nn
    >>> assert_param_count(nn.Linear(3, 2), 8, trainable=8)

    >>> assert_param_count(nn.Linear(3, 2), total=6)
    Traceback (most recent call last):
        ...
    ParamCheckError: 8 parameters, not 6 (Linear)
    <BLANKLINE>
      (its own)  8
      2 more than expected
    """
    __tracebackhide__ = True
    if total is None and trainable is None:
        raise ParamCheckUsageError(
            "assert_param_count needs a number: total=, trainable= or both; nothing to check"
        )
    checks.validate_count(total, "total")
    checks.validate_count(trainable, "trainable")
    inventory = take_inventory(model, key=key, values=False)
    if trainable is not None:
        demand_flags(inventory)
    raise_if(checks.param_counts(inventory, total, trainable), inventory)


@one_verdict(values=False, slices=True)
def assert_materialized(model: Subject) -> None:
    """Assert that nothing is lazy, fake or on meta any more.

    Looks at parameters, buffers, and tensors in plain attributes, which ``to_empty()`` leaves
    on meta. It says nothing about values: ``assert_init_complete`` finds what is materialized
    and never initialized.

    Fails, naming each with what it still is.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for an empty subject.

    >>> from torch import nn
    >>> assert_materialized(nn.Linear(3, 2))

    >>> assert_materialized(nn.Linear(3, 2, device="meta"))
    Traceback (most recent call last):
        ...
    ParamCheckError: not materialized: weight, bias (Linear)
    <BLANKLINE>
      weight  on meta, where tensors have no values
      bias    on meta, where tensors have no values
    <BLANKLINE>
      hint: model.to_empty(device=...), then initialize or load every parameter
    """
    __tracebackhide__ = True
    inventory, hidden = _with_attributes(model)
    wrong = _all(inventory, hidden, no_values, bool)
    findings = [*checks.not_materialized(inventory, wrong), *checks.placeholders(inventory)]
    raise_if(findings, inventory)


def _with_attributes(
    model: Subject, *, moved: bool = True, key: str | None = None
) -> tuple[Inventory, dict[int, Hidden]]:
    """Read a subject and what its modules keep in plain attributes; without both, nothing.

    ``moved``: also where a class moves its tensors itself.
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_empty=True, key=key, values=False)
    hidden = {id(h.tensor): h for h in stored_tensors(inventory)}
    if not hidden:
        require_tensors(inventory)
    return inventory, hidden if moved else {i: h for i, h in hidden.items() if not h.moves}


def _all(
    inventory: Inventory,
    hidden: Mapping[int, Hidden],
    kind_of: Callable[[Tensor], T],
    is_wrong: Callable[[T], bool],
) -> list[Item]:
    """Those entries and hidden tensors of a subject that are of a wrong kind.

    Thousands of tensors are of one kind or two. Entries are built only where there is a wrong
    one: a model that is right needs none.
    """
    tensors = [tensor for tensor in inventory.tensors if tensor is not None]
    items: list[Item] = []
    if any(map(is_wrong, set(map(kind_of, tensors)))):
        items = [
            (tuple(entry.names), entry.tensor, None)
            for entry in inventory.entries
            if entry.tensor is not None and is_wrong(kind_of(entry.tensor))
        ]
    return items + [
        ((item.path,), item.tensor, item)
        for item in hidden.values()
        if is_wrong(kind_of(item.tensor))
    ]


def _decided(
    inventory: Inventory, hidden: Mapping[int, Hidden], expected: Mapping[Pattern, checks.V]
) -> list[Declared[checks.V]]:
    """What patterns say about the entries, and about hidden tensors by their paths."""
    __tracebackhide__ = True
    if not expected:
        raise ParamCheckUsageError("an empty mapping expects nothing: there is nothing to check")
    return decide(with_hidden(inventory, hidden.values()), expected)
