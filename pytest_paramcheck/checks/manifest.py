"""A model's manifest against the committed one: what was added, removed, renamed, moved, ..."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from ..messages.findings import Finding
from ..parameters.subject.record import Record
from .renames import probable_renames

ORPHANED = "checkpoints saved before this change will not load"
SHIFTED = "optimizer checkpoints map parameters by position"


def record_differences(committed: Sequence[Record], current: Sequence[Record]) -> list[Finding]:
    """Find every difference between two manifests, surest consequences first.

    A name that went and one that came with equal shape, dtype and role are one finding, a
    probable rename. Of the names that both have, those that left the common order are named,
    as few as explain it.
    """
    old = {line.name: line for line in committed}
    new = {line.name: line for line in current}
    gone = {name: _kind(line) for name, line in old.items() if name not in new}
    came = {name: _kind(line) for name, line in new.items() if name not in old}
    renames = probable_renames(gone, came)
    new_name = {rename.old: rename.new for rename in renames}
    came_from = {rename.new for rename in renames}

    findings = [
        Finding(
            (rename.old,),
            "probably renamed",
            found=rename.how,
            why=ORPHANED if old[rename.old].persistent else "",
        )
        for rename in renames
    ]
    findings += [
        Finding(
            (name,),
            "gone from the model",
            expected=_facts(old[name]),
            why=ORPHANED if old[name].persistent else "",
        )
        for name in gone
        if name not in new_name
    ]
    last_kept = max(
        (i for i, line in enumerate(current) if line.parameter and line.name not in came),
        default=-1,
    )
    findings += [
        Finding(
            (line.name,),
            "not in the manifest",
            found=_facts(line),
            why=(
                f"not at the end, and {SHIFTED}"
                if position < last_kept and line.parameter and not line.tied_to
                else ""
            ),
        )
        for position, line in enumerate(current)
        if line.name in came and line.name not in came_from
    ]
    both = [
        (line, new[new_name.get(line.name, line.name)])
        for line in committed
        if new_name.get(line.name, line.name) in new
    ]
    findings += _changes(both, new_name)
    return findings + _moved(both, current)


def _kind(line: Record) -> tuple[str, str, str]:
    return line.shape, line.dtype, line.role


def _facts(line: Record) -> str:
    tied = f", tied to {line.tied_to}" if line.tied_to else ""
    return f"{line.shape} {line.dtype} {line.role}{tied}"


def _changes(both: Sequence[tuple[Record, Record]], new_name: Mapping[str, str]) -> list[Finding]:
    """Compare the lines of the names that both manifests have, one kind of change at a time."""
    findings: list[Finding] = []
    for problem, attribute in (
        ("reshaped", "shape"),
        ("dtype changed", "dtype"),
        ("role changed", "role"),
    ):
        # One parameter of several names changes once: its names make one finding.
        changed: dict[tuple[str, str, str], list[str]] = {}
        for was, now in both:
            before, after = getattr(was, attribute), getattr(now, attribute)
            if before != after:
                owner = now.tied_to or now.name
                changed.setdefault((owner, before, after), []).append(now.name)
        findings += [
            Finding(
                tuple(names),
                problem,
                expected=before,
                found=after,
                why=_consequence(problem, before, after),
            )
            for (_, before, after), names in changed.items()
        ]
    old_groups = _groups([(new_name.get(was.name, was.name), was) for was, _ in both])
    new_groups = _groups([(now.name, now) for _, now in both])
    for was, now in both:
        before = new_name.get(was.tied_to, was.tied_to)
        # Another first name in one and the same group is a move, no change of the ties.
        if before != now.tied_to and old_groups[now.name] != new_groups[now.name]:
            findings.append(
                Finding((now.name,), "retied", expected=_tie(before), found=_tie(now.tied_to))
            )
    return findings


def _groups(lines: Sequence[tuple[str, Record]]) -> dict[str, frozenset[str]]:
    """Return for each name the names it is tied to, itself among them."""
    members: dict[str, list[str]] = {}
    for name, line in lines:
        members.setdefault(line.tied_to or line.name, []).append(name)
    groups: dict[str, frozenset[str]] = {}
    for names in members.values():
        group = frozenset(names)
        groups.update(dict.fromkeys(names, group))
    return groups


def _consequence(problem: str, before: str, after: str) -> str:
    if problem == "role changed":
        strict = before.endswith("not-persistent") != after.endswith("not-persistent")
        return "a strict load of checkpoints saved before fails" if strict else ""
    if problem != "reshaped" or (before, after) == ("1", "scalar"):
        return ""  # torch casts, and loads one value into a 0-dim parameter
    if "uninitialized" in (before, after):
        return "a lazy parameter gets its shape in the first forward"
    return ORPHANED


def _tie(owner: str) -> str:
    return f"tied to {owner}" if owner else "not tied"


def _moved(both: Sequence[tuple[Record, Record]], current: Sequence[Record]) -> list[Finding]:
    """Find the fewest names whose move explains the new order."""
    position = {line.name: i for i, line in enumerate(current)}
    places = [position[now.name] for _, now in both]
    kept = _longest_rising(places)
    if len(kept) == len(places):
        return []
    order = [now.name for _, now in sorted(both, key=lambda pair: position[pair[1].name])]
    after = {name: order[i - 1] if i else "" for i, name in enumerate(order)}
    return [
        Finding(
            (now.name,),
            "moved",
            found=f"after {after[now.name]}" if after[now.name] else "first",
            why=SHIFTED if now.parameter else "",
        )
        for place, (_, now) in zip(places, both, strict=True)
        if place not in kept
    ]


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """Return the members of a longest rising subsequence of distinct numbers."""
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        at = bisect_left(tails, number)
        before[number] = tails[at - 1] if at else None
        tails[at : at + 1] = [number]
    kept: set[int] = set()
    step: int | None = tails[-1] if tails else None
    while step is not None:
        kept.add(step)
        step = before[step]
    return kept
