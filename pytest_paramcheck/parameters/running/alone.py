"""A world of one, where there are more ranks: what a model does that nobody has distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed.distributed_c10d import GroupMember


@contextmanager
def alone() -> Iterator[None]:
    """Let this rank be the only one: a world of size 1, in which an all-reduce is nothing.

    A loss that asks for the size of the world, or reduces over it, does what it does alone. Has
    to be entered on every rank, for the groups are made by all.
    """
    groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    world = GroupMember.WORLD
    GroupMember.WORLD = groups[dist.get_rank()]
    try:
        yield
    finally:
        GroupMember.WORLD = world
