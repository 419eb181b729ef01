"""What a check returns: :class:`Finding`; and the names of what it looked at.

A finding holds strings and numbers only, never a tensor: an exception lives as long as its
traceback does, and one that held tensors would keep a model's memory alive with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .wording import printable


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation found in a subject.

    ``names`` are the parameters it is about, ``problem`` is the kind of thing that does not
    hold (``"not tied"``, ``"no gradient"``): findings of one kind are shown together.
    ``why`` and ``hint`` are empty where the cause is not known. ``rows`` are details shown
    one below the other, each a label and a text. ``everywhere``: of a tensor in shards it holds
    only where it holds of every rank's shard (no shard was written, no shard has a gradient).
    """

    names: tuple[str, ...]
    problem: str
    expected: str = ""
    found: str = ""
    why: str = ""
    hint: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    everywhere: bool = field(default=False, compare=False, repr=False)

    def text(self) -> str:
        """Return expectation, observation and reason in one line."""
        if self.expected and self.found:
            said = f"expected {self.expected}, found {self.found}"
        else:
            said = self.found or (f"expected {self.expected}" if self.expected else "")
        return f"{said}: {self.why}" if said and self.why else said or self.why


def finding_data(finding: Finding) -> dict[str, object]:
    """Return a finding as JSON holds it, without what a terminal would act on."""
    return {
        "names": list(map(printable, finding.names)),
        "problem": printable(finding.problem),
        "expected": printable(finding.expected),
        "found": printable(finding.found),
        "why": printable(finding.why),
        "hint": printable(finding.hint),
    }


@dataclass(frozen=True, slots=True)
class SubjectNames:
    """The names of everything in a subject, which its findings are some of.

    Strings only, as a finding holds: kept so that a text can say "all 43 below vision_tower".
    """

    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
