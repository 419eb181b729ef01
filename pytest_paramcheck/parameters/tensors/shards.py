"""What is told of a shard: what it holds in sixteen bytes, whether that is one value, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .content import bits
from .digest import read_contents
from .sharded import distributed, local_of, mesh_of, offset_of


@dataclass(frozen=True, slots=True)
class ShardFact:
    """What one rank holds of a tensor.

    ``constant`` is the one value (its bits) that all elements have, else None; ``place`` is where
    in the whole tensor it begins, or of a plain tensor which rank's it is.
    """

    digest: bytes
    count: int
    constant: str | None
    place: tuple[int, ...]


def shard_fact(tensor: Tensor) -> ShardFact:
    """Return what is to be told of this rank's shard of a tensor, or of a plain one."""
    local = local_of(tensor).detach()
    if mesh_of(tensor) is None:
        dist = distributed()
        place: tuple[int, ...] = (int(dist.get_rank()) if dist is not None else 0,)
    else:
        place = offset_of(tensor)
    digest = read_contents([local])[0].digest
    return ShardFact(digest, local.numel(), _constant(local), place)


def _constant(local: Tensor) -> str | None:
    with torch.no_grad():
        flats = bits(local)
        if not all(len(flat) and bool(torch.eq(flat, flat[0]).all()) for flat in flats):
            return None
        return " ".join(str(flat[:1].tolist()) for flat in flats)


def of_one_value(facts: Iterable[ShardFact]) -> bool:
    """Whether a tensor is constant: all shards that are not empty hold one value."""
    held = [fact.constant for fact in facts if fact.count]
    return not held or (held[0] is not None and len(set(held)) == 1)
