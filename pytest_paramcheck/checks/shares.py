"""Shares: of the parameters that a pattern matches, how many are enough (``at_least=``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.folding import fold_rows
from ..messages.wording import plural


def parse_shares(at_least: object) -> Mapping[Any, float]:
    """Return the shares asked for, or raise for what is no mapping of patterns to shares."""
    if at_least is None:
        return {}
    if not isinstance(at_least, Mapping):
        raise ParamCheckUsageError(
            f'at_least maps patterns to shares, {{"experts": 0.5}}, '
            f"not {type(at_least).__name__} {at_least!r}"
        )
    for pattern, share in at_least.items():
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not (number and 0 < share <= 1):
            raise ParamCheckUsageError(
                f"at_least: {share!r} for {pattern!r} is not a share: give a number above 0, "
                f"at most 1"
            )
    return at_least


def too_few(
    problem: str,
    pattern: str,
    share: float,
    count: int,
    lacking: Sequence[tuple[tuple[str, ...], str]],
) -> list[Finding]:
    """Find whether too few of ``count`` parameters are left without the ``lacking`` ones, each
    given by its names and what is said of it."""
    there = count - len(lacking)
    if there >= share * count:
        return []
    return [
        Finding(
            tuple(name for names, _ in lacking for name in names),
            problem,
            expected=f"at least {share:.0%} of the {plural(count, 'parameter')} of {pattern}",
            found=f"{there} ({there / count:.0%})",
            rows=fold_rows((", ".join(names), text) for names, text in lacking),
        )
    ]
