"""Assertions about who is frozen and who trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..checks import flags as checks
from ..messages.errors import ParamCheckUsageError, raise_if
from ..parameters.subject.inventory import Subject
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import listed, names_in_and_out, present_parameters, select
from .verdict import one_verdict


@one_verdict(values=False, slices=True)
def assert_frozen(
    model: Subject,
    *patterns: Pattern,
    exactly: Iterable[Pattern] | None = None,
    in_eval: bool = False,
) -> None:
    """Assert that parameters are frozen: no gradient is computed for them.

    Passes where ``requires_grad`` is False for every selected parameter (all of them by default). A
    pattern speaks about the parameter, whichever of its names it matches.

    * ``exactly=[patterns]``: these are frozen and no others; ``exactly=[]``: none is.
    * ``in_eval=True``: the modules that hold what is selected, parameters and buffers, have to be
      in evaluation mode as well, so that no BatchNorm updates its statistics; each that is in train
      mode is named.

    Fails, naming each parameter by all of its names, where it is trainable; with ``exactly``
    also where one that is not listed is frozen. ``"!head"`` takes away the whole parameter, under
    all of its names.

    A frozen parameter can still be moved by an optimizer that holds it: ``assert_unchanged`` shows
    that.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    no parameter, ``exactly`` together with patterns, a state_dict or another mapping of
    detached values: none of them requires grad, whatever the model does; and for ``in_eval`` of
    what is no module.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> model[0].requires_grad_(False)
    Linear(in_features=3, out_features=2, bias=True)
    >>> assert_frozen(model, "0")
    >>> assert_frozen(model, exactly=["0"])
    >>> assert_frozen(model.eval(), "0", in_eval=True)

    >>> assert_frozen(nn.Linear(3, 2), "bias")
    Traceback (most recent call last):
        ...
    ParamCheckError: not frozen: bias (Linear)
    <BLANKLINE>
      bias  requires_grad=True
    <BLANKLINE>
      hint: freeze it: requires_grad_(False)
    """
    __tracebackhide__ = True
    _assert_flags(model, patterns, exactly, frozen=True, in_eval=in_eval)


@one_verdict(values=False, slices=True, flat=True)
def assert_trainable(
    model: Subject, *patterns: Pattern, exactly: Iterable[Pattern] | None = None
) -> None:
    """Assert that parameters are trainable: a gradient can reach and move them.

    Passes where every selected parameter (all of them by default) has ``requires_grad``, a floating
    or complex type, and is no inference tensor. A pattern speaks about the parameter, whichever of
    its names it matches.

    * ``exactly=[patterns]``: these are trainable and no others; ``exactly=[]``: none is.

    Fails, naming each parameter by all of its names, with the reason; with ``exactly`` also
    where one that is not listed is trainable. ``"!head"`` takes away the whole parameter, under
    all of its names.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    no parameter, ``exactly`` together with patterns, and a state_dict or another mapping of
    detached values.

    >>> from torch import nn
    >>> assert_trainable(nn.Linear(3, 2), "weight")

    >>> assert_trainable(nn.Linear(3, 2).requires_grad_(False), "bias")
    Traceback (most recent call last):
        ...
    ParamCheckError: not trainable: bias (Linear)
    <BLANKLINE>
      bias  requires_grad=False
    <BLANKLINE>
      hint: let it train: requires_grad_(True)
    """
    __tracebackhide__ = True
    _assert_flags(model, patterns, exactly, frozen=False)


def _assert_flags(
    model: Subject,
    patterns: Sequence[Pattern],
    exactly: Iterable[Pattern] | None,
    *,
    frozen: bool,
    in_eval: bool = False,
) -> None:
    __tracebackhide__ = True
    asked = patterns
    if exactly is not None:
        asked = listed(exactly, patterns)
    inventory = take_inventory(model)
    checks.demand_flags(inventory)
    if in_eval and inventory.root is None:
        raise ParamCheckUsageError(
            f"in_eval=True asks modules for their mode, and {inventory.title} has none: "
            f"pass the model"
        )
    everything = select(inventory, (), eligible=present_parameters, what="parameter")
    if exactly is None and not asked:
        # No name is asked for: a model that is held in too many places has names beyond count.
        findings = checks.flags(everything, frozen=frozen)
        if in_eval:
            findings += checks.in_train_mode(inventory, None)
        raise_if(findings, inventory)
        return
    if not asked:
        findings = checks.flags(everything, frozen=frozen, listed=frozenset(), exactly=True)
        raise_if(findings, inventory.title)
        return
    # Each pattern must match something, and something must be left: select sees to that.
    entries = select(inventory, asked, eligible=present_parameters, what="parameter")
    inside, excluded = names_in_and_out(inventory, asked)
    removed = (inventory.by_name[name] for name in excluded)
    named = inside.difference(*(entry.names for entry in removed))
    findings = checks.flags(
        everything if exactly is not None else entries,
        frozen=frozen,
        listed=named,
        excluded=excluded,
        exactly=exactly is not None,
    )
    if in_eval:
        findings += checks.in_train_mode(inventory, named)
    raise_if(findings, inventory)
