"""What ranks did not collect alike: what one of them lacks would never run on all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .texts import ranks_text


def function_of(nodeid: str) -> str:
    """Return the id of a test without its parameters."""
    head, _, rest = nodeid.partition("::")
    return f"{head}::{rest.partition('[')[0]}"


class Collected:
    """The ids that each rank has collected."""

    def __init__(self, ids: Mapping[int, Collection[str]]) -> None:
        self._ids = ids
        self._by_function: dict[str, dict[int, set[str]]] = {}
        for rank, own in ids.items():
            for nodeid in own:
                of_rank = self._by_function.setdefault(function_of(nodeid), {})
                of_rank.setdefault(rank, set()).add(nodeid)

    def problem(self, nodeid: str) -> str:
        """Return why a test is not to be run, or ``""``."""
        have = [rank for rank, own in self._ids.items() if nodeid in own]
        lack = [rank for rank in self._ids if rank not in have]
        rule = "what is collected must not depend on the rank"
        if lack:
            said = f"{ranks_text(lack)} did not collect this test"
            return f"{said}, {ranks_text(have)} did: {rule}" if have else said
        for other, ranks in sorted(self._of_function(nodeid).items()):
            if len(ranks) < len(self._ids):
                return f"{ranks_text(ranks)} alone collected {other}: {rule}"
        return ""

    def only_somewhere(self, known: Collection[str]) -> dict[str, list[int]]:
        """Return the functions that some ranks have, and of which no test is run here."""
        mine = {function_of(nodeid) for nodeid in known}
        return {
            function: sorted(ranks)
            for function, ranks in self._by_function.items()
            if function not in mine and len(ranks) < len(self._ids)
        }

    def _of_function(self, nodeid: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for rank, own in sorted(self._by_function.get(function_of(nodeid), {}).items()):
            for other in own:
                found.setdefault(other, []).append(rank)
        return found
