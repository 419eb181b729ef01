"""The first line of a failure: what is wrong with which parameters, in about 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from .findings import Finding
from .rollup import NAMES, Whole
from .wording import common_length

WIDTH = 100
#: Rather this wide than without a name.
TOLERATED = 110
#: Up to this many names are shown as names; of more, how many of how many they are.
FEW_NAMES = 8


def headline(problems: Sequence[tuple[str, Sequence[Finding]]], subject: str, whole: Whole) -> str:
    """Return ``problem: names; problem: names (subject)``.

    Up to four names, folded. Where there are many, how many of how many it is and below which
    modules: ``zero gradient: 89 of 161 parameters below layer{1..4}``.
    """
    named = {name for _, findings in problems[:2] for finding in findings for name in finding.names}
    end = f" ({subject})" if subject and named != {subject} else ""
    shortest = sum(len(problem) + 2 for problem, _ in problems) - 2 + len(end)
    known: list[list[str]] = []
    if shortest <= TOLERATED:
        known = [_versions(problem, findings, whole) for problem, findings in problems]
        full = "; ".join(versions[0] for versions in known) + end
        if len(full) <= TOLERATED:
            return full
    room = WIDTH - len(end)
    later = sum(len(problem) + 2 for problem, _ in problems)
    parts: list[str] = []
    for number, (problem, findings) in enumerate(problems):
        versions = known[number] if known else _versions(problem, findings, whole)
        # Names for the first, and what is wrong for those that follow.
        later -= len(problem) + 2
        left = room - later
        fits = next((text for text in versions if len(text) <= left), versions[-1])
        if not parts and len(versions) > 1:
            fits = next((text for text in versions[:-1] if len(text) <= left), versions[-2])
        if parts and len(fits) > room:
            parts.append(f"and {len(problems) - number} more")
            break
        parts.append(fits)
        room -= len(fits) + 2
    return "; ".join(parts) + end


def _versions(problem: str, findings: Sequence[Finding], whole: Whole) -> list[str]:
    """Return a problem and its names, from the widest text to the narrowest."""
    names = list(dict.fromkeys(name for finding in findings for name in finding.names))
    if not names:
        return [problem]
    many = len(names) > FEW_NAMES and whole.folds.more_than(NAMES, names)
    counted = _counted(names, whole) if many else ""
    if counted:
        texts = [f"{counted}{place}" for place in (*_places(names, whole), "")]
    else:
        texts = _shortened(names, whole)
    # Where there are several problems, all but the first may be told without names.
    return [*(f"{problem}: {text}" for text in texts), problem]


def _shortened(names: Sequence[str], whole: Whole) -> list[str]:
    """Return the first names, folded, and how many are left, from the widest to the narrowest."""
    labels = whole.folds.first(NAMES + 1, names)
    texts = []
    for shown in range(min(NAMES, len(labels)), 0, -1):
        left = len(names) - sum(label.count for label in labels[:shown])
        text = ", ".join(label.name for label in labels[:shown])
        texts.append(f"{text} and {left:,} more" if left else text)
    return texts


def _counted(names: Sequence[str], whole: Whole) -> str:
    """Return ``89 of 161 parameters``; nothing where it is not known of how many."""
    around, word = whole.around(names)
    if not around:
        return ""
    if len(names) == len(around):
        return f"all {len(names):,} {word}"
    return f"{len(names):,} of {len(around):,} {word}"


def _places(names: Sequence[str], whole: Whole) -> list[str]:
    """Return the modules that names are below, or the first names where some are below none.

    From the widest text to the narrowest.
    """
    modules = {name.rpartition(".")[0] for name in names}
    if "" in modules:
        return [f": {text}" for text in _shortened(names, whole)]
    # What the first and the last in order begin with, all between them do.
    paths = [f"{module}." for module in modules]
    first = min(paths)
    common = first[: common_length(first, max(paths))].rpartition(".")[0]
    if common:
        return [f" below {common}"]
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return [f" below {text}" for text in _shortened(tops, whole)]
