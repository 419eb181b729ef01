"""What is said of modules and Parameters in several places: how to part them, or declare it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..messages.wording import shorten
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.ties import shared_modules


@dataclass(frozen=True, slots=True)
class Shared:
    """Names that are one tensor each: of one module in several places, or of one Parameter.

    ``places`` are the module's, or the names of the one tensor. ``module`` is its class (``""``:
    no module), ``names`` are all names that it explains.
    """

    places: tuple[str, ...]
    module: str
    names: tuple[str, ...]

    @property
    def repair(self) -> str:
        """How to make one per place."""
        if not self.module:
            return "give each a tensor of its own where they are made"
        parents = {place.rpartition(".")[0] for place in self.places}
        numbered = all(place.rpartition(".")[2].isdigit() for place in self.places)
        if len(parents) == 1 and numbered:
            return (
                f"build one per place: [{self.module}(...) for _ in range({len(self.places)})], "
                f"not [layer] * {len(self.places)}"
            )
        return f"build one {self.module} per place"


def by_module(inventory: Inventory, groups: Iterable[Sequence[str]]) -> list[Shared]:
    """Fold tie groups that come from one module in several places into one of the module."""
    listed = [tuple(group) for group in groups]
    if inventory.root is None or not listed:
        return [Shared(group, "", group) for group in listed]
    owner: dict[frozenset[str], tuple[str, ...]] = {}
    for places in shared_modules(inventory):
        for name in inventory.all_names.below(places[0]):
            rest = name[len(places[0]) :]
            owner[frozenset(place + rest for place in places)] = places
    classes = inventory.module_at
    folded: dict[tuple[str, ...], list[str]] = {}
    for group in listed:
        folded.setdefault(owner.get(frozenset(group), group), []).extend(group)
    return [
        Shared(places, type(classes[places[0]]).__name__ if places[0] in classes else "", (*names,))
        for places, names in folded.items()
    ]


def without_others(places: Sequence[str]) -> str:
    """Return the patterns that leave one place of several in."""
    return shorten([repr(f"!{place}") for place in places[1:]], 4)
