"""Many names at once: which there are, and which lie below a module."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from functools import cached_property


class Names:
    """The names of one subject in registration order, and quick answers about them.

    A mapping of 20,000 exact names asks 20,000 times what lies below a name: a search in the
    sorted names, not a walk through all of them.
    """

    def __init__(self, named: Collection[str]) -> None:
        self.named = named

    @cached_property
    def position(self) -> dict[str, int]:
        """Each name and its number in registration order."""
        return {name: number for number, name in enumerate(self.named)}

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.named)

    @cached_property
    def modules(self) -> Names:
        """The modules that the names lie below, each once."""
        found: dict[str, None] = {}
        for name in self.named:
            above = []
            while (name := name.rpartition(".")[0]) and name not in found:
                above.append(name)
            found.update(dict.fromkeys(reversed(above)))
        return Names(found)

    def below(self, module: str) -> list[str]:
        """Return the names below a module's name, in registration order."""
        start = bisect_left(self._sorted, module + ".")
        end = bisect_left(self._sorted, module + "/")  # the character after the dot
        return sorted(self._sorted[start:end], key=self.position.__getitem__)

    def at_or_below(self, name: str) -> list[str]:
        """Return the name itself, where it is one, and what lies below it."""
        return [name, *self.below(name)] if name in self.named else self.below(name)
