"""What is told of one rank's copy of tensors, so that all ranks see which of them differ.

Digests of bits, which cost two reads of the bytes; values are told only of what is known to
differ, and then of a piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from .content import bits, is_ordinary, no_values
from .context import facts_of
from .digest import bytes_of
from .sharded import is_dtensor, local_of

#: Values told of one tensor that differs, so that others can say by how much.
PIECE = 1 << 16
#: A rank's shard is a copy of those at the same coordinates in all sharded dimensions.
Place = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """One rank's copy of an entry: strings, flags and digests, never a tensor.

    ``place`` says which shard it is: only equal places have to be equal. ``values`` and ``grad``
    are None where they are not asked for, ``grad`` is also empty where there is no gradient.
    """

    names: tuple[str, ...]
    shape: str
    dtype: str
    place: Place
    requires_grad: bool | None
    values: bytes | None
    grad: bytes | None
    grad_place: Place = ()

    @property
    def sharded(self) -> str:
        """The mesh dimensions over which it is sharded, in words."""
        dimensions = [str(at).partition(":")[0] for at in self.place]
        return f"sharded over mesh dimension {', '.join(dimensions)}" if dimensions else "whole"


def place_of(tensor: Tensor) -> Place:
    """Return which shard of a DTensor this rank holds; ``()`` for a plain tensor."""
    if not is_dtensor(tensor):
        return ()
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    where = mesh.get_coordinate()
    placements = tensor.placements  # type: ignore[attr-defined]
    ranks = tuple(mesh.mesh.flatten().tolist())
    if where is None:
        return (*ranks, "outside")
    return tuple(
        f"{dimension}:{at}"
        for dimension, (placement, at) in enumerate(zip(placements, where, strict=True))
        if not placement.is_replicate()
    )


def bits_digest(tensor: Tensor) -> bytes:
    """Return sixteen bytes that are equal for tensors of equal bits, where dtype and shape are.

    Raises ValueError with the reason where there are no values.
    """
    local = local_of(tensor)
    total = xxhash.xxh3_128()
    if is_ordinary(local):  # nearly all of thousands: no views of each
        total.update(bytes_of(local))
        return total.digest()
    for fact in facts_of(local):
        total.update(repr(fact.key).encode())
    for flat in bits(local):
        host = flat if flat.device.type == "cpu" else flat.cpu()
        total.update(bytes_of(host))  # a name keeps the copy alive: these are its own bytes
    return total.digest()


def piece_of(tensor: Tensor) -> bytes | None:
    """Return the bytes of a small tensor's values, to be compared elsewhere; None of others."""
    local = local_of(tensor)
    if no_values(local) or local.numel() > PIECE or local.layout is not torch.strided:
        return None
    flats = bits(local)
    if len(flats) != 1:
        return None  # quantized ones are codes and how to read them
    host = flats[0].cpu()  # a name keeps the copy alive while its bytes are read
    return bytes(bytes_of(host))


def of_piece(piece: bytes, like: Tensor) -> Tensor:
    """Return the tensor of another rank that :func:`piece_of` told, shaped as this rank's."""
    local = local_of(like).detach()
    flat = torch.frombuffer(bytearray(piece), dtype=local.dtype)
    return flat.view(local.shape)
