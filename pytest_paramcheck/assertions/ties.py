"""Assertions about ties: which names are one Parameter, and which share nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from ..checks import ties as checks
from ..checks import ties_survive as survival
from ..checks import untied as apart_checks
from ..checks.between import sharing_between
from ..checks.same_ties import same_sharing
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.wording import a_or_an
from ..parameters.saving.operations import Operation, operation, usual
from ..parameters.subject.inventory import Subject
from ..parameters.subject.parts import Part
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import parameters_only, positive, select_names
from ..parameters.subject.states import State
from ..parameters.subject.ties import Ties, expand, numbered_title, side_by_side, take_parts
from ..parameters.tensors.call import use_group
from .verdict import one_verdict

if TYPE_CHECKING:  # neither is there in every build of torch
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


@one_verdict(values=False, slices=True)
def assert_tied(*subjects: Any, by: Literal["object", "memory"] = "object", **named: Any) -> None:
    """Assert that parameters are one and the same object.

    Forms: ``assert_tied(t1, t2, ...)`` or ``assert_tied(emb=t1, head=t2)`` for tensors (keywords
    name them in the message); ``assert_tied(module1, module2, ...)``: each parameter and buffer
    with its namesake; ``assert_tied(model, "emb.weight", "head.weight")``: patterns of one model.
    What they reach is one tie; names and classes of modules (``"enc", "dec"``) tie each
    parameter below with its namesake.

    Passes where all are one object (``SAME``). Fails where they share memory through two Parameters
    (``ALIASED``, ``OVERLAPPING``), are merely ``EQUAL``, or ``DISTINCT``: the message says which
    and what follows from it. A weight that a parametrization computes (weight_norm, spectral_norm,
    pruning) is tied only to one computed in the same way from the same leaves.

    * ``by="memory"``: memory in common is enough, whatever the objects (a fused weight and its
      slices, views into a flat buffer); what shares none with the others fails.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for fewer than two things to
    compare, an unknown name, or modules whose parameters have different names. No tensor can be
    called ``by``.

    >>> from torch import nn
    >>> emb, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    >>> head.weight = emb.weight
    >>> assert_tied(emb.weight, head.weight)

    >>> import torch
    >>> assert_tied(a=nn.Parameter(torch.ones(2)), b=nn.Parameter(torch.zeros(2)))
    Traceback (most recent call last):
        ...
    ParamCheckError: not tied: a, b
    <BLANKLINE>
      a  Parameter 2 float32 cpu
      b  Parameter 2 float32 cpu
      DISTINCT: neither the memory nor the values are shared.
    <BLANKLINE>
      hint: tie by assignment: assign one Parameter to both modules
    """
    __tracebackhide__ = True
    given: object = by
    if not (isinstance(given, str) and given in ("object", "memory")):
        shown = "a tensor" if isinstance(given, Tensor) else repr(given)
        raise ParamCheckUsageError(f"by= is 'object' or 'memory', not {shown}")
    if len(subjects) > 1 and _is_subject(subjects[0]) and _is_pattern(subjects[1]):
        _no_keywords("assert_tied(model, names)", named)
        ties = Ties(take_inventory(subjects[0]))
        groups = expand(ties, subjects[1:])
    else:
        ties, groups = side_by_side("assert_tied", subjects, named)
    apart = checks.not_tied if by == "object" else checks.without_memory_in_common
    findings = [finding for group in groups for finding in apart(ties, group)]
    raise_if(findings, ties.inventory)


@one_verdict(values=False, slices=True)
def assert_untied(*subjects: Any, **named: Any) -> None:
    """Assert that no two tensors share any memory, buffers included.

    Forms: ``assert_untied(t1, t2, ...)`` or with keywords for tensors; ``assert_untied(model,
    ema)`` for subjects, ``#1`` and ``#2`` in messages (keywords name them): any entry of one
    against any of another (EMA and target networks, copies; the same object twice is a finding);
    ``assert_untied(model, *patterns)``: nothing in the selection shares with anything else in
    it, a tensor that overlaps itself included.

    Passes for equal values in memory of their own, and for disjoint slices of one storage:
    what counts is whether some byte belongs to both.

    Fails for one Parameter under two names, for two on one memory, for overlapping views and
    expanded tensors, and names a tensor whose layout hides where its memory is (mkldnn). Between
    subjects also where a function of one (a closure, a default argument, a hook) refers to what
    another holds: a copy takes functions over as they are.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for an empty subject or a
    pattern without a match.

    >>> import copy
    >>> from torch import nn
    >>> model = nn.Linear(3, 2)
    >>> assert_untied(model, copy.deepcopy(model))

    >>> model = nn.Linear(3, 2, bias=False)
    >>> assert_untied(model, copy.copy(model))
    Traceback (most recent call last):
        ...
    ParamCheckError: shared: #1.weight, #2.weight (#1 and #2: Linear)
    <BLANKLINE>
      #1.weight, #2.weight  one Parameter 2x3 float32 cpu in both
    <BLANKLINE>
      hint: make it anew for each: what is made once (a default argument, a registry) is in all
            that use it
    """
    __tracebackhide__ = True
    within = bool(subjects) and _is_subject(subjects[0]) and not named
    if within and not any(_is_subject(s) or isinstance(s, Tensor) for s in subjects[1:]):
        inventory = take_inventory(subjects[0])
        names = select_names(inventory, subjects[1:])
        raise_if(apart_checks.sharing_within(inventory, names), inventory)
        return
    parts = take_parts("assert_untied", subjects, named)
    raise_if(sharing_between(parts), numbered_title(parts))


@one_verdict
def assert_distinct(
    model: Subject, *patterns: Pattern, group: ProcessGroup | DeviceMesh | None = None
) -> None:
    """Assert that parameters have memory of their own and other values.

    Layers stacked as copies of one another start identical and stay so wherever they get the
    same gradients. Looks at parameters, at buffers where a pattern names them. Constant tensors
    (all zeros, all ones) and tensors with fewer than two elements are not compared: every
    LayerNorm starts with the same ones. Equal vectors beside matrices that differ count only
    where a pattern names them.

    A DTensor is one tensor: two are equal where every rank's shards are. Where two ranks hold equal
    shards of one DTensor, each drew its own from the same seed.

    * ``group=``: a ProcessGroup or a DeviceMesh: plain tensors are compared with those of the same
      name on its other ranks too: shards that a framework cuts itself, pipeline stages, experts.

    Fails, naming each group, for equal bits in one shape and dtype, for equal shards, and for
    whatever :func:`assert_untied` finds in the selection.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern without a match,
    for tensors that have no values (meta, fake, lazy), and for a ``group`` that is none, or that
    this process is not in.

    >>> from torch import nn
    >>> assert_distinct(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))

    >>> import copy
    >>> layer = nn.Linear(8, 8, bias=False)
    >>> assert_distinct(nn.Sequential(layer, copy.deepcopy(layer)))
    Traceback (most recent call last):
        ...
    ParamCheckError: equal values: {0,1}.weight (Sequential)
    <BLANKLINE>
      {0,1}.weight  Parameter 8x8 float32 cpu
      EQUAL: own memory but the same bits: copied from one another, or drawn from the same seed.
    <BLANKLINE>
      hint: create each layer separately, with no manual_seed() between, or re-initialize the copies
    """
    __tracebackhide__ = True
    if group is not None:
        use_group(group)
    inventory = take_inventory(model)
    names = select_names(inventory, patterns, default=parameters_only)
    named = names if positive(inventory, patterns) else ()
    shared, equal = apart_checks.not_distinct(inventory, names, named=named)
    raise_if([*shared, *equal], inventory)


@one_verdict(values=False, slices=True)
def assert_ties(model: Subject, groups: Iterable[Iterable[str]]) -> None:
    """Assert exactly these tie groups: nothing missing, nothing more.

    ``groups`` is a list of sets of names, ``[]`` for a model without ties. A name is an entry's
    (all of its names count), a module's (one group per namesake below it), or any pattern.
    Buffers are tied too; those of one module in several places come with it.

    Fails for a declared group that is not one Parameter (with the relation found), for a tie
    that no group declares, and for parameters on common memory that are no tie at all.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for an unknown name or a group
    of fewer than two names.

    >>> from torch import nn
    >>> assert_ties(nn.Linear(3, 2), [])

    >>> assert_ties(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), [{"0.weight", "1.weight"}])
    Traceback (most recent call last):
        ...
    ParamCheckError: not tied: {0,1}.weight (Sequential)
    <BLANKLINE>
      0.weight  Parameter 3x3 float32 cpu
      1.weight  Parameter 3x3 float32 cpu
      DISTINCT: neither the memory nor the values are shared.
    <BLANKLINE>
      hint: tie by assignment: model[1].weight = model[0].weight
    """
    __tracebackhide__ = True
    ties = Ties(take_inventory(model))
    if isinstance(groups, (str, bytes)) or not isinstance(groups, Iterable):
        raise ParamCheckUsageError(f"groups is a list of sets of names, got {groups!r}")
    ordered = groups if isinstance(groups, (set, frozenset)) else list(groups)
    listed = list(ordered)
    for group in listed:
        if isinstance(group, (str, bytes)) or not isinstance(group, Iterable):
            raise ParamCheckUsageError(
                f"a tie group is a set of names, got {group!r}; "
                f"did you mean [{{{', '.join(ties.in_order(ordered))}}}]?"
            )
    raise_if(checks.exact_ties(ties, listed), ties.inventory)


@one_verdict(values=False, slices=True)
def assert_same_ties(before: Subject, after: Subject) -> None:
    """Assert that two subjects share the same names in the same way.

    For a model before and after a wrap, a load or a copy: every tie and every pair of tensors
    on one memory in ``before`` is there in ``after`` and the other way round. Wrapper prefixes
    (compiled, DistributedDataParallel) are no part of a name. Names that share nothing may
    differ.

    Fails for each tie lost (with the relation that is left), tie gained, and shared memory lost
    or gained.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for an empty subject.

    >>> import copy
    >>> from torch import nn
    >>> layer = nn.Linear(3, 3)
    >>> model = nn.Sequential(layer, layer)
    >>> assert_same_ties(model, copy.deepcopy(model))

    >>> layer = nn.Linear(3, 3, bias=False)
    >>> model = nn.Sequential(layer, layer)
    >>> assert_same_ties(model, nn.Sequential(*map(copy.deepcopy, model)))
    Traceback (most recent call last):
        ...
    ParamCheckError: tie lost: {0,1}.weight (Sequential)
    <BLANKLINE>
      0.weight  Parameter 3x3 float32 cpu
      1.weight  Parameter 3x3 float32 cpu
      EQUAL: the values are equal but the memory is not shared: they will diverge at the first
      optimizer step.
    <BLANKLINE>
      hint: tie by assignment: model[1].weight = model[0].weight
    """
    __tracebackhide__ = True
    old, new = Ties(take_inventory(before)), Ties(take_inventory(after))
    raise_if(same_sharing(old, new), new.inventory.title)


@one_verdict(runs=True, slices=True)
def assert_ties_survive(
    model: nn.Module, *operations: str | Operation, inputs: tuple[Any, ...] | None = None
) -> None:
    """Assert that every tie group survives what is done to a model.

    Each operation is done to a fresh copy. By name: ``"deepcopy"``, ``"pickle"``, ``"torch.save"``,
    ``"load_state_dict"``, ``"load_state_dict(assign=True)"``, ``"to(float64)"``, ``"to(cuda)"``,
    ``"to_empty(cpu)"``, ``"safetensors"`` (an extra), ``"compile"``, ``"export"``, ``"ema"`` and
    ``"fully_shard"`` (on a process group of this process alone where none is there); or any
    callable model -> model, or model -> None where it works in place. Without operations: deepcopy,
    pickle, torch.save, load_state_dict, to(float64) and ema, which every model goes through sooner
    or later (of what is scripted, which torch does not pickle, neither pickle nor torch.save).

    Passes where all names of a group are one Parameter afterwards. Fails naming, for each
    group, the first operation that broke it and the relation it left behind. An operation's own
    exception comes through.

    * ``inputs=``: the example inputs, a tuple, that ``"export"`` needs.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a model without ties and
    for an unknown operation.

    >>> from torch import nn
    >>> layer = nn.Linear(3, 3)
    >>> assert_ties_survive(nn.Sequential(layer, layer), "deepcopy", "to(float64)")

    >>> import copy
    >>> def copy_each(model):
    ...     return nn.Sequential(*map(copy.deepcopy, model))
    >>> layer = nn.Linear(3, 3, bias=False)
    >>> assert_ties_survive(nn.Sequential(layer, layer), "deepcopy", copy_each)
    Traceback (most recent call last):
        ...
    ParamCheckError: tie broken by copy_each: {0,1}.weight (Sequential)
    <BLANKLINE>
      0.weight  Parameter 3x3 float32 cpu
      1.weight  Parameter 3x3 float32 cpu
      EQUAL: the values are equal but the memory is not shared: they will diverge at the first
      optimizer step.
    <BLANKLINE>
      hint: tie by assignment: model[1].weight = model[0].weight
    """
    __tracebackhide__ = True
    if not isinstance(model, nn.Module):
        raise ParamCheckUsageError(
            f"operations are done to a model, not to {a_or_an(type(model).__name__)}"
        )
    named: list[tuple[str, Operation]] = []
    for given in operations or usual(model):
        if isinstance(given, str):
            named.append((given, operation(given, inputs)))
        elif callable(given):
            named.append((survival.operation_name(given), given))
        else:
            raise ParamCheckUsageError(
                f"an operation is a name or a callable, not {type(given).__name__} {given!r}"
            )
    raise_if(survival.broken_ties(model, named), take_inventory(model).title)


def _is_pattern(value: Any) -> bool:
    """Whether a value selects in a subject and is none itself."""
    if isinstance(value, (str, bytes, type, State, Part)):
        return True
    if isinstance(value, tuple):
        return len(value) == 2 and isinstance(value[0], type)
    # A subject of a hook's may be callable too: only what is a function is one here.
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def _is_subject(value: Any) -> bool:
    """Whether a value is a subject of its own and no pattern."""
    return not (_is_pattern(value) or isinstance(value, Tensor))


def _no_keywords(form: str, named: dict[str, Any]) -> None:
    if named:
        raise ParamCheckUsageError(f"{form} takes no keywords, got {', '.join(named)}")
