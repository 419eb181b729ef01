"""Assertions about the gradients of a backward pass that has run."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import gradients as checks
from ..messages.errors import raise_if
from ..parameters.running.grad_places import GradAt, entries_at, place_text
from ..parameters.running.gradstate import demand_gradients, is_parameter
from ..parameters.subject.inventory import Entry, Inventory, Subject
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import parameters_only, select
from .verdict import one_verdict


@one_verdict(values=False, slices=True, flat=True)
def assert_grads_none(
    model: Subject, *patterns: Pattern, allow_zero: bool = False, grad: GradAt | None = None
) -> None:
    """Assert that no parameter has a gradient yet.

    Passes where ``.grad`` is None for every selected parameter (all of them by default), which
    is the state before the first backward pass and after ``zero_grad()``. In a mapping, an
    ``nn.Parameter`` and a leaf that requires grad are parameters, whose ``.grad`` is looked
    at; any other tensor is itself the gradient, also in a dict of a model's detached values:
    the two cannot be told apart.

    * ``allow_zero=True``: a gradient of zeros passes.
    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter.

    Fails, naming each parameter and its state, where there is a gradient: zero
    (``zero_grad(set_to_none=False)`` leaves these), not finite, or nonzero.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches no
    parameter, a subject without parameters, a state_dict (it holds no gradients), and with
    ``allow_zero`` gradients without values (meta).

    >>> from torch import nn
    >>> assert_grads_none(nn.Linear(3, 2))

    >>> import torch
    >>> model = nn.Linear(3, 2)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> assert_grads_none(model)
    Traceback (most recent call last):
        ...
    ParamCheckError: gradient is not None: weight, bias (Linear)
    <BLANKLINE>
      weight  nonzero, Tensor 2x3 float32 cpu
      bias    nonzero, Tensor 2 float32 cpu
    <BLANKLINE>
      hint: zero_grad(set_to_none=True) clears what a backward pass left; where none should
            reach it: requires_grad_(False), or detach() its output
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_none=True)
    demand_gradients(inventory)
    entries = select(inventory, patterns, eligible=parameters_only, what="parameter", parts=True)
    entries = entries_at(grad, entries, inventory)
    place = "" if grad is None else place_text(grad)
    raise_if(checks.grads_none(entries, allow_zero=allow_zero, place=place), inventory)


