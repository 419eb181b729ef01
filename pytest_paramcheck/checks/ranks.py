"""What each rank found -> what holds of the whole: the same list, with the same text, on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..messages.findings import Finding
from ..parameters.tensors.call import ranks_text


def of_all_ranks(found: Mapping[int, Sequence[Finding]]) -> list[Finding]:
    """Return the findings of all ranks as one list; what differs says which rank's it is.

    A finding that is true of a whole tensor only where it is of each shard is left out unless
    every rank has one of that kind about these names.
    """
    said: dict[tuple[tuple[str, ...], str], dict[int, list[Finding]]] = {}
    everywhere: dict[tuple[str, ...], set[int]] = {}
    for rank, findings in found.items():
        for finding in findings:
            said.setdefault((finding.names, finding.problem), {}).setdefault(rank, []).append(
                finding
            )
            if finding.everywhere:
                everywhere.setdefault(finding.names, set()).add(rank)
    ranks = list(found)
    merged: list[Finding] = []
    for (names, _), by_rank in said.items():
        kept = {
            rank: [
                one for one in mine if not one.everywhere or len(everywhere[names]) == len(ranks)
            ]
            for rank, mine in by_rank.items()
        }
        merged += _folded({rank: mine for rank, mine in kept.items() if mine}, ranks)
    return merged


def _folded(by_rank: Mapping[int, Sequence[Finding]], ranks: Sequence[int]) -> Iterator[Finding]:
    """Yield what ranks say of one kind about the same names: once, where they say the same."""
    for number in range(max(map(len, by_rank.values()), default=0)):
        alike: dict[Finding, list[int]] = {}
        for rank, mine in by_rank.items():
            if number < len(mine):
                alike.setdefault(mine[number], []).append(rank)
        first = next(iter(alike))
        if len(alike) == 1 and len(alike[first]) == len(ranks):
            yield first
            continue
        texts = {finding: finding.found or finding.why for finding in alike}
        said = [
            f"{texts[finding]} ({ranks_text(own)})" if texts[finding] else f"on {ranks_text(own)}"
            for finding, own in list(alike.items())[:SHOWN]
        ]
        if len(alike) > SHOWN:
            said.append(f"and other texts of {len(alike) - SHOWN} more ranks")
        text = "; ".join(said)
        if first.found or not first.why:
            yield replace(first, found=text)
        else:
            yield replace(first, why=text)


#: How many different texts are told apart by rank.
SHOWN = 4
