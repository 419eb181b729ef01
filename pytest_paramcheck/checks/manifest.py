"""Two lists of records: what was added, removed, probably renamed, reshaped, retied, moved, ..."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..messages.findings import Finding
from ..parameters.subject.record import Record
from .renames import probable_renames


@dataclass(frozen=True, slots=True)
class Words:
    """How two lists of records are spoken of: what only one of them has, ties that only one has.

    ``kept`` is whether checkpoints were saved under the old names and in the old order: only
    then does something follow for them, and only then may a name have become another.
    """

    removed: str
    added: str
    tie_lost: str
    tie_made: str
    kept: bool = False

    @property
    def orphaned(self) -> str:
        """What follows for checkpoints where a name or its shape went."""
        return "checkpoints saved before this change will not load" if self.kept else ""

    @property
    def shifted(self) -> str:
        """What follows where the order changed."""
        return "optimizer checkpoints map parameters by position" if self.kept else ""


MANIFEST = Words(
    removed="removed from the model",
    added="not in the manifest",
    tie_lost="tie changed",
    tie_made="tie changed",
    kept=True,
)
#: A copy against the model it was made of.
COPY = Words(
    removed="lost in the copy",
    added="not in the original",
    tie_lost="tie lost",
    tie_made="tied only in the copy",
)
#: What came back of a model after a save and a load.
RETURN = Words(
    removed="lost in the round trip",
    added="new after loading",
    tie_lost="tie lost",
    tie_made="tied only after loading",
)


def record_differences(
    old: Sequence[Record],
    new: Sequence[Record],
    *,
    words: Words = MANIFEST,
    dtypes: bool = True,
) -> list[Finding]:
    """Find every difference between two lists of records, surest consequences first.

    A name that went and one that came with equal shape, dtype and role are one finding, a
    probable rename, where ``words`` speak of a model that changed. Of the names that both have,
    those that left the common order are named, as few as explain it. ``dtypes`` says whether
    another dtype of one name is a difference.
    """
    before = {record.name: record for record in old}
    after = {record.name: record for record in new}
    gone = {name: _kind(record) for name, record in before.items() if name not in after}
    came = {name: _kind(record) for name, record in after.items() if name not in before}
    renames = probable_renames(gone, came) if words.kept else []
    new_name = {rename.old: rename.new for rename in renames}
    came_from = {rename.new for rename in renames}

    findings = [
        Finding(
            (rename.old,),
            "probably renamed",
            found=rename.how,
            why=words.orphaned if before[rename.old].persistent else "",
        )
        for rename in renames
    ]
    findings += [
        Finding(
            (name,),
            words.removed,
            expected=_facts(before[name]),
            why=words.orphaned if before[name].persistent else "",
        )
        for name in gone
        if name not in new_name
    ]
    last_kept = max(
        (i for i, record in enumerate(new) if record.parameter and record.name not in came),
        default=-1,
    )
    findings += [
        Finding(
            (record.name,),
            words.added,
            found=_facts(record),
            why=(
                f"not at the end, and {words.shifted}"
                if words.kept and position < last_kept and record.parameter and not record.tied_to
                else ""
            ),
        )
        for position, record in enumerate(new)
        if record.name in came and record.name not in came_from
    ]
    both = [
        (record, after[new_name.get(record.name, record.name)])
        for record in old
        if new_name.get(record.name, record.name) in after
    ]
    findings += _changes(both, words, dtypes=dtypes)
    findings += _retied(both, new_name, words)
    return findings + _moved(both, new, words)


def _kind(record: Record) -> tuple[str, str, str]:
    return record.shape, record.dtype, record.role


def _facts(record: Record) -> str:
    tied = f", tied to {record.tied_to}" if record.tied_to else ""
    return f"{record.shape} {record.dtype} {record.role}{tied}"


def _changes(both: Sequence[tuple[Record, Record]], words: Words, *, dtypes: bool) -> list[Finding]:
    """Compare the records of the names that both lists have, one kind of change at a time."""
    findings: list[Finding] = []
    for attribute, problem in (
        ("shape", "reshaped"),
        *((("dtype", "dtype changed"),) if dtypes else ()),
        ("role", "role changed"),
    ):
        # One parameter of several names changes once: its names make one finding.
        changed: dict[tuple[str, str, str], list[tuple[Record, Record]]] = {}
        for was, now in both:
            expected, found = getattr(was, attribute), getattr(now, attribute)
            if expected != found:
                owner = now.tied_to or now.name
                changed.setdefault((owner, expected, found), []).append((was, now))
        findings += [
            Finding(
                tuple(now.name for _, now in pairs),
                problem,
                expected=expected,
                found=found,
                why=_consequence(attribute, *pairs[0], words),
            )
            for (_, expected, found), pairs in changed.items()
        ]
    return findings


def _consequence(attribute: str, was: Record, now: Record, words: Words) -> str:
    """Return what follows for checkpoints where a shape, dtype or role changed."""
    if attribute == "role":
        strict = words.kept and was.persistent != now.persistent
        return "a strict load of checkpoints saved before fails" if strict else ""
    if attribute == "dtype" or (was.shape, now.shape) == ("1", "scalar"):
        return ""  # torch casts, and loads one value into a 0-dim parameter
    if "uninitialized" in (was.shape, now.shape):
        return "a lazy parameter gets its shape in the first forward"
    return words.orphaned


def _retied(
    both: Sequence[tuple[Record, Record]], new_name: Mapping[str, str], words: Words
) -> list[Finding]:
    old_groups = _groups([(new_name.get(was.name, was.name), was) for was, _ in both])
    new_groups = _groups([(now.name, now) for _, now in both])
    findings = []
    for was, now in both:
        before = new_name.get(was.tied_to, was.tied_to)
        # Another first name in one and the same group is a move, no change of the ties.
        if before != now.tied_to and old_groups[now.name] != new_groups[now.name]:
            problem = words.tie_lost if before else words.tie_made
            findings.append(
                Finding((now.name,), problem, expected=_tie(before), found=_tie(now.tied_to))
            )
    return findings


def _groups(records: Sequence[tuple[str, Record]]) -> dict[str, frozenset[str]]:
    """Return for each name the names it is tied to, itself among them."""
    members: dict[str, list[str]] = {}
    for name, record in records:
        members.setdefault(record.tied_to or record.name, []).append(name)
    groups: dict[str, frozenset[str]] = {}
    for names in members.values():
        group = frozenset(names)
        groups.update(dict.fromkeys(names, group))
    return groups


def _tie(owner: str) -> str:
    return f"tied to {owner}" if owner else "not tied"


def _moved(
    both: Sequence[tuple[Record, Record]], new: Sequence[Record], words: Words
) -> list[Finding]:
    """Find the fewest names whose move explains the new order."""
    position = {record.name: i for i, record in enumerate(new)}
    places = [position[now.name] for _, now in both]
    kept = _longest_rising(places)
    if len(kept) == len(places):
        return []
    order = [now.name for _, now in sorted(both, key=lambda pair: position[pair[1].name])]
    after = {name: order[i - 1] if i else "" for i, name in enumerate(order)}
    return [
        Finding(
            (now.name,),
            "order changed",
            found=f"after {after[now.name]}" if after[now.name] else "first",
            why=words.shifted if now.parameter else "",
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
