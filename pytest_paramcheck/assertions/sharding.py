"""Assertions about ranks: the same on each of them, and sharded as it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..checks import placements as placement_checks
from ..checks import replicated as checks
from ..messages.errors import raise_if
from ..parameters.subject.declared import decide, with_rivals
from ..parameters.subject.inventory import Subject
from ..parameters.subject.patterns import Pattern
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import select
from ..parameters.tensors.call import use_group
from .verdict import one_verdict

if TYPE_CHECKING:  # neither is there in every build of torch
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


@one_verdict
def assert_replicated(
    subject: Subject,
    *patterns: Pattern,
    group: ProcessGroup | DeviceMesh | None = None,
    only: str | Sequence[str] = ("values", "grads", "flags"),
) -> None:
    """Assert that parameters and buffers are the same on every rank.

    Every rank calls it with its own copy: of a model under DistributedDataParallel, of the plain
    parameters beside sharded ones, of both ends of a tie across pipeline stages
    (``[("tied", weight)]`` on each of them).

    Passes where names and their order, shapes, dtypes, ``requires_grad``, values and gradients of
    the selected parameters and buffers (all by default, non-persistent ones too) are the same, bit
    for bit: an all-reduce leaves the same bits everywhere, so there is no tolerance. Of a DTensor
    the copies are compared along its replicated mesh dimensions; where it is sharded only, there
    are none. On one rank everything is the same.

    * ``group=``: whose ranks call it, a ProcessGroup or a DeviceMesh; by default all ranks.
    * ``only=``: what is asked: ``"values"``, ``"grads"``, ``"flags"`` or several; names, shapes and
      dtypes always are.

    Fails on every rank with the same text: which ranks differ from which, in how many values, by
    how much and where; which have no gradient; what only some of them have.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for a pattern that matches
    nothing, where there is no process group or this process is not in ``group``, for another
    ``only``, for partial sums, and for tensors without values (meta, lazy), which ``only="flags"``
    does not ask about.

    >>> import torch.distributed as dist
    >>> from torch import nn
    >>> store = dist.HashStore()
    >>> dist.init_process_group("gloo", rank=0, world_size=1, store=store)
    >>> assert_replicated(nn.Linear(3, 2))
    >>> dist.destroy_process_group()

    Where rank 1 holds ones and rank 0 zeros, both raise::

        ParamCheckError: differs between ranks: w (a dict of tensors)

          w  2 of 2 values: max abs 1 at [0], max rel inf: rank 1 from rank 0
    """
    __tracebackhide__ = True
    aspects = checks.parse_only(only)
    use_group(group)
    inventory = take_inventory(subject)
    entries = select(inventory, patterns)
    raise_if(checks.not_replicated(entries, aspects), inventory)


def assert_placements(subject: Subject, expected: Mapping[Pattern, Any], /) -> None:
    """Assert how parameters are sharded: the placement of each DTensor.

    ``expected`` maps patterns to a placement of ``torch.distributed.tensor`` (``Shard(0)``,
    ``Replicate()``), to a tuple of one per mesh dimension, or to None for a plain tensor; where
    several patterns match, the last one decides. Parameters that no pattern matches are not asked
    about; a buffer is where a pattern is its very name.

    Passes where every placement is the declared one. No rank talks to another, so it may be asked
    on one rank, on meta and under a fake process group. What ``fully_shard`` and tensor
    parallelism together make of ``Shard(0)`` is ``Shard(0)``.

    Fails, naming each with what it is and should be: a plain tensor that nothing sharded, another
    dimension, partial sums, one placement where the mesh has several dimensions.

    Raises :class:`ParamCheckError`; :class:`ParamCheckUsageError` for what is not a placement, a
    pattern that matches nothing or has no effect.

    >>> from torch import nn
    >>> assert_placements(nn.Linear(3, 2), {"*": None})

    >>> from torch.distributed.tensor import Shard
    >>> assert_placements(nn.Linear(3, 2), {"weight": Shard(0)})
    Traceback (most recent call last):
        ...
    ParamCheckError: other placement: weight (Linear)
    <BLANKLINE>
      weight  expected Shard(0), found plain: nothing sharded it
    """
    __tracebackhide__ = True
    wanted = placement_checks.parse_placements(expected)
    inventory = take_inventory(subject)
    named = {pattern for pattern in wanted if isinstance(pattern, str)}
    decided = decide(
        inventory,
        wanted,
        eligible=lambda entry: entry.kind != "buffer" or not named.isdisjoint(entry.names),
        what="parameter (a buffer counts where a pattern is its very name)",
    )
    findings = placement_checks.other_placements(decided)
    raise_if(with_rivals(findings, decided, placement_checks.expected_text), inventory)
