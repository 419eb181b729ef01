"""Names mutants by what they change, tells those that change nothing, and writes the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """What a mutant changes, in words that stay the same when lines move or are indented."""

    path: str
    where: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        head = f"{self.path}, in {self.where}"
        lines = [f"- {line}" for line in self.before] + [f"+ {line}" for line in self.after]
        return "\n".join([head, *lines])


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant that was run."""

    change: Change
    killed: bool
    tests: tuple[str, ...]


def change_of(path: str, where: str | None, diff: str) -> Change:
    """Read a change from the unified diff that shows it."""
    lines = [
        line for line in diff.splitlines() if line[:1] in ("-", "+") and line[:3] not in HEADERS
    ]
    return Change(
        path,
        where or "the module",
        tuple(line[1:].strip() for line in lines if line[0] == "-"),
        tuple(line[1:].strip() for line in lines if line[0] == "+"),
    )


HEADERS = ("---", "+++")


def read_equivalent(text: str) -> dict[Change, str]:
    """Read the mutants that no test can kill, each with the reason, from the committed list.

    Blocks as the report shows survivors, the reason below as ``#`` lines, a blank line between;
    a block of nothing but ``#`` lines is a remark.
    """
    entries: dict[Change, str] = {}
    for block in _blocks(text):
        reason = " ".join(line[1:].strip() for line in block if line.startswith("#"))
        rest = [line for line in block if not line.startswith("#")]
        if not rest:
            continue
        path, comma, where = rest[0].partition(", in ")
        marks = [line[:2] for line in rest[1:]]
        if not comma or not reason or not marks or not set(marks) <= {"- ", "+ "}:
            raise ValueError("\n".join(["a block that is no mutant with its reason:", *block]))
        change = Change(
            path,
            where,
            tuple(line[2:] for line in rest[1:] if line.startswith("- ")),
            tuple(line[2:] for line in rest[1:] if line.startswith("+ ")),
        )
        if change in entries:
            raise ValueError(f"twice in the list:\n{change}")
        entries[change] = reason
    return entries


def _blocks(text: str) -> Iterator[list[str]]:
    for block in text.split("\n\n"):
        lines = [line.rstrip() for line in block.splitlines() if line.strip()]
        if lines:
            yield lines


def report(
    outcomes: Sequence[Outcome],
    equivalent: Mapping[Change, str],
    *,
    drawn: int,
    sources: Mapping[str, str],
) -> str:
    """Write what is known so far: the score, the survivors file by file, entries gone stale."""
    counted = [outcome for outcome in outcomes if outcome.change not in equivalent]
    killed = sum(outcome.killed for outcome in counted)
    survivors = [outcome for outcome in counted if not outcome.killed]
    wrong = [
        outcome.change for outcome in outcomes if outcome.killed and outcome.change in equivalent
    ]
    score = f", {100 * killed / len(counted):.1f}%" if counted else ""
    parts = [
        f"{len(outcomes)} of {drawn} mutants run: {killed} of {len(counted)} killed{score}; "
        f"{len(survivors)} survived, {len(outcomes) - len(counted)} equivalent"
    ]
    number = Counter(outcome.change.path for outcome in survivors)
    for path in sorted(number, key=lambda path: (-number[path], path)):
        mine = [outcome for outcome in survivors if outcome.change.path == path]
        parts.append(f"## {path}: {len(mine)} survived ({', '.join(mine[0].tests)})")
        parts += map(str, dict.fromkeys(outcome.change for outcome in mine))
    if wrong:
        parts += ["## Listed as equivalent, and killed", *map(str, wrong)]
    stale = [change for change in equivalent if not _stands(change, sources)]
    if stale:
        parts += ["## Listed as equivalent, of code that is gone", *map(str, stale)]
    return "\n\n".join(parts)


def _stands(change: Change, sources: Mapping[str, str]) -> bool:
    lines = {line.strip() for line in sources.get(change.path, "").splitlines()}
    return lines.issuperset(change.before)
