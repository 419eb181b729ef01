"""Which name of a copy stands for which name of the model it was made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .inventory import Inventory


def namesakes(copy: Inventory, model: Inventory) -> dict[str, str]:
    """Return the names of a copy, and for each the model's name that it is a copy of.

    They are the same names, or those with what a wrapper puts in front of all (``module.`` of
    AveragedModel, ``ema_model.``): the prefix under which most of the model's names are found
    decides. A wrapper may hold the model itself as well; that is not the copy.
    """
    found: Counter[str] = Counter()
    for name, tensor in copy.named.items():
        for prefix, rest in _ends(name):
            if rest in model.named and (tensor is None or tensor is not model.named[rest]):
                found[prefix] += 1
    if not found:  # nothing but the model's own objects, which is for the caller to say
        found[""] += 1
    most = max(found.values())
    prefix = min((p for p, count in found.items() if count == most), key=len)
    return {
        name: name[len(prefix) :]
        for name in copy.named
        if name.startswith(prefix) and name[len(prefix) :] in model.named
    }


def _ends(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name cut at its start and after each dot."""
    at = 0
    while True:
        yield name[:at], name[at:]
        at = name.find(".", at) + 1
        if not at:
            return
