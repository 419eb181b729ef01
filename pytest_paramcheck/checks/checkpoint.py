"""A checkpoint by itself: whole, finite, and no larger than what is in it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.files.contents import Contents, Dragged
from ..parameters.files.damage import Damage, DamagedError
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.content import no_values
from ..parameters.tensors.memory import PLAIN_TYPES
from .finite import not_finite
from .structure import placeholders

TOGETHER = "write index and shards together, in one save: readers load what the index names"
_DAMAGES: dict[Damage, tuple[str, str]] = {
    "damaged": ("file damaged", "write it again, and check that the copy or download was complete"),
    "code": (
        "code in the file",
        "save tensors and plain values only: torch.save(model.state_dict(), path)",
    ),
    "pickled": (
        "code in the file",
        "save tensors and plain values only: torch.distributed.checkpoint unpickles all else",
    ),
    "absent": ("shard missing", "publish every file that the index names"),
    "lacking": ("missing in its shard", TOGETHER),
}


def not_publishable(contents: Contents, inventory: Inventory) -> list[Finding]:
    """Find what is wrong with a checkpoint's files, and with the tensors in them."""
    findings = [_damage(damage) for damage in contents.damages]
    findings += [
        Finding(
            (name,),
            "not in the index",
            found=f"it is in {file}",
            hint=TOGETHER,
        )
        for name, file in contents.unlisted
    ]
    findings += [
        Finding(
            (file.name,),
            "file not in the index",
            found="it is numbered as the shards are, and no name of the index is in it",
            hint="delete it, or write index and shards together, in one save",
        )
        for file in contents.left_over
    ]
    findings += placeholders(inventory)
    bare = []
    for entry in inventory.entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            findings.append(Finding(tuple(entry.names), "no values", found=reason))
            bare.append(entry)
    asked = [entry for entry in inventory.entries if entry not in bare]
    findings += [
        finding for finding in not_finite(asked) if not _is_mask(inventory.named[finding.names[0]])
    ]
    return findings + [_larger(dragged) for dragged in contents.dragged]


def _damage(damage: DamagedError) -> Finding:
    problem, hint = _DAMAGES[damage.kind]
    return Finding(damage.names, problem, found=damage.found, hint=hint)


def _is_mask(tensor: Tensor | None) -> bool:
    """Whether it is what is added to scores before a softmax: 0 where allowed, -inf elsewhere."""
    if tensor is None or type(tensor) not in PLAIN_TYPES or not tensor.is_floating_point():
        return False
    with torch.no_grad():
        values = tensor.float() if tensor.element_size() == 1 else tensor
        return bool(((values == 0) | (values == -torch.inf)).all())


def _larger(dragged: Dragged) -> Finding:
    return Finding(
        dragged.names,
        "larger than its tensors",
        found=f"{dragged.saved:,} bytes in the file, of which {dragged.own:,} are "
        f"{'its' if len(dragged.names) == 1 else 'theirs'}",
        why="a view is saved with all of the memory that it looks into",
        hint="copy before saving: "
        "torch.save({k: v.clone() for k, v in model.state_dict().items()}, path)",
    )


def nothing_there(contents: Contents) -> list[Finding]:
    """Find that a file was read and holds no tensor."""
    if contents.tensors or contents.damages:
        return []
    return [Finding((contents.title,), "no tensors in it", found=plural(0, "tensor"))]
