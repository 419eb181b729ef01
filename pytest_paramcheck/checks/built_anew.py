"""What two models that were built one after the other have in common, and should not."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from ..messages.findings import Finding
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.tensors.describe import describe
from ..parameters.tensors.identity import shared_memory


def shared_by_builds(earlier: Inventory, later: Inventory) -> list[Finding]:
    """Find what training one model would change in the other: parameters that train, statistics.

    What is frozen, and tables that nobody writes, may be made once for all.
    """
    ours = {id(entry.tensor): entry for entry in _trained(earlier)}
    theirs = _trained(later)
    shared = {entry.name: entry for entry in theirs if id(entry.tensor) in ours}
    apart = [entry for entry in theirs if id(entry.tensor) not in ours]
    before = [entry for entry in ours.values() if entry.tensor is not None]
    tensors = [e.tensor for e in (*before, *apart) if e.tensor is not None]
    for group in shared_memory(tensors).groups:
        if group[0] < len(before):
            found = [apart[i - len(before)] for i in group if i >= len(before)]
            shared |= {entry.name: entry for entry in found}
    return [
        Finding(
            tuple(entry.names),
            "two models built one after the other share",
            found=f"{describe(entry.tensor)}, made once and used by both",
            hint="make it in the factory: a default argument or a global is made once",
        )
        for entry in theirs
        if entry.name in shared
    ]


def _trained(inventory: Inventory) -> list[Entry]:
    norms = {name for name, module in inventory.modules if isinstance(module, _NormBase)}

    def written(entry: Entry, tensor: Tensor) -> bool:
        if entry.is_parameter:
            return tensor.requires_grad
        return any(name.rpartition(".")[0] in norms for name in entry.names)

    return [e for e in inventory.entries if e.tensor is not None and written(e, e.tensor)]
