"""A subject as the lines of its manifest: one per name, in registration order."""

from __future__ import annotations

from ...manifest.text import ManifestLine
from ..tensors.describe import dtype_text, shape_text
from .inventory import Inventory


def manifest_lines(inventory: Inventory) -> list[ManifestLine]:
    """Return what the manifest says about each name. Reads no values: meta and lazy are fine.

    Every name has its own line, tied ones refer to the first: a tie that is made or lost then
    changes one line of the file.
    """
    first: dict[int, str] = {}  # ids are safe: the inventory keeps the tensors alive
    buffers = inventory.buffer_names
    lines = []
    for name, tensor in inventory.named.items():
        if tensor is None:
            continue
        owner = first.setdefault(id(tensor), name)
        lines.append(
            ManifestLine(
                name,
                shape_text(tensor),
                dtype_text(tensor).replace(" ", "/"),
                name not in buffers,
                tensor.requires_grad,
                buffers.get(name) is not False,
                "" if owner == name else owner,
            )
        )
    return lines
