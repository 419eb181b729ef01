"""Which parameters a run leaves out by chance: layers that are dropped, experts without a token."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

#: How likely it has to be that a member of a list was left out of every run, as often as its
#: others are: one that never could be used is not.
_BY_CHANCE = 1e-3
#: How many other runs are asked, and how many where siblings come and go: of half-used experts
#: ten show that one is not.
RUNS = 3
_MOST = 12


class Routes:
    """Who gets a gradient in which run, of parameters that the first run left without one.

    Without any, or with zeros only: by what is called one where runs are added.

    A name with other numbers in it is a sibling: the same parameter of another layer of a list.
    """

    def __init__(self, asked: Iterable[str], unused: Collection[str]) -> None:
        asked = list(asked)
        self._unused = list(unused)
        self._siblings: dict[str, list[str]] = {_role(name): [] for name in unused}
        for name in asked:
            if (role := _role(name)) in self._siblings:
                self._siblings[role].append(name)
        self._runs = [set(asked).difference(unused)]

    @property
    def watched(self) -> list[str]:
        """Those left out, and their siblings."""
        return [name for siblings in self._siblings.values() for name in siblings]

    def add(self, reached: Collection[str]) -> None:
        """Take in who got a gradient in another run."""
        self._runs.append(set(reached))

    @property
    def open(self) -> bool:
        """Whether another run may show more: by then chance has left out none of those left."""
        left = [name for name in self._unused if not self._reached(name)]
        runs = len(self._runs) - 1
        return bool(left) and (
            runs < RUNS or (runs < _MOST and any(self._may_be_left_out(name) for name in left))
        )

    @property
    def taken(self) -> list[str]:
        """Return who was left out by chance: reached in a run, or as likely not as its siblings."""
        return [n for n in self._unused if self._reached(n) or self._may_be_left_out(n)]

    def _reached(self, name: str) -> bool:
        return any(name in run for run in self._runs)

    def _may_be_left_out(self, name: str) -> bool:
        counts = [sum(one in run for run in self._runs) for one in self._siblings[_role(name)]]
        ever = [count for count in counts if count]
        if not ever or min(ever) == len(self._runs):
            return False  # none of them, or the same in each run
        left_out = 1 - sum(ever) / (len(ever) * len(self._runs))
        return left_out ** len(self._runs) >= _BY_CHANCE


def _role(name: str) -> str:
    return re.sub(r"\d+", "*", name)
