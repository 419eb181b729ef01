"""Assertions about what a block of code does: unchanged, changed, updated by a gradient.

Each is the ``with`` statement's context: what has to be known is kept when the block is
entered and compared when it is left. An exception of the block passes through as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..checks import blocks as checks
from ..checks.shares import parse_shares
from ..checks.tolerance import demand_tolerances
from ..checks.writers import causes
from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.running.elsewhere import Elsewhere
from ..parameters.running.grad_places import GradAt, places_of
from ..parameters.running.kept import AfterBlock, finite_before, keep, require_values
from ..parameters.running.watch import Watch, watch_over
from ..parameters.subject.declared import decide
from ..parameters.subject.inventory import Entry, Inventory, Subject
from ..parameters.subject.patterns import Pattern, pattern_text
from ..parameters.subject.select import (
    any_entry,
    parameters_only,
    present,
    select,
    select_again,
    trainable,
    with_elements,
)
from .block import Block


def assert_unchanged(
    model: Subject,
    *patterns: Pattern,
    buffers: bool = True,
    only: str | Sequence[str] = ("values", "objects", "flags"),
    rtol: float = 0.0,
    atol: float = 0.0,
) -> Block:
    """Assert that a ``with`` block leaves parameters and buffers as they are.

    Passes where every selected parameter and buffer (all by default) holds the very bits it held,
    is the same object on the same memory, and has the same ``requires_grad``. Bits are compared by
    digest, so it does not matter who wrote: ``.data``, numpy, a fused optimizer, BatchNorm. Writing
    the same values is no change. A part asks about some elements: ``part("weight", mask)``.

    A state_dict and (name, tensor) pairs hold tensors, not the places they come from: a parameter
    that is replaced in the model is seen only where the subject is the module (or a dict that is
    written itself).

    * ``buffers=False``: looks at parameters alone.
    * ``only=``: what is asked: ``"values"``, ``"objects"``, ``"flags"``, ``"attributes"`` or
      several. The last, not asked by default, is what hangs on a Parameter (``_no_weight_decay``):
      its name has to be there afterwards.
    * ``rtol=``, ``atol=``: how far off a value may be, ``atol + rtol * |it before|`` (a merge and
      its undoing); copies are kept then.

    Fails, naming each entry with what changed and by how much (of a large tensor, judged by
    64 values spread over it), whether object or memory was replaced, what was removed and what
    was added, and the reason where it was seen: which optimizer's step wrote it and with what,
    which module updates its statistics.

    Raises :class:`ParamCheckError` at the end of the block; :class:`ParamCheckUsageError` for
    a pattern that matches nothing, another ``only``, ``only="objects"`` of pairs or a state_dict,
    a block that is entered a second time, and for values that cannot be read (meta, fake, lazy),
    which ``only=("objects", "flags")`` does not ask about.

    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> with assert_unchanged(model):
    ...     model.weight.data.add_(0).shape
    torch.Size([2, 3])

    >>> import torch
    >>> state = {"w": torch.ones(2)}
    >>> with assert_unchanged(state):
    ...     _ = state["w"].mul_(3)
    Traceback (most recent call last):
        ...
    ParamCheckError: values changed: w (a dict of tensors)
    <BLANKLINE>
      w  2 of 2 values changed, by at most 2; written in place, and no optimizer stepped
    """
    __tracebackhide__ = True
    demand_tolerances(rtol=rtol, atol=atol)
    aspects = checks.parse_aspects(only, tolerance=bool(rtol or atol))
    return _Unchanged(model, patterns, buffers, aspects, rtol, atol)


def assert_changed(model: Subject, *patterns: Pattern, more_than: float = 0.0) -> Block:
    """Assert that a ``with`` block changes each parameter, by whatever means.

    Passes where every selected parameter (all of them by default, frozen ones too: EMA copies and
    target networks are frozen; buffers where a pattern names them, or where there is nothing else)
    holds other bits than before: an optimizer, an EMA, a soft update or a reset may have done it.
    Tensors without elements cannot change and are left out. ``assert_updated`` asks for more: that
    a gradient did it.

    * ``more_than=``: asks for more than a bit: that one value of each moved by more than that.

    Fails, naming each one that holds the bits it held (or moved by less), was cast to another
    dtype only, has no values any more or was removed.

    Raises :class:`ParamCheckError` at the end of the block; :class:`ParamCheckUsageError` for
    a pattern that matches nothing, nothing that has elements, a block that is entered a second
    time, and for values that cannot be read (meta, fake, lazy).

    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> with assert_changed(model):
    ...     model.reset_parameters()

    >>> import torch
    >>> with assert_changed(model), torch.no_grad():
    ...     _ = model.weight.add_(1)
    Traceback (most recent call last):
        ...
    ParamCheckError: not changed: bias (Linear)
    <BLANKLINE>
      bias  values are bit-identical, and no write to it was seen
    """
    __tracebackhide__ = True
    demand_tolerances(more_than=more_than)
    return _Changed(model, patterns, more_than)


def assert_updated(
    model: Subject,
    *patterns: Pattern,
    at_least: Mapping[Pattern, float] | None = None,
    grad: GradAt | None = None,
) -> Block:
    """Assert that a ``with`` block moves each parameter, because of a gradient.

    Passes where every selected parameter (the trainable ones by default) holds other bits than
    before, all finite, and a step of an optimizer wrote it with a gradient that is not all zero
    (or, where no optimizer that stepped holds it, such a gradient had arrived: an update by hand,
    float32 masters). Contents are compared right before and right after each step until one has
    done so. Gradients are noted as they arrive and as optimizers step: a ``zero_grad()`` at the
    end, closures, accumulation, several steps and several optimizers do not mislead it. An
    optimizer may hold another tensor on the same memory (a flat buffer, the parameter of a view).
    Of a part, these elements have to move, by a gradient of theirs.

    * ``at_least=``: of the parameters that a pattern matches, a share is enough
      (``{"experts": 0.5}``).
    * ``grad=``: where the gradients are if not in ``.grad`` (:func:`assert_grads_present`), looked
      at as optimizers step and at the end.

    Fails, with the reason: changed by weight decay or momentum only, by something else than the
    step, became NaN, frozen, no gradient (or one in ``main_grad``), a gradient but no step, not in
    the optimizer that stepped, cleared before the step, lr 0, a step that a GradScaler skipped,
    that wrote nothing or was rounded away, no values left.

    Raises :class:`ParamCheckError` at the end of the block; :class:`ParamCheckUsageError` for
    a pattern that matches no parameter, no trainable parameter to start from, a block that is
    entered a second time, and for values that cannot be read (meta, fake, lazy).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with assert_updated(model):
    ...     model(torch.ones(1, 3)).sum().backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()

    >>> optimizer = torch.optim.SGD([model.weight], lr=0.1)
    >>> with assert_updated(model):
    ...     model(torch.ones(1, 3)).sum().backward()
    ...     optimizer.step()
    Traceback (most recent call last):
        ...
    ParamCheckError: not updated: bias (Linear)
    <BLANKLINE>
      bias  got a gradient, but SGD does not hold it
    <BLANKLINE>
      hint: assert_optimizer_covers(optimizer, model) names what is missing and what is stale
    """
    __tracebackhide__ = True
    return _Updated(model, patterns, parse_shares(at_least), grad)


def updated_where_due(
    model: Subject, *patterns: Pattern, may_stand_still: Callable[[tuple[str, ...]], bool]
) -> Block:
    """Ask what :func:`assert_updated` asks, but not that those move who need not.

    ``may_stand_still`` is asked after the block, with the names of one that did not move.
    """
    __tracebackhide__ = True
    block = _Updated(model, patterns)
    block._may_stand_still = may_stand_still
    return block


class _Unchanged(Block):
    _assertion = "assert_unchanged"
    _of_slices = True
    _watch: Watch | None = None

    def __init__(
        self,
        subject: Subject,
        patterns: tuple[Pattern, ...],
        buffers: bool,
        aspects: frozenset[str],
        rtol: float,
        atol: float,
    ) -> None:
        super().__init__(subject, patterns)
        self._differs = checks.off_by_more(rtol, atol) if rtol or atol else None
        self._known: frozenset[str] = frozenset()
        self._eligible = present if buffers else parameters_only
        self._what = "parameter or buffer" if buffers else "parameter"
        self._aspects = aspects
        self._reads_values = "values" in aspects

    def _begin(self, inventory: Inventory) -> None:
        __tracebackhide__ = True
        checks.require_objects(self._aspects, inventory)
        if isinstance(self._subject, Path):
            self._aspects = frozenset({"values"})  # a file is read anew: other objects each time
        entries = select(
            inventory, self._patterns, eligible=self._eligible, what=self._what, parts=True
        )
        self._known = frozenset(inventory.named)
        values = "values" in self._aspects
        if values:
            require_values(entries, ' (only=("objects", "flags") does not ask)')
        self._kept = keep(
            entries,
            values=values,
            copies=self._differs is not None,
            attributes="attributes" in self._aspects,
        )
        if self._aspects == {"attributes"} and not any(one.attributes for one in self._kept):
            raise ParamCheckUsageError(
                f"only='attributes': nothing hangs on the selected parameters of "
                f"{inventory.title}, so nothing can be lost; set attributes before the block"
            )
        self._watch = watch_over(self._kept, gradients=False)
        self._watch.start()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _end(self, inventory: Inventory) -> list[Finding]:
        watch, self._watch = self._watch, None
        values = "values" in self._aspects
        after = AfterBlock(self._kept, inventory, values=values, differs=self._differs)
        if watch is None:
            return []
        cause = causes(inventory, watch, after)
        findings = checks.changes(self._kept, after, self._aspects, cause)
        if "objects" in self._aspects:
            selected = select_again(inventory, self._patterns, eligible=self._eligible)
            findings += checks.added(self._known, selected)
        return findings


class _Changed(Block):
    _assertion = "assert_changed"

    def __init__(self, subject: Subject, patterns: tuple[Pattern, ...], more_than: float) -> None:
        super().__init__(subject, patterns)
        self._more_than = more_than

    def _begin(self, inventory: Inventory) -> None:
        __tracebackhide__ = True
        entries = select(
            inventory,
            self._patterns,
            default=_default_of(inventory),
            eligible=with_elements,
            what="parameter or buffer with elements",
            parts=True,
        )
        require_values(entries)
        self._kept = keep(entries, values=True, copies=self._more_than > 0)

    def _end(self, inventory: Inventory) -> list[Finding]:
        differs = checks.moved_more(self._more_than) if self._more_than else None
        after = AfterBlock(self._kept, inventory, values=True, differs=differs)
        return checks.unchanged(after, self._more_than)


def _default_of(inventory: Inventory) -> Callable[[Entry], bool]:
    """All parameters; of a subject that has none with elements, the buffers."""
    any_parameter = any(with_elements(entry) for entry in inventory.parameters)
    return parameters_only if any_parameter else any_entry


class _Updated(Block):
    _assertion = "assert_updated"
    _watch: Watch | None = None
    _may_stand_still: Callable[[tuple[str, ...]], bool] | None = None

    def __init__(
        self,
        subject: Subject,
        patterns: tuple[Pattern, ...],
        shares: Mapping[Pattern, float] | None = None,
        grad: GradAt | None = None,
    ) -> None:
        super().__init__(subject, patterns)
        self._grad = grad
        self._shares = shares or {}
        self._members: dict[Pattern, list[tuple[str, ...]]] = {}

    def _begin(self, inventory: Inventory) -> None:
        __tracebackhide__ = True
        entries = select(
            inventory,
            self._patterns,
            default=trainable,
            eligible=lambda entry: parameters_only(entry) and with_elements(entry),
            what="parameter with elements" if self._patterns else "trainable parameter",
            parts=True,
        )
        require_values(entries)
        for item in decide(
            inventory,
            self._shares,
            eligible=set(entries).__contains__,
            what="parameter looked at here",
        ):
            self._members.setdefault(item.pattern, []).append(tuple(item.entry.names))
        self._kept = keep(entries, values=True)
        self._finite = finite_before(self._kept)
        self._elsewhere = Elsewhere(old.tensor for old in self._kept)
        places = places_of(self._grad, entries, inventory)
        self._watch = watch_over(self._kept, places=places)
        self._watch.start()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _end(self, inventory: Inventory) -> list[Finding]:
        watch, self._watch = self._watch, None
        if watch is None:
            return []
        watch.look()
        after = AfterBlock(self._kept, inventory, values=True)
        written = zip(self._kept, self._elsewhere.written(), strict=True)
        elsewhere = {id(old.watched): attribute for old, attribute in written}
        findings = checks.not_updated(
            after, watch, self._finite, after.not_finite(), elsewhere, self._may_stand_still
        )
        for pattern, share in self._shares.items():
            findings = checks.enough(
                pattern_text(pattern), share, self._members.get(pattern, []), findings
            )
        return findings
