"""An inventory as records: what a manifest keeps and copies are compared by.

Tests: ``tests/unit/test_manifest.py`` and ``test_manifest_text.py``.
"""

from __future__ import annotations

from ..tensors.describe import dtype_text, shape_text
from .inventory import Inventory
from .record import Record


def records(inventory: Inventory) -> list[Record]:
    """Return what is noted of each name, in registration order.

    Reads no values: meta and lazy are fine. Every name has its own record, tied ones refer to
    the first: a tie that is made or lost then changes one line of a manifest.
    """
    first: dict[int, str] = {}  # ids are safe: the inventory keeps the tensors alive
    buffers = inventory.buffer_names
    found = []
    for name, tensor in inventory.named.items():
        if tensor is None:
            continue
        owner = first.setdefault(id(tensor), name)
        found.append(
            Record(
                name,
                shape_text(tensor),
                dtype_text(tensor).replace(" ", "/"),
                name not in buffers,
                tensor.requires_grad,
                buffers.get(name) is not False,
                "" if owner == name else owner,
            )
        )
    return found
