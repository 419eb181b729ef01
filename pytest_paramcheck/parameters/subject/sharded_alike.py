"""Two subjects whose tensors are to be compared: the whole ones sharded as the others are.

Every rank slices what it has whole by itself, without communication, so that shard is compared
with shard. What is sharded in two ways has to be gathered, which all ranks do or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ..tensors.call import exchange
from ..tensors.content import no_values
from ..tensors.describe import describe
from ..tensors.memory import PLAIN_TYPES
from ..tensors.sharded import is_dtensor, is_partial, sharded_as
from .inventory import Inventory


def sharded_alike(
    a: Inventory, b: Inventory, pairs: Iterable[tuple[str, str]]
) -> tuple[Inventory, Inventory]:
    """Return two inventories with the tensors of each pair of names (of ``a``, of ``b``) alike.

    Raises :class:`ParamCheckUsageError` for partial sums and for meshes of other ranks.
    """
    if set(map(type, a.tensors)) | set(map(type, b.tensors)) <= {*PLAIN_TYPES, type(None)}:
        return a, b
    both = [(left, right, a.named.get(left), b.named.get(right)) for left, right in pairs]
    sharded = [
        (left, right, first, second)
        for left, right, first, second in both
        if first is not None and second is not None and _differ(first, second)
    ]
    if not sharded:
        return a, b
    for left, _, first, second in sharded:
        _require_one_world(left, first, second)
    if any(is_dtensor(first) and is_dtensor(second) for _, _, first, second in sharded):
        exchange(None)  # everybody is here: gathering is a collective
    new_a: dict[str, Tensor] = {}
    new_b: dict[str, Tensor] = {}
    made: dict[object, Tensor] = {}
    for left, right, first, second in sharded:
        of, name, whole, like = new_b, right, second, first
        if not is_dtensor(first):
            of, name, whole, like = new_a, left, first, second
        key = (id(whole), id(_mesh(like)), str(_placements(like)))  # a tie stays one object
        if key not in made:
            made[key] = sharded_as(whole, like)
        of[name] = made[key]
    return _with(a, new_a), _with(b, new_b)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape hold their values in two ways, one of them in shards."""
    if not (is_dtensor(a) or is_dtensor(b)) or no_values(a) or no_values(b):
        return False
    if a.shape != b.shape:
        return False
    return _mesh(a) is not _mesh(b) or _placements(a) != _placements(b)


def _require_one_world(name: str, a: Tensor, b: Tensor) -> None:
    for tensor in (a, b):
        if is_partial(tensor):
            raise ParamCheckUsageError(
                f"{name} holds partial sums, which nobody has added up: redistribute it first"
            )
    if is_dtensor(a) and is_dtensor(b):
        ranks = [sorted(_mesh(tensor).mesh.flatten().tolist()) for tensor in (a, b)]
        if ranks[0] != ranks[1]:
            raise ParamCheckUsageError(
                f"two meshes: {name} is {describe(a)} on ranks {ranks[0]} and {describe(b)} on "
                f"ranks {ranks[1]}; compare their full_tensor()"
            )


def _mesh(tensor: Tensor) -> Any:
    return getattr(tensor, "device_mesh", None) if is_dtensor(tensor) else None


def _placements(tensor: Tensor) -> Any:
    return getattr(tensor, "placements", None) if is_dtensor(tensor) else None


def _with(inventory: Inventory, tensors: dict[str, Tensor]) -> Inventory:
    """Return an inventory with other tensors under some names."""
    if not tensors:
        return inventory
    copied = Inventory(inventory.title, inventory.root)
    copied.from_pairs, copied.saved = inventory.from_pairs, inventory.saved
    copied.buffer_names = inventory.buffer_names
    copied.wrapped_names = inventory.wrapped_names
    copied.named = {name: tensors.get(name, own) for name, own in inventory.named.items()}
    return copied