@one_verdict
def assert_grads_present(
    model: Subject, *patterns: Pattern, allow_zero: bool = False, grad: GradAt | None = None
) -> None:
    """Assert that each trainable parameter has a nonzero gradient.

    For after a backward pass of your own. Passes where the gradient of every selected parameter
    (the trainable ones by default) is there, finite and not all zero. Zero means zero: a gradient
    of 1e-12 is nonzero. In a mapping, an ``nn.Parameter`` and a leaf that requires grad are
    parameters, whose ``.grad`` is looked at; any other tensor is itself the gradient, also in a
    dict of a model's detached values: the two cannot be told apart.

    * ``allow_zero=True``: a gradient of zeros passes.
    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter.

    Fails, all at once, for each whose gradient is None (not reached, or frozen), all zero, or not
    finite: 0 x NaN is NaN, so a NaN does not say who was reached. :func:`assert_grads_reach` says
    why a gradient is missing.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches no
    parameter, a subject without parameters, a state_dict (it holds no gradients), and
    gradients without values (meta) unless ``allow_zero``.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> assert_grads_present(model)

    >>> assert_grads_present(nn.Linear(3, 2))
    Traceback (most recent call last):
        ...
    ParamCheckError: no gradient: weight, bias (Linear)
    <BLANKLINE>
      weight  None: not reached
      bias    None: not reached
    <BLANKLINE>
      hint: call loss.backward() first, and zero_grad() only after the assertion
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_none=True)
    demand_gradients(inventory)
    entries = entries_at(grad, _trainable_or_named(inventory, patterns), inventory)
    raise_if(checks.grads_present(entries, allow_zero=allow_zero), inventory)


@one_verdict(slices=True, flat=True)
def assert_grads_finite(model: Subject, *patterns: Pattern, grad: GradAt | None = None) -> None:
    """Assert that no gradient holds a NaN or an infinity.

    For after a backward pass of your own. Looks at the gradients that are there, of all
    parameters by default; in a mapping, at the ``.grad`` of parameters and of leaves that
    require grad, and at any other tensor itself.

    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter.

    Fails, naming each parameter with how many values are not finite, of which kind and where the
    first one is; and where there is no gradient at all, or none under one of the patterns: then
    nothing was checked.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches no
    parameter, a subject without parameters, a state_dict (it holds no gradients), and
    gradients without values (meta).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> assert_grads_finite(model)

    >>> assert_grads_finite({"w": torch.tensor([float("inf"), 1.0])})
    Traceback (most recent call last):
        ...
    ParamCheckError: gradient not finite: w (a dict of tensors)
    <BLANKLINE>
      w  1 of 2 values: 1 inf, first at [0]
    """
    __tracebackhide__ = True
    inventory = take_inventory(model, allow_none=True)
    demand_gradients(inventory)
    entries = select(inventory, patterns, eligible=parameters_only, what="parameter", parts=True)
    groups = _by_pattern(inventory, patterns, entries)
    groups = [entries_at(grad, group, inventory) for group in groups]
    entries = entries_at(grad, entries, inventory)
    findings = checks.grads_finite(entries)
    raise_if([*findings, *checks.nothing_there(entries, groups, "to check")], inventory)


@one_verdict
def assert_grad_norm(
    model: Subject,
    *patterns: Pattern,
    at_most: float | None = None,
    at_least: float | None = None,
    grad: GradAt | None = None,
) -> None:
    """Assert that the total norm of the gradients is within bounds.

    For after a backward pass of your own: the 2-norm over the gradients of all selected parameters
    (all of them by default) taken together, as ``clip_grad_norm_`` computes it; a tied parameter
    counts once. Summed in double precision. A mapping is read as by :func:`assert_grads_finite`.

    * ``at_most=``, ``at_least=``: the bounds, themselves allowed; one of them at least.
    * ``grad=``: where the gradients are if not in ``.grad``: a name (``"main_grad"``) or a function
      of name and parameter.

    Fails where the norm is out of bounds, NaN or infinite, showing what each parameter has of
    it, the largest first; and where there is no gradient at all, or none under one of the
    patterns.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for bounds that are none, a
    pattern that matches no parameter, a state_dict (it holds no gradients), and gradients
    without values (meta).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2, bias=False)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> assert_grad_norm(model, at_most=2.5, at_least=2.4)

    >>> assert_grad_norm({"w": torch.tensor([3.0, 4.0])}, at_most=1)
    Traceback (most recent call last):
        ...
    ParamCheckError: gradient norm 5 is above at_most=1: w (a dict of tensors)
    <BLANKLINE>
      w  5  100% of the squared norm
    """
    __tracebackhide__ = True
    checks.validate_bounds(at_most, at_least)
    inventory = take_inventory(model, allow_none=True)
    demand_gradients(inventory)
    entries = select(inventory, patterns, eligible=parameters_only, what="parameter", parts=True)
    groups = _by_pattern(inventory, patterns, entries)
    groups = [entries_at(grad, group, inventory) for group in groups]
    entries = entries_at(grad, entries, inventory)
    findings = checks.nothing_there(entries, groups, "to measure")
    if not findings:
        findings = checks.grad_norm(entries, at_most=at_most, at_least=at_least)
    raise_if(findings, inventory)


def _trainable_or_named(inventory: Inventory, patterns: Sequence[Pattern]) -> list[Entry]:
    __tracebackhide__ = True
    return select(
        inventory,
        patterns,
        default=lambda entry: entry.trainable or not is_parameter(entry),
        eligible=parameters_only,
        what="parameter",
        parts=True,
    )


def _by_pattern(
    inventory: Inventory, patterns: Sequence[Pattern], entries: Sequence[Entry]
) -> list[list[Entry]]:
    """What each pattern that selects has in the selection; nothing where all is selected."""
    groups = []
    for pattern in patterns:
        word = pattern[1] if isinstance(pattern, tuple) else pattern
        if isinstance(word, str) and word.startswith("!"):
            continue
        wanted = {
            (id(entry.tensor), entry.part)
            for entry in select(
                inventory, [pattern], eligible=parameters_only, what="parameter", parts=True
            )
        }
        groups.append([e for e in entries if (id(e.tensor), e.part) in wanted])
    return [group for group in groups if group]
