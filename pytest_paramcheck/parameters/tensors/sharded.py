"""A DTensor is one tensor, spread over the ranks of a mesh: its shard here, and all of it.

Nobody can hold a DTensor whose module was never imported, so torch.distributed.tensor is looked up
among the loaded modules: a run without it does not pay for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def distributed() -> Any:
    """Return torch.distributed where this process is one rank of an initialized group, else None.

    Of a group of one rank too: what it shards is taken apart as elsewhere.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return dist


def is_dtensor(tensor: object) -> bool:
    """Whether it is a DTensor, on whatever mesh."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def mesh_of(tensor: object) -> Any:
    """Return the mesh of a DTensor that has other ranks' shards elsewhere, else None."""
    if not is_dtensor(tensor):
        return None
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    return mesh if mesh.size() > 1 else None


def local_of(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: of a DTensor the shard itself, else all of it."""
    if not is_dtensor(tensor):
        return tensor
    local: Tensor = tensor._local_tensor  # type: ignore[attr-defined]  # to_local() makes a view
    return local


def has_elements_here(tensor: Tensor) -> bool:
    """Whether this rank holds any element of a tensor: a shard may be empty."""
    return local_of(tensor).numel() > 0


def counts_here(tensor: Tensor) -> bool:
    """Whether this rank's shard is the copy that counts: of equal ones the first rank's."""
    mesh = mesh_of(tensor)
    if mesh is None:
        return True
    where = mesh.get_coordinate()
    if where is None:
        return False
    placements = tensor.placements  # type: ignore[attr-defined]
    return all(
        not placement.is_replicate() or at == 0
        for placement, at in zip(placements, where, strict=True)
    )


def is_partial(tensor: Tensor) -> bool:
    """Whether it is a DTensor of partial sums, which nobody has added up."""
    return is_dtensor(tensor) and any(
        placement.is_partial()
        for placement in tensor.placements  # type: ignore[attr-defined]
    )


def offset_of(tensor: Tensor) -> tuple[int, ...]:
    """Return where in the whole tensor the shard of this rank begins."""
    module = sys.modules["torch.distributed.tensor"]
    utils = sys.modules.get("torch.distributed.tensor._utils")
    if utils is None or not isinstance(tensor, module.DTensor):
        return (0,) * tensor.dim()
    _, offset = utils.compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return tuple(int(start) for start in offset)


def index_in_whole(tensor: Tensor, index: Sequence[int]) -> list[int]:
    """Turn an index into this rank's shard into one into the whole tensor."""
    if mesh_of(tensor) is None or len(index) != tensor.dim():
        return list(index)
    return [at + start for at, start in zip(index, offset_of(tensor), strict=True)]


def read_whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which other ranks hold some; else the tensor itself.

    A collective, for who knows that everybody is here. What is on meta has nothing to gather.
    """
    if mesh_of(tensor) is None or tensor.device.type == "meta":
        return tensor
    return whole_of(tensor.detach())


def whole_of(tensor: Tensor) -> Tensor:
    """Return all of a DTensor. A collective."""
    with torch.no_grad():
        whole: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def sharded_as(whole: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor sharded as ``like`` is, by slicing: every rank has all of it.

    Without communication; a DTensor on other placements is gathered first, on every rank.
    """
    module = sys.modules["torch.distributed.tensor"]
    with torch.no_grad():
        if isinstance(whole, module.DTensor):
            whole = whole.detach().full_tensor()
        sharded: Tensor = module.distribute_tensor(
            whole.detach(),
            like.device_mesh,  # type: ignore[attr-defined]
            like.placements,  # type: ignore[attr-defined]
            src_data_rank=None,
        )
    return sharded
