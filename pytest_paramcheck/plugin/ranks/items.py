"""What a run has to do on its ranks: which files hold such tests, and what comes after a test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ..marked import ranks_of


class RankItems:
    """The tests of a run that have ranks, in their order."""

    def __init__(self, items: Iterable[pytest.Item]) -> None:
        self._files: dict[int, dict[str, None]] = {}
        self._ids: dict[int, list[str]] = {}
        for item in items:
            if number := ranks_of(item):
                self._files.setdefault(number, {})[str(item.path)] = None
                self._ids.setdefault(number, []).append(item.nodeid)

    def __bool__(self) -> bool:
        return bool(self._ids)

    def files(self, ranks: int) -> list[str]:
        """Return the files with tests of a number of ranks."""
        return [*self._files.get(ranks, ())]

    def ids(self, ranks: int) -> list[str]:
        """Return the ids of the tests of a number of ranks."""
        return self._ids.get(ranks, [])

    def after(self, nodeid: str, ranks: int) -> str:
        """Return the test that comes next on the same ranks; ``""`` where it is the last."""
        ids = self.ids(ranks)
        place = ids.index(nodeid) + 1 if nodeid in ids else len(ids)
        return ids[place] if place < len(ids) else ""
